//! Stories of one sidecar's tables.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gamut_controller_api::{AddressAnswer, Body, Key, Resource, Transport};
use gamut_route::RouteTable;

use super::{
    Changes, Limits, View,
    fixture::{
        address, answer, backend, broken, delivery, endpoints, leads_to, limited, policy, service,
        session_key, session_keys, split, sticky, table, table_key, view,
    },
};
use crate::tables::{Destination, NoAnswer, ServiceHandle, TableState};

const WEB: &str = "10.96.0.1:80";

/// A view that the app has used `web` in, split among these, each with one endpoint.
fn in_use(backends: &[(&str, u32)]) -> View {
    let mut view = view();
    view.connect();
    view.ask(address(WEB), Instant::now()).unwrap();
    let mut resources = vec![leads_to(WEB, "web"), table(split("web", backends))];
    resources.extend(backends.iter().zip(1..).map(|((name, _), n)| endpoints(name, &[n])));
    deliver(&mut view, resources);
    view
}

fn deliver(view: &mut View, resources: Vec<Resource>) -> Changes {
    view.deliver(delivery(resources), Instant::now())
}

fn handle(view: &View) -> Option<ServiceHandle> {
    match view.destination(address(WEB))? {
        Destination::Service(handle) => Some(handle),
        other => panic!("{other:?}"),
    }
}

/// The table in force for `web`.
fn in_force(view: &View) -> Option<RouteTable> {
    handle(view).map(|handle| handle.load().table().as_ref().clone())
}

/// How many endpoints of a backend take traffic.
fn ready(view: &View, name: &str) -> Option<usize> {
    view.clusters.get(&backend(name)).map(|cluster| cluster.ready())
}

fn sorted(mut keys: Vec<Key>) -> Vec<Key> {
    keys.sort();
    keys
}

#[test]
fn a_first_use_leads_from_the_address_to_its_table_and_its_endpoints() {
    let mut view = view();
    view.connect();
    let changes = view.ask(address(WEB), Instant::now()).unwrap();
    assert_eq!(changes.subscribe, [Key::Address(address(WEB))]);

    let changes = deliver(&mut view, vec![leads_to(WEB, "web")]);
    assert_eq!(changes.subscribe, [table_key("web")]);

    let changes = deliver(&mut view, vec![sticky("web", &[("web-v1", 9), ("web-v2", 1)], "route/x")]);
    let parts = vec![
        Key::EndpointSet(backend("web-v1")),
        Key::EndpointSet(backend("web-v2")),
        session_key("route/x"),
    ];
    assert_eq!(sorted(changes.subscribe), parts);
    assert_eq!(sorted(view.missing(address(WEB))), parts);

    deliver(&mut view, vec![endpoints("web-v1", &[1]), endpoints("web-v2", &[2])]);
    assert!(view.destination(address(WEB)).is_none(), "without session keys it can't be used");
    deliver(&mut view, vec![session_keys("route/x", 1)]);
    assert!(in_force(&view).is_some());
}

#[test]
fn a_table_whose_scope_has_no_key_yet_is_used_and_its_sessions_begin_with_the_first() {
    let mut view = view();
    view.connect();
    view.ask(address(WEB), Instant::now()).unwrap();
    let mut none = session_keys("route/x", 1);
    let Body::SessionKeys(keys) = &mut none.body else { panic!("{none:?}") };
    Arc::make_mut(keys).keys.clear();
    let table = sticky("web", &[("web-v1", 1)], "route/x");
    let changes = deliver(&mut view, vec![leads_to(WEB, "web"), table, endpoints("web-v1", &[1]), none]);
    assert!(changes.refusals.is_empty() && in_force(&view).is_some());
    let before = handle(&view).unwrap().load_full();
    deliver(&mut view, vec![session_keys("route/x", 2)]);
    assert!(!Arc::ptr_eq(&before, &handle(&view).unwrap().load_full()));
}

#[test]
fn a_session_that_goes_with_its_route_is_no_refusal_whichever_news_comes_first() {
    let mut view = view();
    view.connect();
    view.ask(address(WEB), Instant::now()).unwrap();
    let table_with = sticky("web", &[("web-v1", 1)], "route/x");
    let keys = session_keys("route/x", 1);
    deliver(&mut view, vec![leads_to(WEB, "web"), table_with, endpoints("web-v1", &[1]), keys]);
    let with_session = in_force(&view);
    assert!(with_session.is_some());

    let mut none = session_keys("route/x", 1);
    let Body::SessionKeys(keys) = &mut none.body else { panic!("{none:?}") };
    Arc::make_mut(keys).keys.clear();
    let none = Resource::new(none.key, none.body);
    assert_eq!(deliver(&mut view, vec![none]).refusals, []);
    assert_eq!(in_force(&view), with_session);
    let changes = deliver(&mut view, vec![table(split("web", &[("web-v1", 1)]))]);
    assert_eq!(changes.refusals, []);
    assert_eq!(in_force(&view), Some(split("web", &[("web-v1", 1)])));
}

#[test]
fn what_comes_unasked_with_a_table_isnt_asked_for_again() {
    let mut view = view();
    view.connect();
    view.ask(address(WEB), Instant::now()).unwrap();
    let all = vec![leads_to(WEB, "web"), table(split("web", &[("web-v1", 1)])), endpoints("web-v1", &[1])];
    let changes = deliver(&mut view, all);
    assert!(in_force(&view).is_some());
    assert_eq!((changes.subscribe, changes.unsubscribe), (vec![], vec![]));
}

#[test]
fn a_table_waits_for_its_endpoints_and_the_one_before_it_stays_in_force() {
    let mut view = in_use(&[("web-v1", 1)]);
    let before = in_force(&view);
    let shift = table(split("web", &[("web-v1", 9), ("web-v2", 1)]));

    let changes = deliver(&mut view, vec![shift]);
    assert_eq!(changes.subscribe, [Key::EndpointSet(backend("web-v2"))]);
    assert_eq!(in_force(&view), before);

    deliver(&mut view, vec![endpoints("web-v2", &[2])]);
    assert_eq!(in_force(&view), Some(split("web", &[("web-v1", 9), ("web-v2", 1)])));
}

#[test]
fn a_removal_is_in_force_at_once_even_while_a_table_waits() {
    let mut view = in_use(&[("web-v1", 1)]);
    deliver(&mut view, vec![endpoints("web-v1", &[1, 2])]);
    deliver(&mut view, vec![table(split("web", &[("web-v2", 1)]))]);
    deliver(&mut view, vec![endpoints("web-v1", &[2])]);
    assert_eq!(ready(&view, "web-v1"), Some(1));
}

#[test]
fn a_connection_sees_every_new_table_through_the_handle_that_it_holds() {
    let mut view = in_use(&[("web-v1", 1)]);
    let held = handle(&view).unwrap();
    deliver(&mut view, vec![table(split("web", &[("web-v1", 2)]))]);
    assert_eq!(**held.load().table(), split("web", &[("web-v1", 2)]));
}

#[test]
fn a_table_that_cant_be_used_is_refused_and_the_last_good_one_stays() {
    let mut view = in_use(&[("web-v1", 1)]);
    let (good, held) = (in_force(&view), view.connect().0);

    let changes = deliver(&mut view, vec![broken("web")]);
    assert_eq!(changes.refusals.len(), 1);
    assert_eq!(changes.refusals[0].1, table_key("web"));
    assert_eq!(in_force(&view), good);
    let status = view.status(Instant::now());
    let of_table = status.iter().find(|status| status.key == table_key("web").to_string()).unwrap();
    assert!(matches!(&of_table.state, TableState::Refused { reason } if !reason.is_empty()), "{of_table:?}");

    let mut claimed = view.connect().0;
    let mut expected = held;
    claimed.sort();
    expected.sort();
    assert_eq!(claimed, expected, "what is claimed to be held is the last good one");

    deliver(&mut view, vec![table(split("web", &[("web-v1", 1)]))]);
    let status = view.status(Instant::now());
    assert!(status.iter().all(|status| !matches!(status.state, TableState::Refused { .. })), "{status:?}");
}

#[test]
fn waiting_for_a_first_table_that_was_refused_is_in_vain() {
    let mut view = view();
    view.connect();
    view.ask(address(WEB), Instant::now()).unwrap();
    assert_eq!(view.hopeless(address(WEB)), None);
    deliver(&mut view, vec![leads_to(WEB, "web"), broken("web"), endpoints("web-v1", &[1])]);
    assert!(matches!(view.hopeless(address(WEB)), Some(NoAnswer::Refused { .. })));
}

#[test]
fn a_resource_that_cant_be_read_is_refused_alone() {
    let mut view = in_use(&[("web-v1", 1)]);
    let mut mixed = delivery([endpoints("web-v1", &[1, 2, 3])]);
    mixed.unreadable.push((table_key("web"), "http.rules[0].filters[0]: unknown".to_owned()));
    let changes = view.deliver(mixed, Instant::now());
    let reason = "http.rules[0].filters[0]: unknown".to_owned();
    assert_eq!(changes.refusals, [(1, table_key("web"), reason)]);
    assert_eq!(ready(&view, "web-v1"), Some(3));
    assert_eq!(in_force(&view), Some(split("web", &[("web-v1", 1)])));
}

#[test]
fn not_ours_stays_subscribed_and_can_be_taken_back() {
    let mut view = view();
    view.connect();
    view.ask(address(WEB), Instant::now()).unwrap();
    let changes = deliver(&mut view, vec![answer(WEB, AddressAnswer::NotOurs)]);
    assert!(matches!(view.destination(address(WEB)), Some(Destination::NotOurs)));
    assert!(changes.unsubscribe.is_empty());

    deliver(&mut view, vec![leads_to(WEB, "web")]);
    assert!(matches!(view.destination(address(WEB)), Some(Destination::NotOurs)), "until there is a table");
    deliver(&mut view, vec![table(split("web", &[("web-v1", 1)])), endpoints("web-v1", &[1])]);
    assert!(in_force(&view).is_some());
}

#[test]
fn a_pods_address_leads_to_the_pod() {
    let mut view = view();
    view.connect();
    view.ask(address("10.0.0.1:8080"), Instant::now()).unwrap();
    let gamut_controller_api::Body::EndpointSet(set) = endpoints("web-v1", &[1]).body else { panic!() };
    let pod = set.endpoints[0].clone();
    assert!(matches!(pod.transport, Transport::Mesh(_)));
    deliver(&mut view, vec![answer("10.0.0.1:8080", AddressAnswer::Pod(pod))]);
    assert!(matches!(view.destination(address("10.0.0.1:8080")), Some(Destination::Pod(_))));
}

#[test]
fn rotated_session_keys_are_in_force_at_once() {
    let mut view = view();
    view.connect();
    view.ask(address(WEB), Instant::now()).unwrap();
    let sticky = sticky("web", &[("web-v1", 1)], "route/x");
    let parts = [leads_to(WEB, "web"), sticky, endpoints("web-v1", &[1]), session_keys("route/x", 1)];
    deliver(&mut view, parts.to_vec());
    let before = handle(&view).unwrap().load_full();
    deliver(&mut view, vec![session_keys("route/x", 2)]);
    assert!(!std::sync::Arc::ptr_eq(&before, &handle(&view).unwrap().load_full()));
}

#[test]
fn what_no_table_names_any_more_is_unsubscribed_and_dropped_when_the_controller_has_seen_it() {
    let mut view = in_use(&[("web-v1", 1)]);
    let next = vec![table(split("web", &[("web-v2", 1)])), endpoints("web-v2", &[2])];
    let changes = deliver(&mut view, next);
    assert_eq!(changes.unsubscribe, [Key::EndpointSet(backend("web-v1"))]);

    // The controller sent this before it knew: it counts on our having the endpoints of v1.
    let mut crossing = delivery([table(split("web", &[("web-v1", 5)]))]);
    crossing.interest = changes.interest - 1;
    let changes = view.deliver(crossing, Instant::now());
    assert_eq!(in_force(&view), Some(split("web", &[("web-v1", 5)])));
    assert_eq!(changes.subscribe, [Key::EndpointSet(backend("web-v1"))], "or it won't be kept up to date");
    assert_eq!(changes.unsubscribe, [Key::EndpointSet(backend("web-v2"))]);

    view.deliver(delivery([]), Instant::now());
    assert_eq!((ready(&view, "web-v1"), ready(&view, "web-v2")), (Some(1), None));
}

#[test]
fn a_reconnect_tells_what_is_held_and_asks_for_the_rest() {
    let mut view = in_use(&[("web-v1", 1)]);
    view.ask(address("10.96.0.2:80"), Instant::now()).unwrap();
    deliver(&mut view, vec![policy()]);

    let (held, changes) = view.connect();
    let held = sorted(held.into_iter().map(|(key, _)| key).collect());
    let expected =
        [Key::Address(address(WEB)), table_key("web"), Key::EndpointSet(backend("web-v1")), policy().key];
    assert_eq!(held, sorted(expected.to_vec()));
    assert_eq!(sorted(changes.subscribe), [Key::Address(address("10.96.0.2:80")), Key::TrustBundle]);
    assert_eq!(changes.interest, 1);
}

#[test]
fn everything_is_loaded_when_policy_roots_and_the_suggested_tables_are_here() {
    let mut view = view();
    view.connect();
    let mut hello = delivery([]);
    hello.suggested.push(address(WEB));
    let changes = view.deliver(hello, Instant::now());
    assert_eq!(changes.subscribe, [Key::Address(address(WEB))]);
    assert!(!view.loaded());

    deliver(
        &mut view,
        vec![leads_to(WEB, "web"), table(split("web", &[("web", 1)])), endpoints("web", &[1])],
    );
    deliver(&mut view, vec![policy()]);
    assert!(!view.loaded(), "without roots");
    let mut refused = delivery([]);
    refused.unreadable.push((Key::TrustBundle, "no".to_owned()));
    view.deliver(refused, Instant::now());
    assert!(view.loaded(), "what is refused won't come by waiting");
}

mod make_before_break {
    //! A Service that was made a moment ago has no endpoints yet.

    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    /// `web` leads to v1 and is to lead to v2, which has no endpoints.
    fn shifted(now: Instant) -> View {
        let mut view = in_use(&[("web-v1", 1)]);
        view.deliver(delivery([table(split("web", &[("web-v2", 1)])), endpoints("web-v2", &[])]), now);
        view
    }

    fn leads_to_v2(view: &View) -> bool {
        in_force(view) == Some(split("web", &[("web-v2", 1)]))
    }

    #[test]
    fn a_table_that_leads_to_a_backend_without_endpoints_waits_for_them() {
        let now = Instant::now();
        let mut view = shifted(now);
        assert_eq!(in_force(&view), Some(split("web", &[("web-v1", 1)])));
        let states: Vec<TableState> = view.status(now).into_iter().map(|table| table.state).collect();
        let waits = TableState::Pending { missing: vec!["an endpoint of service/shop/web-v2:80".to_owned()] };
        assert!(states.contains(&waits), "{states:?}");

        view.deliver(delivery([endpoints("web-v2", &[2])]), now + Duration::from_secs(1));
        assert!(leads_to_v2(&view));
        assert_eq!(view.due(), None);
    }

    #[test]
    fn a_service_that_stays_empty_is_led_to_after_five_seconds() {
        let now = Instant::now();
        let mut view = shifted(now);
        assert_eq!(view.due(), Some(now + WAIT));
        let before = WAIT - Duration::from_millis(1);
        view.tick(now + before);
        assert!(!leads_to_v2(&view));
        let changes = view.tick(now + WAIT);
        assert!(leads_to_v2(&view));
        assert_eq!(changes.unsubscribe, [Key::EndpointSet(backend("web-v1"))]);
        assert_eq!(view.due(), None);
    }

    #[test]
    fn tables_that_follow_each_other_dont_put_it_off() {
        let now = Instant::now();
        let mut view = shifted(now);
        let next = table(split("web", &[("web-v2", 1), ("web-v3", 1)]));
        view.deliver(delivery([next, endpoints("web-v3", &[])]), now + WAIT / 2);
        assert_eq!(view.due(), Some(now + WAIT));
        view.tick(now + WAIT);
        assert_eq!(in_force(&view), Some(split("web", &[("web-v2", 1), ("web-v3", 1)])));
    }

    #[test]
    fn one_that_lacks_a_part_again_is_due_no_more() {
        let now = Instant::now();
        let mut view = shifted(now);
        view.deliver(delivery([table(split("web", &[("web-v4", 1)]))]), now);
        assert_eq!(view.due(), None);
        view.tick(now + WAIT);
        assert_eq!(
            in_force(&view),
            Some(split("web", &[("web-v1", 1)])),
            "parts are waited for without a limit"
        );
    }

    #[test]
    fn the_first_table_waits_for_nobody() {
        let mut view = super::view();
        view.connect();
        view.ask(address(WEB), Instant::now()).unwrap();
        let all = vec![leads_to(WEB, "web"), table(split("web", &[("web-v2", 1)])), endpoints("web-v2", &[])];
        deliver(&mut view, all);
        assert!(leads_to_v2(&view));
    }

    #[test]
    fn where_the_one_in_force_leads_nowhere_either_nothing_is_waited_for() {
        let now = Instant::now();
        let mut view = shifted(now);
        view.deliver(delivery([endpoints("web-v1", &[])]), now);
        assert_eq!(ready(&view, "web-v1"), Some(0), "a removal isn't delayed");
        assert!(leads_to_v2(&view));
    }

    #[test]
    fn backends_that_get_no_traffic_or_got_it_before_are_not_waited_for() {
        let mut view = in_use(&[("web-v1", 9), ("web-v2", 1)]);
        deliver(&mut view, vec![endpoints("web-v2", &[])]);
        let next = [("web-v1", 1), ("web-v2", 9), ("web-v3", 0)];
        deliver(&mut view, vec![table(split("web", &next)), endpoints("web-v3", &[])]);
        assert_eq!(in_force(&view), Some(split("web", &next)));
    }
}

mod idle {
    //! Leaving.

    use std::{collections::HashMap, net::SocketAddr};

    use super::*;
    use crate::tables::Entry;

    const IDLE: Duration = Duration::from_secs(600);
    const BANK: &str = "10.96.9.9:80";

    /// An address of another namespace's Service in use, and the map that the data path sees.
    struct Foreign {
        view: View,
        published: HashMap<SocketAddr, Entry>,
        start: Instant,
    }

    impl Foreign {
        fn new() -> Self {
            let mut view = limited(Limits { idle: IDLE, addresses: 3, ..Limits::default() });
            view.connect();
            let start = Instant::now();
            view.ask(address(BANK), start).unwrap();
            let mut bank = split("bank", &[("web-v1", 1)]);
            bank.parent.service.namespace = "money".to_owned();
            let answer = answer(BANK, AddressAnswer::Service(bank.parent.clone()));
            let changes = view.deliver(delivery([answer, table(bank), endpoints("web-v1", &[1])]), start);
            Self { view, published: changes.addresses.unwrap(), start }
        }

        /// Looks for idle addresses; how many keys leave?
        fn leave(&mut self, after: Duration) -> usize {
            let changes = self.view.sweep(self.start + after);
            self.published = changes.addresses.unwrap();
            changes.unsubscribe.len()
        }

        /// What a connection does.
        fn connect(&self) -> Destination {
            self.published[&address(BANK)].touch()
        }
    }

    #[test]
    fn an_address_that_nobody_uses_leaves_with_all_that_only_it_led_to() {
        let mut foreign = Foreign::new();
        assert_eq!(foreign.leave(IDLE / 2), 0);
        assert_eq!(foreign.leave(IDLE), 3, "the address, the table, the endpoints");
        assert!(foreign.published.is_empty());
        foreign.view.deliver(delivery([]), foreign.start + IDLE);
        assert!(foreign.view.clusters.is_empty() && foreign.view.tables.is_empty());
    }

    #[test]
    fn use_keeps_an_address() {
        let mut foreign = Foreign::new();
        foreign.leave(IDLE / 2);
        drop(foreign.connect());
        assert_eq!(foreign.leave(IDLE), 0);
        assert_eq!(foreign.leave(IDLE + IDLE / 2), 0);
        assert_eq!(foreign.leave(IDLE * 2), 3);
    }

    #[test]
    fn a_connection_that_holds_the_handle_keeps_it() {
        let mut foreign = Foreign::new();
        let connection = foreign.connect();
        assert_eq!(foreign.leave(IDLE * 5), 0);
        assert_eq!(foreign.leave(IDLE * 10), 0);
        drop(connection);
        assert_eq!(foreign.leave(IDLE * 10), 3);
    }

    #[test]
    fn our_own_namespaces_services_stay() {
        let mut view = in_use(&[("web-v1", 1)]);
        assert!(view.sweep(Instant::now() + IDLE * 100).unsubscribe.is_empty());
        assert_eq!(in_force(&view).map(|table| table.parent), Some(service("web")));
    }

    #[test]
    fn when_there_are_too_many_the_longest_unused_leaves_first() {
        let Foreign { mut view, start, .. } = Foreign::new();
        let addresses = ["192.0.2.1:443", "192.0.2.2:443", "192.0.2.3:443"];
        for (i, text) in (1..).zip(addresses) {
            view.ask(address(text), start + Duration::from_secs(i)).unwrap();
            let not_ours = answer(text, AddressAnswer::NotOurs);
            view.deliver(delivery([not_ours]), start + Duration::from_secs(i));
        }
        assert!(view.destination(address(BANK)).is_none());
        assert!(addresses.iter().all(|text| view.destination(address(text)).is_some()));
    }

    #[test]
    fn when_all_are_needed_there_is_no_room_for_more() {
        let mut view = limited(Limits { idle: IDLE, addresses: 1, ..Limits::default() });
        view.connect();
        view.ask(address(WEB), Instant::now()).unwrap();
        let all = [leads_to(WEB, "web"), table(split("web", &[("web-v1", 1)])), endpoints("web-v1", &[1])];
        view.deliver(delivery(all), Instant::now());
        let refused = view.ask(address("192.0.2.1:443"), Instant::now());
        assert!(matches!(refused, Err(NoAnswer::TooMany { limit: 1, .. })));
    }
}
