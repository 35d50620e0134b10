//! Stories of subscribers.

mod objects;

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use gamut_controller_api::{AddressAnswer, Key, Version, wire::MAX_KEYS};
use gamut_route::{BackendId, ServicePort, Uid};

use self::objects::{WEB, canary, deleted, endpoints, route, service, session_keys, slice, sticky_route};
use super::{
    CutOff, Delivery, Interest, Subscribed, SubscriberId, Who, board::Board, status::SubscriberStatus,
    subscriber::QUEUE,
};
use crate::{
    index::{Index, Settings},
    source::SourceEvent,
};

/// 32 bytes in base64.
const KEY_A: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const KEY_B: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
/// Five.
const TOO_SHORT: &str = "c2hvcnQ=";

/// A board over an index, as the engine has them.
struct Bench {
    index: Index,
    board: Board,
}

/// One sidecar, which acknowledges nothing by itself.
struct Sidecar {
    id: SubscriberId,
    subscribed: Subscribed,
    interests: u64,
}

impl Bench {
    fn new(events: Vec<SourceEvent>) -> Self {
        let mut bench = Self { index: Index::new(Settings::default()), board: Board::default() };
        bench.change(events);
        bench.change(vec![SourceEvent::Synced]);
        bench
    }

    fn change(&mut self, events: Vec<SourceEvent>) {
        let topics = self.index.apply(events);
        self.board.refresh(&self.index, &topics);
    }

    /// A new sidecar of a namespace.
    fn join(&mut self, namespace: &str, held: HashMap<Key, Version>) -> Sidecar {
        let (namespace, pod) = (namespace.to_owned(), "client-0".to_owned());
        let who = Who { namespace, pod, uid: Uid::of("client-0"), proxy_version: "test".to_owned() };
        let subscribed = self.board.join(&self.index, who, held, Vec::new());
        Sidecar { id: subscribed.id, subscribed, interests: 0 }
    }

    fn interest(&mut self, sidecar: &mut Sidecar, subscribe: &[Key], unsubscribe: &[Key]) {
        sidecar.interests += 1;
        let (subscribe, unsubscribe) = (subscribe.to_vec(), unsubscribe.to_vec());
        let interest = Interest { number: sidecar.interests, subscribe, unsubscribe };
        self.board.interest(&self.index, sidecar.id, interest);
    }

    /// A sidecar that uses `web`, and what that brought it.
    fn user_of_web(&mut self) -> (Sidecar, Delivery) {
        let mut sidecar = self.join("shop", HashMap::new());
        assert_eq!(sidecar.keys(), Vec::<String>::new(), "the first delivery says that we are here");
        self.interest(&mut sidecar, &[address(WEB)], &[]);
        let delivery = sidecar.next().unwrap();
        (sidecar, delivery)
    }

    fn status(&self, sidecar: &Sidecar) -> SubscriberStatus {
        let index = self.board.status().len() - 1;
        assert_eq!(sidecar.id.0 as usize, index + 1, "the last that came");
        self.board.status().remove(index)
    }
}

impl Sidecar {
    fn next(&mut self) -> Option<Delivery> {
        self.subscribed.deliveries.try_recv().ok()
    }

    /// The keys of the next delivery, as they print; `none` when there is none.
    fn keys(&mut self) -> Vec<String> {
        self.next().map_or_else(|| vec!["none".to_owned()], |delivery| keys(&delivery))
    }
}

fn keys(delivery: &Delivery) -> Vec<String> {
    let mut keys: Vec<String> = delivery.resources.iter().map(|packed| packed.key.to_string()).collect();
    keys.sort();
    keys
}

fn held(deliveries: &[&Delivery]) -> HashMap<Key, Version> {
    let all = deliveries.iter().flat_map(|delivery| &delivery.resources);
    all.map(|packed| (packed.key.clone(), packed.version)).collect()
}

fn address(text: &str) -> Key {
    Key::Address(text.parse().unwrap())
}

fn endpoint_set(name: &str) -> Key {
    Key::EndpointSet(BackendId::Service(ServicePort::new("shop", name, 80)))
}

#[test]
fn a_first_use_brings_the_address_its_table_and_its_endpoints_in_one_delivery() {
    let mut bench = Bench::new(canary());
    let (_, delivery) = bench.user_of_web();
    assert_eq!(
        keys(&delivery),
        [
            "Address 10.96.0.1:80",
            "EndpointSet service/shop/web-v1:80",
            "EndpointSet service/shop/web:80",
            "RouteTable shop/web:80 for shop",
        ]
    );
}

#[test]
fn a_change_reaches_only_those_who_subscribe_to_it_and_says_only_what_differs() {
    let mut bench = Bench::new(canary());
    let (mut user, _) = bench.user_of_web();
    let mut other = bench.join("shop", HashMap::new());
    other.next();

    bench.change(vec![endpoints("web-v1", &[2])]);
    assert_eq!(user.keys(), ["EndpointSet service/shop/web-v1:80"]);
    assert_eq!(other.keys(), ["none"]);

    bench.change(vec![slice("web-v1", "web-v1-2", &[2])]);
    assert_eq!(user.keys(), ["none"], "the same endpoints, cut otherwise");
    bench.change(vec![endpoints("web-v2", &[3, 4])]);
    assert_eq!(user.keys(), ["none"], "nobody here subscribes to it");
}

#[test]
fn a_change_for_very_many_goes_out_in_parts_which_others_overtake() {
    let mut bench = Bench::new(canary());
    let mut crowd: Vec<Sidecar> = (0..200).map(|_| bench.user_of_web().0).collect();
    let mut loner = bench.join("shop", HashMap::new());
    loner.next();
    bench.interest(&mut loner, &[endpoint_set("web-v2")], &[]);
    loner.next();

    bench.change(vec![endpoints("web-v1", &[7])]);
    let told = |crowd: &mut [Sidecar]| crowd.iter_mut().filter_map(Sidecar::next).count();
    assert_eq!(told(&mut crowd), 64, "the first part");
    assert!(bench.board.has_more());
    assert_eq!(
        bench.board.status().iter().filter(|status| !status.in_sync).count(),
        201,
        "all are behind, told or not"
    );

    bench.change(vec![endpoints("web-v2", &[8])]);
    assert_eq!(loner.keys(), ["EndpointSet service/shop/web-v2:80"], "doesn't wait for the others");

    bench.change(vec![endpoints("web-v1", &[9])]);
    while bench.board.has_more() {
        bench.board.send_more(&bench.index);
    }
    assert_eq!(crowd[199].keys(), ["EndpointSet service/shop/web-v1:80"]);
    assert_eq!(crowd[199].keys(), ["none"], "once, as it is now");
    assert_eq!(crowd[0].keys(), ["EndpointSet service/shop/web-v1:80"], "who had the first has the second");
}

#[test]
fn a_shift_to_a_new_service_comes_with_its_endpoints() {
    let mut bench = Bench::new(canary());
    let (mut user, _) = bench.user_of_web();
    bench.change(vec![route(&[("web-v1", 9), ("web-v2", 1)])]);
    assert_eq!(user.keys(), ["EndpointSet service/shop/web-v2:80", "RouteTable shop/web:80 for shop"]);
    bench.change(vec![endpoints("web-v2", &[4])]);
    assert_eq!(user.keys(), ["EndpointSet service/shop/web-v2:80"], "it is subscribed from then on");
}

#[test]
fn who_comes_back_gets_the_difference() {
    let mut bench = Bench::new(canary());
    let (user, first) = bench.user_of_web();
    bench.board.leave(user.id);

    let mut same = bench.join("shop", held(&[&first]));
    assert_eq!(same.keys(), Vec::<String>::new());
    bench.board.leave(same.id);

    bench.change(vec![endpoints("web-v1", &[1]), route(&[("web-v1", 1), ("web-v2", 0)])]);
    let mut other = bench.join("shop", held(&[&first]));
    assert_eq!(
        other.keys(),
        [
            "EndpointSet service/shop/web-v1:80",
            "EndpointSet service/shop/web-v2:80",
            "RouteTable shop/web:80 for shop",
        ]
    );
}

#[test]
fn a_resource_is_encoded_once_for_all() {
    let mut bench = Bench::new(canary());
    let (_, a) = bench.user_of_web();
    let (_, b) = bench.user_of_web();
    for (a, b) in a.resources.iter().zip(&b.resources) {
        assert!(Arc::ptr_eq(a, b));
    }
}

#[test]
fn consumer_and_producer_namespaces_get_tables_of_their_own() {
    let mut bench = Bench::new(canary());
    let mut bank = bench.join("bank", HashMap::new());
    bank.next();
    bench.interest(&mut bank, &[address(WEB)], &[]);
    assert!(bank.keys().contains(&"RouteTable shop/web:80 for bank".to_owned()));
}

#[test]
fn an_unsubscribed_key_is_confirmed_and_not_sent_any_more() {
    let mut bench = Bench::new(canary());
    let (mut user, _) = bench.user_of_web();
    bench.change(vec![route(&[("web-v2", 1)])]);
    user.next();

    bench.interest(&mut user, &[], &[endpoint_set("web-v1")]);
    let confirmation = user.next().unwrap();
    assert_eq!((confirmation.interest, confirmation.resources.len()), (2, 0));
    bench.change(vec![endpoints("web-v1", &[9])]);
    assert_eq!(user.keys(), ["none"]);
}

#[test]
fn an_address_without_a_service_is_answered_and_stays_subscribed() {
    let mut bench = Bench::new(canary());
    let mut user = bench.join("shop", HashMap::new());
    user.next();
    bench.interest(&mut user, &[address("10.96.0.7:80")], &[]);
    let not_ours = user.next().unwrap();
    let body = gamut_controller_api::Body::Address(AddressAnswer::NotOurs);
    let version = gamut_controller_api::Packed::new(address("10.96.0.7:80"), &body).version;
    assert_eq!(not_ours.resources[0].version, version);

    bench.change(vec![service("new", "10.96.0.7")]);
    assert!(user.keys().contains(&"RouteTable shop/new:80 for shop".to_owned()));
    bench.change(vec![deleted("Service", "new")]);
    assert!(user.keys().contains(&"Address 10.96.0.7:80".to_owned()));
}

#[test]
fn session_keys_go_to_those_who_have_a_table_that_names_them() {
    let mut events = canary();
    events.extend([sticky_route(&[("web-v1", 1)]), session_keys(KEY_A)]);
    let mut bench = Bench::new(events);
    let (mut user, delivery) = bench.user_of_web();
    let is_keys = |packed: &&Arc<gamut_controller_api::Packed>| matches!(packed.key, Key::SessionKeys { .. });
    let key = delivery.resources.iter().find(is_keys).unwrap().key.clone();

    let mut stranger = bench.join("shop", HashMap::new());
    stranger.next();
    bench.interest(&mut stranger, std::slice::from_ref(&key), &[]);
    assert_eq!(stranger.keys(), ["none"]);

    bench.change(vec![session_keys(KEY_B)]);
    assert_eq!(user.keys(), [key.to_string()], "rotated keys follow");
    assert_eq!(stranger.keys(), ["none"]);
}

#[test]
fn a_new_sidecar_gets_the_last_good_session_keys_while_the_secret_cant_be_read() {
    let mut events = canary();
    events.extend([sticky_route(&[("web-v1", 1)]), session_keys(KEY_A)]);
    let mut bench = Bench::new(events);
    let keys_of = |delivery: &Delivery| {
        let is_keys =
            |packed: &&Arc<gamut_controller_api::Packed>| matches!(packed.key, Key::SessionKeys { .. });
        delivery.resources.iter().find(is_keys).expect("every key has an answer").version
    };
    let (mut early, first) = bench.user_of_web();
    bench.change(vec![session_keys(TOO_SHORT)]);
    assert_eq!(early.keys(), ["none"]);
    let (_, second) = bench.user_of_web();
    assert_eq!(keys_of(&first), keys_of(&second));
    let problems: Vec<String> = bench.index.broken().iter().map(|(id, why)| format!("{id}: {why}")).collect();
    let said = "Secret gamut-system/gamut-session-keys: data[\"key-1\"] has 5 bytes";
    assert!(problems.len() == 1 && problems[0].starts_with(said), "{problems:?}");

    // One that started with it has none to give, and says so.
    let mut events = canary();
    events.extend([sticky_route(&[("web-v1", 1)]), session_keys(TOO_SHORT)]);
    let (_, none) = Bench::new(events).user_of_web();
    assert_ne!(keys_of(&first), keys_of(&none));
}

#[test]
fn status_says_who_is_behind_and_who_refused_what() {
    let mut bench = Bench::new(canary());
    let (mut user, first) = bench.user_of_web();
    assert_eq!(bench.status(&user).behind.len(), 4);

    bench.board.acknowledged(user.id, first.number);
    let status = bench.status(&user);
    assert!(status.in_sync && status.behind.is_empty(), "{status:?}");
    assert_eq!(status.keys, 4);

    bench.change(vec![route(&[("web-v1", 2)])]);
    let second = user.next().unwrap();
    let table = second.resources[0].key.clone();
    bench.board.refused(user.id, second.number, &table, "a bad regex".to_owned());
    bench.board.acknowledged(user.id, second.number);
    let status = bench.status(&user);
    assert!(!status.in_sync);
    assert_eq!(status.refused.len(), 1);
    assert_eq!(status.refused[0].reason, "a bad regex");

    bench.change(vec![route(&[("web-v1", 3)])]);
    let third = user.next().unwrap();
    bench.board.refused(user.id, second.number, &table, "late news".to_owned());
    bench.board.acknowledged(user.id, third.number);
    assert!(bench.status(&user).in_sync, "a refusal of what has been replaced says nothing");
}

#[test]
fn who_doesnt_take_deliveries_is_cut_off_and_comes_back() {
    let mut bench = Bench::new(canary());
    let (mut slow, first) = bench.user_of_web();
    let (mut quick, _) = bench.user_of_web();
    for n in 0..=QUEUE {
        bench.change(vec![endpoints("web-v1", &[u8::try_from(n + 10).unwrap()])]);
        quick.next();
    }
    assert_eq!(slow.subscribed.cut_off.try_recv(), Ok(CutOff::Slow));
    assert!(quick.subscribed.cut_off.try_recv().is_err());
    assert_eq!(bench.board.status().len(), 1);

    let mut back = bench.join("shop", held(&[&first]));
    assert_eq!(back.keys(), ["EndpointSet service/shop/web-v1:80"]);
}

#[test]
fn who_wants_more_than_anybody_may_is_cut_off() {
    let mut bench = Bench::new(canary());
    let mut greedy = bench.join("shop", HashMap::new());
    let many = (0..=MAX_KEYS).map(|n| SocketAddr::from(([198, 51, (n / 256) as u8, (n % 256) as u8], 80)));
    let many: Vec<Key> = many.map(Key::Address).collect();
    bench.interest(&mut greedy, &many, &[]);
    assert_eq!(greedy.subscribed.cut_off.try_recv(), Ok(CutOff::TooManyKeys(MAX_KEYS)));
    assert!(bench.board.status().is_empty());
}

#[test]
fn what_nobody_subscribes_to_is_not_kept() {
    let mut bench = Bench::new(canary());
    let (user, _) = bench.user_of_web();
    assert!(!bench.board.is_empty());
    bench.board.leave(user.id);
    assert!(bench.board.is_empty());
}

mod engine {
    //! The task, over a directory of files.

    use std::path::Path;

    use super::*;
    use crate::{
        engine::Engine,
        source::{Source, WriteTo},
    };

    fn write(directory: &Path, event: &SourceEvent) {
        let SourceEvent::Applied(object) = event else { panic!() };
        let namespace = object.namespace.as_deref().unwrap_or_default();
        let path = directory.join(format!("{}.{namespace}.{}.json", object.kind, object.name));
        std::fs::write(path, object.raw.to_string()).unwrap();
    }

    #[tokio::test]
    async fn a_saved_file_becomes_a_delivery_and_a_route_gets_a_status() {
        let (cluster, statuses) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        canary().iter().for_each(|event| write(cluster.path(), event));
        let objects = cluster.path().to_owned();
        let to = WriteTo { statuses: Some(statuses.path().to_owned()), objects: Some(objects.clone()) };
        let source = Source::files(std::slice::from_ref(&objects), to).unwrap();
        let (handle, engine) = Engine::new(source, Index::new(Settings::default()));
        let running = tokio::spawn(engine.run());

        let who = Who {
            namespace: "shop".to_owned(),
            pod: "client-0".to_owned(),
            uid: Uid::of("client-0"),
            proxy_version: "test".to_owned(),
        };
        // Asked before anything is read: the answer waits until all of it is.
        let mut subscribed = handle.subscribe(who, HashMap::new()).await.unwrap();
        assert!(handle.is_synced());
        let first = subscribed.deliveries.recv().await.unwrap();
        let suggested: Vec<String> = first.suggested.iter().map(ToString::to_string).collect();
        assert_eq!(suggested, ["10.96.0.1:80", "10.96.0.2:80", "10.96.0.3:80"]);

        let interest = Interest { number: 1, subscribe: vec![address(WEB)], unsubscribe: Vec::new() };
        handle.interest(subscribed.id, interest).await;
        assert_eq!(subscribed.deliveries.recv().await.unwrap().resources.len(), 4);

        write(&objects, &endpoints("web-v1", &[7]));
        let delivery = subscribed.deliveries.recv().await.unwrap();
        assert_eq!(keys(&delivery), ["EndpointSet service/shop/web-v1:80"]);

        let written = async || handle.status().await.unwrap().source.unwritten == 0;
        let all_written = async {
            while !written().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), all_written)
            .await
            .expect("statuses are written");
        let accepted = || {
            let status = statuses.path().join("HTTPRoute/shop.web.json");
            std::fs::read_to_string(status).is_ok_and(|status| status.contains("\"Accepted\""))
        };
        assert!(accepted(), "nothing is unwritten, so it is there");
        let status = handle.status().await.unwrap();
        assert!(status.source.synced && status.source.problems.is_empty(), "{status:?}");
        assert_eq!(status.subscribers.len(), 1);

        handle.cut_off_all().await;
        assert_eq!(subscribed.cut_off.await, Ok(CutOff::ShuttingDown));
        drop(handle);
        running.await.unwrap();
    }
}
