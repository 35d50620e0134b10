//! A process's output as events: a thread reads, the test waits for the line it wants to see.

use std::{
    io::{BufRead, BufReader, Read},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take that a test waits for: far longer than it does on a busy machine, so that a failure is
/// never the machine's.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Lines in the order of their arrival. The process never waits for its reader.
pub(crate) struct Lines {
    name: String,
    receiver: Receiver<(Instant, String)>,
    /// What was taken so far, for messages.
    seen: Vec<String>,
}

impl Lines {
    /// Reads a process's output, called `name` in messages.
    pub(crate) fn of(name: &str, output: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.map(|line| (Instant::now(), line)).try_for_each(|line| sender.send(line))
        });
        Self { name: name.to_owned(), receiver, seen: Vec::new() }
    }

    /// The next line and when it came; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<(Instant, String)> {
        match self.receiver.recv_timeout(PATIENCE) {
            Ok((at, line)) => {
                self.seen.push(line.clone());
                Some((at, line))
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("{}: silent for {PATIENCE:?}; so far:\n{}", self.name, self.seen())
            }
        }
    }

    /// Takes lines until one is as wanted.
    pub(crate) fn until(&mut self, wanted: &str, is: impl Fn(&str) -> bool) -> (Instant, String) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.next() {
                Some((at, line)) if is(&line) => return (at, line),
                Some(_) => {}
                None => panic!("{}: ended before {wanted}; it said:\n{}", self.name, self.seen()),
            }
        }
        panic!("{}: not {wanted} within {PATIENCE:?}; so far:\n{}", self.name, self.seen());
    }

    /// The first line that is as wanted, among those that were taken already or among the next ones.
    pub(crate) fn find(&mut self, wanted: &str, is: impl Fn(&str) -> bool) -> String {
        match self.seen.iter().find(|line| is(line)) {
            Some(line) => line.clone(),
            None => self.until(wanted, is).1,
        }
    }

    /// Takes lines that have arrived already.
    pub(crate) fn arrived(&mut self) -> Vec<(Instant, String)> {
        let lines: Vec<(Instant, String)> = self.receiver.try_iter().collect();
        self.seen.extend(lines.iter().map(|(_, line)| line.clone()));
        lines
    }

    /// Takes all lines up to the end.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).map(|(_, line)| line).collect()
    }

    /// All lines that were taken so far.
    pub(crate) fn all(&self) -> &[String] {
        &self.seen
    }

    /// The last lines that were taken, as one text.
    pub(crate) fn seen(&self) -> String {
        self.seen[self.seen.len().saturating_sub(60)..].join("\n")
    }
}
