//! Where the report comes from: the route objects with their status, what the controller makes of them, and every
//! sidecar's counters.

use std::collections::HashMap;

use gamut_controller::{
    compile::CompiledRoute,
    gateway::{BackendRef, Lenient, ParentRef, Route as RouteObject, Rules},
    status::CONTROLLER,
};
use gamut_local::control::PodReport;
use gamut_proxy::admin::ProxyStatus;
use gamut_route::RouteKind;
use serde_json::Value;

use super::{
    Backend, Condition, Parent, Report, Route, Rule, extensions,
    session::{self, Session},
    words,
};
use crate::world::{Objects, Place, Selection, World};

/// Asks a world. Clients may be anywhere, so all sidecars are asked, whatever namespace is shown.
///
/// # Errors
/// Nobody answers.
pub(crate) async fn report(world: &World, selection: &Selection) -> anyhow::Result<Report> {
    let mesh = world.mesh(None).await?;
    let objects = Objects::of_mesh(world, &mesh).await?;
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
    let index = objects.into_index();
    let report = |route: &RouteObject| route_report(route, index.route(&route.reference), &counters);
    let mut routes: Vec<Route> = routes.iter().map(report).collect();
    routes.sort_by(|a, b| (&a.namespace, &a.kind, &a.name).cmp(&(&b.namespace, &b.kind, &b.name)));
    let extensions = extensions::of(index.world(), shown);
    Report { world, routes, extensions, notes }
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
    let sessions = |index| compiled.map(|compiled| session::of_rule(compiled, index)).unwrap_or_default();
    let rules = match &route.rules {
        Rules::Http(rules) => readable(rules)
            .map(|(index, rule)| {
                let about = About {
                    name: rule.name.as_deref(),
                    matches: words::http_matches(rule),
                    settings: words::http_settings(rule),
                    sessions: sessions(index),
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
        rules,
    }
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
    let all: u64 = counted.iter().map(|count| count.requests).sum();
    let backends = backends.iter().zip(counted).map(|(backend, count)| Backend {
        id: id(backend, &route.reference.name.namespace),
        weight: weight(backend),
        share: percent(weight(backend), weights).unwrap_or(0.0),
        requests: count.requests,
        got: percent(count.requests, all),
        failed: count.failed,
    });
    let About { matches, settings, sessions, .. } = about;
    Rule { name, matches, settings, sessions, backends: backends.collect() }
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

/// What all sidecars counted, by route, rule and backend.
#[derive(Debug, Default)]
struct Counters(HashMap<(String, String, String), Count>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    requests: u64,
    failed: u64,
}

impl Counters {
    fn of(pods: &[PodReport]) -> Self {
        let proxies = pods.iter().filter_map(|pod| pod.proxy.clone());
        let proxies = proxies.filter_map(|proxy| serde_json::from_value::<ProxyStatus>(proxy).ok());
        let mut counters = Self::default();
        for backend in proxies.flat_map(|proxy| proxy.backends) {
            let count = counters.0.entry((backend.route, backend.rule, backend.backend)).or_default();
            count.requests += backend.requests + backend.connections;
            count.failed += backend.by_class.server_error;
        }
        counters
    }

    fn count(&self, route: &RouteObject, rule: &str, backend: &str) -> Count {
        let key = (route.reference.to_string(), rule.to_owned(), backend.to_owned());
        self.0.get(&key).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
