//! One pod's life, as one task: namespaces, volumes, containers in their order, and an orderly end.
//!
//! It gets one order, to stop, and reports its state whenever it has changed. Termination goes as in Kubernetes: preStop
//! hooks of all containers at once, SIGTERM to the app's containers, then to the sidecars in reverse order, SIGKILL when
//! the grace period is over. A sandbox that is killed takes its containers along in the same way, and all of them, init
//! containers first, are started again in a new one.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    container::{ContainerSpec, Namespaces},
    data::Data,
    ending::{Ender, Stop},
    environment,
    files::PodFiles,
    lifecycle::{self, Container, Role, Run},
    output::{self, Log},
    plan::{ContainerPlan, PodPlan},
    probes::Subject,
    sandbox::{Sandbox, SandboxSpec},
    status::PodState,
    supervisor::{self, Launch, Note},
    volumes::{self, VolumePlan},
};
use crate::{control::Event, net::links::Links, node::tokens::Tokens};

/// What cannot be made now is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// What all pods of a node share.
pub(crate) struct Shared {
    pub(crate) links: Links,
    pub(crate) tokens: Arc<Tokens>,
    /// ConfigMaps and Secrets as they are now.
    pub(crate) data: watch::Receiver<Arc<Data>>,
    /// Where printed lines go, if anybody wants them.
    pub(crate) listener: Option<mpsc::Sender<Event>>,
}

/// What a worker reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// Its state has changed.
    State { uid: String, state: PodState },
    /// Nothing of it is left.
    Gone { uid: String },
}

/// Runs a pod to its end. `stop` turns from `None` to an order once, which may become stricter.
pub(crate) async fn run(
    plan: Arc<PodPlan>,
    addresses: Vec<IpAddr>,
    interface: String,
    shared: Arc<Shared>,
    stop: watch::Receiver<Option<Stop>>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let now = Instant::now();
    let containers =
        plan.containers.iter().map(|container| Container::new(&container.name, container.role, now));
    let state = PodState { containers: containers.collect(), ..PodState::default() };
    let (notes, inbox) = mpsc::unbounded_channel();
    let files = PodFiles::new(&plan.uid);
    let uid = plan.uid.clone();
    let mut worker = Worker {
        plan,
        addresses,
        data: shared.data.clone(),
        shared,
        files,
        state,
        reported: None,
        sandbox: None,
        orders: HashMap::new(),
        subjects: HashMap::new(),
        notes,
        inbox,
        tasks: JoinSet::new(),
        reports,
    };
    let mut stopped = stop.clone();
    tokio::select! {
        () = worker.live(&interface) => {}
        _ = stopped.wait_for(Option::is_some) => {}
    }
    worker.end(stop).await;
    drop(worker.sandbox.take());
    worker.shared.links.detach(&interface).await;
    worker.files.remove();
    output::remove(&worker.plan);
    // The node outlives its workers, except when it ends itself.
    let _ = worker.reports.send(Report::Gone { uid });
}

struct Worker {
    plan: Arc<PodPlan>,
    addresses: Vec<IpAddr>,
    shared: Arc<Shared>,
    /// ConfigMaps and Secrets; seen as far as volumes are up to date.
    data: watch::Receiver<Arc<Data>>,
    files: PodFiles,
    state: PodState,
    reported: Option<PodState>,
    sandbox: Option<Sandbox>,
    /// Signals for running containers, by index.
    orders: HashMap<usize, mpsc::UnboundedSender<Signal>>,
    /// Running containers as hooks reach them, by index.
    subjects: HashMap<usize, Subject>,
    notes: mpsc::UnboundedSender<(usize, Note)>,
    inbox: mpsc::UnboundedReceiver<(usize, Note)>,
    tasks: JoinSet<()>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Worker {
    /// Returns only when the pod has ended by itself.
    async fn live(&mut self, interface: &str) {
        loop {
            self.live_in_a_sandbox(interface).await;
            if self.state.outcome.is_none() {
                self.leave_sandbox().await;
            }
            if self.state.outcome.is_some() {
                return;
            }
        }
    }

    /// From nothing to a pod that runs, until it has ended by itself or its sandbox is gone.
    async fn live_in_a_sandbox(&mut self, interface: &str) {
        while let Err(problem) = self.make_sandbox(interface).await {
            self.hold_up(problem).await;
        }
        let mut refresh_at = loop {
            match self.write_volumes() {
                Ok(again) => break again,
                Err(problem) => self.hold_up(problem).await,
            }
        };
        self.state.problem = None;
        loop {
            let again = self.start_containers();
            self.state.initialized |= lifecycle::initialized(&self.state.containers);
            self.state.outcome = lifecycle::outcome(&self.state.containers);
            self.report();
            if self.state.outcome.is_some() {
                return;
            }
            tokio::select! {
                Some((index, note)) = self.inbox.recv() => self.take_note(index, note),
                () = ended(&mut self.sandbox) => return,
                () = sleep_until(again.unwrap_or(refresh_at).min(refresh_at)) => {}
                // The node keeps the other end for as long as it runs.
                Ok(()) = self.data.changed() => refresh_at = Instant::now(),
            }
            if refresh_at <= Instant::now() {
                refresh_at = self.write_volumes().unwrap_or_else(|problem| {
                    // What was written before is still there.
                    tracing::warn!(pod = self.plan.name, problem, "volumes aren't up to date");
                    Instant::now() + RETRY
                });
            }
        }
    }

    /// Ends what runs in a sandbox that is gone, as kubelet does, and lets everything begin anew in the next one.
    async fn leave_sandbox(&mut self) {
        tracing::warn!(
            pod = self.plan.name,
            "its sandbox has ended: its containers are started again in a new one"
        );
        self.sandbox = None;
        self.state.sandbox = None;
        self.state.problem = Some("its sandbox has ended, and is made anew".to_owned());
        self.report();
        let ended_with_it = self.alive();
        self.end_containers(watch::channel(Some(self.in_its_own_time())).1).await;
        self.orders.clear();
        self.subjects.clear();
        self.state.initialized = false;
        let now = Instant::now();
        for (index, container) in self.state.containers.iter_mut().enumerate() {
            container.begin_anew(self.plan.restart, ended_with_it.contains(&index), now);
        }
        self.state.outcome = lifecycle::outcome(&self.state.containers);
        self.report();
    }

    /// Reports what doesn't work, and waits until it may: for a while, or for the ConfigMap that was missing.
    async fn hold_up(&mut self, problem: String) {
        self.state.problem = Some(problem);
        self.report();
        // The node keeps the other end for as long as it runs.
        let _ = timeout_at(Instant::now() + RETRY, self.data.changed()).await;
    }

    async fn make_sandbox(&mut self, interface: &str) -> Result<(), String> {
        self.shared.links.detach(interface).await;
        self.files.lay_out(&self.plan, &self.addresses).map_err(|error| error.to_string())?;
        let spec = SandboxSpec {
            host_name: self.plan.host_name.clone(),
            addresses: self.addresses.clone(),
            root: self.files.root(&self.plan, &[]),
        };
        let sandbox = Sandbox::start(&spec, interface, &self.shared.links).await;
        let sandbox = sandbox.map_err(|error| error.to_string())?;
        self.state.sandbox = Some(sandbox.process);
        self.state.problem = None;
        self.sandbox = Some(sandbox);
        self.report();
        Ok(())
    }

    /// Brings all volumes up to date; when to do it again for the sake of tokens.
    fn write_volumes(&mut self) -> Result<Instant, String> {
        const RARELY: Duration = Duration::from_secs(3600);

        let data = self.data.borrow_and_update().clone();
        let mut again = Instant::now() + RARELY;
        for (name, volume) in &self.plan.volumes {
            let VolumePlan::Files { parts, mode } = volume else { continue };
            let within = |problem: String| format!("volume {name:?} {problem}");
            let mut content =
                volumes::content(parts, *mode, &self.plan.pod, &self.addresses, &data).map_err(within)?;
            for order in std::mem::take(&mut content.tokens) {
                let token =
                    self.shared.tokens.for_pod(&self.plan.pod, &data, &order.audience, order.lifetime);
                let token = token.map_err(|error| within(error.to_string()))?;
                // As kubelet does: renewed at 80 % of its life.
                again = again.min(Instant::now() + order.lifetime.mul_f64(0.8));
                content.files.insert(order.path, (token.into_bytes(), order.mode));
            }
            let files =
                content.files.iter().map(|(path, (bytes, mode))| (path.as_path(), bytes.as_slice(), *mode));
            self.files.write_volume(name, files).map_err(|error| within(error.to_string()))?;
        }
        Ok(again)
    }

    /// Starts what may start now; when to look again.
    fn start_containers(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let next = lifecycle::next(&self.state.containers, self.state.initialized, now);
        let mut again = next.again;
        for index in next.start {
            if let Err(problem) = self.start_container(index) {
                self.state.problem = Some(problem);
                if let Some(container) = self.state.containers.get_mut(index) {
                    container.run = Run::Waiting { due: now + RETRY };
                }
                again = Some(again.map_or(now + RETRY, |again| again.min(now + RETRY)));
            }
        }
        again
    }

    fn start_container(&mut self, index: usize) -> Result<(), String> {
        let (Some(plan), Some(container)) =
            (self.plan.containers.get(index), self.state.containers.get_mut(index))
        else {
            return Ok(());
        };
        let sandbox =
            self.sandbox.as_ref().map(|sandbox| sandbox.process).ok_or("the pod has no namespaces")?;
        let address = *self.addresses.first().ok_or("the pod has no address")?;
        let data = self.data.borrow().clone();
        let resolved = environment::resolve(plan, &self.plan.pod, &self.addresses, &data)
            .map_err(|error| format!("container {:?}: {error}", plan.name))?;
        let root = self.files.root(&self.plan, &plan.mounts);
        let subject = Subject {
            address,
            process: 0,
            environment: resolved.environment.clone(),
            user: plan.user.clone(),
            working_directory: plan.working_directory.clone(),
        };
        let spec = ContainerSpec {
            namespaces: Namespaces::New { sandbox, root },
            arguments: resolved.arguments,
            environment: resolved.environment,
            working_directory: plan.working_directory.clone(),
            user: plan.user.clone(),
        };
        let launch = Launch {
            log: Log::new(
                output::log_file(&self.plan, &plan.name),
                source(&self.plan, plan),
                self.shared.listener.clone(),
            ),
            plan: Arc::new(plan.clone()),
            spec,
            subject: subject.clone(),
            grace: self.plan.grace,
        };
        container.run = Run::Running { process: None, since: Timestamp::now() };
        self.state.problem = None;
        let (orders, order_box) = mpsc::unbounded_channel();
        self.orders.insert(index, orders);
        self.subjects.insert(index, subject);
        let notes = self.notes.clone();
        self.tasks.spawn(supervisor::run(launch, order_box, move |note| {
            // The worker reads until all containers have ended.
            let _ = notes.send((index, note));
        }));
        Ok(())
    }

    fn take_note(&mut self, index: usize, note: Note) {
        let Some(container) = self.state.containers.get_mut(index) else { return };
        match note {
            Note::Running(process) => {
                container.run = Run::Running { process: Some(process), since: Timestamp::now() };
                if let Some(subject) = self.subjects.get_mut(&index) {
                    subject.process = process;
                }
            }
            Note::Started => {
                container.started = true;
                container.trouble = None;
            }
            Note::Ready(ready) => {
                container.ready = ready;
                if ready {
                    container.trouble = None;
                }
            }
            Note::Failing(what) => container.fails(what, Instant::now()),
            Note::Exited(exit, ran) => {
                container.exited(exit, self.plan.restart, ran, Instant::now());
                self.orders.remove(&index);
                self.subjects.remove(&index);
            }
        }
    }

    /// Ends what still runs, in its order, and waits until all of it has ended and the pod is to go.
    async fn end(&mut self, mut stop: watch::Receiver<Option<Stop>>) {
        // A pod that has ended by itself takes its sidecars along, in its own time.
        let order = match stop.borrow().is_some() {
            true => stop.clone(),
            false => watch::channel(Some(self.in_its_own_time())).1,
        };
        self.end_containers(order).await;
        // A pod that has ended by itself stays to be looked at until it is deleted. The node keeps the other end.
        let _ = stop.wait_for(Option::is_some).await;
    }

    /// An order that nobody gave.
    fn in_its_own_time(&self) -> Stop {
        Stop { deadline: Instant::now() + self.plan.grace, hooks: true }
    }

    /// Ends the containers that run, in their order, and waits until they have ended.
    async fn end_containers(&mut self, order: watch::Receiver<Option<Stop>>) {
        let (alive, watched) = watch::channel(self.alive());
        let mut enders = JoinSet::new();
        for index in self.alive() {
            let (Some(plan), Some(orders)) = (self.plan.containers.get(index), self.orders.get(&index))
            else {
                continue;
            };
            let ender = Ender {
                pre_stop: plan.pre_stop.clone().zip(self.subjects.get(&index).cloned()),
                before: self.ends_before(index),
                orders: orders.clone(),
            };
            enders.spawn(ender.run(order.clone(), watched.clone()));
        }
        while !self.alive().is_empty() {
            let Some((index, note)) = self.inbox.recv().await else { break };
            match (note, self.state.containers.get_mut(index)) {
                (Note::Exited(exit, _), Some(container)) => container.ended(exit),
                (note, _) => self.take_note(index, note),
            }
            alive.send_replace(self.alive());
            self.report();
        }
        enders.abort_all();
    }

    /// Indices of the containers that run.
    fn alive(&self) -> Vec<usize> {
        let containers = self.state.containers.iter().enumerate();
        containers.filter(|(_, container)| container.running()).map(|(index, _)| index).collect()
    }

    /// Which containers must have ended before this one gets its signal: for a sidecar all that came after it.
    fn ends_before(&self, index: usize) -> Vec<usize> {
        let role = |index: usize| self.plan.containers.get(index).map(|container| container.role);
        match role(index) {
            Some(Role::Sidecar) => (index + 1..self.plan.containers.len()).collect(),
            _ => Vec::new(),
        }
    }

    fn report(&mut self) {
        if self.reported.as_ref() == Some(&self.state) {
            return;
        }
        self.reported = Some(self.state.clone());
        let report = Report::State { uid: self.plan.uid.clone(), state: self.state.clone() };
        // The node outlives its workers, except when it ends itself.
        let _ = self.reports.send(report);
    }
}

/// Until a sandbox's process has ended; for ever where there is none.
async fn ended(sandbox: &mut Option<Sandbox>) {
    match sandbox {
        Some(sandbox) => sandbox.ended().await,
        None => std::future::pending().await,
    }
}

fn source(plan: &PodPlan, container: &ContainerPlan) -> String {
    format!("{}/{}/{}", plan.namespace, plan.name, container.name)
}
