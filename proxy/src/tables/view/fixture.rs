//! Resources in a line each.

use std::{net::SocketAddr, sync::Arc};

use gamut_controller_api::{
    AddressAnswer, Body, Endpoint, EndpointSet, InboundPolicy, Key, MtlsMode, Pod, Resource, SessionKeys,
    Transport,
};
use gamut_identity::SpiffeId;
use gamut_route::{
    BackendId, RouteTable, ServicePort, Uid,
    table::{
        AppProtocol, Backend, BackendTarget, Carrier, HttpRules, Match, RankedMatch, Rule, Session, Split,
    },
};

use super::{Delivery, Limits, View};
use crate::telemetry::{Telemetry, Workload};

/// The namespace that the view is in.
pub(super) const NAMESPACE: &str = "shop";

pub(super) fn view() -> View {
    limited(Limits::default())
}

pub(super) fn limited(limits: Limits) -> View {
    View::new(NAMESPACE.to_owned(), Uid::of("me"), limits, Telemetry::new(Workload::default()))
}

pub(super) fn delivery(resources: impl IntoIterator<Item = Resource>) -> Delivery {
    // Confirms every interest.
    Delivery {
        number: 1,
        interest: u64::MAX,
        resources: resources.into_iter().collect(),
        ..Delivery::default()
    }
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn service(name: &str) -> ServicePort {
    ServicePort::new(NAMESPACE, name, 80)
}

pub(super) fn backend(name: &str) -> BackendId {
    BackendId::Service(service(name))
}

pub(super) fn table_key(name: &str) -> Key {
    Key::RouteTable { client_namespace: NAMESPACE.to_owned(), service: service(name) }
}

pub(super) fn session_key(scope: &str) -> Key {
    Key::SessionKeys { client_namespace: NAMESPACE.to_owned(), scope: scope.to_owned() }
}

/// An answer about an address.
pub(super) fn answer(at: &str, answer: AddressAnswer) -> Resource {
    Resource::new(Key::Address(address(at)), Body::Address(answer))
}

pub(super) fn leads_to(at: &str, name: &str) -> Resource {
    answer(at, AddressAnswer::Service(service(name)))
}

/// A table whose one rule splits among these.
pub(super) fn split(name: &str, backends: &[(&str, u32)]) -> RouteTable {
    let of = |(name, weight): &(&str, u32)| Backend {
        target: BackendTarget::Endpoints { id: backend(name), uid: Uid::of(name) },
        weight: *weight,
        filters: Vec::new(),
        session: None,
    };
    let split = Split { backends: backends.iter().map(of).collect() };
    let rule = Rule::forward(split.clone());
    let matches = vec![RankedMatch { when: Match::default(), rule: 0 }];
    RouteTable {
        parent: service(name),
        protocol: AppProtocol::Detect,
        http: HttpRules { rules: vec![rule], matches },
        tls: Vec::new(),
        tcp: split,
    }
}

pub(super) fn table(table: RouteTable) -> Resource {
    let key = Key::RouteTable { client_namespace: NAMESPACE.to_owned(), service: table.parent.clone() };
    Resource::new(key, Body::RouteTable(Arc::new(table)))
}

/// A table that no proxy can use: its regular expression isn't one.
pub(super) fn broken(name: &str) -> Resource {
    let mut broken = split(name, &[("web-v1", 1)]);
    for ranked in &mut broken.http.matches {
        ranked.when.path = gamut_route::table::PathMatch::Regex("(".to_owned());
    }
    table(broken)
}

/// A table whose rule keeps sessions.
pub(super) fn sticky(name: &str, backends: &[(&str, u32)], scope: &str) -> Resource {
    let mut sticky = split(name, backends);
    for rule in &mut sticky.http.rules {
        rule.session = Some(Session {
            scope: scope.to_owned(),
            carrier: Carrier::Header { name: "x-session".to_owned() },
            absolute_timeout: None,
        });
    }
    table(sticky)
}

pub(super) fn session_keys(scope: &str, id: u8) -> Resource {
    let keys = SessionKeys { scope: scope.to_owned(), keys: vec![(id, [id; 32])] };
    Resource::new(session_key(scope), Body::SessionKeys(Arc::new(keys)))
}

/// Endpoints 10.0.0.`n` of a backend, all ready.
pub(super) fn endpoints(name: &str, pods: &[u8]) -> Resource {
    let of = |n: &u8| Endpoint {
        address: SocketAddr::from(([10, 0, 0, *n], 8080)),
        pod: Some(Pod {
            namespace: NAMESPACE.to_owned(),
            name: format!("{name}-{n}"),
            uid: Uid::of(&format!("{name}-{n}")),
            workload: name.to_owned(),
        }),
        transport: Transport::Mesh(SpiffeId::new("cluster.local", NAMESPACE, "default").unwrap()),
        zone: None,
        ready: true,
        serving: true,
        terminating: false,
    };
    let set = EndpointSet {
        id: backend(name),
        protocol: AppProtocol::Detect,
        endpoints: pods.iter().map(of).collect(),
        client_ip_affinity: None,
        retry_budget: None,
        external: None,
    };
    Resource::new(Key::EndpointSet(backend(name)), Body::EndpointSet(Arc::new(set)))
}

pub(super) fn policy() -> Resource {
    let policy = InboundPolicy { mode: MtlsMode::Strict, ports: Default::default() };
    Resource::new(Key::InboundPolicy(Uid::of("me")), Body::InboundPolicy(Arc::new(policy)))
}
