//! Where the report comes from: the route objects with their status, what the controller makes of them, and every
//! sidecar's counters.

use std::{
    collections::{BTreeSet, HashMap},
    iter::repeat,
};

use gamut_controller::{
    compile::{CompiledRoute, CompiledRule, CompiledRules},
    gateway::{BackendRef, Lenient, ParentRef, Route as RouteObject, Rules, name_of},
    status::CONTROLLER,
};
use gamut_injector::INJECT;
use gamut_local::control::PodReport;
use gamut_manifest::Object;
use gamut_proxy::admin::{BackendStatus, ProxyStatus};
use gamut_route::{
    BackendId, NamespacedName, RouteKind, ServicePort,
    table::{Backend as SplitBackend, BackendTarget, Outcome, RuleOrigin},
};
use serde_json::Value;

use super::{
    Backend, Condition, Own, Parent, Report, Route, Rule, extensions, page,
    session::{self, Session},
    words,
};
use crate::world::{Objects, Place, Selection, World, silence, without_sidecar};

/// Asks a world. Clients may be anywhere, so all sidecars are asked, whatever namespace is shown.
///
/// # Errors
/// Nobody answers.
pub(crate) async fn report(world: &World, selection: &Selection) -> anyhow::Result<Report> {
    let mesh = world.mesh(None).await?;
    let objects = Objects::of_mesh(world, &mesh).await?;
    Ok(of(mesh.world, &mesh.pods, objects, |namespace| selection.has(namespace)))
}

/// As [`report`], with the backends that nobody answers for: that takes all pods and EndpointSlices besides.
///
/// # Errors
/// As [`report`].
pub(super) async fn with_endpoints(world: &World, selection: &Selection) -> anyhow::Result<Report> {
    let mesh = world.mesh(None).await?;
    let mut objects = Objects::of_mesh(world, &mesh).await?;
    objects.add_endpoints(world).await;
    Ok(of(mesh.world, &mesh.pods, objects, |namespace| selection.has(namespace)))
}

/// What objects and the pods' sidecars say about the routes of some namespaces.
pub(crate) fn of(world: Place, pods: &[PodReport], objects: Objects, shown: impl Fn(&str) -> bool) -> Report {
    let counters = Counters::of(pods);
    // Who has no extensions needs none; Services and namespaces are everywhere.
    let unknown: Vec<&str> = objects.unknown.iter().copied().filter(|kind| kind.ends_with("Route")).collect();
    let notes = notes(pods, &unknown);
    let kinds = [RouteKind::Http, RouteKind::Grpc, RouteKind::Tls, RouteKind::Tcp];
    let of_kind = |kind: RouteKind| {
        let objects = objects.of_kind(kind.as_str());
        objects.map(move |object| RouteObject::read(kind, object)).collect::<Vec<_>>()
    };
    let mut routes: Vec<RouteObject> = kinds.into_iter().flat_map(of_kind).collect();
    routes.retain(|route| shown(&route.reference.name.namespace));
    let is_meant = |pod: &&Object| pod.labels.get(INJECT).is_some_and(|value| value == "disabled");
    let meant: BTreeSet<NamespacedName> = objects.of_kind("Pod").filter(is_meant).map(name_of).collect();
    let (has_endpoints, gateways) = (objects.has_endpoints(), objects.gateways.clone());
    let index = objects.into_index();
    let report = |route: &RouteObject| {
        let mut report = route_report(route, index.route(&route.reference), &counters);
        let missed = route.missed_services(
            |name| index.world().services.contains_key(name),
            |name| gateways.as_ref().is_none_or(|gateways| gateways.contains(name)),
        );
        report.missed = missed.into_iter().map(|missed| missed.message).collect();
        // What isn't in force sends nobody anywhere.
        if has_endpoints && !report.parents.iter().all(Parent::has_refused) {
            report.silent = about_backends(&report, |id| silence(&index, id));
            report.bare = about_backends(&report, |id| without_sidecar(&index, id, &meant));
        }
        report
    };
    let mut routes: Vec<Route> = routes.iter().map(report).collect();
    routes.sort_by(|a, b| (&a.namespace, &a.kind, &a.name).cmp(&(&b.namespace, &b.kind, &b.name)));
    let extensions = extensions::of(index.world(), shown);
    Report { world, routes, extensions, notes }
}

/// What there is to say about backends with a weight, a line each.
fn about_backends(route: &Route, says: impl Fn(&BackendId) -> Option<String>) -> Vec<String> {
    let backends = route.rules.iter().flat_map(|rule| &rule.backends);
    let asked: BTreeSet<&str> =
        backends.filter(|backend| backend.weight > 0).map(|backend| backend.id.as_str()).collect();
    let said = asked.into_iter().filter_map(|id| {
        let said = says(&id.parse().ok()?)?;
        Some(format!("{}: {said}", page::short(id, &route.namespace)))
    });
    said.collect()
}

fn notes(pods: &[PodReport], unknown: &[&str]) -> Vec<String> {
    let kinds = (!unknown.is_empty()).then(|| {
        format!(
            "the cluster doesn't know the kinds {}: `gamut check` says what to install",
            unknown.join(", ")
        )
    });
    let silent = pods.iter().filter_map(|pod| {
        let reason = pod.proxy_error.as_ref()?;
        Some(format!("without the requests of pod {}/{}: {reason}", pod.namespace, pod.name))
    });
    kinds.into_iter().chain(silent).collect()
}

/// `compiled` is what the controller makes of the route.
fn route_report(route: &RouteObject, compiled: Option<&CompiledRoute>, counters: &Counters) -> Route {
    let name = &route.reference.name;
    let parents = route.service_parents().into_iter().map(|parent| parent_report(route, parent)).collect();
    let dropped = |index| compiled.and_then(|compiled| dropped(compiled, index));
    let answered = |index| compiled.map(|compiled| answered(compiled, index)).unwrap_or_default();
    let sessions = |index| compiled.map(|compiled| session::of_rule(compiled, index)).unwrap_or_default();
    let rules = match &route.rules {
        Rules::Http(rules) => readable(rules)
            .map(|(index, rule)| {
                let about = About {
                    name: rule.name.as_deref(),
                    matches: words::http_matches(rule),
                    settings: words::http_settings(rule),
                    sessions: sessions(index),
                    dropped: dropped(index),
                    answered: answered(index),
                };
                rule_report(route, index, about, &rule.backend_refs, counters)
            })
            .collect(),
        Rules::Grpc(rules) => readable(rules)
            .map(|(index, rule)| {
                let about = About {
                    name: rule.name.as_deref(),
                    matches: words::grpc_matches(rule),
                    settings: words::grpc_settings(rule),
                    sessions: sessions(index),
                    dropped: dropped(index),
                    answered: answered(index),
                };
                rule_report(route, index, about, &rule.backend_refs, counters)
            })
            .collect(),
        Rules::Stream(rules) => readable(rules)
            .map(|(index, rule)| {
                let about = About {
                    name: rule.name.as_deref(),
                    matches: vec!["every connection".to_owned()],
                    settings: Vec::new(),
                    sessions: Vec::new(),
                    dropped: None,
                    answered: answered(index),
                };
                rule_report(route, index, about, &rule.backend_refs, counters)
            })
            .collect(),
        Rules::Unreadable => Vec::new(),
    };
    Route {
        kind: route.reference.kind.to_string(),
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        parents,
        missed: Vec::new(),
        silent: Vec::new(),
        bare: Vec::new(),
        rules,
        unmatched: counters.unmatched(route),
    }
}

/// What becomes of the requests of a rule that can't be carried out.
fn dropped(route: &CompiledRoute, index: usize) -> Option<&'static str> {
    let CompiledRules::Requests(rules) = &route.rules else { return None };
    let is = |rule: &&CompiledRule| rule.rule.origin.as_ref().is_some_and(|origin| origin.index == index);
    match rules.iter().find(is) {
        None => Some("not in force"),
        Some(rule) => rule.closed.then_some("500"),
    }
}

/// What each backendRef's share of a rule is answered, if it leads nowhere.
fn answered(route: &CompiledRoute, index: usize) -> Vec<Option<&'static str>> {
    let is = |origin: &RuleOrigin| origin.index == index;
    let (split, answer) = match &route.rules {
        CompiledRules::Requests(rules) => {
            let rule = rules.iter().find(|rule| rule.rule.origin.as_ref().is_some_and(is));
            let split = rule.and_then(|rule| match &rule.rule.outcome {
                Outcome::Forward(split) => Some(split),
                Outcome::Fail(_) => None,
            });
            (split, "500")
        }
        CompiledRules::Tls(rules) => {
            (rules.iter().find(|rule| is(&rule.origin)).map(|rule| &rule.split), "reset")
        }
        CompiledRules::Tcp(rule) => {
            (rule.as_ref().filter(|(origin, _)| is(origin)).map(|(_, split)| split), "reset")
        }
    };
    let backends = split.map(|split| split.backends.as_slice()).unwrap_or_default();
    let is_lost = |backend: &SplitBackend| matches!(backend.target, BackendTarget::Invalid(_));
    backends.iter().map(|backend| is_lost(backend).then_some(answer)).collect()
}

/// Rules that can be read, with their place in the manifest; a condition tells about the others.
fn readable<T>(rules: &[Lenient<T>]) -> impl Iterator<Item = (usize, &T)> {
    rules.iter().enumerate().filter_map(|(index, rule)| Some((index, rule.ok()?)))
}

fn parent_report(route: &RouteObject, parent: &ParentRef) -> Parent {
    let namespace = &route.reference.name.namespace;
    let target = parent.target(namespace);
    let port = match (parent.port, &parent.section_name) {
        (Some(port), Some(name)) => format!(", port {port} named {name}"),
        (Some(port), None) => format!(", port {port}"),
        (None, Some(name)) => format!(", port {name}"),
        (None, None) => String::new(),
    };
    let about = |is_meant: &dyn Fn(&ParentRef) -> bool| {
        let read = |reference: &Value| serde_json::from_value::<ParentRef>(reference.clone());
        conditions(&route.status, ["parents", "parentRef"], |reference| {
            read(reference).is_ok_and(|reference| is_meant(&reference))
        })
    };
    // A parent may be named twice in different words, and has an entry for each.
    let in_these_words = about(&|reference| reference == parent);
    let conditions = match in_these_words.is_empty() {
        true => about(&|reference| same(reference, parent, namespace)),
        false => in_these_words,
    };
    Parent {
        reference: format!("Service {target}{port}"),
        role: if target.namespace == *namespace { "producer" } else { "consumer" },
        conditions,
    }
}

/// What the controller says in a status: in the entries of a list that refer to what is meant.
pub(super) fn conditions(
    status: &Value,
    [list, field]: [&str; 2],
    is_about: impl Fn(&Value) -> bool,
) -> Vec<Condition> {
    let entries = status.get(list).and_then(Value::as_array).into_iter().flatten();
    let ours = entries.filter(|entry| {
        entry.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER)
            && entry.get(field).is_some_and(&is_about)
    });
    let conditions = ours.filter_map(|entry| entry.get("conditions")?.as_array()).flatten();
    conditions.map(|condition| serde_json::from_value(condition.clone()).unwrap_or_default()).collect()
}

/// Whether two references of a route mean the same, defaults filled in or not.
fn same(a: &ParentRef, b: &ParentRef, namespace: &str) -> bool {
    a.is_service() == b.is_service()
        && a.target(namespace) == b.target(namespace)
        && (&a.section_name, a.port) == (&b.section_name, b.port)
}

/// A rule in words.
struct About<'a> {
    name: Option<&'a str>,
    matches: Vec<String>,
    settings: Vec<String>,
    sessions: Vec<Session>,
    dropped: Option<&'static str>,
    answered: Vec<Option<&'static str>>,
}

fn rule_report<F>(
    route: &RouteObject,
    index: usize,
    about: About<'_>,
    backends: &[BackendRef<F>],
    counters: &Counters,
) -> Rule {
    let name = about.name.map_or_else(|| index.to_string(), str::to_owned);
    let weight = |backend: &BackendRef<F>| u64::try_from(backend.weight.unwrap_or(1)).unwrap_or(0);
    let weights: u64 = backends.iter().map(weight).sum();
    let counted: Vec<Count> = backends
        .iter()
        .map(|backend| counters.count(route, &name, &id(backend, &route.reference.name.namespace)))
        .collect();
    let own = counters.own(route, &name);
    let all = counted.iter().map(|count| count.requests).sum::<u64>() + own.failed;
    let answered = about.answered.iter().copied().chain(repeat(None));
    let backends = backends.iter().zip(counted).zip(answered).map(|((backend, count), answered)| Backend {
        id: id(backend, &route.reference.name.namespace),
        weight: weight(backend),
        share: percent(weight(backend), weights).unwrap_or(0.0),
        answered,
        requests: count.requests,
        got: percent(count.requests, all),
        failed: count.failed,
    });
    let backends: Vec<Backend> = backends.collect();
    let own = Own { requests: own.requests, got: percent(own.failed, all), failed: own.failed };
    let About { matches, settings, sessions, dropped, .. } = about;
    Rule { named: about.name.is_some(), name, dropped, matches, settings, sessions, backends, own }
}

/// To a tenth; `None` of nothing.
pub(super) fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 * 1000.0 / whole as f64).round() / 10.0)
}

/// A backendRef as [`gamut_route::BackendId`] prints it; kinds that the mesh doesn't know print as well.
fn id<F>(backend: &BackendRef<F>, route_namespace: &str) -> String {
    let kind = backend.kind.as_deref().unwrap_or("Service").to_ascii_lowercase();
    let namespace = backend.namespace.as_deref().unwrap_or(route_namespace);
    let port = backend.port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{kind}/{namespace}/{}{port}", backend.name)
}

/// What all sidecars counted.
#[derive(Debug, Default)]
struct Counters {
    /// By route, rule and backend; without a backend what sidecars answered themselves.
    by_rule: HashMap<(String, String, String), Count>,
    /// What no rule matched, by the client's namespace and the Service's port.
    unmatched: HashMap<(String, String), u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    requests: u64,
    failed: u64,
}

impl Counters {
    fn of(pods: &[PodReport]) -> Self {
        let mut counters = Self::default();
        for pod in pods {
            let proxy = pod.proxy.clone().and_then(|proxy| serde_json::from_value::<ProxyStatus>(proxy).ok());
            for backend in proxy.into_iter().flat_map(|proxy| proxy.backends) {
                let own = backend.backend.is_empty();
                if own && backend.route.is_empty() {
                    let key = (pod.namespace.clone(), backend.parent);
                    *counters.unmatched.entry(key).or_default() += backend.requests;
                    continue;
                }
                let failed = failed(&backend);
                let key = (backend.route, backend.rule, backend.backend);
                let count = counters.by_rule.entry(key).or_default();
                count.requests += backend.requests + backend.connections;
                count.failed += failed;
            }
        }
        counters
    }

    fn count(&self, route: &RouteObject, rule: &str, backend: &str) -> Count {
        let key = (route.reference.to_string(), rule.to_owned(), backend.to_owned());
        self.by_rule.get(&key).copied().unwrap_or_default()
    }

    /// What sidecars answered themselves.
    fn own(&self, route: &RouteObject, rule: &str) -> Count {
        self.count(route, rule, "")
    }

    /// What clients that the route is for asked its Services, and no rule matched.
    fn unmatched(&self, route: &RouteObject) -> u64 {
        let namespace = &route.reference.name.namespace;
        let parents = route.service_parents();
        let is_meant = |client: &str, port: &ServicePort| {
            parents.iter().any(|parent| {
                parent.target(namespace) == port.service
                    && parent.port.is_none_or(|number| number == i64::from(port.port))
                    && (port.service.namespace == *namespace || client == namespace)
            })
        };
        let counts = self.unmatched.iter().filter(|((client, port), _)| {
            port.parse().is_ok_and(|port: ServicePort| is_meant(client, &port))
        });
        counts.map(|(_, count)| count).sum()
    }
}

/// What failed of a sidecar's requests: those of a backend that were answered 5xx, and of what the sidecar answered itself the errors.
pub(crate) fn failed(counted: &BackendStatus) -> u64 {
    let BackendStatus { route, backend, requests, by_class, .. } = counted;
    match backend.is_empty() {
        false => by_class.server_error,
        // A gRPC status stands in an answer of 200, and only its rule's failure makes a sidecar answer so; without any rule that is so for all.
        true if route.is_empty() || route.starts_with(GRPC) => *requests,
        true => by_class.client_error + by_class.server_error,
    }
}

/// How routes that carry gRPC alone are named in metrics.
const GRPC: &str = "grpcroute/";

#[cfg(test)]
mod tests;
