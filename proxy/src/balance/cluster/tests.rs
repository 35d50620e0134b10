//! What a cluster makes of endpoint sets, and whom it picks, in paused time.

use gamut_controller_api::{self as api, Pod, RetryBudget, Transport};
use http::{Request, Response};
use tokio::{
    io::{AsyncReadExt as _, DuplexStream, duplex},
    task::JoinHandle,
    time::sleep,
};

use super::*;
use crate::http::{Body, Carrier, Io, SendError, mux::server};

pub(super) fn client() -> IpAddr {
    IpAddr::from([10, 0, 0, 1])
}

pub(super) fn uid(pod: u8) -> Uid {
    Uid([pod; 16])
}

pub(super) fn endpoint(pod: u8) -> api::Endpoint {
    api::Endpoint {
        address: SocketAddr::from(([10, 1, 0, pod], 8080)),
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: format!("web-{pod}"),
            uid: uid(pod),
            workload: "web".to_owned(),
        }),
        transport: Transport::Plaintext,
        zone: None,
        ready: true,
        serving: true,
        terminating: false,
    }
}

fn terminating(pod: u8) -> api::Endpoint {
    api::Endpoint { ready: false, terminating: true, ..endpoint(pod) }
}

pub(super) fn set(endpoints: Vec<api::Endpoint>) -> EndpointSet {
    EndpointSet {
        id: "service/shop/web:80".parse().unwrap(),
        protocol: AppProtocol::Detect,
        endpoints,
        client_ip_affinity: None,
        retry_budget: None,
        external: None,
    }
}

fn cluster(endpoints: Vec<api::Endpoint>) -> Arc<Cluster> {
    let set = set(endpoints);
    let cluster = Cluster::new(set.id.clone());
    cluster.update(&set);
    cluster
}

pub(super) fn pod_of(picked: &Picked) -> u8 {
    picked.pod_uid().unwrap().0[0]
}

/// Picks and ends `requests` requests one after the other, each taking as long as its pod takes; says how
/// many each pod got.
pub(super) async fn serve(
    cluster: &Cluster,
    requests: usize,
    latency: impl Fn(u8) -> Duration,
) -> HashMap<u8, usize> {
    let mut served = HashMap::new();
    for _ in 0..requests {
        let picked = cluster.pick(client(), &[]).unwrap();
        let pod = pod_of(&picked);
        tokio::time::advance(latency(pod)).await;
        picked.answered();
        *served.entry(pod).or_default() += 1;
    }
    served
}

#[tokio::test(start_paused = true)]
async fn equal_endpoints_share_requests_equally() {
    let cluster = cluster(vec![endpoint(1), endpoint(2), endpoint(3), endpoint(4)]);
    let served = serve(&cluster, 4000, |_| Duration::from_millis(2)).await;
    for pod in 1..=4 {
        assert!((850..1150).contains(&served[&pod]), "{served:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_gets_less_but_is_not_forgotten() {
    let cluster = cluster(vec![endpoint(1), endpoint(2)]);
    let latency = |pod| Duration::from_millis(if pod == 1 { 20 } else { 2 });
    let served = serve(&cluster, 3000, latency).await;
    assert!((5..300).contains(&served[&1]), "{served:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_stops_getting_requests() {
    let cluster = cluster(vec![endpoint(1), endpoint(2)]);
    let mut hung = Vec::new();
    for _ in 0..1000 {
        let picked = cluster.pick(client(), &[]).unwrap();
        if pod_of(&picked) == 1 {
            hung.push(picked);
        } else {
            tokio::time::advance(Duration::from_millis(1)).await;
            picked.answered();
        }
    }
    assert!(hung.len() < 60, "{} requests hang", hung.len());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refuses_connections_does_not_look_fast() {
    let cluster = cluster(vec![endpoint(1), endpoint(2)]);
    let mut refused = 0;
    for _ in 0..1000 {
        let picked = cluster.pick(client(), &[]).unwrap();
        if pod_of(&picked) == 1 {
            picked.failed();
            refused += 1;
        } else {
            tokio::time::advance(Duration::from_millis(1)).await;
            picked.answered();
        }
    }
    assert!(refused < 30, "{refused} requests went to it");
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_is_never_picked_again_and_one_that_stays_keeps_its_load() {
    let cluster = cluster(vec![endpoint(1), endpoint(2)]);
    serve(&cluster, 100, |_| Duration::from_millis(50)).await;
    let staying = Arc::clone(cluster.by_pod(uid(2)).unwrap().endpoint());

    cluster.update(&set(vec![endpoint(2), endpoint(3)]));
    let served = serve(&cluster, 500, |_| Duration::from_millis(1)).await;
    assert_eq!(served.keys().copied().collect::<HashSet<_>>(), HashSet::from([2, 3]));
    assert!(Arc::ptr_eq(&staying, cluster.by_pod(uid(2)).unwrap().endpoint()));
    assert!(cluster.by_pod(uid(1)).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_address_with_another_pod_behind_it_is_another_endpoint() {
    let cluster = cluster(vec![endpoint(1)]);
    let before = Arc::clone(cluster.by_pod(uid(1)).unwrap().endpoint());
    let successor = api::Endpoint { address: before.address(), ..endpoint(9) };
    cluster.update(&set(vec![successor]));
    assert!(cluster.by_pod(uid(1)).is_none());
    assert!(!Arc::ptr_eq(&before, cluster.by_pod(uid(9)).unwrap().endpoint()));
}

#[tokio::test(start_paused = true)]
async fn terminating_pods_serve_only_where_nobody_is_ready_but_sessions_still_reach_them() {
    let cluster = cluster(vec![endpoint(1), terminating(2)]);
    for _ in 0..50 {
        assert_eq!(pod_of(&cluster.pick(client(), &[]).unwrap()), 1);
    }
    assert_eq!(pod_of(&cluster.by_pod(uid(2)).unwrap()), 2);

    cluster.update(&set(vec![terminating(2)]));
    assert_eq!(pod_of(&cluster.pick(client(), &[]).unwrap()), 2);

    let gone = api::Endpoint { serving: false, ..terminating(2) };
    cluster.update(&set(vec![gone]));
    assert!(cluster.pick(client(), &[]).is_none());
    assert!(cluster.by_pod(uid(2)).is_none());
}

#[tokio::test(start_paused = true)]
async fn another_try_goes_to_another_endpoint_until_there_is_none() {
    let cluster = cluster(vec![endpoint(1), endpoint(2), endpoint(3)]);
    let mut tried = Vec::new();
    while let Some(picked) = cluster.pick(client(), &tried) {
        assert!(!tried.contains(&picked.address()));
        tried.push(picked.address());
    }
    assert_eq!(tried.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_affine_client_stays_and_only_its_endpoints_end_moves_it() {
    let affine =
        |endpoints| EndpointSet { client_ip_affinity: Some(Duration::from_secs(10_800)), ..set(endpoints) };
    let cluster = Cluster::new("service/shop/web:80".parse().unwrap());
    cluster.update(&affine((1..=5).map(endpoint).collect()));
    let chosen =
        |cluster: &Cluster, host: u8| pod_of(&cluster.pick(IpAddr::from([10, 0, 0, host]), &[]).unwrap());
    let before: Vec<u8> = (0..=255).map(|host| chosen(&cluster, host)).collect();
    assert!((0..=255).all(|host| chosen(&cluster, host) == before[usize::from(host)]));
    assert_eq!(before.iter().collect::<HashSet<_>>().len(), 5, "all endpoints have clients");

    cluster.update(&affine((2..=5).map(endpoint).collect()));
    for host in 0..=255 {
        let earlier = before[usize::from(host)];
        assert!(earlier == 1 || chosen(&cluster, host) == earlier);
    }
}

/// A model: whatever updates come, a pick is an endpoint of the last update that may be picked, and in-flight
/// counts end at zero.
#[tokio::test(start_paused = true)]
async fn under_random_updates_picks_are_always_of_the_newest_set() {
    let cluster = Cluster::new("service/shop/web:80".parse().unwrap());
    let mut open: Vec<Picked> = Vec::new();
    for _ in 0..500 {
        let endpoints: Vec<api::Endpoint> = (1..=8)
            .filter(|_| rand::random_bool(0.6))
            .map(|pod| if rand::random_bool(0.3) { terminating(pod) } else { endpoint(pod) })
            .collect();
        let ready: HashSet<u8> = pods(&endpoints, |endpoint| endpoint.ready);
        let serving = pods(&endpoints, |_| true);
        let expected = if ready.is_empty() { serving } else { ready };
        cluster.update(&set(endpoints));
        for _ in 0..20 {
            match cluster.pick(client(), &[]) {
                Some(picked) => {
                    assert!(expected.contains(&pod_of(&picked)));
                    open.push(picked);
                }
                None => assert!(expected.is_empty()),
            }
            if open.len() > 30 {
                open.swap_remove(rand::random_range(0..open.len()));
            }
        }
    }
    let endpoints: Vec<Arc<Endpoint>> = open.iter().map(|picked| Arc::clone(picked.endpoint())).collect();
    drop(open);
    assert!(endpoints.iter().all(|endpoint| endpoint.load.in_flight() == 0));
}

fn pods(endpoints: &[api::Endpoint], which: impl Fn(&api::Endpoint) -> bool) -> HashSet<u8> {
    endpoints.iter().filter(|endpoint| which(endpoint)).map(|e| e.pod.as_ref().unwrap().uid.0[0]).collect()
}

fn meshed(pod: u8) -> api::Endpoint {
    let id = gamut_identity::SpiffeId::new("cluster.local", "shop", "web").unwrap();
    api::Endpoint { transport: Transport::Mesh(id), ..endpoint(pod) }
}

#[test]
fn a_pod_that_nobody_selects_any_more_keeps_its_sessions_and_gets_no_other_request() {
    let cluster = cluster(vec![meshed(1), meshed(2)]);
    cluster.update(&set(vec![meshed(2)]));
    assert_eq!(cluster.by_pod(uid(1)).as_ref().map(pod_of), Some(1));
    assert!((0..50).all(|_| cluster.pick(client(), &[]).as_ref().map(pod_of) == Some(2)));
    cluster.update(&set(Vec::new()));
    assert_eq!(cluster.unselected(), 2);
    assert!(cluster.pick(client(), &[]).is_none());

    // Selected again, it is an endpoint like any other; unready now, it isn't one for sessions either.
    cluster.update(&set(vec![meshed(1), api::Endpoint { ready: false, serving: false, ..meshed(2) }]));
    assert_eq!(cluster.unselected(), 0);
    assert!(cluster.by_pod(uid(2)).is_none());
}

#[test]
fn a_pod_that_was_going_or_unwell_or_has_no_sidecar_is_gone_when_it_is_left_out() {
    let unready = api::Endpoint { ready: false, serving: false, ..meshed(2) };
    let going = api::Endpoint { ready: false, terminating: true, ..meshed(1) };
    // `publishNotReadyAddresses` says ready of those that go as well.
    let published = api::Endpoint { terminating: true, ..meshed(4) };
    let cluster = cluster(vec![going, unready, endpoint(3), published, meshed(5)]);
    cluster.update(&set(vec![meshed(5)]));
    assert_eq!(cluster.unselected(), 0);
    assert!((1..5).all(|pod| cluster.by_pod(uid(pod)).is_none()));
}

#[test]
fn a_pod_that_was_left_out_and_cannot_be_reached_is_forgotten() {
    let cluster = cluster(vec![meshed(1), meshed(2)]);
    cluster.update(&set(vec![meshed(2)]));
    cluster.unreachable(uid(1));
    assert!(cluster.by_pod(uid(1)).is_none());
    cluster.unreachable(uid(2));
    assert!(cluster.by_pod(uid(2)).is_some(), "of those that are selected the controller decides");
}

#[test]
fn not_every_pod_that_ever_was_is_kept() {
    let cluster = cluster(Vec::new());
    let numbered = |number: u16| {
        let mut endpoint = meshed(1);
        let [high, low] = number.to_be_bytes();
        endpoint.address = SocketAddr::from(([10, 1, high, low], 8080));
        endpoint.pod.as_mut().unwrap().uid = Uid::of(&number.to_string());
        endpoint
    };
    cluster.update(&set((0..2000).map(numbered).collect()));
    cluster.update(&set(Vec::new()));
    assert_eq!(cluster.unselected(), MOST_UNSELECTED);
}

/// A request to a pod's sidecar, and that one's end of the connection.
fn ask(cluster: &Cluster, pod: u8) -> (JoinHandle<Result<Response<Body>, SendError>>, DuplexStream) {
    let picked = cluster.by_pod(uid(pod)).unwrap();
    let (near, far) = duplex(64 * 1024);
    let near = Mutex::new(Some(near));
    let dial =
        move || std::future::ready(Ok(Io::Local(near.lock().unwrap().take().expect("one connection"))));
    let request = Request::get("/").header("host", "web").body(Body::Empty).unwrap();
    let asking = async move { picked.endpoint().pool.send(Carrier::MuxH1, request, dial).await };
    (tokio::spawn(asking), far)
}

/// The ways in which a set says that a pod takes no new traffic any more.
fn gone(pod: u8) -> [Option<api::Endpoint>; 3] {
    let unready = api::Endpoint { ready: false, serving: false, ..meshed(pod) };
    let terminating = api::Endpoint { ready: false, terminating: true, ..meshed(pod) };
    [None, Some(unready), Some(terminating)]
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_asked_at_once_whether_it_is_still_there_and_given_up_if_not() {
    for said in gone(1) {
        let cluster = cluster(vec![meshed(1), meshed(2)]);
        let [(asked, mut vanished), (other, mut stays)] = [1, 2].map(|pod| ask(&cluster, pod));
        for sidecar in [&mut vanished, &mut stays] {
            sidecar.read_u8().await.unwrap();
        }
        let begin = Instant::now();
        cluster.update(&set(said.into_iter().chain([meshed(2)]).collect()));
        assert!(asked.await.unwrap().is_err());
        assert!(begin.elapsed() < Duration::from_millis(5100), "{:?}", begin.elapsed());
        assert!(!other.is_finished(), "nobody said anything of it");
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_and_answers_to_the_end_is_waited_for() {
    for said in gone(1) {
        let cluster = cluster(vec![meshed(1), meshed(2)]);
        let (asked, far) = ask(&cluster, 1);
        let answer = |_| async {
            sleep(Duration::from_secs(3600)).await;
            Response::new(Body::Empty)
        };
        tokio::spawn(server::serve(far, true, answer, std::future::pending()));
        tokio::task::yield_now().await;
        cluster.update(&set(said.into_iter().chain([meshed(2)]).collect()));
        assert_eq!(asked.await.unwrap().unwrap().status(), 200);
    }
}

/// Two retries an hour.
fn two_retries() -> RetryBudget {
    let hour = Duration::from_secs(3600);
    RetryBudget { percent: 0, interval: hour, min_retries: 2, min_interval: hour }
}

#[tokio::test(start_paused = true)]
async fn a_retry_budget_keeps_its_counts_through_updates_of_anything_else() {
    let cluster = cluster(vec![endpoint(1)]);
    assert!((0..100).all(|_| cluster.retry().is_ok()), "without a budget");

    let limited = EndpointSet { retry_budget: Some(two_retries()), ..set(vec![endpoint(1)]) };
    cluster.update(&limited);
    assert!(cluster.retry().is_ok() && cluster.retry().is_ok());
    cluster.update(&EndpointSet { endpoints: vec![endpoint(1), endpoint(2)], ..limited.clone() });
    assert_eq!(cluster.retry(), Err(Spent(two_retries())));

    tokio::time::advance(Duration::from_secs(3720)).await;
    assert!(cluster.retry().is_ok(), "the hour is over");

    let other = RetryBudget { percent: 50, ..two_retries() };
    cluster.update(&EndpointSet { retry_budget: Some(other), ..limited.clone() });
    (0..8).for_each(|_| cluster.requested());
    assert_eq!((0..100).filter(|_| cluster.retry().is_ok()).count(), 8, "half of all");
    cluster.update(&EndpointSet { retry_budget: None, ..limited });
    assert!((0..100).all(|_| cluster.retry().is_ok()), "the policy is gone");
}
