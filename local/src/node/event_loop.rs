//! The node's loop: one thing after the other that has happened, and after each of them what follows from it.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use gamut_manifest::{Reading, Watch};
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    cluster::Cluster,
    components::{ComponentState, TRUST_BUNDLE},
    conditions,
    control_server::{Answer, Question},
    kubelet::Crash,
    progress::{self, Progress},
    readings, report,
    sync::{self, ControllerView},
};
use crate::{
    control::{Event, Order, Request, Status, Wait},
    internal::MachineConfig,
    pod::{output, worker::Report},
};

/// Patience and lasting problems are looked at this often.
const TICK: Duration = Duration::from_millis(250);
/// What a pod gets to end in when the whole node stops, and what the node then gets.
const STOP_GRACE: Duration = Duration::from_secs(2);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What happens to the node.
pub(crate) struct Inputs {
    pub(crate) manifests: Watch,
    pub(crate) roots: Watch,
    pub(crate) reports: mpsc::UnboundedReceiver<Report>,
    pub(crate) components: mpsc::UnboundedReceiver<ComponentState>,
    pub(crate) questions: mpsc::Receiver<Question>,
    /// The controller's status, and when it was asked for.
    pub(crate) controller: mpsc::Receiver<Value>,
}

/// The loop's state.
pub(crate) struct Node {
    instance: String,
    paths: Vec<PathBuf>,
    started: Timestamp,
    cluster: Cluster,
    components: Vec<ComponentState>,
    events: mpsc::UnboundedSender<Event>,
    progress: Progress,
    reading: Reading,
    readings: u64,
    /// The first reading was told about.
    read: bool,
    /// Notices that were told.
    notices: BTreeSet<String>,
    /// Those of them that are to be told, after the errors.
    untold: Vec<String>,
    controller: Option<Value>,
    waits: Vec<Pending>,
    /// Whether the controller is to be asked.
    curious: watch::Sender<bool>,
    checked: mpsc::UnboundedSender<(Pending, String)>,
    checks: mpsc::UnboundedReceiver<(Pending, String)>,
}

/// Somebody who waits.
struct Pending {
    what: Wait,
    deadline: Instant,
    /// The number of the first reading that has the files as they were when the wait began.
    reading: u64,
    reply: oneshot::Sender<Answer>,
}

impl Node {
    pub(crate) fn new(
        config: &MachineConfig,
        cluster: Cluster,
        events: mpsc::UnboundedSender<Event>,
        curious: watch::Sender<bool>,
    ) -> Self {
        let now = Instant::now();
        let (checked, checks) = mpsc::unbounded_channel();
        Self {
            instance: config.instance.clone(),
            paths: config.paths.clone(),
            started: Timestamp::now(),
            cluster,
            components: Vec::new(),
            events,
            progress: Progress::new(now),
            reading: Reading::default(),
            readings: 0,
            read: false,
            notices: BTreeSet::new(),
            untold: Vec::new(),
            controller: None,
            waits: Vec::new(),
            curious,
            checked,
            checks,
        }
    }

    /// Until an order to stop, or the end of `gamut up`. The exit status.
    pub(crate) async fn run(
        mut self,
        mut inputs: Inputs,
        mut orders: mpsc::UnboundedReceiver<Option<Order>>,
    ) -> u8 {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => return match order.flatten() {
                    Some(Order::Stop) => self.stop(inputs.reports, orders).await,
                    None => 1,
                },
                reading = inputs.manifests.next() => match reading {
                    Some(reading) => self.take_reading(reading),
                    None => {
                        self.tell(Event::Fatal { text: "the manifests can't be watched any more".to_owned() });
                        return 1;
                    }
                },
                Some(reading) = inputs.roots.next() => {
                    if let Some(bundle) = reading.objects.iter().find(|object| object.name == TRUST_BUNDLE) {
                        self.cluster.take_trust_bundle(&bundle.raw);
                    }
                }
                Some(report) = inputs.reports.recv() => self.take_report(report),
                Some(state) = inputs.components.recv() => self.take_component(state),
                Some(question) = inputs.questions.recv() => self.answer(question),
                Some(answered) = inputs.controller.recv() => self.controller = Some(answered),
                Some((mut pending, fingerprint)) = self.checks.recv() => {
                    let read = fingerprint == readings::fingerprint(&self.reading);
                    pending.reading = if read { self.readings } else { self.readings + 1 };
                    self.waits.push(pending);
                }
                _ = ticks.tick() => self.take_conditions(),
            }
            self.follow_up();
        }
    }

    fn take_reading(&mut self, reading: Reading) {
        self.readings += 1;
        let held = self.cluster.accepted.keys().cloned().collect();
        let taken = self.cluster.take_reading(&reading);
        if self.readings > 1 {
            let changes = readings::changes(&self.reading, &held, &reading, &taken.refused);
            let event = self.progress.reloaded(changes, Instant::now());
            event.into_iter().for_each(|event| self.tell(event));
        }
        self.untold.extend(progress::in_order(taken.notices.difference(&self.notices)));
        self.notices = taken.notices;
        self.reading = reading;
    }

    fn take_report(&mut self, report: Report) {
        let uid = match &report {
            Report::State { uid, .. } | Report::Gone { uid } => uid.clone(),
        };
        for Crash { container, exit } in self.cluster.kubelet.take(report) {
            let Some(pod) = self.cluster.kubelet.get(&uid) else { continue };
            let how = exit.in_words();
            let last =
                output::last_words(&output::log_file(&pod.plan, &container), exit.signal, exit.finished);
            let last = last.map(|line| format!("; it printed last: {line}")).unwrap_or_default();
            let line = format!("{}: container {container:?} {how}{last}", pod.title());
            let event = self.progress.crashed(format!("{uid}/{container}"), line, Instant::now());
            event.into_iter().for_each(|event| self.tell(event));
        }
    }

    fn take_component(&mut self, state: ComponentState) {
        let known = self.components.iter_mut().find(|known| known.name == state.name);
        let restarted = known.as_ref().is_some_and(|known| known.restarts < state.restarts);
        if restarted {
            let name = state.name.to_owned();
            let event = self.progress.crashed(name, state.end_in_words(), Instant::now());
            event.into_iter().for_each(|event| self.tell(event));
        }
        match self.components.iter_mut().find(|known| known.name == state.name) {
            Some(known) => *known = state,
            None => self.components.push(state),
        }
    }

    /// Takes up what the controller has written about routes.
    fn take_conditions(&mut self) {
        self.cluster.problems.routes = conditions::problems(self.cluster.accepted.values());
    }

    /// Everything that follows from what has just happened.
    fn follow_up(&mut self) {
        let now = Instant::now();
        self.cluster.reconcile();
        let missing_pods = self.missing_pods();
        // Tables change with every pod: as long as pods are missing, they are the answer.
        let missing = if missing_pods.is_empty() { self.missing_tables() } else { missing_pods.clone() };
        // Whoever is told that all is ready has been told before what isn't in force as it was written.
        if missing.is_empty() && self.progress.is_under_way() {
            self.take_conditions();
        }

        let of_pods = self.cluster.kubelet.iter().filter_map(|(_, pod)| {
            pod.state.problem.as_ref().map(|problem| format!("{}: {problem}", pod.title()))
        });
        let stuck = of_pods.chain(self.components.iter().filter_map(ComponentState::silence));
        let events = self.progress.problems(self.cluster.problems.lines(), stuck.collect(), now);
        events.into_iter().for_each(|event| self.tell(event));
        // What is said of an object that stays as it was refers to the error above.
        for text in std::mem::take(&mut self.untold) {
            self.tell(Event::Notice { text });
        }
        if self.readings > 0 && !std::mem::replace(&mut self.read, true) {
            self.tell(Event::Read { errors: self.cluster.problems.of_manifests() });
        }
        let (cluster, reading) = (&self.cluster, &self.reading);
        let event = self.progress.missing(&missing, now, |after| report::summary(cluster, reading, after));
        event.into_iter().for_each(|event| self.tell(event));

        for pending in std::mem::take(&mut self.waits) {
            let missing = match pending.what {
                Wait::Pods => &missing_pods,
                Wait::Ready => &missing,
            };
            let read = self.readings >= pending.reading;
            if read && missing.is_empty() {
                // Who has gone away meanwhile doesn't wait any more.
                let _ = pending.reply.send(Answer::ok(()));
            } else if now >= pending.deadline {
                let what = if read { missing.join("; ") } else { "the files to be read again".to_owned() };
                let _ = pending.reply.send(Answer::error(format!("still waiting for {what}")));
            } else if !pending.reply.is_closed() {
                self.waits.push(pending);
            }
        }
        let curious =
            self.progress.is_under_way() || self.waits.iter().any(|pending| pending.what == Wait::Ready);
        self.curious.send_if_modified(|known| std::mem::replace(known, curious) != curious);
    }

    fn missing_pods(&self) -> Vec<String> {
        match self.readings {
            0 => vec!["the manifests to be read".to_owned()],
            _ => sync::missing_pods(&self.cluster, &self.components),
        }
    }

    fn missing_tables(&self) -> Vec<String> {
        let view = self.controller.as_ref().map(ControllerView::read);
        sync::missing_tables(&self.cluster, view.as_ref())
    }

    fn answer(&mut self, Question { request, reply }: Question) {
        let answer = match request {
            Request::Wait { what, milliseconds } => {
                let deadline = Instant::now() + Duration::from_millis(milliseconds);
                return self.begin_wait(Pending { what, deadline, reading: 0, reply });
            }
            Request::Status => self.status(),
            Request::Objects { kind } => Answer::ok(report::objects(&self.cluster, &kind)),
            Request::Namespaces { target, namespace, container } => {
                report::entrance(&self.cluster, &target, &namespace, container.as_deref())
            }
            Request::Sidecar { namespace, pod, path } => report::sidecar(&self.cluster, &namespace, &pod)
                .map_or_else(Answer::error, |process| Answer::Sidecar(process, path)),
            Request::Logs { target, namespace, container, after } => {
                report::logs(&self.cluster, &target, &namespace, container.as_deref(), after)
            }
        };
        // Who has gone away meanwhile doesn't need it.
        let _ = reply.send(answer);
    }

    /// What was saved before the question shall count: the files are read beside the loop, to be compared with what it
    /// knows.
    fn begin_wait(&self, pending: Pending) {
        let (paths, checked) = (self.paths.clone(), self.checked.clone());
        tokio::task::spawn_blocking(move || {
            let (objects, errors) = gamut_manifest::load(&paths);
            // The loop may have ended.
            let _ = checked.send((pending, readings::fingerprint(&Reading { objects, errors })));
        });
    }

    fn status(&self) -> Answer {
        let (pods, processes): (Vec<_>, Vec<_>) = report::pods(&self.cluster).into_iter().unzip();
        let asked = processes.into_iter().enumerate().filter_map(|(index, process)| Some((index, process?)));
        let status = Status {
            instance: self.instance.clone(),
            started: self.started,
            paths: self.paths.clone(),
            components: report::components(&self.components),
            pods,
            controller: None,
            problems: self.progress.told(),
            warnings: progress::in_order(self.notices.iter()),
            waiting_for: self.missing_pods(),
        };
        Answer::Status(Box::new(status), asked.collect())
    }

    /// Ends all pods, in their own time but not for long.
    async fn stop(
        mut self,
        mut reports: mpsc::UnboundedReceiver<Report>,
        mut orders: mpsc::UnboundedReceiver<Option<Order>>,
    ) -> u8 {
        self.cluster.kubelet.stop_all(STOP_GRACE);
        let patience = Instant::now() + STOP_PATIENCE;
        while !self.cluster.kubelet.is_empty() {
            tokio::select! {
                Some(report) = reports.recv() => drop(self.cluster.kubelet.take(report)),
                order = orders.recv() => if order.flatten().is_none() {
                    return 1;
                },
                () = sleep_until(patience) => break,
            }
        }
        self.tell(Event::Stopped);
        0
    }

    fn tell(&self, event: Event) {
        // Without `gamut up` the node ends, and nobody is left to tell.
        let _ = self.events.send(event);
    }
}
