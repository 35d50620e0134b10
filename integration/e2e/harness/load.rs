//! Traffic that goes on while a test does something else: `gamut echo load` in a pod, each answer an event.

use std::{
    collections::BTreeMap,
    process::{Child, Stdio},
    time::Instant,
};

use super::{Lines, Mesh, PATIENCE};

/// An answer as the caller got it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// When it was seen.
    pub(crate) at: Instant,
    /// The HTTP status; `None` if there was no answer at all.
    pub(crate) status: Option<u16>,
    /// The `VERSION` of the pod that answered.
    pub(crate) version: String,
    /// The pod that answered.
    pub(crate) pod: String,
    /// The line, with the reason of an answer that the sidecar made.
    pub(crate) line: String,
}

impl Answer {
    fn read(at: Instant, line: String) -> Self {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        Self { at, status: word().parse().ok(), version: word(), pod: word(), line }
    }
}

/// Running traffic. Dropping it ends it.
pub(crate) struct Load {
    child: Child,
    lines: Lines,
    /// Every answer so far.
    pub(crate) answers: Vec<Answer>,
}

impl Load {
    pub(super) fn start(mesh: &Mesh, from: &str, arguments: &[&str]) -> Self {
        let command = [&["/run/gamut/bin/gamut", "echo", "load"], arguments].concat();
        let mut child = mesh.exec_command(from, &command);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Lines::of("load", child.stdout.take().unwrap());
        Self { child, lines, answers: Vec::new() }
    }

    /// The next answer that hasn't been looked at; `None` when a load with `--count` is over.
    pub(crate) fn next(&mut self) -> Option<&Answer> {
        let (at, line) = self.lines.next()?;
        self.answers.push(Answer::read(at, line));
        self.answers.last()
    }

    /// Waits for so many answers from now on: those that came while the test did something else don't count.
    pub(crate) fn more(&mut self, count: usize) -> Vec<Answer> {
        self.answers.extend(self.lines.arrived().into_iter().map(|(at, line)| Answer::read(at, line)));
        let before = self.answers.len();
        for _ in 0..count {
            assert!(self.next().is_some(), "the load ended after {} answers", self.answers.len());
        }
        self.answers[before..].to_vec()
    }

    /// Waits for an answer that is as wanted.
    pub(crate) fn until(&mut self, wanted: &str, is: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.next() {
                Some(answer) if is(answer) => return answer.clone(),
                Some(answer) => assert!(answer.at < deadline, "no {wanted}"),
                None => panic!("the load ended before {wanted}"),
            }
        }
    }

    /// Waits until so many answers in a row are as wanted.
    pub(crate) fn until_steady(&mut self, wanted: &str, count: usize, is: impl Fn(&Answer) -> bool) {
        let (mut row, deadline) = (0, Instant::now() + PATIENCE);
        while row < count {
            let answer = self.next().unwrap_or_else(|| panic!("the load ended before {wanted}"));
            assert!(answer.at < deadline, "no {wanted}");
            row = if is(answer) { row + 1 } else { 0 };
        }
    }

    /// Stops, and tells every answer there was.
    pub(crate) fn finish(mut self) -> Vec<Answer> {
        drop(self.child.stdin.take());
        while self.next().is_some() {}
        let status = self.child.wait().unwrap();
        assert!(status.success(), "load: {status}");
        std::mem::take(&mut self.answers)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fails if any request got no answer, or one other than 200.
pub(crate) fn assert_no_failure(answers: &[Answer]) {
    let failed: Vec<&str> =
        answers.iter().filter(|a| a.status != Some(200)).map(|a| a.line.as_str()).collect();
    assert!(failed.is_empty(), "{} of {} requests failed: {failed:#?}", failed.len(), answers.len());
}

/// How many answers each version gave.
pub(crate) fn by_version(answers: &[Answer]) -> BTreeMap<String, usize> {
    answers.iter().fold(BTreeMap::new(), |mut counts, answer| {
        *counts.entry(answer.version.clone()).or_default() += 1;
        counts
    })
}
