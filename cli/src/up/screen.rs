//! What `gamut up` says, on standard error: a line for each thing, and on a terminal one at the bottom that changes.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use gamut_local::{
    InstanceName,
    control::{Event, Summary},
};

use crate::output::{Colour, Tone, count, few};

/// Standard error: lines that stay, and on a terminal one at the bottom that says what is waited for.
pub(super) struct Screen {
    instance: InstanceName,
    terminal: bool,
    colour: bool,
    /// Everything was ready once.
    started: bool,
    /// There are routes, whose splits can be shown.
    routes: bool,
    waiting: Vec<String>,
    /// Changes of manifests that aren't in effect everywhere yet.
    changes: Vec<String>,
    /// The line at the bottom is to be replaced.
    transient: bool,
}

impl Screen {
    pub(super) fn new(instance: InstanceName, colour: Colour) -> Self {
        Self {
            instance,
            terminal: io::stderr().is_terminal(),
            colour: colour.wanted(&io::stderr()),
            started: false,
            routes: false,
            waiting: Vec::new(),
            changes: Vec::new(),
            transient: false,
        }
    }

    pub(super) fn show(&mut self, event: Event, hints: bool) {
        match event {
            Event::Waiting { what } => self.wait_for(what),
            Event::Ready(summary) => {
                self.waiting.clear();
                self.started = true;
                self.routes = summary.routes > 0;
                let tone = if summary.errors == 0 { Tone::Good } else { Tone::Doubtful };
                self.say(&self.toned(&headline(&summary), tone));
                if hints {
                    self.hints(&summary);
                }
            }
            Event::Reloaded { changes } => {
                for change in changes {
                    if !self.changes.contains(&change) {
                        self.changes.push(change);
                    }
                }
                self.transient(&format!("reloading: {}", few(&self.changes)));
            }
            Event::Settled { milliseconds } => {
                self.waiting.clear();
                let changes = few(&std::mem::take(&mut self.changes));
                self.say(&format!("reloaded: {changes}; in effect everywhere after {milliseconds} ms"));
            }
            Event::Notice { text } => self.warn(&text),
            Event::Problem { text } | Event::Fatal { text } => self.error(&text),
            Event::Mended { text } => self.say(&format!("no longer a problem: {text}")),
            Event::Output { source, line } => {
                self.line(&format!("{} {line}", self.dim(&format!("[{source}]"))))
            }
            Event::Read { .. } | Event::Stopped => {}
        }
    }

    fn hints(&mut self, summary: &Summary) {
        let name = match self.instance == InstanceName::default() {
            true => String::new(),
            false => format!(" --name {}", self.instance),
        };
        self.line("try, in another terminal:");
        self.line(&format!("  gamut status{name}"));
        if summary.routes > 0 {
            self.line(&format!("  gamut routes{name}"));
        }
        if let Some(example) = &summary.example {
            self.line(&format!("  gamut exec{name} {example}"));
        }
        self.line("save a manifest to change what runs; Ctrl-C stops and leaves nothing behind");
    }

    /// On a terminal always; in a log during the start, when something else has come first in line.
    fn wait_for(&mut self, what: Vec<String>) {
        let next = self.waiting.first() != what.first();
        self.waiting = what;
        let text = self.still_waiting();
        match self.terminal {
            true => self.transient(&text),
            false if next && !self.started => self.line(&text),
            false => {}
        }
    }

    /// A line on a terminal that the next one replaces; cut, because a line that has wrapped can't be.
    fn transient(&mut self, text: &str) {
        const WIDTH: usize = 79;

        if self.terminal {
            self.clear();
            let short: String = text.chars().take(WIDTH).collect();
            self.write(&self.dim(&short));
            self.transient = true;
        }
    }

    /// Whether there is a line at the bottom for the split as it is: on a terminal, while nothing is waited for.
    pub(super) fn has_live_view(&self) -> bool {
        self.terminal && self.routes && self.waiting.is_empty() && self.changes.is_empty()
    }

    /// The split as it is, or that there is nothing to tell.
    pub(super) fn live(&mut self, line: Option<String>) {
        match line {
            Some(line) => self.transient(&line),
            None => self.clear(),
        }
    }

    fn still_waiting(&self) -> String {
        match self.waiting.as_slice() {
            [] => "waiting".to_owned(),
            [only] => format!("waiting for {only}"),
            [first, rest @ ..] => format!("waiting for {first}, and {} more", rest.len()),
        }
    }

    pub(super) fn all_that_is_missing(&self) -> String {
        format!("waiting for {}", self.waiting.join("; "))
    }

    pub(super) fn say(&mut self, text: &str) {
        self.line(&format!("gamut: {text}"));
    }

    pub(super) fn warn(&mut self, text: &str) {
        self.line(&format!("gamut: {} {text}", self.toned("warning:", Tone::Doubtful)));
    }

    pub(super) fn error(&mut self, text: &str) {
        self.line(&format!("gamut: {} {text}", self.red("error:")));
    }

    fn line(&mut self, text: &str) {
        self.clear();
        self.write(&format!("{text}\n"));
    }

    pub(super) fn clear(&mut self) {
        if self.transient {
            self.write("\r\x1b[K");
            self.transient = false;
        }
    }

    /// A closed standard error is no reason to stop a mesh.
    fn write(&self, text: &str) {
        let mut stream = io::stderr().lock();
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    }

    fn toned(&self, text: &str, tone: Tone) -> String {
        tone.paint(text, self.colour)
    }

    fn red(&self, text: &str) -> String {
        self.toned(text, Tone::Bad)
    }

    fn dim(&self, text: &str) -> String {
        self.toned(text, Tone::Faint)
    }
}

fn headline(summary: &Summary) -> String {
    let namespaces = match summary.namespaces.as_slice() {
        [] => String::new(),
        [one] => format!(" in namespace {one}"),
        many => format!(" in namespaces {}", many.join(", ")),
    };
    let errors = match summary.errors {
        0 => String::new(),
        errors => format!(", with {},", count(errors, "error")),
    };
    format!(
        "ready{errors} after {:.1} s: {} ({} in the mesh), {}, {}{namespaces}",
        Duration::from_millis(summary.milliseconds).as_secs_f64(),
        count(summary.pods, "pod"),
        summary.meshed,
        count(summary.services, "Service"),
        count(summary.routes, "route"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headline_counts_what_became_ready() {
        let summary = Summary {
            milliseconds: 2130,
            pods: 5,
            meshed: 5,
            namespaces: vec!["canary".to_owned()],
            services: 3,
            routes: 1,
            errors: 0,
            conditions: 0,
            example: None,
        };
        assert_eq!(
            headline(&summary),
            "ready after 2.1 s: 5 pods (5 in the mesh), 3 Services, 1 route in namespace canary"
        );
        let summary = Summary { errors: 3, ..summary };
        assert!(
            headline(&summary).starts_with("ready, with 3 errors, after 2.1 s: "),
            "{}",
            headline(&summary)
        );
    }
}
