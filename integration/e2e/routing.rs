//! The routing language as a caller meets it: which rule, which backend, and what the sidecar answers itself.

use crate::harness::{Mesh, app, fields, headers, namespace, route, service, statuses};

const CLIENT: &str = "shop/deploy/client";

fn shop(routes: &[String]) -> Mesh {
    let base = [
        namespace("shop", "strict"),
        namespace("rivals", "strict"),
        app("client").in_namespace("shop"),
        app("spy").in_namespace("rivals"),
        app("one").in_namespace("shop"),
        app("two").in_namespace("shop"),
        service("shop", "web").replace("app: web", "app: one"),
        service("shop", "one"),
        service("shop", "two"),
        service("shop", "nobody"),
    ];
    Mesh::up(&[&base, routes].concat())
}

#[test]
fn the_most_specific_match_wins_and_no_match_is_404() {
    let mesh = shop(&[route(
        "shop",
        "web",
        "name: web, port: 80",
        &[
            "matches: [{path: {type: PathPrefix, value: /api}}]\nbackendRefs: [{name: one, port: 80}]",
            "matches: [{path: {type: PathPrefix, value: /api/v2}}]\nbackendRefs: [{name: two, port: 80}]",
            "matches: [{path: {type: Exact, value: /api/v2/old}}]\nbackendRefs: [{name: one, port: 80}]",
            "matches: [{path: {value: /api}, method: DELETE}]\nbackendRefs: [{name: two, port: 80}]",
            "matches: [{path: {value: /api}, headers: [{name: version, value: two}]}]\nbackendRefs: [{name: two, port: 80}]",
            "matches: [{path: {value: /api}, queryParams: [{name: version, value: two}]}]\nbackendRefs: [{name: two, port: 80}]",
        ],
    )]);
    for (url, arguments, version) in [
        ("http://web/api", vec![], "one"),
        ("http://web/api/v1", vec![], "one"),
        ("http://web/api/v2", vec![], "two"),
        ("http://web/api/v2/old", vec![], "one"),
        ("http://web/api/v2/old/er", vec![], "two"),
        ("http://web/api", vec!["--method=DELETE"], "two"),
        ("http://web/api", vec!["-H", "Version:two"], "two"),
        ("http://web/api", vec!["-H", "version:three"], "one"),
        ("http://web/api?version=two", vec![], "two"),
    ] {
        let out = mesh.ask(CLIENT, &[&[url], arguments.as_slice()].concat());
        assert_eq!(fields(&out, "ServiceVersion"), [version], "{url} {arguments:?}");
    }
    for url in ["http://web/", "http://web/apiary", "http://web/API"] {
        let out = mesh.ask(CLIENT, &[url]);
        assert_eq!((statuses(&out), headers(&out, "Gamut-Answer")), (vec![404], vec!["no-route"]), "{url}");
    }
    let grpc = mesh.try_to_ask(CLIENT, &["grpc://web"]);
    assert!(
        String::from_utf8_lossy(&grpc.stderr).contains("gRPC status 12"),
        "UNIMPLEMENTED, not HTTP: {grpc:?}"
    );
}

#[test]
fn answers_of_the_sidecars_own_say_why() {
    let mesh = shop(&[route(
        "shop",
        "web",
        "name: web",
        &[
            "matches: [{path: {value: /missing}}]\nname: missing\nbackendRefs: [{name: nosuch, port: 80}]",
            "matches: [{path: {value: /nothing}}]\nname: nothing\nbackendRefs: []",
            "matches: [{path: {value: /zero}}]\nname: zero\nbackendRefs: [{name: one, port: 80, weight: 0}]",
            "matches: [{path: {value: /nobody}}]\nname: nobody\nbackendRefs: [{name: nobody, port: 80}]",
            "matches: [{path: {value: /half}}]\nname: half\nbackendRefs: [{name: one, port: 80}, {name: nosuch, port: 80}]",
        ],
    )]);
    for (path, status, reason) in [
        ("/missing", 500, "invalid-backend"),
        ("/nothing", 500, "invalid-rule"),
        ("/zero", 500, "no-backend"),
        ("/nobody", 503, "no-endpoint"),
    ] {
        let out = mesh.ask(CLIENT, &[&format!("http://web{path}")]);
        assert_eq!((statuses(&out), headers(&out, "Gamut-Answer")), (vec![status], vec![reason]), "{path}");
        let body = out.lines().find_map(|line| line.strip_prefix("[0 body] ")).unwrap_or_default();
        assert!(
            body.contains("shop/web") && body.contains(&path[1..]),
            "the body names route and rule: {body:?}"
        );
    }
    let half = statuses(&mesh.ask(CLIENT, &["http://web/half", "--count=200"]));
    let failed = half.iter().filter(|status| **status == 500).count();
    assert!((50..150).contains(&failed), "an invalid backend's share fails, no more: {failed} of 200");
    assert_eq!(half.iter().filter(|status| **status == 200).count(), 200 - failed);
}

#[test]
fn headers_are_set_added_and_removed_both_ways() {
    let mesh = shop(&[route(
        "shop",
        "web",
        "name: web",
        &["filters:
- {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: new}], add: [{name: x-add, value: b}], remove: [x-remove]}}
- {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-answer, value: set}], remove: [x-gone]}}
backendRefs: [{name: one, port: 80}]"],
    )]);
    let url = "http://web/?header=x-gone:here";
    let out = mesh.ask(CLIENT, &[url, "-H", "x-set:old", "-H", "x-add:a", "-H", "x-remove:this"]);
    let seen = fields(&out, "RequestHeader");
    for header in ["X-Set:new", "X-Add:a,b"] {
        assert!(seen.contains(&header), "{header} in {seen:?}");
    }
    assert!(!seen.iter().any(|header| header.starts_with("X-Remove") || *header == "X-Set:old"), "{seen:?}");
    assert_eq!(headers(&out, "X-Answer"), ["set"]);
    assert!(headers(&out, "X-Gone").is_empty());
}

#[test]
fn a_consumers_routes_replace_the_producers_for_the_consumers_namespace_alone() {
    let consumer = route(
        "rivals",
        "web",
        "name: web, namespace: shop",
        &["backendRefs: [{name: two, namespace: shop, port: 80}]"],
    );
    let producer = route(
        "shop",
        "web",
        "name: web",
        &["matches: [{path: {value: /only}}]\nbackendRefs: [{name: one, port: 80}]"],
    );
    let mesh = shop(&[producer, consumer]);
    assert_eq!(fields(&mesh.ask(CLIENT, &["http://web/only"]), "ServiceVersion"), ["one"]);
    assert_eq!(statuses(&mesh.ask(CLIENT, &["http://web/"])), [404]);
    for path in ["/", "/only"] {
        let out = mesh.ask("rivals/deploy/spy", &[&format!("http://web.shop{path}")]);
        assert_eq!(fields(&out, "ServiceVersion"), ["two"], "{path}");
    }
}

#[test]
fn what_is_not_done_yet_is_said_in_a_condition() {
    let external = "filters: [{type: ExternalAuth, externalAuth: {protocol: GRPC}}]\nbackendRefs: [{name: one, port: 80}]";
    let mesh = shop(&[
        route("shop", "guarded", "name: web", &[external]),
        route("shop", "missing", "name: two", &["backendRefs: [{name: nosuch, port: 80}]"]),
        route("shop", "astray", "name: nosuch", &["backendRefs: [{name: one, port: 80}]"]),
    ]);
    let routes: serde_json::Value =
        serde_json::from_str(&mesh.run(&["routes", "-n", "shop", "-o", "json"])).unwrap();
    let condition = |name: &str, kind: &str| {
        let route = routes["routes"].as_array().unwrap().iter().find(|route| route["name"] == name).unwrap();
        let conditions = route["parents"][0]["conditions"].as_array().unwrap();
        let condition = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
        (condition["status"].as_str().unwrap().to_owned(), condition["reason"].as_str().unwrap().to_owned())
    };
    let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    assert_eq!(condition("guarded", "Accepted"), pair("False", "UnsupportedValue"));
    assert_eq!(condition("missing", "Accepted"), pair("True", "Accepted"));
    assert_eq!(condition("missing", "ResolvedRefs"), pair("False", "BackendNotFound"));
    assert_eq!(condition("astray", "Accepted"), pair("False", "NoMatchingParent"));
}
