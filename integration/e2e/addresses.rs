//! What a program in a pod can call, by name and by address, and which way that goes.

use std::time::{Duration, Instant};

use crate::harness::{Mesh, app, fields, headers, namespace, route, service, service_with, statuses};

const CLIENT: &str = "shop/deploy/client";

/// A client, `web`, whose route marks what passes through it, an outsider, and another namespace.
fn shop() -> Mesh {
    let marked = "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-route, value: web}]}}]
backendRefs: [{name: web, port: 80}]";
    Mesh::up(&[
        namespace("shop", "permissive"),
        namespace("other", "permissive"),
        app("client").in_namespace("shop"),
        app("web").in_namespace("shop"),
        app("outsider").unmeshed().in_namespace("shop"),
        app("stranger").in_namespace("other"),
        service("shop", "web"),
        service_with("shop", "pods", "web", "[{name: http, port: 8080}]", "clusterIP: None"),
        service_with("shop", "nobody", "nobody", "[{name: http, port: 80}]", ""),
        route("shop", "web", "name: web", &[marked]),
    ])
}

#[test]
fn names_resolve_as_in_a_cluster_and_unknown_ones_are_unknown_at_once() {
    let mesh = shop();
    for name in
        ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "web.shop.svc.cluster.local."]
    {
        let out = mesh.ask(CLIENT, &[&format!("http://{name}/")]);
        assert_eq!(headers(&out, "X-Route"), ["web"], "{name}");
    }
    assert_eq!(statuses(&mesh.ask("other/deploy/stranger", &["http://web.shop/"])), [200]);

    for (from, name) in [("other/deploy/stranger", "web"), (CLIENT, "nosuch"), (CLIENT, "nosuch.example.com")]
    {
        let start = Instant::now();
        assert!(!mesh.exec(from, &["getent", "ahosts", name]).status.success(), "{name} from {from}");
        // A resolver asks again after five seconds.
        assert!(start.elapsed() < Duration::from_secs(4), "{name}: {:?}", start.elapsed());
    }
    let pods = crate::harness::text_of(mesh.exec(CLIENT, &["getent", "ahostsv4", "pods"]));
    assert!(
        pods.starts_with(&mesh.pods("web")[0].ips[0]),
        "a headless Service's name leads to its pods: {pods}"
    );
}

#[test]
fn a_service_address_works_for_callers_outside_the_mesh_without_routes() {
    let mesh = shop();
    let out = mesh.ask("shop/deploy/outsider", &["http://web/"]);
    assert_eq!(statuses(&out), [200]);
    assert!(headers(&out, "X-Route").is_empty(), "routes are the mesh's");
    let refused = mesh.try_to_ask("shop/deploy/outsider", &["http://nobody/"]);
    assert!(!refused.status.success(), "a Service without endpoints refuses connections");
}

#[test]
fn a_pods_own_address_bypasses_routes_in_both_families() {
    let mesh = shop();
    let web = &mesh.pods("web")[0];
    assert!(web.ips.iter().any(|ip| ip.contains(':')), "pods have IPv6 addresses too: {web:?}");
    for ip in &web.ips {
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
        let out = mesh.ask(CLIENT, &[&format!("http://{host}:8080/")]);
        assert_eq!(fields(&out, "Hostname"), [web.name.as_str()]);
        assert!(headers(&out, "X-Route").is_empty());
    }
}

#[test]
fn a_pod_reaches_itself_through_its_service_by_its_address_and_by_localhost() {
    let mesh = shop();
    let web = &mesh.pods("web")[0];
    let own = format!("http://{}:8080/", web.ips[0]);
    for (url, route) in [
        ("http://web/", vec!["web"]),
        (&own, vec![]),
        ("http://127.0.0.1:8080/", vec![]),
        ("http://[::1]:8080/", vec![]),
    ] {
        let out = mesh.ask("shop/deploy/web", &[url, "--count=20"]);
        assert_eq!(fields(&out, "Hostname"), vec![web.name.as_str(); 20], "{url}");
        assert_eq!(headers(&out, "X-Route").into_iter().take(1).collect::<Vec<_>>(), route, "{url}");
    }
}

#[test]
fn the_sidecars_own_ports_are_nobody_elses() {
    let mesh = shop();
    let web = &mesh.pods("web")[0];
    for (from, port) in [
        (CLIENT, 15001),
        (CLIENT, 15006),
        (CLIENT, 15000),
        ("shop/deploy/web", 15001),
        ("shop/deploy/web", 15006),
    ] {
        let refused = mesh.try_to_ask(from, &[&format!("http://{}:{port}/", web.ips[0])]);
        assert!(!refused.status.success(), "{from} got through to port {port}: {refused:?}");
    }
}

#[test]
fn services_have_addresses_of_the_families_they_ask_for() {
    let dual = "ipFamilyPolicy: PreferDualStack";
    let mesh = Mesh::up(&[
        namespace("shop", "strict"),
        app("client").in_namespace("shop"),
        app("web").in_namespace("shop"),
        service_with("shop", "web", "web", "[{name: http, port: 80, targetPort: 8080}]", dual),
    ]);
    let six = crate::harness::text_of(mesh.exec(CLIENT, &["getent", "ahostsv6", "web"]));
    let address = six.split_whitespace().next().unwrap();
    assert!(address.contains(':') && !address.starts_with("::ffff:"), "{six}");
    let out = mesh.ask(CLIENT, &[&format!("http://[{address}]/")]);
    assert_eq!(fields(&out, "ServiceVersion"), ["web"]);
}
