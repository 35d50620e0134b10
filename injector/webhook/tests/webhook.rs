//! A whole injector with the real CA, as an API server meets it: over TLS, with good reviews and bad ones, while its certificate
//! changes under it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gamut_ca::Authority;
use gamut_webhook::{CaBundle, Cause, WithoutSidecar};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use self::common::{Connection, Town, review};

const DAY: Duration = Duration::from_secs(86_400);
const NAMESPACES: &str = "/api/v1/namespaces";
const PODS: &str = "/api/v1/pods";
const EVENTS: &str = "/api/v1/events";
const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

fn shop(inject: &str) -> Value {
    json!({"metadata": {"name": "shop", "labels": {"gamut.mesh/inject": inject}}})
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "web-5d4f-", "labels": {"app": "web"}},
        "spec": {
            "initContainers": [{"name": "migrate", "image": "web"}],
            "containers": [{
                "name": "web",
                "image": "web",
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5},
            }],
        },
    })
}

/// An answer with its patch readable.
fn readable(mut response: Value) -> Value {
    if let Some(patch) = response["patch"].as_str() {
        response["patch"] = serde_json::from_slice(&STANDARD.decode(patch).unwrap()).unwrap();
    }
    response
}

/// The same each time: the CA of each test has a port of its own.
fn without_port(response: Value) -> Value {
    let address = sidecar_variable(&response, "GAMUT_CA_ADDRESS");
    serde_json::from_str(&readable(response).to_string().replace(&address, "the CA's address")).unwrap()
}

#[tokio::test]
async fn pods_come_back_with_their_sidecars_or_with_the_reason_why_not() {
    let town = Town::new(DAY).await;
    town.api_server.put(NAMESPACES, shop("enabled"));
    let mut connection = town.connect().await;
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    let _settings = settings.bind_to_scope();

    insta::assert_json_snapshot!("injected", without_port(connection.review(&pod()).await));

    let mut refused = pod();
    refused["metadata"]["annotations"] = json!({"gamut.mesh/mtls": "stirct"});
    insta::assert_json_snapshot!("refused", connection.review(&refused).await);

    let mut skipped = pod();
    skipped["spec"]["hostNetwork"] = true.into();
    insta::assert_json_snapshot!("skipped", connection.review(&skipped).await);
}

#[tokio::test]
async fn a_pod_that_was_injected_before_is_left_as_it_is() {
    let town = Town::new(DAY).await;
    town.api_server.put(NAMESPACES, shop("enabled"));
    let mut connection = town.connect().await;
    let config = gamut_injector::Config { image: "gamut.mesh/gamut:test".to_owned(), ..Default::default() };
    let view = gamut_injector::NamespaceView {
        name: "shop".to_owned(),
        labels: [("gamut.mesh/inject".to_owned(), "enabled".to_owned())].into(),
    };
    // As the installation's other settings are the defaults, but for the CA's address, which is told to sidecars.
    let first = connection.review(&pod()).await;
    assert!(first["patch"].is_string());
    let ca_address = sidecar_variable(&first, "GAMUT_CA_ADDRESS");
    let config = gamut_injector::Config { ca_address, ..config };
    let Ok(gamut_injector::Injection::Injected(injected)) = gamut_injector::inject(&pod(), &view, &config)
    else {
        panic!("not injected");
    };
    let again = connection.review(&injected.pod).await;
    assert_eq!((&again["allowed"], again.get("patch")), (&json!(true), None));
}

/// A variable of the sidecar, as a patch sets it.
fn sidecar_variable(response: &Value, name: &str) -> String {
    let patch = readable(response.clone())["patch"].to_string();
    let (_, rest) = patch.split_once(&format!("{{\"name\":\"{name}\",\"value\":\"")).unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

#[tokio::test]
async fn a_label_that_the_watch_hasnt_told_yet_is_read_before_a_pod_goes_without() {
    let town = Town::new(DAY).await;
    // The API server asks at once: nothing else can have told the injector.
    town.api_server.put(NAMESPACES, shop("disabled"));
    let mut connection = town.connect().await;
    assert_eq!(connection.review(&pod()).await.get("patch"), None);
    town.api_server.put(NAMESPACES, shop("enabled"));
    assert!(connection.review(&pod()).await["patch"].is_string());
}

#[tokio::test]
async fn a_namespace_that_cant_be_read_refuses_the_pod() {
    let town = Town::new(DAY).await;
    let response = town.connect().await.review(&pod()).await;
    assert_eq!(response["allowed"], false);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("pod shop/web-5d4f-…: whether it gets a sidecar can't be decided"),
        "{message}"
    );
}

#[tokio::test]
async fn hostile_requests_get_one_line_and_the_next_review_its_answer() {
    let town = Town::new(DAY).await;
    town.api_server.put(NAMESPACES, shop("enabled"));
    let whole = review("shop", &pod()).to_string();
    let mut wrong_kind = review("shop", &pod());
    wrong_kind["request"]["kind"]["kind"] = "Deployment".into();
    let deep = whole.replacen("\"oldObject\":null", &format!("\"oldObject\":{}", "[".repeat(1_000_000)), 1);
    for (method, path, body, status) in [
        (Method::POST, "/inject", " ".repeat(3 * 1024 * 1024 + 1), StatusCode::PAYLOAD_TOO_LARGE),
        (Method::POST, "/inject", String::new(), StatusCode::BAD_REQUEST),
        (Method::POST, "/inject", whole[..whole.len() / 2].to_owned(), StatusCode::BAD_REQUEST),
        (Method::POST, "/inject", deep, StatusCode::BAD_REQUEST),
        (Method::POST, "/inject", wrong_kind.to_string(), StatusCode::BAD_REQUEST),
        (Method::POST, "/inject", "[0,".repeat(1_000_000), StatusCode::BAD_REQUEST),
        (Method::GET, "/inject", String::new(), StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/../inject", whole.clone(), StatusCode::NOT_FOUND),
    ] {
        let mut connection = town.connect().await;
        let (answered, line) = connection.send(method.clone(), path, body).await;
        assert_eq!(answered, status, "{method} {path}: {line}");
        assert!(line.len() < 500 && line.trim_end().lines().count() == 1, "{line}");
    }
    let mut connection = town.connect().await;
    assert_eq!(connection.review(&pod()).await["allowed"], true);
    assert!(town.page("/metrics").await.contains("gamut_injector_reviews_total{outcome=\"failed\"} 6\n"));
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections_and_fails_no_request_of_an_old_one() {
    let town = Town::new(Duration::from_secs(8)).await;
    town.api_server.put(NAMESPACES, shop("enabled"));
    let mut old = town.connect().await;
    let first = town.status().await.certificate.unwrap().serial;
    // Requests go on until the certificate has changed.
    while town.status().await.certificate.unwrap().serial == first {
        assert_eq!(old.review(&pod()).await["allowed"], true);
    }
    let mut new = town.connect().await;
    assert_ne!(new.leaf, old.leaf);
    for connection in [&mut old, &mut new] {
        let connection: &mut Connection = connection;
        assert_eq!(connection.review(&pod()).await["allowed"], true);
    }
}

fn configuration() -> Value {
    let service = json!({"namespace": "gamut-system", "name": "gamut-injector", "path": "/inject"});
    json!({
        "metadata": {"name": "gamut-injector"},
        "webhooks": [{"name": "namespace.injector.gamut.mesh", "clientConfig": {"service": service}}],
    })
}

/// Whether the API server would know the injector by these roots, PEM.
fn knows_by(roots: &str) -> impl Fn(&[Value]) -> bool {
    let bundle = STANDARD.encode(roots);
    move |all| all[0]["webhooks"][0]["clientConfig"]["caBundle"] == bundle.as_str()
}

#[tokio::test]
async fn the_ca_bundle_is_written_and_put_back_when_somebody_wipes_it() {
    let town = Town::new(DAY).await;
    assert!(matches!(town.status().await.ca_bundle, CaBundle::Waiting { .. } | CaBundle::Unknown));
    let written = async || {
        let page = town.page("/metrics").await;
        page.lines().find(|line| line.starts_with("gamut_injector_ca_bundle_written ")).map(str::to_owned)
    };
    assert_eq!(written().await.as_deref(), Some("gamut_injector_ca_bundle_written 0"));
    // The second time is an upgrade that knows nothing of the field.
    for _ in 0..2 {
        town.api_server.put(CONFIGURATIONS, configuration());
        town.api_server.until(CONFIGURATIONS, knows_by(&town.roots())).await;
    }
    town.until_status(|status| status.ca_bundle == CaBundle::Written { roots: 1 }).await;
    assert_eq!(written().await.as_deref(), Some("gamut_injector_ca_bundle_written 1"));
}

#[tokio::test]
async fn a_root_that_comes_is_known_beside_the_old_one_and_a_broken_one_changes_nothing() {
    let town = Town::new(DAY).await;
    town.api_server.put(CONFIGURATIONS, configuration());
    town.api_server.until(CONFIGURATIONS, knows_by(&town.roots())).await;

    let new = Authority::make("cluster.local", SystemTime::now()).unwrap().chain;
    let both = format!("{new}{}", town.roots());
    town.publish(&both);
    town.api_server.until(CONFIGURATIONS, knows_by(&both)).await;

    town.publish("-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n");
    town.api_server.put(CONFIGURATIONS, configuration());
    town.api_server.until(CONFIGURATIONS, knows_by(&both)).await;
}

#[tokio::test]
async fn a_pod_without_its_sidecar_is_told_about_once() {
    let town = Town::new(DAY).await;
    town.api_server.put(NAMESPACES, shop("enabled"));
    for (name, host_network) in [("old", false), ("node-agent", true)] {
        let mut pod = pod();
        pod["metadata"] = json!({"namespace": "shop", "name": name, "uid": format!("uid-of-{name}")});
        pod["spec"]["hostNetwork"] = host_network.into();
        town.api_server.put(PODS, pod);
    }
    town.api_server.until(EVENTS, |events| events.len() == 2).await;
    let events = town.api_server.list(EVENTS);
    assert_eq!(events[0]["metadata"]["name"], "node-agent.uid-of-node-agent.no-sidecar");
    assert!(events[0]["message"].as_str().unwrap().contains("uses the host's network"));
    assert!(events[1]["message"].as_str().unwrap().contains("kubectl rollout restart"));
    let is_known = |pod: &WithoutSidecar| pod.cause != Cause::Unexamined;
    town.until_status(|status| status.without_sidecar.iter().filter(|pod| is_known(pod)).count() == 2).await;
    let metrics = town.page("/metrics").await;
    assert!(
        metrics.contains("pods_without_sidecar{namespace=\"shop\",cause=\"host_network\"} 1\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn what_is_misspelt_is_told_on_the_object_that_carries_it_all_at_once_and_anew_when_it_is_changed() {
    let town = Town::new(DAY).await;
    let misspelt = |annotations: Value| {
        let template = json!({"metadata": {"annotations": annotations}, "spec": {"containers": []}});
        let metadata = json!({"namespace": "shop", "name": "web", "uid": "uid-of-web"});
        json!({"metadata": metadata, "spec": {"template": template}})
    };
    let mut shop = shop("enabled");
    shop["metadata"]["uid"] = "uid-of-shop".into();
    shop["metadata"]["labels"]["gamut.mesh/mtls"] = "strict".into();
    town.api_server.put(NAMESPACES, shop);
    let both = json!({"gamut.mesh/mtsl": "strict", "gamut.mesh/drain-time": "30"});
    town.api_server.put(DEPLOYMENTS, misspelt(both));
    town.api_server.until(EVENTS, |events| events.len() == 2).await;
    let events = town.api_server.list(EVENTS);
    let (of_shop, of_web) = (&events[0], &events[1]);
    assert_eq!(of_shop["involvedObject"]["kind"], "Namespace");
    assert_eq!(
        (&of_shop["metadata"]["namespace"], &of_shop["reason"]),
        (&json!("shop"), &json!("InvalidAnnotation"))
    );
    assert!(of_shop["message"].as_str().unwrap().contains("it is an annotation: write it there"));
    let involved = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web", "uid": "uid-of-web",
    });
    assert_eq!(of_web["involvedObject"], involved);
    let message = of_web["message"].as_str().unwrap();
    assert!(
        message.contains("write gamut.mesh/mtls, if that was meant")
            && message.contains("\"30\" is not a duration")
    );

    town.api_server.put(DEPLOYMENTS, misspelt(json!({"gamut.mesh/mtlss": "strict"})));
    town.api_server.until(EVENTS, |events| events.len() == 3).await;
}

#[tokio::test]
async fn an_injector_that_ends_answers_while_others_take_over_and_says_that_it_isnt_ready() {
    let town = Town::new(DAY).await;
    town.api_server.put(NAMESPACES, shop("enabled"));
    let mut connection = town.connect().await;
    assert_eq!(connection.send(Method::GET, "/ready", "").await.0, StatusCode::OK);
    let api_server = town.api_server.clone();
    let ended = town.stop();
    while connection.send(Method::GET, "/ready", "").await.0 == StatusCode::OK {
        tokio::task::yield_now().await;
    }
    assert_eq!(connection.review(&pod()).await["allowed"], true);
    drop(connection);
    ended.await.unwrap();
    drop(api_server);
}
