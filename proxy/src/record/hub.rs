//! Where records go: on the admin thread, to whoever wants them.

use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::mpsc;

use super::{
    Record, Recorder,
    access_log::{AccessLog, Writer},
    otlp::{Collector, Exporter, Exporting},
    tap::Taps,
    trace::Sampling,
};

/// How many records wait for the admin thread.
pub(super) const QUEUE: usize = 4096;

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
    records: mpsc::Receiver<Box<Record>>,
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
            let record = tokio::select! {
                record = self.records.recv() => record,
                () = self.taps.over() => {
                    self.recorder.0.on.store(always, Relaxed);
                    continue;
                }
            };
            let Some(record) = record else { return };
            if let Some(exporter) = &self.exporter
                && record.span.is_some_and(|span| span.is_sampled())
                && !exporter.export(&record)
            {
                self.recorder.lose();
            }
            self.taps.show(&record);
            if let Some(log) = &self.log
                && !log.write(record)
            {
                self.recorder.lose();
            }
        }
    }
}
