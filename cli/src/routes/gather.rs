//! Where the report comes from: the route objects with their status, and every sidecar's counters.

use std::collections::HashMap;

use gamut_controller::gateway::{BackendRef, Lenient, ParentRef, Route as RouteObject, Rules};
use gamut_local::control::PodReport;
use gamut_proxy::admin::ProxyStatus;
use gamut_route::RouteKind;
use serde_json::Value;

use super::{Backend, Condition, Parent, Report, Route, Rule, words};
use crate::world::{Selection, World};

/// Asks a world. Clients may be anywhere, so all sidecars are asked, whatever namespace is shown.
///
/// # Errors
/// Nobody answers.
pub(super) async fn report(world: &World, selection: &Selection) -> anyhow::Result<Report> {
    let mesh = world.mesh(None).await?;
    let counters = Counters::of(&mesh.pods);
    let (mut routes, mut unknown) = (Vec::new(), Vec::new());
    for kind in [RouteKind::Http, RouteKind::Grpc, RouteKind::Tls, RouteKind::Tcp] {
        let Some(objects) = world.objects(kind.as_str()).await? else {
            unknown.push(kind.as_str());
            continue;
        };
        for object in objects {
            let route = RouteObject::read(kind, &object);
            if selection.has(&route.reference.name.namespace) {
                routes.push(route_report(&route, &counters));
            }
        }
    }
    routes.sort_by(|a, b| (&a.namespace, &a.kind, &a.name).cmp(&(&b.namespace, &b.kind, &b.name)));
    Ok(Report { world: mesh.world, routes, notes: notes(&mesh.pods, &unknown) })
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

fn route_report(route: &RouteObject, counters: &Counters) -> Route {
    let name = &route.reference.name;
    let parents = route.service_parents().into_iter().map(|parent| parent_report(route, parent)).collect();
    let rules = match &route.rules {
        Rules::Http(rules) => readable(rules)
            .map(|(index, rule)| {
                let about = About {
                    name: rule.name.as_deref(),
                    matches: words::http_matches(rule),
                    settings: words::http_settings(rule),
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
    let port = parent.port.map(|port| format!(", port {port}"));
    let section = parent.section_name.as_ref().map(|name| format!(", port {name}"));
    let statuses = route.status.get("parents").and_then(Value::as_array).into_iter().flatten();
    let ours = statuses.filter(|status| {
        let reference = status.get("parentRef").cloned().unwrap_or_default();
        serde_json::from_value::<ParentRef>(reference)
            .is_ok_and(|reference| same(&reference, parent, namespace))
    });
    let conditions = ours.filter_map(|status| status.get("conditions")?.as_array()).flatten();
    Parent {
        reference: format!("Service {target}{}", port.or(section).unwrap_or_default()),
        role: if target.namespace == *namespace { "producer" } else { "consumer" },
        conditions: conditions
            .map(|condition| serde_json::from_value::<Condition>(condition.clone()).unwrap_or_default())
            .collect(),
    }
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
    Rule { name, matches: about.matches, settings: about.settings, backends: backends.collect() }
}

/// To a tenth; `None` of nothing.
fn percent(part: u64, whole: u64) -> Option<f64> {
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
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use gamut_manifest::{Object, Origin};
    use serde_json::json;

    use super::*;
    use crate::world::scripted::{self, list};

    fn route() -> RouteObject {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "parentRefs": [
                    {"group": "", "kind": "Service", "name": "web", "port": 80},
                    {"group": "", "kind": "Service", "name": "api", "namespace": "other"},
                    {"name": "a-gateway"},
                ],
                "rules": [{"name": "split", "backendRefs": [
                    {"name": "one", "port": 80, "weight": 2}, {"name": "two", "namespace": "other", "port": 81},
                ]}],
            },
            "status": {"parents": [{
                "parentRef": {"group": "", "kind": "Service", "namespace": "shop", "name": "web", "port": 80},
                "controllerName": "gamut.mesh/controller",
                "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}],
            }]},
        });
        let origin = Origin { file: Arc::new(PathBuf::from("web.yaml")), document: 0, line: 1 };
        RouteObject::read(RouteKind::Http, &Object::from_value(object, &origin).unwrap())
    }

    fn counted(rule: &str, backend: &str, requests: u64, failed: u64) -> ((String, String, String), Count) {
        (("httproute/shop/web".to_owned(), rule.to_owned(), backend.to_owned()), Count { requests, failed })
    }

    #[test]
    fn a_rules_backends_have_the_shares_that_were_set_and_those_that_were_counted() {
        let counters = [
            counted("split", "service/shop/one:80", 60, 0),
            counted("split", "service/other/two:81", 30, 3),
            counted("other", "service/shop/one:80", 1000, 0),
        ];
        let report = route_report(&route(), &Counters(counters.into()));
        let backends: Vec<_> =
            report.rules[0].backends.iter().map(|b| (b.id.as_str(), b.share, b.got, b.failed)).collect();
        assert_eq!(
            backends,
            [("service/shop/one:80", 66.7, Some(66.7), 0), ("service/other/two:81", 33.3, Some(33.3), 3)]
        );
    }

    #[test]
    fn each_service_parent_has_its_own_conditions_and_gateways_are_nobodys_here() {
        let report = route_report(&route(), &Counters::default());
        let parents: Vec<_> =
            report.parents.iter().map(|p| (p.reference.as_str(), p.role, p.conditions.len())).collect();
        assert_eq!(
            parents,
            [("Service shop/web, port 80", "producer", 1), ("Service other/api", "consumer", 0)]
        );
        assert_eq!(report.rules[0].backends[0].got, None, "nothing counted is no share");
    }

    #[tokio::test]
    async fn a_clusters_routes_are_read_from_its_api_and_what_it_does_not_know_is_noted() {
        let http = json!({
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "1"},
            "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": []},
        });
        let world = scripted::world(vec![
            ("/version", json!({"gitVersion": "v1.34.4"})),
            ("/api/v1/pods", list(&[])),
            ("/apis/gateway.networking.k8s.io/v1beta1/httproutes", list(&[http])),
            ("/apis/gateway.networking.k8s.io/v1/grpcroutes", list(&[])),
        ]);
        let report = super::report(&world, &Selection::default()).await.unwrap();
        let names: Vec<_> = report.routes.iter().map(|r| (r.kind.as_str(), r.name.as_str())).collect();
        assert_eq!(names, [("HTTPRoute", "web")], "read in the version that is served");
        assert_eq!(
            report.notes,
            ["the cluster doesn't know the kinds TLSRoute, TCPRoute: `gamut check` says what to install"]
        );
    }
}
