//! Asks the mesh, again and again, what the commands ask it once.

use std::{sync::Arc, time::Instant};

use gamut_local::control::PodReport;
use gamut_proxy::admin::{BackendStatus, ProxyStatus};
use jiff::Timestamp;
use tokio::time::sleep;

use super::{
    figures::Count,
    history::{Answer, Key, Splits},
    live::{Answers, Live},
};
use crate::{
    failure, routes, status,
    world::{Objects, Selection, World},
};

/// A round that takes long is followed by a rest of as many times its length, so that who looks at a large cluster doesn't keep
/// its API server busy.
const REST: u32 = 3;

/// Goes on for ever, and rests while nobody looks.
pub(super) async fn collect(world: &World, selection: &Selection, live: &Live) {
    loop {
        live.wanted().await;
        let began = Instant::now();
        let answers = ask(world, selection).await;
        let took = began.elapsed();
        let rest = routes::INTERVAL.saturating_sub(took).max(took * REST);
        {
            let mut state = live.state();
            state.every = took + rest;
            match answers {
                Ok(answers) => {
                    let counted = answers.pods.iter().map(counted).collect();
                    state.history.observe(Instant::now(), answers.time, counted, set(&answers.routes));
                    state.newest = Some(answers);
                    state.problem = None;
                }
                Err(error) => state.problem = Some(failure::one_line(&error)),
            }
        }
        live.next_round();
        sleep(rest).await;
    }
}

/// Clients may be anywhere, so all sidecars are asked, whatever namespace is shown.
async fn ask(world: &World, selection: &Selection) -> anyhow::Result<Answers> {
    let mesh = world.mesh(None).await?;
    let objects = Objects::of_mesh(world, &mesh).await?;
    let shown = |namespace: &str| selection.has(namespace);
    let services = objects.of_kind("Service").filter_map(|service| {
        let namespace = service.namespace.as_deref().filter(|namespace| shown(namespace))?;
        Some(format!("{namespace}/{}", service.name))
    });
    let mut services: Vec<String> = services.collect();
    services.sort();
    let pods = mesh.pods.clone();
    let routes = routes::of(mesh.world.clone(), &pods, objects, shown);
    let status = status::of(mesh, shown);
    Ok(Answers { time: Timestamp::now(), status, routes, pods, services })
}

fn counted(pod: &PodReport) -> Answer {
    let status = pod.proxy.clone().and_then(|status| serde_json::from_value::<ProxyStatus>(status).ok());
    let counters = |status: ProxyStatus| status.backends.into_iter().map(counter).collect();
    Answer {
        uid: pod.uid.clone(),
        pod: Arc::from(format!("{}/{}", pod.namespace, pod.name)),
        counted: status.map(counters),
    }
}

fn counter(backend: BackendStatus) -> (Key, Count) {
    let failed = routes::failed(&backend);
    let BackendStatus { route, rule, parent, backend, requests, connections, durations, .. } = backend;
    let count = Count { requests: requests + connections, failed, durations };
    (Key { route, rule, parent, backend }, count)
}

/// How requests are to be split.
fn set(routes: &routes::Report) -> Splits {
    let of_route = |route: &routes::Route| {
        let key = route.id();
        let of_rule = move |rule: &routes::Rule| {
            let shares = rule.backends.iter().map(|backend| (backend.id.clone(), backend.share)).collect();
            ((key.clone(), rule.name.clone()), shares)
        };
        route.rules.iter().map(of_rule).collect::<Vec<_>>()
    };
    routes.routes.iter().flat_map(of_route).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use tokio::time::timeout;

    use super::*;
    use crate::world::scripted::{self, component, list};

    fn cluster() -> World {
        let object = |namespace: &str, name: &str, spec: Value| {
            let metadata = json!({"namespace": namespace, "name": name, "uid": name, "resourceVersion": "1"});
            json!({"metadata": metadata, "spec": spec})
        };
        let service = |namespace, name| {
            object(namespace, name, json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}))
        };
        let mut pod = object(
            "shop",
            "web-1",
            json!({"initContainers": [{"name": "gamut-proxy", "restartPolicy": "Always"}], "containers": [{"name": "app"}]}),
        );
        pod["status"] = json!({
            "phase": "Running", "initContainerStatuses": [{"name": "gamut-proxy", "state": {"running": {}}}],
        });
        let reference = json!([{"group": "", "kind": "Service", "name": "web"}]);
        let rules =
            json!([{"backendRefs": [{"name": "web", "port": 80, "weight": 3}, {"name": "new", "port": 80}]}]);
        let route = object("shop", "web", json!({"parentRefs": reference, "rules": rules}));
        scripted::world(vec![
            ("/version", json!({"gitVersion": "v1.34.4"})),
            ("/api/v1/pods", list(&[component("controller", true), pod])),
            ("/api/v1/services", list(&[service("shop", "web"), service("gamut-system", "gamut-ca")])),
            ("/apis/gateway.networking.k8s.io/v1/httproutes", list(&[route])),
        ])
    }

    #[tokio::test]
    async fn a_cluster_is_asked_what_the_commands_ask_and_sidecars_that_are_silent_are_named() {
        let answers = ask(&cluster(), &Selection::default()).await.unwrap();
        assert_eq!(answers.services, ["shop/web"], "the mesh's own are shown with -A alone");
        let silent = |note: &String| note.starts_with("without the requests of pod shop/web-1:");
        assert!(answers.routes.notes.iter().any(silent), "{:?}", answers.routes.notes);
        let shares = &set(&answers.routes)[&("httproute/shop/web".to_owned(), "0".to_owned())];
        let expected = [("service/shop/web:80".to_owned(), 75.0), ("service/shop/new:80".to_owned(), 25.0)];
        assert_eq!(shares[..], expected);
        assert!(answers.pods.iter().map(counted).all(|answer| answer.counted.is_none()));
    }

    #[tokio::test]
    async fn nobody_is_asked_until_somebody_looks() {
        let (world, selection, live) = (cluster(), Selection::default(), Live::new());
        let rests = timeout(Duration::ZERO, collect(&world, &selection, &live)).await;
        assert!(rests.is_err() && live.state().newest.is_none());
        tokio::select! {
            () = collect(&world, &selection, &live) => {}
            () = live.look() => {}
        }
        assert!(live.state().newest.is_some());
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_answer_is_a_problem_and_what_was_known_stays() {
        let (selection, live) = (Selection::default(), Live::new());
        for (world, round) in [(cluster(), 1), (scripted::unreachable(), 2)] {
            tokio::select! {
                () = collect(&world, &selection, &live) => {}
                () = live.look_at(round) => {}
            }
        }
        let state = live.state();
        assert!(state.problem.as_ref().unwrap().starts_with("context test (https://10.0.0.10:6443)"));
        assert!(state.newest.is_some());
    }
}
