//! What a test found, and the page of all of them.

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    output::{Cell, Page, Tone},
    world::Place,
};

/// All that `gamut check` tells, as `-o json` prints it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Who was examined.
    pub(super) world: Place,
    /// What the tests are for.
    pub(super) purpose: Purpose,
    /// What they found, in the order in which the mesh would meet what they test.
    pub(super) findings: Vec<Finding>,
}

/// What tests are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Purpose {
    /// Whether `gamut up` can work.
    Up,
    /// Whether Gamut can be installed.
    Install,
    /// Whether what is installed works.
    Operate,
    /// Whether sidecars are in order.
    Proxies,
}

/// What one test found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was tested.
    what: &'static str,
    /// How it stands.
    pub(super) result: Outcome,
    /// The value that was found, or what failed; of several a line each.
    pub(super) detail: String,
    /// What to do, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
    /// What does it, a line of a shell each, where that can be said to the letter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) commands: Vec<String>,
}

/// What to do about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remedy {
    /// For people.
    pub(super) words: String,
    /// For a shell.
    pub(super) commands: Vec<String>,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// As it should be.
    Ok,
    /// The mesh works, but not all of it, or not well.
    Warning,
    /// It couldn't be found out.
    Unknown,
    /// The mesh can't work.
    Failed,
}

impl Finding {
    pub(super) fn ok(what: &'static str, detail: impl ToString) -> Self {
        Self { what, result: Outcome::Ok, detail: detail.to_string(), remedy: None, commands: Vec::new() }
    }

    pub(super) fn warning(what: &'static str, detail: impl ToString, remedy: impl Into<Remedy>) -> Self {
        Self::ok(what, detail).but(Outcome::Warning, remedy.into())
    }

    pub(super) fn unknown(what: &'static str, detail: impl ToString, remedy: impl Into<Remedy>) -> Self {
        Self::ok(what, detail).but(Outcome::Unknown, remedy.into())
    }

    pub(super) fn failed(what: &'static str, detail: impl ToString, remedy: impl Into<Remedy>) -> Self {
        Self::ok(what, detail).but(Outcome::Failed, remedy.into())
    }

    fn but(self, result: Outcome, Remedy { words, commands }: Remedy) -> Self {
        Self { result, remedy: Some(words), commands, ..self }
    }

    /// The same with who says it.
    pub(super) fn said_by(self, who: &str) -> Self {
        Self { detail: format!("{who}: {}", self.detail), ..self }
    }
}

impl<T: Into<String>> From<T> for Remedy {
    fn from(words: T) -> Self {
        Self { words: words.into(), commands: Vec::new() }
    }
}

impl Report {
    /// The same with commands for the cluster that was asked: `kubectl` with its flags.
    pub(super) fn typed_as(mut self, kubectl: &str) -> Self {
        for command in self.findings.iter_mut().flat_map(|finding| &mut finding.commands) {
            if let Some(rest) = command.strip_prefix("kubectl ") {
                *command = format!("{kubectl} {rest}");
            }
        }
        self
    }

    /// Whether something is missing.
    pub(super) fn has_failed(&self) -> bool {
        self.findings.iter().any(|finding| finding.result == Outcome::Failed)
    }

    /// The report as a page. `now` is what ages are counted from.
    pub(super) fn page(&self, now: Timestamp) -> Page {
        let mut page = Page::default();
        page.say(self.world.line(now), Tone::Faint);
        page.gap();
        let rows = self.findings.iter().flat_map(|finding| {
            let result = match finding.result {
                Outcome::Ok => Cell::new("ok", Tone::Good),
                Outcome::Warning => Cell::new("warning", Tone::Doubtful),
                Outcome::Unknown => Cell::new("unknown", Tone::Doubtful),
                Outcome::Failed => Cell::new("failed", Tone::Bad),
            };
            // What is said of several is a line each, below one word.
            let mut lines = finding.detail.lines();
            let first = vec![finding.what.into(), result, Cell::from(lines.next().unwrap_or_default())];
            [first].into_iter().chain(lines.map(|line| vec!["".into(), "".into(), line.into()]))
        });
        page.table(0, &["CHECK", "RESULT", "FOUND"], rows);
        for (i, (whats, remedy, commands)) in self.remedies().into_iter().enumerate() {
            if i == 0 {
                page.gap();
            }
            let end = if commands.is_empty() { "" } else { ":" };
            page.say(format!("{}: {remedy}{end}", whats.join(", ")), Tone::Plain);
            for command in commands {
                page.say(format!("  {command}"), Tone::Plain);
            }
        }
        page.gap();
        let (verdict, tone) = self.verdict();
        page.say(verdict, tone);
        page
    }

    /// Each remedy once, with what it is for.
    fn remedies(&self) -> Vec<(Vec<&'static str>, &str, &[String])> {
        let mut remedies: Vec<(Vec<&str>, &str, &[String])> = Vec::new();
        for finding in &self.findings {
            let (Some(remedy), commands) = (finding.remedy.as_deref(), finding.commands.as_slice()) else {
                continue;
            };
            match remedies.iter_mut().find(|(_, known, lines)| (*known, *lines) == (remedy, commands)) {
                Some((whats, ..)) if whats.contains(&finding.what) => {}
                Some((whats, ..)) => whats.push(finding.what),
                None => remedies.push((vec![finding.what], remedy, commands)),
            }
        }
        remedies
    }

    fn verdict(&self) -> (String, Tone) {
        let (can, cannot) = match self.purpose {
            Purpose::Up => ("gamut up works here", "gamut up can't work here"),
            Purpose::Install => ("Gamut can be installed here", "Gamut can't be installed here"),
            Purpose::Proxies => ("the sidecars are in order", "the sidecars aren't in order"),
            Purpose::Operate => ("the mesh works", "the mesh doesn't work, or not everywhere,"),
        };
        let any = |outcome| self.findings.iter().any(|finding| finding.result == outcome);
        if any(Outcome::Failed) {
            (format!("{cannot} until that is mended"), Tone::Bad)
        } else if any(Outcome::Unknown) {
            (format!("{can} as far as it could be examined"), Tone::Doubtful)
        } else if any(Outcome::Warning) {
            (format!("{can}, with what the warnings say"), Tone::Doubtful)
        } else {
            (can.to_owned(), Tone::Good)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_stand_below_the_table_and_the_verdict_last() {
        let findings = vec![
            Finding::ok("root", "uid 0"),
            Finding::warning("IPv6", "switched off", "pods get IPv4 addresses only"),
            Finding::failed("namespaces", "Operation not permitted", "run the container privileged"),
        ];
        let report = Report { world: Place::Machine, purpose: Purpose::Up, findings };
        insta::assert_snapshot!(report.page(Timestamp::UNIX_EPOCH).render(false), @r"
        this machine

        CHECK       RESULT   FOUND
        root        ok       uid 0
        IPv6        warning  switched off
        namespaces  failed   Operation not permitted

        IPv6: pods get IPv4 addresses only
        namespaces: run the container privileged

        gamut up can't work here until that is mended
        ");
    }
}
