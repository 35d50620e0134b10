//! The access log: a line for each request, or some of them, on standard output, where logs of the sidecar itself are on
//! standard error.
//!
//! A thread of its own writes: nothing but it waits for whoever reads the container's output.

use std::{
    convert::Infallible,
    fmt::{self, Write as _},
    io::{self, BufWriter, Write},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use thiserror::Error;
use tokio::sync::oneshot;

use super::Record;

/// How many lines wait to be written at most, however few of them come at a time.
const WAITING: usize = 4096;

/// Which requests are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    #[default]
    Off,
    /// Each.
    All,
    /// Those that failed ([`Record::is_error`]).
    Errors,
    /// One in so many.
    OneIn(u64),
}

/// A text that says none of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not off, all, errors or a share such as 1/100")]
pub struct NotAnAccessLog(String);

impl FromStr for AccessLog {
    type Err = NotAnAccessLog;

    fn from_str(text: &str) -> Result<Self, NotAnAccessLog> {
        let share = || text.strip_prefix("1/")?.parse().ok().filter(|&n: &u64| n > 0);
        match text {
            "off" => Ok(Self::Off),
            "all" => Ok(Self::All),
            "errors" => Ok(Self::Errors),
            _ => share().map(Self::OneIn).ok_or_else(|| NotAnAccessLog(text.to_owned())),
        }
    }
}

/// A way to the thread that writes. Dropping it ends the thread when everything is written.
#[derive(Debug)]
pub(super) struct Writer {
    which: AccessLog,
    seen: AtomicU64,
    /// Bounded by `waiting`.
    lines: Sender<Vec<Record>>,
    /// How many lines were handed over and aren't written yet.
    waiting: Arc<AtomicUsize>,
    /// Dropped by the thread at its end.
    written: oneshot::Receiver<Infallible>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(which: AccessLog, json: bool, to: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, records) = channel();
        let (end, written) = oneshot::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        let write = move || {
            let _end: oneshot::Sender<Infallible> = end;
            write(&records, json, BufWriter::new(to), &left);
        };
        thread::Builder::new().name("gamut-access-log".to_owned()).spawn(write)?;
        Ok(Self { which, seen: AtomicU64::new(0), lines, waiting, written })
    }

    /// Has those records written that are logged; how many of them there was no room for.
    pub(super) fn write(&self, mut records: Vec<Record>) -> u64 {
        records.retain(|record| match self.which {
            AccessLog::Off => false,
            AccessLog::All => true,
            AccessLog::Errors => record.is_error(),
            AccessLog::OneIn(n) => self.seen.fetch_add(1, Relaxed).is_multiple_of(n),
        });
        let lines = records.len();
        // Only this task adds to it.
        records.truncate(WAITING.saturating_sub(self.waiting.load(Relaxed)));
        let taken = records.len();
        self.waiting.fetch_add(taken, Relaxed);
        let lost = if taken == 0 || self.lines.send(records).is_ok() { lines - taken } else { lines };
        lost as u64
    }

    /// Returns when everything is written, or nobody reads any more.
    pub(super) async fn end(self) {
        drop(self.lines);
        let _ = self.written.await;
    }
}

fn write(batches: &Receiver<Vec<Record>>, json: bool, mut to: impl Write, waiting: &AtomicUsize) {
    for records in batches {
        for record in &records {
            let mut line =
                if json { serde_json::to_string(record).unwrap_or_default() } else { text(record) };
            // With the line, so that no reader sees one without its end.
            line.push('\n');
            // Nobody reads any more: there is nobody to tell.
            if to.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
        if to.flush().is_err() {
            return;
        }
        waiting.fetch_sub(records.len(), Relaxed);
    }
}

/// A record as a line for people.
pub fn text(record: &Record) -> String {
    let mut line = String::with_capacity(256);
    // Writing to a String can't fail. What may hold spaces or quotes stands in quotes.
    let _ = write!(
        line,
        "{} {} {} {:?} {:?} {} {}ms bytes={}",
        record.time,
        record.direction.as_str(),
        record.method,
        record.host,
        record.path,
        record.status,
        record.duration_ms,
        record.bytes
    );
    let mut field = |name: &str, value: &dyn fmt::Display| {
        let value = value.to_string();
        let _ = match value.contains([' ', '"', '=', '\\']) {
            _ if value.is_empty() => Ok(()),
            true => write!(line, " {name}={value:?}"),
            false => write!(line, " {name}={value}"),
        };
    };
    if let Some(code) = record.grpc_status {
        field("grpc", &code);
    }
    field("parent", &record.parent);
    field("route", &record.route);
    field("rule", &record.rule);
    field("backend", &record.backend);
    if let Some(endpoint) = record.endpoint {
        field("endpoint", &endpoint);
    }
    field("pod", &record.pod);
    field("peer", &record.peer);
    if let Some(session) = record.session {
        field("session", &session.as_str());
    }
    field("reason", &record.reason);
    field("why", &record.why);
    field("trace", &record.trace_id);
    line
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::record::{
        Begun, End, Recorder,
        tests::{answered, request},
    };
    use crate::telemetry::{Direction, SessionOutcome};

    /// Sends each line that is written.
    pub(in crate::record) struct Lines(pub(in crate::record) mpsc::Sender<String>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            for line in String::from_utf8_lossy(bytes).lines() {
                self.0.send(line.to_owned()).unwrap();
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn record(status: u16, own: Option<&'static str>, end: End) -> Record {
        let (recorder, mut records) = Recorder::new(None);
        Begun::new(&recorder, Direction::Outbound, &mut request()).end(&answered(status, own), end);
        records.try_recv().unwrap()
    }

    fn logged(which: AccessLog, json: bool, records: impl IntoIterator<Item = Record>) -> Vec<String> {
        let (sender, lines) = mpsc::channel();
        let writer = Writer::start(which, json, Lines(sender)).unwrap();
        assert_eq!(writer.write(records.into_iter().collect()), 0);
        drop(writer);
        lines.iter().collect()
    }

    #[test]
    fn a_line_says_what_came_where_it_went_and_why_the_sidecar_answered() {
        let end = End {
            origin: Some(gamut_route::table::RuleOrigin {
                route: "httproute/shop/web".parse().unwrap(),
                name: Some("canary".to_owned()),
                index: 0,
            }),
            why: "no rule \"matches\"".to_owned(),
            session: Some(SessionOutcome::Moved),
            ..End::default()
        };
        let lines = logged(AccessLog::All, false, [record(404, Some("no-route"), end)]);
        let (time, rest) = lines[0].split_once(' ').unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert_eq!(
            rest,
            r#"outbound GET "web%C2%9B2J" "/a%0Ab" 404 1.5ms bytes=0 route=httproute/shop/web rule=canary session=moved reason=no-route why="no rule \"matches\"""#
        );
    }

    #[test]
    fn json_lines_read_back_as_the_record() {
        let sent = record(200, None, End { backend: "service/shop/web:80".to_owned(), ..End::default() });
        let lines = logged(AccessLog::All, true, [sent.clone()]);
        assert_eq!(serde_json::from_str::<Record>(&lines[0]).unwrap(), sent);
    }

    #[test]
    fn errors_and_shares_leave_out_the_rest() {
        let records = || {
            let statuses = [200, 500, 200, 404, 200, 503];
            statuses.map(|status| record(status, None, End::default()))
        };
        assert_eq!(logged(AccessLog::Errors, true, records()).len(), 2);
        assert_eq!(logged(AccessLog::OneIn(3), true, records()).len(), 2);
        assert_eq!(logged(AccessLog::Off, true, records()).len(), 0);
    }

    /// Takes nothing until it may.
    struct Stalled(mpsc::Receiver<()>, Lines);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once: after that there is nobody to wait for.
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_costs_no_line_until_too_many_wait_and_then_those_alone() {
        let (sender, lines) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let writer = Writer::start(AccessLog::All, false, Stalled(may_go_on, Lines(sender))).unwrap();
        let one = || vec![record(200, None, End::default())];
        let lost: u64 = (0..WAITING - 2).map(|_| writer.write(one())).sum();
        assert_eq!(lost, 0, "each came by itself, and there was room for all");
        assert_eq!(writer.write([one(), one(), one()].concat()), 1);
        assert_eq!(writer.write(one()), 1);

        drop(go_on);
        assert_eq!(lines.iter().take(WAITING).count(), WAITING);
        while writer.write(one()) > 0 {
            thread::yield_now();
        }
        drop(writer);
        assert_eq!(lines.iter().count(), 1);
    }

    #[test]
    fn a_setting_is_off_all_errors_or_a_share() {
        for (text, which) in [
            ("off", AccessLog::Off),
            ("all", AccessLog::All),
            ("errors", AccessLog::Errors),
            ("1/100", AccessLog::OneIn(100)),
        ] {
            assert_eq!(text.parse(), Ok(which));
        }
        for text in ["", "on", "1/0", "1/", "2/3", "1/-1", "All"] {
            assert!(text.parse::<AccessLog>().is_err(), "{text}");
        }
    }
}
