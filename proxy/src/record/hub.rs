//! Where records go: on the admin thread, to whoever wants them.
//!
//! They are taken together, whatever has come within two milliseconds: waking a thread for a record costs the data path more
//! than making it (docs/benchmarks.md has what the access log costs).

use std::{io, pin::pin, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{sync::mpsc, time::sleep};

use super::{
    Record, Recorder,
    access_log::{AccessLog, Writer},
    otlp::{Collector, Exporter, Exporting},
    tap::Taps,
    trace::Sampling,
};
use crate::telemetry::Workload;

/// How many records wait for the admin thread.
pub(super) const QUEUE: usize = 4096;
/// How many of them are handed on together at most.
pub(super) const BATCH: usize = 256;
/// How long those that come are gathered. The queue holds what comes meanwhile at two million requests a second.
const GATHERED: Duration = Duration::from_millis(2);

/// What a sidecar is told about records.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Which requests are logged.
    pub access_log: AccessLog,
    /// Whether lines are JSON.
    pub json: bool,
    /// Where spans go, and which; `None`: nowhere.
    pub spans: Option<(Collector, Sampling)>,
}

/// The task that hands records on.
#[derive(Debug)]
pub struct Hub {
    records: mpsc::Receiver<Record>,
    recorder: Recorder,
    log: Option<Writer>,
    exporter: Option<Exporter>,
    exporting: Option<Exporting>,
    taps: Taps,
}

impl Hub {
    /// A recorder and the task that hands on what it records. `source` names the workload in spans.
    ///
    /// # Errors
    /// When the system gives the access log no thread.
    pub fn new(settings: Settings, source: &Workload) -> io::Result<(Recorder, Taps, Self)> {
        Self::writing(settings, source, io::stdout())
    }

    /// The same, with an access log that is written elsewhere.
    fn writing(
        settings: Settings,
        source: &Workload,
        to: impl io::Write + Send + 'static,
    ) -> io::Result<(Recorder, Taps, Self)> {
        let (recorder, records) = Recorder::new(settings.spans.as_ref().map(|(_, sampling)| *sampling));
        let taps = Taps::new(recorder.clone());
        let log = match settings.access_log {
            AccessLog::Off => None,
            which => Some(Writer::start(which, settings.json, to)?),
        };
        let (exporter, exporting) =
            settings.spans.map(|(collector, _)| Exporter::new(collector, source)).unzip();
        recorder.0.on.store(log.is_some() || exporter.is_some(), Relaxed);
        let hub = Self { records, recorder: recorder.clone(), log, exporter, exporting, taps: taps.clone() };
        Ok((recorder, taps, hub))
    }

    /// Hands records on until `end`, then those that there still are, and returns when the access log is written: so that what was
    /// served last isn't missing in it.
    pub async fn run(mut self, end: impl Future<Output = ()>) {
        if let Some(exporting) = self.exporting.take() {
            tokio::spawn(exporting.run());
        }
        let always = self.log.is_some() || self.exporter.is_some();
        let mut end = pin!(end);
        let mut goes_on = true;
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                _ = self.records.recv_many(&mut batch, BATCH) => {}
                () = self.taps.over() => {
                    self.recorder.0.on.store(always, Relaxed);
                    continue;
                }
                () = &mut end, if goes_on => {
                    goes_on = false;
                    self.records.close();
                    continue;
                }
            }
            if batch.is_empty() {
                break;
            }
            let more = batch.len() == BATCH;
            for record in &batch {
                if let Some(exporter) = &self.exporter
                    && record.span.as_ref().is_some_and(|span| span.is_sampled())
                    && !exporter.export(record)
                {
                    self.recorder.lose(1);
                }
                self.taps.show(record);
            }
            if let Some(log) = &self.log {
                self.recorder.lose(log.write(batch));
            }
            if goes_on && !more {
                sleep(GATHERED).await;
            }
        }
        if let Some(log) = self.log {
            log.end().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future, sync::mpsc::channel};

    use super::*;
    use crate::{
        record::{
            End,
            access_log::tests::Lines,
            tests::{answered, request},
        },
        telemetry::Direction,
    };

    fn own() -> Workload {
        Workload { name: "web".into(), namespace: "shop".into(), principal: String::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_is_handed_on_together_arrives_whole_and_in_its_order() {
        let (recorder, taps, hub) = Hub::new(Settings::default(), &own()).unwrap();
        tokio::spawn(hub.run(future::pending()));
        let first = taps.after(None).await;
        let sent: Vec<u16> = (100..).take(2 * BATCH + 10).collect();
        for &status in &sent {
            let begun = recorder.begin(Direction::Outbound, &mut request()).unwrap();
            begun.end(&answered(status, None), End::default());
        }
        let mut seen = Vec::new();
        let mut last = first.last;
        while seen.len() < sent.len() {
            let tapped = taps.after(Some(last)).await;
            assert!(tapped.missed == 0 && !tapped.records.is_empty(), "{} of {}", seen.len(), sent.len());
            seen.extend(tapped.records.iter().map(|record| record.status));
            last = tapped.last;
        }
        assert_eq!((seen, recorder.lost()), (sent, 0));
    }

    #[tokio::test]
    async fn what_was_recorded_before_the_end_is_written_when_the_hub_has_ended() {
        let (sender, written) = channel();
        let settings = Settings { access_log: AccessLog::All, ..Settings::default() };
        let (recorder, _, hub) = Hub::writing(settings, &own(), Lines(sender)).unwrap();
        let lines = 3 * BATCH + 10;
        for _ in 0..lines {
            let begun = recorder.begin(Direction::Outbound, &mut request()).unwrap();
            begun.end(&answered(200, None), End::default());
        }
        hub.run(future::ready(())).await;
        assert_eq!((written.try_iter().count(), recorder.lost()), (lines, 0));
    }
}
