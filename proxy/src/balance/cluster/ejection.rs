//! Who is left aside and for how long, held to a model, in paused time.

use std::{num::NonZeroU32, ops::Range};

use proptest::prelude::*;

use super::{
    tests::{client, endpoint, pod_of, serve, set, uid},
    *,
};
use crate::balance::health::{FIRST_EJECTION, FORGIVEN_AFTER, LONGEST_EJECTION};

const LIMIT: u32 = 5;

fn cluster(pods: Range<u8>) -> Arc<Cluster> {
    let cluster = Cluster::new(set(Vec::new()).id);
    cluster.update(&set(pods.map(endpoint).collect()));
    cluster
}

fn fail(cluster: &Cluster, pod: u8, times: u32) {
    let endpoint = Arc::clone(&cluster.snapshot.load().serving[&uid(pod)]);
    (0..times).for_each(|_| cluster.failed(&Picked::new(Arc::clone(&endpoint)), Failed::Alone));
}

fn active(cluster: &Cluster) -> Vec<u8> {
    let mut pods: Vec<u8> =
        cluster.selection.load().active().iter().map(|e| e.pod_uid().unwrap().0[0]).collect();
    pods.sort_unstable();
    pods
}

#[tokio::test(start_paused = true)]
async fn after_five_failures_in_a_row_an_endpoint_gets_nothing_until_its_time_is_over() {
    let cluster = cluster(1..4);
    fail(&cluster, 2, LIMIT - 1);
    cluster.answered(&cluster.by_pod(uid(2)).unwrap());
    fail(&cluster, 2, LIMIT - 1);
    assert_eq!(active(&cluster), [1, 2, 3], "not in a row");

    fail(&cluster, 2, 1);
    let served = serve(&cluster, 200, |_| Duration::from_millis(1)).await;
    assert!(!served.contains_key(&2), "{served:?}");
    assert_eq!((cluster.counters.ejections(), cluster.counters.ejected_at(Instant::now()).len()), (1, 1));

    tokio::time::advance(FIRST_EJECTION).await;
    serve(&cluster, 1, |_| Duration::from_millis(1)).await;
    assert_eq!(active(&cluster), [1, 2, 3]);
    fail(&cluster, 2, 1);
    assert_eq!(active(&cluster), [1, 3], "one that has come back has one chance");
}

#[tokio::test(start_paused = true)]
async fn half_of_the_endpoints_always_stay_and_so_does_the_only_one() {
    let five = cluster(1..6);
    (1..6).for_each(|pod| fail(&five, pod, 2 * LIMIT));
    assert_eq!(active(&five).len(), 3);
    assert!(five.counters.refused_ejections() > 0);
    // Those that are left after the others have gone can't all be ejected either.
    five.update(&set(vec![endpoint(1), endpoint(2)]));
    assert_eq!(active(&five).len(), 1);

    let alone = cluster(1..2);
    fail(&alone, 1, 100);
    assert!(alone.pick(client(), &[]).is_some());
}

#[tokio::test(start_paused = true)]
async fn sessions_of_an_ejected_pod_find_it_gone_and_find_it_again() {
    let cluster = cluster(1..4);
    fail(&cluster, 2, LIMIT);
    assert!(cluster.by_pod(uid(2)).is_none());
    assert!(cluster.by_pod(uid(1)).is_some());
    tokio::time::advance(FIRST_EJECTION).await;
    assert!(cluster.by_pod(uid(2)).is_some(), "without anybody else's request in between");
}

#[tokio::test(start_paused = true)]
async fn who_has_tried_all_others_gets_an_ejected_one_rather_than_none() {
    let cluster = cluster(1..3);
    fail(&cluster, 2, LIMIT);
    let first = cluster.pick(client(), &[]).unwrap();
    assert_eq!(pod_of(&first), 1);
    assert_eq!(pod_of(&cluster.pick(client(), &[first.address()]).unwrap()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_become_ready_again_is_no_longer_ejected() {
    let cluster = cluster(1..4);
    fail(&cluster, 2, LIMIT);
    let unready = api::Endpoint { ready: false, serving: false, ..endpoint(2) };
    cluster.update(&set(vec![endpoint(1), unready, endpoint(3)]));
    cluster.update(&set((1..4).map(endpoint).collect()));
    assert_eq!(active(&cluster), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_begins_with_less_than_its_share_where_there_are_others() {
    let cluster = cluster(1..3);
    let latency = |_| Duration::from_micros(100);
    cluster.update(&set((1..4).map(endpoint).collect()));
    let served = serve(&cluster, 3000, latency).await;
    assert!((50..400).contains(&served[&3]), "{served:?}");
    tokio::time::advance(Duration::from_secs(10)).await;
    let served = serve(&cluster, 3000, latency).await;
    assert!((850..1150).contains(&served[&3]), "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_begins_with_less_than_its_share_too() {
    let cluster = cluster(1..4);
    let latency = |_| Duration::from_micros(100);
    fail(&cluster, 2, LIMIT);
    tokio::time::advance(FIRST_EJECTION).await;
    let served = serve(&cluster, 3000, latency).await;
    assert!((50..400).contains(&served[&2]), "{served:?}");
    tokio::time::advance(Duration::from_secs(10)).await;
    let served = serve(&cluster, 3000, latency).await;
    assert!((850..1150).contains(&served[&2]), "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn never_means_never() {
    let settings = Settings { eject_after: None, ..Settings::default() };
    let cluster = Cluster::with(set(Vec::new()).id, settings, Arc::default());
    cluster.update(&set((1..4).map(endpoint).collect()));
    fail(&cluster, 2, 100);
    assert_eq!(active(&cluster), [1, 2, 3]);
}

/// What happens to a cluster.
#[derive(Clone, Debug)]
enum Step {
    Fail(u8),
    Answer(u8),
    Wait(Duration),
    /// The controller names these pods, as bits.
    Update(u8),
}

/// The rules as one would tell them, on plain numbers; all of it is gone through again at each step.
#[derive(Default)]
struct Model {
    now: Duration,
    pods: Vec<Modelled>,
}

#[derive(Clone, Default)]
struct Modelled {
    pod: u8,
    in_a_row: u32,
    ejections: u32,
    until: Option<Duration>,
    last_end: Option<Duration>,
}

impl Model {
    fn take(&mut self, step: &Step) {
        let ejected = self.pods.iter().filter(|pod| pod.until.is_some()).count();
        let room = 2 * (ejected + 1) <= self.pods.len();
        let now = self.now;
        match step {
            Step::Wait(time) => self.now += *time,
            Step::Answer(number) => {
                self.pods.iter_mut().filter(|pod| pod.pod == *number).for_each(|pod| pod.in_a_row = 0);
            }
            Step::Fail(number) => {
                let Some(pod) = self.pods.iter_mut().find(|pod| pod.pod == *number) else { return };
                pod.in_a_row += 1;
                if pod.in_a_row >= LIMIT && pod.until.is_none() && room {
                    pod.eject(now);
                }
            }
            Step::Update(bits) => {
                let named = (1..=8).filter(|pod| bits & (1 << (pod - 1)) != 0);
                let known = |number| self.pods.iter().find(|pod| pod.pod == number).cloned();
                let pods =
                    named.map(|pod| known(pod).unwrap_or(Modelled { pod, ..Modelled::default() })).collect();
                self.pods = pods;
            }
        }
        self.settle();
    }

    /// Those whose time is over come back; then, while more than half are ejected, the next one to come back.
    fn settle(&mut self) {
        let now = self.now;
        loop {
            let ejected = self.pods.iter().filter(|pod| pod.until.is_some()).count();
            let most = self.pods.len() / 2;
            let ejected_pods = self.pods.iter_mut().filter(|pod| pod.until.is_some());
            let next = ejected_pods.min_by_key(|pod| (pod.until, pod.pod));
            match next {
                Some(pod) if ejected > most || pod.until <= Some(now) => pod.come_back(now),
                _ => return,
            }
        }
    }

    fn active(&self) -> Vec<u8> {
        self.pods.iter().filter(|pod| pod.until.is_none()).map(|pod| pod.pod).collect()
    }
}

impl Modelled {
    fn eject(&mut self, now: Duration) {
        if self.last_end.is_some_and(|end| now >= end + FORGIVEN_AFTER) {
            self.ejections = 0;
        }
        let length = (0..self.ejections).fold(FIRST_EJECTION, |length, _| (2 * length).min(LONGEST_EJECTION));
        self.ejections += 1;
        self.until = Some(now + length);
    }

    fn come_back(&mut self, now: Duration) {
        *self = Self {
            until: None,
            in_a_row: LIMIT - 1,
            last_end: Some(now),
            pod: self.pod,
            ejections: self.ejections,
        };
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pod = || 1_u8..=8;
    let step = prop_oneof![
        12 => pod().prop_map(Step::Fail),
        2 => pod().prop_map(Step::Answer),
        3 => (1_u64..5_000).prop_map(|time| Step::Wait(Duration::from_millis(time))),
        1 => (5_000_u64..300_000).prop_map(|time| Step::Wait(Duration::from_millis(time))),
        1 => (1_u8..).prop_map(Step::Update),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #[test]
    fn who_takes_traffic_is_what_the_model_says(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let settings = Settings { eject_after: NonZeroU32::new(LIMIT), ..Settings::default() };
            let cluster = Cluster::with(set(Vec::new()).id, settings, Arc::default());
            let mut model = Model::default();
            for step in [Step::Update(0b1111)].iter().chain(&steps) {
                let known = |pod: &u8| cluster.snapshot.load().serving.get(&uid(*pod)).cloned();
                match step {
                    Step::Fail(pod) => if known(pod).is_some() { fail(&cluster, *pod, 1) },
                    Step::Answer(pod) => known(pod).iter().for_each(|endpoint| endpoint.health.answered()),
                    Step::Wait(time) => tokio::time::advance(*time).await,
                    Step::Update(bits) => {
                        let named = (1..=8).filter(|pod| bits & (1 << (pod - 1)) != 0);
                        cluster.update(&set(named.map(endpoint).collect()));
                    }
                }
                // Somebody calls, as always.
                drop(cluster.pick(client(), &[]));
                model.take(step);
                prop_assert_eq!(active(&cluster), model.active(), "after {:?}", step);
                prop_assert!(2 * active(&cluster).len() >= cluster.ready());
            }
            Ok(())
        })?;
    }
}
