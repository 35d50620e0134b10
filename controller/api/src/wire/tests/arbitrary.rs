//! Arbitrary resources, each variant and each optional field both ways.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use gamut_identity::SpiffeId;
use gamut_route::{
    BackendId, NamespacedName, RouteKind, RouteRef, RouteTable, ServicePort, Uid,
    filter::{Cors, Filter, HeaderEdits, Mirror, PathRewrite, Redirect, Rewrite},
    table::{
        AppProtocol, Backend, BackendTarget, Carrier, HttpRules, Match, NamedMatch, Outcome, PathMatch,
        RankedMatch, Retry, Rule, RuleOrigin, Session, Split, Timeouts, TlsRule, ValueMatch,
    },
};
use proptest::{collection::vec, option, prelude::*};
use rustls_pki_types::CertificateDer;

use crate::{
    AddressAnswer, Body, Endpoint, EndpointSet, ExternalHost, InboundPolicy, InboundPort, Key, MtlsMode, Pod,
    RetryBudget, SessionKeys, Transport, TrustBundle,
};

/// A key with an answer to it.
pub(super) fn resource() -> impl Strategy<Value = (Key, Body)> {
    prop_oneof![
        (address(), answer()).prop_map(|(address, answer)| (Key::Address(address), Body::Address(answer))),
        (word(), table()).prop_map(|(client_namespace, table)| {
            let key = Key::RouteTable { client_namespace, service: table.parent.clone() };
            (key, Body::RouteTable(Arc::new(table)))
        }),
        set().prop_map(|set| (Key::EndpointSet(set.id.clone()), Body::EndpointSet(Arc::new(set)))),
        (uid(), policy())
            .prop_map(|(pod, policy)| (Key::InboundPolicy(pod), Body::InboundPolicy(Arc::new(policy)))),
        vec(vec(any::<u8>(), 0..40), 0..3).prop_map(|roots| {
            let roots = roots.into_iter().map(CertificateDer::from).collect();
            (Key::TrustBundle, Body::TrustBundle(Arc::new(TrustBundle { roots })))
        }),
        (word(), word(), vec((any::<u8>(), any::<[u8; 32]>()), 0..3)).prop_map(
            |(client_namespace, scope, keys)| {
                let key = Key::SessionKeys { client_namespace, scope: scope.clone() };
                (key, Body::SessionKeys(Arc::new(SessionKeys { scope, keys })))
            }
        ),
    ]
}

fn word() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,6}"
}

fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

fn uid() -> impl Strategy<Value = Uid> {
    any::<[u8; 16]>().prop_map(Uid)
}

fn duration() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn address() -> impl Strategy<Value = SocketAddr> {
    // Not IPv6's mapped addresses with flow labels or scopes: no text form has those.
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<[u16; 8]>(), any::<u16>()).prop_map(SocketAddr::from),
    ]
}

fn name() -> impl Strategy<Value = NamespacedName> {
    (word(), word()).prop_map(|(namespace, name)| NamespacedName::new(namespace, name))
}

fn service_port() -> impl Strategy<Value = ServicePort> {
    (name(), any::<u16>()).prop_map(|(service, port)| ServicePort { service, port })
}

fn backend_id() -> impl Strategy<Value = BackendId> {
    prop_oneof![service_port().prop_map(BackendId::Service), name().prop_map(BackendId::XBackend)]
}

fn protocol() -> impl Strategy<Value = AppProtocol> {
    prop::sample::select(vec![
        AppProtocol::Detect,
        AppProtocol::Http,
        AppProtocol::Http2,
        AppProtocol::Tls,
        AppProtocol::Opaque,
    ])
}

fn mode() -> impl Strategy<Value = MtlsMode> {
    prop::sample::select(vec![MtlsMode::Strict, MtlsMode::Permissive])
}

fn identity() -> impl Strategy<Value = SpiffeId> {
    ("[a-z]{1,8}", "[a-z]{1,8}")
        .prop_map(|(namespace, account)| SpiffeId::new("cluster.local", &namespace, &account).unwrap())
}

fn answer() -> impl Strategy<Value = AddressAnswer> {
    prop_oneof![
        service_port().prop_map(AddressAnswer::Service),
        endpoint().prop_map(AddressAnswer::Pod),
        Just(AddressAnswer::NotOurs),
    ]
}

fn set() -> impl Strategy<Value = EndpointSet> {
    let budget = (any::<u8>(), duration(), any::<u32>(), duration()).prop_map(
        |(percent, interval, min_retries, min_interval)| RetryBudget {
            percent,
            interval,
            min_retries,
            min_interval,
        },
    );
    let external = (word(), any::<u16>()).prop_map(|(host, port)| ExternalHost { host, port });
    let options = (option::of(duration()), option::of(budget), option::of(external));
    (backend_id(), protocol(), vec(endpoint(), 0..4), options).prop_map(
        |(id, protocol, endpoints, (client_ip_affinity, retry_budget, external))| EndpointSet {
            id,
            protocol,
            endpoints,
            client_ip_affinity,
            retry_budget,
            external,
        },
    )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let pod = (word(), word(), uid(), text()).prop_map(|(namespace, name, uid, workload)| Pod {
        namespace,
        name,
        uid,
        workload,
    });
    let transport = prop_oneof![identity().prop_map(Transport::Mesh), Just(Transport::Plaintext)];
    (address(), option::of(pod), transport, option::of(text()), any::<[bool; 3]>()).prop_map(
        |(address, pod, transport, zone, [ready, serving, terminating])| Endpoint {
            address,
            pod,
            transport,
            zone,
            ready,
            serving,
            terminating,
        },
    )
}

fn policy() -> impl Strategy<Value = InboundPolicy> {
    let port = (mode(), protocol()).prop_map(|(mode, protocol)| InboundPort { mode, protocol });
    let ports = prop::collection::btree_map(any::<u16>(), port, 0..4);
    (mode(), ports).prop_map(|(mode, ports)| InboundPolicy { mode, ports })
}

fn table() -> impl Strategy<Value = RouteTable> {
    let http = vec(rule(), 0..4).prop_flat_map(|rules| {
        let matches = match rules.len() {
            0 => Just(Vec::new()).boxed(),
            count => {
                let ranked = (one_match(), 0..count).prop_map(|(when, rule)| RankedMatch { when, rule });
                vec(ranked, 0..6).boxed()
            }
        };
        (Just(rules), matches).prop_map(|(rules, matches)| HttpRules { rules, matches })
    });
    let tls = (origin(), vec(text(), 0..3), split()).prop_map(|(origin, hostnames, split)| TlsRule {
        origin,
        hostnames,
        split,
    });
    (service_port(), protocol(), http, vec(tls, 0..2), split())
        .prop_map(|(parent, protocol, http, tls, tcp)| RouteTable { parent, protocol, http, tls, tcp })
}

fn one_match() -> impl Strategy<Value = Match> {
    let path = prop_oneof![
        text().prop_map(PathMatch::Exact),
        text().prop_map(PathMatch::Prefix),
        text().prop_map(PathMatch::Regex),
    ];
    let named = || {
        let value = prop_oneof![text().prop_map(ValueMatch::Exact), text().prop_map(ValueMatch::Regex)];
        (text(), value).prop_map(|(name, value)| NamedMatch { name, value })
    };
    (path, option::of(text()), vec(named(), 0..3), vec(named(), 0..3))
        .prop_map(|(path, method, headers, query)| Match { path, method, headers, query })
}

fn rule() -> impl Strategy<Value = Rule> {
    let outcome = prop_oneof![split().prop_map(Outcome::Forward), text().prop_map(Outcome::Fail)];
    let timeouts = (option::of(duration()), option::of(duration()))
        .prop_map(|(request, backend_request)| Timeouts { request, backend_request });
    let retry = (vec(any::<u16>(), 0..4), any::<u32>(), duration())
        .prop_map(|(codes, attempts, backoff)| Retry { codes, attempts, backoff });
    (option::of(origin()), vec(filter(), 0..4), outcome, timeouts, option::of(retry), option::of(session()))
        .prop_map(|(origin, filters, outcome, timeouts, retry, session)| Rule {
            origin,
            filters,
            outcome,
            timeouts,
            retry,
            session,
        })
}

fn origin() -> impl Strategy<Value = RuleOrigin> {
    let kinds = vec![RouteKind::Grpc, RouteKind::Http, RouteKind::Tls, RouteKind::Tcp];
    let route = (prop::sample::select(kinds), name()).prop_map(|(kind, name)| RouteRef { kind, name });
    (route, option::of(text()), 0..1000_usize).prop_map(|(route, name, index)| RuleOrigin {
        route,
        name,
        index,
    })
}

fn split() -> impl Strategy<Value = Split> {
    let target = prop_oneof![
        (backend_id(), uid()).prop_map(|(id, uid)| BackendTarget::Endpoints { id, uid }),
        text().prop_map(BackendTarget::Invalid),
    ];
    let backend = (target, 0..=1_000_000_u32, vec(filter(), 0..2), option::of(session()))
        .prop_map(|(target, weight, filters, session)| Backend { target, weight, filters, session });
    vec(backend, 0..3).prop_map(|backends| Split { backends })
}

fn session() -> impl Strategy<Value = Session> {
    let cookie = (text(), text(), any::<bool>()).prop_map(|(name, path, permanent)| Carrier::Cookie {
        name,
        path,
        permanent,
    });
    let carrier = prop_oneof![cookie, text().prop_map(|name| Carrier::Header { name })];
    (text(), carrier, option::of(duration())).prop_map(|(scope, carrier, absolute_timeout)| Session {
        scope,
        carrier,
        absolute_timeout,
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    let mirror = (backend_id(), any::<u32>(), 1..=u32::MAX)
        .prop_map(|(backend, numerator, denominator)| Mirror { backend, numerator, denominator });
    let rewrite = (option::of(text()), option::of(path_rewrite()))
        .prop_map(|(hostname, path)| Rewrite { hostname, path });
    prop_oneof![
        edits().prop_map(Filter::RequestHeaders),
        edits().prop_map(Filter::ResponseHeaders),
        redirect().prop_map(Filter::Redirect),
        rewrite.prop_map(Filter::Rewrite),
        mirror.prop_map(Filter::Mirror),
        cors().prop_map(Filter::Cors),
    ]
}

fn edits() -> impl Strategy<Value = HeaderEdits> {
    let pairs = || vec((text(), text()), 0..3);
    (pairs(), pairs(), vec(text(), 0..3)).prop_map(|(set, add, remove)| HeaderEdits { set, add, remove })
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let status = prop::sample::select(vec![301_u16, 302, 303, 307, 308]);
    let path = option::of(path_rewrite());
    (option::of(text()), option::of(text()), path, option::of(any::<u16>()), status)
        .prop_map(|(scheme, hostname, path, port, status)| Redirect { scheme, hostname, path, port, status })
}

fn path_rewrite() -> impl Strategy<Value = PathRewrite> {
    prop_oneof![text().prop_map(PathRewrite::Full), text().prop_map(PathRewrite::Prefix)]
}

fn cors() -> impl Strategy<Value = Cors> {
    let texts = || vec(text(), 0..3);
    (texts(), any::<bool>(), texts(), texts(), texts(), duration()).prop_map(
        |(allow_origins, allow_credentials, allow_methods, allow_headers, expose_headers, max_age)| Cors {
            allow_origins,
            allow_credentials,
            allow_methods,
            allow_headers,
            expose_headers,
            max_age,
        },
    )
}
