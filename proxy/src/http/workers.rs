//! Tasks that answer a connection's requests, each one after the other.
//!
//! A task for each request would be begun and ended with it: what is on its way is several KiB large, which are allocated
//! (at an alignment that the allocator has no short way for), copied and freed. So a task that has answered waits for the
//! connection's next request.

use std::{
    future::{Future, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// How many tasks of a connection wait at most. They go with their connection.
const MOST_IDLE: usize = 64;

/// A connection's tasks. Dropping it ends those that wait; what is under way goes on.
pub(super) struct Workers<J, W>(Arc<Shared<J, W>>);

struct Shared<J, W> {
    work: W,
    /// The last to come is the first to go: what it needs is in the processor's caches.
    idle: Mutex<Idle<J>>,
}

struct Idle<J> {
    places: Vec<Arc<Place<J>>>,
    is_over: bool,
}

/// Where a task waits for its next job.
struct Place<J>(Mutex<Waiting<J>>);

struct Waiting<J> {
    job: Option<J>,
    worker: Option<Waker>,
    is_over: bool,
}

impl<J, W, F> Workers<J, W>
where
    J: Send + 'static,
    W: Fn(J) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    /// No tasks yet; `work` is what they do.
    pub(super) fn new(work: W) -> Self {
        let idle = Mutex::new(Idle { places: Vec::new(), is_over: false });
        Self(Arc::new(Shared { work, idle }))
    }

    /// Has a job done.
    pub(super) fn give(&self, job: J) {
        // A statement of its own: the lock isn't held while a task is begun.
        let waiting = lock(&self.0.idle).places.pop();
        match waiting {
            Some(place) => place.give(job),
            None => drop(tokio::spawn(Arc::clone(&self.0).live(job))),
        }
    }
}

impl<J, W> Drop for Workers<J, W> {
    fn drop(&mut self) {
        let mut idle = lock(&self.0.idle);
        idle.is_over = true;
        let places = std::mem::take(&mut idle.places);
        drop(idle);
        places.iter().for_each(|place| place.end());
    }
}

impl<J, W, F> Shared<J, W>
where
    W: Fn(J) -> F,
    F: Future<Output = ()>,
{
    /// A task's life.
    async fn live(self: Arc<Self>, first: J) {
        let place = Arc::new(Place(Mutex::new(Waiting { job: None, worker: None, is_over: false })));
        let mut job = first;
        loop {
            (self.work)(job).await;
            if !self.wait_at(&place) {
                return;
            }
            let Some(next) = poll_fn(|cx| place.poll_job(cx)).await else { return };
            job = next;
        }
    }

    /// Whether the task is to wait.
    fn wait_at(&self, place: &Arc<Place<J>>) -> bool {
        let mut idle = lock(&self.idle);
        let waits = !idle.is_over && idle.places.len() < MOST_IDLE;
        if waits {
            idle.places.push(Arc::clone(place));
        }
        waits
    }
}

impl<J> Place<J> {
    fn give(&self, job: J) {
        let mut waiting = lock(&self.0);
        waiting.job = Some(job);
        waiting.worker.take().into_iter().for_each(Waker::wake);
    }

    fn end(&self) {
        let mut waiting = lock(&self.0);
        waiting.is_over = true;
        waiting.worker.take().into_iter().for_each(Waker::wake);
    }

    /// The next job; `None` if there will be none.
    fn poll_job(&self, cx: &Context<'_>) -> Poll<Option<J>> {
        let mut waiting = lock(&self.0);
        match waiting.job.take() {
            Some(job) => Poll::Ready(Some(job)),
            None if waiting.is_over => Poll::Ready(None),
            None => {
                waiting.worker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Held for a push or a pop, and all tasks of the data path share one thread.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::{sync::mpsc, task::yield_now};

    use super::*;

    /// A job that says who does it, and is done when it is told to be.
    type Job = (mpsc::Sender<tokio::task::Id>, Option<mpsc::Receiver<()>>);

    async fn work((said, until): Job) {
        said.send(tokio::task::id()).await.unwrap();
        if let Some(mut until) = until {
            until.recv().await;
        }
    }

    #[tokio::test]
    async fn jobs_one_after_the_other_are_one_tasks() {
        let workers = Workers::new(work);
        let (said, mut who) = mpsc::channel(8);
        workers.give((said.clone(), None));
        let first = who.recv().await.unwrap();
        for _ in 0..3 {
            yield_now().await;
            workers.give((said.clone(), None));
            assert_eq!(who.recv().await.unwrap(), first);
        }
    }

    #[tokio::test]
    async fn a_job_never_waits_for_another_to_be_done() {
        let workers = Workers::new(work);
        let (said, mut who) = mpsc::channel(MOST_IDLE * 3);
        for _ in 0..3 {
            let mut ends = Vec::new();
            for _ in 0..2 * MOST_IDLE {
                let (end, ended) = mpsc::channel(1);
                workers.give((said.clone(), Some(ended)));
                ends.push(end);
            }
            let mut all = Vec::new();
            for _ in 0..2 * MOST_IDLE {
                all.push(who.recv().await.unwrap());
            }
            all.sort_unstable_by_key(ToString::to_string);
            all.dedup();
            assert_eq!(all.len(), 2 * MOST_IDLE, "each has a task");
            drop(ends);
            for _ in 0..4 {
                yield_now().await;
            }
            assert!(lock(&workers.0.idle).places.len() <= MOST_IDLE);
        }
    }

    #[tokio::test]
    async fn tasks_that_wait_end_with_their_connection_and_those_at_work_when_they_are_done() {
        let workers = Workers::new(work);
        let shared = Arc::downgrade(&workers.0);
        let (said, mut who) = mpsc::channel(8);
        let (end, ended) = mpsc::channel(1);
        workers.give((said.clone(), Some(ended)));
        workers.give((said, None));
        who.recv().await.unwrap();
        who.recv().await.unwrap();
        yield_now().await;
        drop(workers);
        yield_now().await;
        assert_eq!(shared.strong_count(), 1, "the one at work");
        drop(end);
        while shared.strong_count() > 0 {
            yield_now().await;
        }
    }
}
