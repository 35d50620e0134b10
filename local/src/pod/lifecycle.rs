//! Which containers may start now, and what comes after an exit: pure decisions of the kubelet.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// Starts among the init containers, stays beside the app, ends after it (`restartPolicy: Always`).
    Sidecar,
    /// The pod's purpose.
    App,
}

/// A pod's `restartPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// A container, as far as it has come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) run: Run,
    /// How it ended the last time.
    pub(crate) last: Option<Exit>,
    pub(crate) restarts: u32,
    /// Its startup probe has succeeded, its postStart hook is over.
    pub(crate) started: bool,
    /// Its readiness probe succeeds.
    pub(crate) ready: bool,
    /// What keeps it from having started or being ready.
    pub(crate) trouble: Option<Trouble>,
}

/// A probe that fails.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trouble {
    pub(crate) since: Instant,
    /// Its last failure: `readiness probe: connecting to 10.244.0.3:80: Connection refused`.
    pub(crate) what: String,
}

/// What a container does right now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Run {
    /// It will be started, not before its time.
    Waiting { due: Instant },
    /// It runs.
    Running { process: Option<i32>, since: Timestamp },
    /// It has ended for good.
    Ended(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exit {
    /// 128 + N for signal N.
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    /// Why it never ran, or why it was ended, if it wasn't its own doing.
    pub(crate) message: Option<String>,
    pub(crate) started: Timestamp,
    pub(crate) finished: Timestamp,
}

impl Exit {
    /// `exited with status 3`, and why if it wasn't its own doing.
    pub(crate) fn in_words(&self) -> String {
        let how = match self.signal {
            Some(signal) => format!("ended by signal {signal}"),
            None => format!("exited with status {}", self.code),
        };
        self.message.as_ref().map_or(how.clone(), |message| format!("{how}: {message}"))
    }
}

/// What to do with a pod's containers now.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Next {
    /// Indices of those to start.
    pub(crate) start: Vec<usize>,
    /// When to look again although nothing has happened.
    pub(crate) again: Option<Instant>,
}

/// A container that has run for so long isn't crashing in a loop.
const STABLE: Duration = Duration::from_secs(60);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

impl Container {
    pub(crate) fn new(name: &str, role: Role, now: Instant) -> Self {
        let run = Run::Waiting { due: now };
        Self {
            name: name.to_owned(),
            role,
            run,
            last: None,
            restarts: 0,
            started: false,
            ready: false,
            trouble: None,
        }
    }

    /// A probe has failed.
    pub(crate) fn fails(&mut self, what: String, now: Instant) {
        let since = self.trouble.as_ref().map_or(now, |trouble| trouble.since);
        self.trouble = Some(Trouble { since, what });
    }

    pub(crate) fn running(&self) -> bool {
        matches!(self.run, Run::Running { .. })
    }

    /// Init containers that have succeeded and sidecars that have started let the next one begin.
    fn lets_next_begin(&self) -> bool {
        match (self.role, &self.run) {
            (Role::Init, Run::Ended(exit)) => exit.code == 0,
            (Role::Sidecar, Run::Running { .. }) => self.started,
            _ => false,
        }
    }

    /// It has ended in a pod that is ending.
    pub(crate) fn ended(&mut self, exit: Exit) {
        self.started = false;
        self.ready = false;
        self.trouble = None;
        self.run = Run::Ended(exit.clone());
        self.last = Some(exit);
    }

    /// Its pod has a new sandbox: it starts again, unless it has ended for good by itself. What was ended with the old sandbox counts
    /// as having failed where that leads to another start, whatever it said to its end.
    pub(crate) fn begin_anew(&mut self, policy: RestartPolicy, ended_with_it: bool, now: Instant) {
        let Run::Ended(exit) = &self.run else { return };
        let again = match (self.role, policy) {
            (Role::Init | Role::Sidecar, RestartPolicy::Always | RestartPolicy::OnFailure)
            | (Role::App, RestartPolicy::Always) => true,
            (Role::App, RestartPolicy::OnFailure) => ended_with_it || exit.code != 0,
            (_, RestartPolicy::Never) => false,
        };
        if again {
            self.restarts += 1;
            self.run = Run::Waiting { due: now };
        }
    }

    /// What an exit leads to: another start, sooner or later, or the end.
    pub(crate) fn exited(&mut self, exit: Exit, policy: RestartPolicy, ran: Duration, now: Instant) {
        self.started = false;
        self.ready = false;
        self.trouble = None;
        let again = match self.role {
            Role::Sidecar => true,
            Role::Init => exit.code != 0 && policy != RestartPolicy::Never,
            Role::App => match policy {
                RestartPolicy::Always => true,
                RestartPolicy::OnFailure => exit.code != 0,
                RestartPolicy::Never => false,
            },
        };
        if again {
            let crashes = if ran >= STABLE { 0 } else { self.restarts };
            self.restarts += 1;
            self.run = Run::Waiting { due: now + backoff(crashes) };
        } else {
            self.run = Run::Ended(exit.clone());
        }
        self.last = Some(exit);
    }
}

/// The first restart is immediate, the next ones double, so that a crash costs little and a loop costs little too.
/// (kubelet counts from ten seconds to five minutes.)
fn backoff(crashes: u32) -> Duration {
    match crashes {
        0 => Duration::ZERO,
        more => FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(more - 1)).min(MAX_BACKOFF),
    }
}

/// What may start now. `initialized`: all init containers have been through once, so that what restarts waits for nobody.
pub(crate) fn next(containers: &[Container], initialized: bool, now: Instant) -> Next {
    let mut next = Next::default();
    let consider = |next: &mut Next, index: usize, container: &Container| match container.run {
        Run::Waiting { due } if due <= now => next.start.push(index),
        Run::Waiting { due } => next.again = Some(next.again.map_or(due, |again| again.min(due))),
        Run::Running { .. } | Run::Ended(_) => {}
    };
    for (index, container) in containers.iter().enumerate() {
        match container.role {
            Role::Init if initialized => {}
            Role::Sidecar if initialized => consider(&mut next, index, container),
            Role::Init | Role::Sidecar => {
                if !container.lets_next_begin() {
                    consider(&mut next, index, container);
                    return next;
                }
            }
            Role::App => consider(&mut next, index, container),
        }
    }
    next
}

/// All init containers have succeeded and all sidecars have started.
pub(crate) fn initialized(containers: &[Container]) -> bool {
    containers.iter().filter(|container| container.role != Role::App).all(Container::lets_next_begin)
}

/// The pod has ended: `Some(true)` when all of the app's containers have succeeded.
pub(crate) fn outcome(containers: &[Container]) -> Option<bool> {
    let failed_init = containers.iter().any(|container| {
        matches!((container.role, &container.run), (Role::Init, Run::Ended(exit)) if exit.code != 0)
    });
    if failed_init {
        return Some(false);
    }
    let apps = containers.iter().filter(|container| container.role == Role::App);
    apps.map(|container| match &container.run {
        Run::Ended(exit) => Some(exit.code == 0),
        _ => None,
    })
    .try_fold(true, |all, one| one.map(|one| all && one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Exit {
        Exit {
            code,
            signal: None,
            message: None,
            started: Timestamp::UNIX_EPOCH,
            finished: Timestamp::UNIX_EPOCH,
        }
    }

    fn pod(now: Instant) -> Vec<Container> {
        vec![
            Container::new("setup", Role::Init, now),
            Container::new("proxy", Role::Sidecar, now),
            Container::new("migrate", Role::Init, now),
            Container::new("app", Role::App, now),
            Container::new("helper", Role::App, now),
        ]
    }

    fn run(container: &mut Container) {
        container.run = Run::Running { process: Some(1), since: Timestamp::UNIX_EPOCH };
    }

    #[test]
    fn init_containers_run_one_after_the_other_and_the_sidecar_stays() {
        let now = Instant::now();
        let mut pod = pod(now);
        let starts = |pod: &[Container]| next(pod, false, now).start;
        assert_eq!(starts(&pod), [0]);
        run(&mut pod[0]);
        assert_eq!(starts(&pod), [0; 0]);
        pod[0].exited(exit(0), RestartPolicy::Always, Duration::ZERO, now);
        assert_eq!(starts(&pod), [1]);
        run(&mut pod[1]);
        assert_eq!(starts(&pod), [0; 0], "the sidecar runs but hasn't started");
        pod[1].started = true;
        assert_eq!(starts(&pod), [2]);
        assert!(!initialized(&pod));
        pod[2].exited(exit(0), RestartPolicy::Always, Duration::ZERO, now);
        assert!(initialized(&pod));
        assert_eq!(starts(&pod), [3, 4]);
    }

    #[test]
    fn an_init_container_that_fails_is_tried_again_or_fails_the_pod() {
        let now = Instant::now();
        let mut pod = pod(now);
        pod[0].exited(exit(1), RestartPolicy::OnFailure, Duration::ZERO, now);
        assert_eq!(next(&pod, false, now).start, [0]);
        assert_eq!(outcome(&pod), None);
        pod[0].exited(exit(1), RestartPolicy::Never, Duration::ZERO, now);
        assert_eq!(next(&pod, false, now), Next::default());
        assert_eq!(outcome(&pod), Some(false));
    }

    #[test]
    fn an_app_restarts_without_waiting_for_a_sidecar_that_restarts_too() {
        let now = Instant::now();
        let mut pod = pod(now);
        pod[0].exited(exit(0), RestartPolicy::Always, Duration::ZERO, now);
        pod[2].exited(exit(0), RestartPolicy::Always, Duration::ZERO, now);
        assert_eq!(next(&pod, true, now).start, [1, 3, 4]);
    }

    #[test]
    fn crashes_are_followed_by_longer_and_longer_waits_until_a_run_was_long_enough() {
        let mut now = Instant::now();
        let mut app = Container::new("app", Role::App, now);
        let mut waits = Vec::new();
        for _ in 0..9 {
            app.exited(exit(1), RestartPolicy::Always, Duration::ZERO, now);
            let Run::Waiting { due } = app.run else { panic!("not restarted") };
            assert_eq!(next(std::slice::from_ref(&app), true, due - Duration::from_nanos(1)).start.len(), 0);
            waits.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        app.exited(exit(1), RestartPolicy::Always, STABLE, now);
        assert_eq!(app.run, Run::Waiting { due: now });
        assert_eq!(app.restarts, 10);
    }

    #[test]
    fn in_a_new_sandbox_all_begins_with_the_init_containers_again_but_what_may_not_restart() {
        let now = Instant::now();
        // The last ends with the sandbox, and says that to its end.
        let after = |policy, code| {
            let mut pod = pod(now);
            pod.iter_mut().for_each(|container| container.ended(exit(0)));
            pod[4].ended(exit(code));
            for (index, container) in pod.iter_mut().enumerate() {
                container.begin_anew(policy, index == 4, now);
            }
            pod
        };
        let mut always = after(RestartPolicy::Always, 143);
        assert_eq!(next(&always, false, now).start, [0], "the others wait for it");
        assert_eq!(always.iter().map(|container| container.restarts).collect::<Vec<_>>(), [1; 5]);
        always[0].ended(exit(0));
        assert_eq!(next(&always, false, now).start, [1]);

        let on_failure = after(RestartPolicy::OnFailure, 0);
        assert!(matches!(on_failure[3].run, Run::Ended(_)), "it had succeeded");
        assert!(matches!(on_failure[4].run, Run::Waiting { .. }));
        assert_eq!(outcome(&after(RestartPolicy::Never, 143)), Some(false));
    }

    #[test]
    fn a_pod_ends_when_all_of_its_apps_have_whatever_the_sidecar_does() {
        let now = Instant::now();
        let mut pod = pod(now);
        run(&mut pod[1]);
        pod[3].exited(exit(0), RestartPolicy::OnFailure, Duration::ZERO, now);
        assert_eq!(outcome(&pod), None);
        pod[4].exited(exit(0), RestartPolicy::OnFailure, Duration::ZERO, now);
        assert_eq!(outcome(&pod), Some(true));
        pod[4].exited(exit(3), RestartPolicy::Never, Duration::ZERO, now);
        assert_eq!(outcome(&pod), Some(false));
    }
}
