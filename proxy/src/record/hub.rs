//! Where records go: on the admin thread, to whoever wants them.
//!
//! They are taken together, whatever has come within two milliseconds: waking a thread for a record costs the data path more
//! than making it (docs/benchmarks.md has what the access log costs).

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{sync::mpsc, time::sleep};

use super::{
    Record, Recorder,
    access_log::{AccessLog, Writer},
    otlp::{Collector, Exporter, Exporting},
    tap::Taps,
    trace::Sampling,
};

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
    pub fn new(
        settings: Settings,
        source: &crate::telemetry::Workload,
    ) -> std::io::Result<(Recorder, Taps, Self)> {
        let (recorder, records) = Recorder::new(settings.spans.as_ref().map(|(_, sampling)| *sampling));
        let taps = Taps::new(recorder.clone());
        let log = match settings.access_log {
            AccessLog::Off => None,
            which => Some(Writer::start(which, settings.json, std::io::stdout())?),
        };
        let (exporter, exporting) =
            settings.spans.map(|(collector, _)| Exporter::new(collector, source)).unzip();
        recorder.0.on.store(log.is_some() || exporter.is_some(), Relaxed);
        let hub = Self { records, recorder: recorder.clone(), log, exporter, exporting, taps: taps.clone() };
        Ok((recorder, taps, hub))
    }

    /// Hands records on until it is dropped.
    pub async fn run(mut self) {
        if let Some(exporting) = self.exporting.take() {
            tokio::spawn(exporting.run());
        }
        let always = self.log.is_some() || self.exporter.is_some();
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                _ = self.records.recv_many(&mut batch, BATCH) => {}
                () = self.taps.over() => {
                    self.recorder.0.on.store(always, Relaxed);
                    continue;
                }
            }
            if batch.is_empty() {
                return;
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
            if !more {
                sleep(GATHERED).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::{
            End,
            tests::{answered, request},
        },
        telemetry::{Direction, Workload},
    };

    #[tokio::test(start_paused = true)]
    async fn more_than_is_handed_on_together_arrives_whole_and_in_its_order() {
        let own = Workload { name: "web".into(), namespace: "shop".into(), principal: String::new() };
        let (recorder, taps, hub) = Hub::new(Settings::default(), &own).unwrap();
        tokio::spawn(hub.run());
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
            assert_eq!(tapped.missed, 0);
            seen.extend(tapped.records.iter().map(|record| record.status));
            last = tapped.last;
        }
        assert_eq!((seen, recorder.lost()), (sent, 0));
    }
}
