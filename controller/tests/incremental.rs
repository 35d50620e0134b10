//! An index that was changed step by step holds what one that was built afresh does, and says what changed on
//! the way.
//!
//! Random sequences of changes over a small cluster in which everything refers to everything. After each
//! step: every key's body equals that of a new index over the same objects; every key whose body changed is
//! in a reported topic; every route whose conditions changed is reported as stale.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use gamut_controller::{
    compile::ParentConditions,
    index::{Index, Settings},
    source::SourceEvent,
};
use gamut_controller_api::{Body, Key};
use gamut_manifest::{Object, ObjectId, Origin};
use gamut_route::{NamespacedName, Uid};
use proptest::prelude::*;
use serde_json::{Value, json};

/// One object that may be there, in one of several forms.
struct Slot {
    kind: &'static str,
    api_version: &'static str,
    namespace: &'static str,
    name: &'static str,
    forms: Vec<Value>,
    /// False for what an installation never loses.
    can_go: bool,
}

fn slot(
    api_version: &'static str,
    kind: &'static str,
    namespace: &'static str,
    name: &'static str,
    forms: Vec<Value>,
) -> Slot {
    Slot { kind, api_version, namespace, name, forms, can_go: true }
}

fn service(ip: &str, more: &Value) -> Value {
    let mut spec = json!({"clusterIP": ip, "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"spec": spec})
}

fn route(parents: &Value, rules: &Value, annotations: &Value) -> Value {
    json!({"metadata": {"annotations": annotations}, "spec": {"parentRefs": parents, "rules": rules}})
}

fn pod(ip: &str, labels: &Value, started: Option<bool>, more: &Value) -> Value {
    let mut metadata = json!({"labels": labels});
    metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut pod = json!({
        "metadata": metadata,
        "spec": {"containers": [{"name": "app"}]},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
    });
    if let Some(started) = started {
        pod["metadata"]["labels"]["gamut.mesh/injected"] = "true".into();
        pod["spec"]["initContainers"] = json!([{"name": "gamut-proxy"}]);
        pod["status"]["initContainerStatuses"] =
            json!([{"name": "gamut-proxy", "started": started, "ready": started}]);
    }
    pod
}

fn slice(endpoints: &Value, service: &str) -> Value {
    json!({
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": endpoints,
    })
}

fn universe() -> Vec<Slot> {
    const GATEWAY: &str = "gateway.networking.k8s.io/v1";
    const GATEWAY_X: &str = "gateway.networking.x-k8s.io/v1alpha1";
    let web = json!([{"group": "", "kind": "Service", "name": "web", "namespace": "shop"}]);
    let web80 = json!([{"group": "", "kind": "Service", "name": "web", "namespace": "shop", "port": 80}]);
    let both = json!([{"group": "", "kind": "Service", "name": "web", "namespace": "shop"}, {"group": "", "kind": "Service", "name": "v1", "namespace": "shop"}]);
    let to = |names: &[&str]| {
        names.iter().map(|name| json!({"name": name, "namespace": "shop", "port": 80})).collect::<Vec<_>>()
    };
    let xbackend = json!({"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": "x"});
    let none = json!({});
    let http = |annotations: &Value| {
        vec![
            route(&web, &json!([{"backendRefs": to(&["v1", "v2"])}]), annotations),
            route(
                &web80,
                &json!([{"backendRefs": to(&["v1"]), "sessionPersistence": {"cookie": {}}}]),
                annotations,
            ),
            route(
                &both,
                &json!([{"name": "a", "backendRefs": [xbackend]}, {"matches": [{"path": {"value": "/b"}}], "backendRefs": to(&["web", "missing"])}]),
                annotations,
            ),
            route(
                &web,
                &json!([{"matches": [{"path": {"type": "RegularExpression", "value": "("}}], "backendRefs": to(&["v1"])}]),
                annotations,
            ),
            route(
                &web,
                &json!([{"filters": [{"type": "ExternalAuth", "externalAuth": {}}], "backendRefs": to(&["v1"])}, {"matches": [{"path": {"value": "/c"}}], "backendRefs": to(&["v2"])}]),
                annotations,
            ),
            route(&json!([]), &json!([]), annotations),
        ]
    };
    let session = json!({"gamut.mesh/session-persistence": "{cookie: {}}"});
    let backend_scope =
        json!({"gamut.mesh/session-persistence": "{cookie: {}}", "gamut.mesh/session-scope": "backend"});
    let mut annotated = http(&none);
    annotated.extend(http(&session));
    annotated.extend(http(&backend_scope));
    let policy = |service: &str, session: Value| json!({"spec": {"targetRefs": [{"group": "", "kind": "Service", "name": service}], "sessionPersistence": session}});
    vec![
        slot(
            "v1",
            "Namespace",
            "",
            "shop",
            vec![json!({}), json!({"metadata": {"annotations": {"gamut.mesh/mtls": "strict"}}})],
        ),
        slot(
            "v1",
            "Service",
            "shop",
            "web",
            vec![
                service(
                    "10.96.0.1",
                    &json!({"ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "alt", "port": 8080}]}),
                ),
                service("10.96.0.1", &json!({})),
                service(
                    "10.96.0.9",
                    &json!({"ports": [{"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "tcp"}]}),
                ),
                service("None", &json!({})),
                service("10.96.0.1", &json!({"sessionAffinity": "ClientIP"})),
                service("10.96.0.1", &json!({"ports": "none"})),
            ],
        ),
        slot(
            "v1",
            "Service",
            "shop",
            "v1",
            vec![
                service("10.96.0.2", &json!({"selector": {"version": "v1"}})),
                service("10.96.0.2", &json!({"selector": {"version": "v1"}, "ports": [{"port": 81}]})),
                service("10.96.0.2", &json!({"type": "ExternalName", "externalName": "v2.example"})),
                json!({"metadata": {"uid": "other"}, "spec": {"clusterIP": "10.96.0.2", "sessionAffinity": "ClientIP", "ports": [{"port": 80, "appProtocol": "http"}]}}),
            ],
        ),
        slot(
            "v1",
            "Service",
            "shop",
            "v2",
            vec![
                service("10.96.0.3", &json!({})),
                service("10.96.0.2", &json!({"ports": [{"port": 80, "appProtocol": "https"}]})),
            ],
        ),
        slot(
            "v1",
            "Pod",
            "shop",
            "p1",
            vec![
                pod("10.1.0.1", &json!({"app": "web", "version": "v1"}), Some(true), &json!({})),
                pod("10.1.0.1", &json!({"app": "web"}), Some(false), &json!({})),
                pod("10.1.0.2", &json!({"app": "web"}), None, &json!({"uid": "p1-again"})),
                pod(
                    "10.1.0.1",
                    &json!({"app": "other"}),
                    Some(true),
                    &json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "annotations": {"gamut.mesh/mtls": "permissive"}}),
                ),
            ],
        ),
        slot(
            "v1",
            "Pod",
            "shop",
            "p2",
            vec![
                pod("10.1.0.2", &json!({"app": "web"}), Some(true), &json!({})),
                pod(
                    "10.1.0.1",
                    &json!({"app": "web"}),
                    Some(true),
                    &json!({"creationTimestamp": "2026-02-01T00:00:00Z"}),
                ),
            ],
        ),
        slot(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "shop",
            "s1",
            vec![
                slice(
                    &json!([{"addresses": ["10.1.0.1"], "targetRef": {"kind": "Pod", "name": "p1"}}]),
                    "web",
                ),
                slice(
                    &json!([{"addresses": ["10.1.0.1"]}, {"addresses": ["10.1.0.2"], "conditions": {"ready": false}}]),
                    "web",
                ),
                slice(
                    &json!([{"addresses": ["10.1.0.2"], "targetRef": {"kind": "Pod", "name": "p2"}}]),
                    "v1",
                ),
            ],
        ),
        slot(
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "shop",
            "s2",
            vec![slice(
                &json!([{"addresses": ["10.1.0.2"], "targetRef": {"kind": "Pod", "name": "p2"}}]),
                "web",
            )],
        ),
        slot(GATEWAY, "HTTPRoute", "shop", "a", annotated),
        slot(GATEWAY, "HTTPRoute", "shop", "b", http(&none)),
        slot(GATEWAY, "HTTPRoute", "client", "c", http(&none)),
        slot(
            GATEWAY,
            "GRPCRoute",
            "shop",
            "g",
            vec![
                route(&web80, &json!([{"backendRefs": to(&["v1"])}]), &none),
                route(
                    &web,
                    &json!([{"backendRefs": to(&["v2"]), "sessionPersistence": {"cookie": {}}}]),
                    &none,
                ),
            ],
        ),
        slot(
            GATEWAY,
            "TCPRoute",
            "shop",
            "t1",
            vec![route(&web, &json!([{"backendRefs": to(&["v1"])}]), &none), route(&web, &json!([]), &none)],
        ),
        slot(
            GATEWAY,
            "TCPRoute",
            "shop",
            "t2",
            vec![route(&web, &json!([{"backendRefs": to(&["v2"])}]), &none)],
        ),
        slot(
            GATEWAY,
            "TLSRoute",
            "shop",
            "s",
            vec![route(&web80, &json!([{"backendRefs": to(&["v2"])}]), &none)],
        ),
        slot(
            "gateway.networking.k8s.io/v1beta1",
            "ReferenceGrant",
            "shop",
            "r",
            vec![
                json!({"spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "client"}], "to": [{"group": "", "kind": "Service"}]}}),
                json!({"spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "client"}], "to": [{"group": "", "kind": "Service", "name": "v1"}]}}),
            ],
        ),
        slot(
            GATEWAY_X,
            "XBackend",
            "shop",
            "x",
            vec![
                json!({"spec": {"type": "EndpointSelector", "port": {"number": 8080}, "endpointSelector": {"matchLabels": {"app": "web"}}}}),
                json!({"spec": {"type": "EndpointSelector", "port": {"number": 8080}, "endpointSelector": {"matchLabels": {"version": "v1"}}, "sessionPersistence": {"cookie": {}}, "protocol": "H2C"}}),
                json!({"spec": {"type": "ExternalHostname", "port": {"number": 443}}}),
            ],
        ),
        slot(
            GATEWAY_X,
            "XBackendTrafficPolicy",
            "shop",
            "p",
            vec![
                policy("v1", json!({"cookie": {"name": "p"}})),
                policy("web", json!({"cookie": {}})),
                policy("v1", json!({"type": "Header"})),
                json!({"spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "v1"}], "retryConstraint": {"budget": {"percent": 30}}}}),
                json!({"spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}], "retryConstraint": {"minRetryRate": {"count": 2}}}}),
            ],
        ),
        slot(
            GATEWAY_X,
            "XBackendTrafficPolicy",
            "shop",
            "q",
            vec![
                policy("v1", json!({"cookie": {"name": "q"}})),
                policy("v2", json!({"cookie": {"name": "q"}})),
            ],
        ),
        slot(
            "v1",
            "Secret",
            "gamut-system",
            "gamut-session-keys",
            vec![
                json!({"data": {"current": "MQ==", "key-1": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}),
                // None that can't be read: what it leaves in force is of another time.
                json!({"data": {"current": "Mg==", "key-1": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "key-2": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}}),
            ],
        ),
        Slot {
            can_go: false,
            ..slot(
                "v1",
                "ConfigMap",
                "gamut-system",
                "gamut-trust-bundle",
                vec![
                    json!({"data": {"root.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}}),
                    json!({"data": {"root.pem": "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n"}}),
                ],
            )
        },
    ]
}

impl Slot {
    fn id(&self) -> ObjectId {
        let namespace = (!self.namespace.is_empty()).then(|| self.namespace.to_owned());
        ObjectId { kind: self.kind.to_owned(), namespace, name: self.name.to_owned() }
    }

    fn object(&self, form: usize) -> Object {
        let mut value = self.forms[form % self.forms.len()].clone();
        value["apiVersion"] = self.api_version.into();
        value["kind"] = self.kind.into();
        value["metadata"]["name"] = self.name.into();
        if !self.namespace.is_empty() {
            value["metadata"]["namespace"] = self.namespace.into();
        }
        let origin = Origin { file: Arc::new(PathBuf::from("test")), document: 0, line: 1 };
        Object::from_value(value, &origin).unwrap()
    }
}

/// Every key that somebody may have asked for; scopes are those that were ever in a table.
fn keys(scopes: &BTreeSet<String>) -> Vec<Key> {
    let mut keys = Vec::new();
    for address in [
        "10.96.0.1:80",
        "10.96.0.1:8080",
        "10.96.0.2:80",
        "10.96.0.3:80",
        "10.96.0.9:80",
        "10.1.0.1:8080",
        "10.1.0.2:8080",
    ] {
        keys.push(Key::Address(address.parse().unwrap()));
    }
    for service in ["shop/web:80", "shop/web:8080", "shop/v1:80", "shop/v2:80"] {
        keys.push(Key::EndpointSet(format!("service/{service}").parse().unwrap()));
        for namespace in ["shop", "client", "elsewhere"] {
            keys.push(Key::RouteTable {
                client_namespace: namespace.to_owned(),
                service: service.parse().unwrap(),
            });
        }
    }
    keys.push(Key::EndpointSet("xbackend/shop/x".parse().unwrap()));
    for pod in universe().iter().filter(|slot| slot.kind == "Pod") {
        keys.extend((0..pod.forms.len()).map(|form| Key::InboundPolicy(Uid::of(&pod.object(form).uid))));
    }
    keys.push(Key::TrustBundle);
    for scope in scopes {
        for namespace in ["shop", "client", "elsewhere"] {
            keys.push(Key::SessionKeys { client_namespace: namespace.to_owned(), scope: scope.clone() });
        }
    }
    keys
}

/// Everything that an index answers.
struct Answers {
    bodies: BTreeMap<Key, Body>,
    conditions: BTreeMap<ObjectId, Vec<ParentConditions>>,
}

fn answers(index: &Index, scopes: &mut BTreeSet<String>) -> Answers {
    for key in keys(&BTreeSet::new()) {
        if let Body::RouteTable(table) = index.body(&key) {
            scopes.extend(table.scopes().into_iter().map(str::to_owned));
        }
    }
    let bodies = keys(scopes).into_iter().map(|key| (key.clone(), index.body(&key)));
    let conditions = index.statuses().map(|(route, conditions)| {
        let NamespacedName { namespace, name } = route.route.reference.name.clone();
        (ObjectId { kind: route.kind().as_str().to_owned(), namespace: Some(namespace), name }, conditions)
    });
    Answers { bodies: bodies.collect(), conditions: conditions.collect() }
}

fn settings(require_reference_grant: bool) -> Settings {
    Settings { require_reference_grant, ..Settings::default() }
}

/// One change: which slot, and the form that it takes; `None` takes it away.
type Change = (usize, Option<usize>);

fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let change = (0..universe().len(), prop::option::weighted(0.8, 0..18_usize));
    prop::collection::vec(prop::collection::vec(change, 1..4), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn step_by_step_equals_afresh_and_nothing_changes_unsaid(steps in changes(), require_reference_grant: bool) {
        let universe = universe();
        let mut index = Index::new(settings(require_reference_grant));
        let mut present: BTreeMap<usize, usize> = BTreeMap::new();
        let mut scopes = BTreeSet::new();
        let mut before = answers(&index, &mut scopes);
        index.take_stale_statuses();
        for step in steps {
            let mut events = Vec::new();
            for (at, form) in step {
                match form.or_else(|| (!universe[at].can_go).then_some(0)) {
                    Some(form) => {
                        present.insert(at, form);
                        events.push(SourceEvent::Applied(Box::new(universe[at].object(form))));
                    }
                    None => {
                        present.remove(&at);
                        events.push(SourceEvent::Deleted(universe[at].id()));
                    }
                }
            }
            let topics = index.apply(events);
            let stale = index.take_stale_statuses();

            let mut afresh = Index::new(settings(require_reference_grant));
            afresh.apply(present.iter().map(|(at, form)| SourceEvent::Applied(Box::new(universe[*at].object(*form)))).collect());

            let after = answers(&index, &mut scopes);
            let wanted = answers(&afresh, &mut scopes);
            for (key, body) in &wanted.bodies {
                prop_assert_eq!(&index.body(key), body, "{}", key);
                // A key that nobody could have known before has nothing to be compared with.
                let changed = before.bodies.get(key).is_some_and(|before| before != body);
                prop_assert!(!changed || topics.contains(&Index::topic(key)), "{} changed, but {:?} is not in {:?}", key, Index::topic(key), topics);
            }
            prop_assert_eq!(&after.conditions, &wanted.conditions);
            prop_assert_eq!(index.broken(), afresh.broken());
            for id in before.conditions.keys().chain(after.conditions.keys()) {
                let changed = before.conditions.get(id) != after.conditions.get(id);
                prop_assert!(!changed || stale.contains(id), "the conditions of {} changed, but it isn't stale", id);
            }
            before = after;
        }
    }
}
