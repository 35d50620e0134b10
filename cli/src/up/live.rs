//! The line at the bottom of `gamut up`: the split of the rule that is asked most, as set and as it is.

use std::time::Instant as Moment;

use gamut_local::{Client, InstanceName};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

use crate::{
    routes::{self, INTERVAL, Report, Window},
    world::{self, Selection, World},
};

/// Looks at an instance's routes again and again.
pub(super) struct Live {
    instance: InstanceName,
    window: Window,
    /// When to look next.
    next: Instant,
    /// A look that is under way, beside everything else: it waits for every sidecar's answer.
    looking: Option<JoinHandle<Option<Report>>>,
}

impl Live {
    pub(super) fn new(instance: InstanceName) -> Self {
        Self { instance, window: Window::default(), next: Instant::now(), looking: None }
    }

    /// The next line, when it is time for it; `None` while nothing is requested. Who stops waiting loses nothing.
    pub(super) async fn next(&mut self) -> Option<String> {
        if self.looking.is_none() {
            sleep_until(self.next).await;
            let world = World::Instance(Client::new(self.instance.clone()));
            let look = move || world::ask(routes::report(&world, &Selection::default())).ok();
            self.looking = Some(spawn_blocking(look));
        }
        let report = match &mut self.looking {
            Some(look) => look.await.ok().flatten(),
            None => None,
        };
        (self.looking, self.next) = (None, Instant::now() + INTERVAL);
        let flows = self.window.take(&report?, Moment::now());
        let busiest = flows.into_iter().max_by(|a, b| a.per_second.total_cmp(&b.per_second));
        busiest.filter(|flow| flow.per_second > 0.0).map(|flow| flow.brief())
    }
}
