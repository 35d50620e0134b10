//! What a scraper sees after what happened.

use std::{sync::Arc, time::Duration};

use gamut_controller_api::{Endpoint, Pod, Transport};
use gamut_identity::SpiffeId;
use gamut_route::{BackendId, ServicePort, Uid, table::RuleOrigin};

use gamut_metrics::Page;

use super::*;

fn telemetry() -> Telemetry {
    Telemetry::new(Workload {
        name: "client".to_owned(),
        namespace: "shop".to_owned(),
        principal: "spiffe://cluster.local/ns/shop/sa/client".to_owned(),
    })
}

fn origin(name: Option<&str>) -> RuleOrigin {
    RuleOrigin { route: "httproute/shop/web".parse().unwrap(), name: name.map(str::to_owned), index: 1 }
}

fn web() -> ServicePort {
    ServicePort::new("shop", "web", 80)
}

fn backend(name: &str) -> BackendId {
    BackendId::Service(ServicePort::new("shop", name, 80))
}

fn endpoint(workload: &str) -> Endpoint {
    Endpoint {
        address: "10.0.0.1:8080".parse().unwrap(),
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: format!("{workload}-0"),
            uid: Uid::of(workload),
            workload: workload.to_owned(),
        }),
        transport: Transport::Mesh(SpiffeId::new("cluster.local", "shop", "web").unwrap()),
        zone: None,
        ready: true,
        serving: true,
        terminating: false,
    }
}

fn http(status: u16) -> Answered {
    let elapsed = Duration::from_millis(3);
    Answered { method: Method::Get, protocol: Protocol::Http, status, grpc_status: None, elapsed, own: None }
}

fn grpc(code: u16) -> Answered {
    Answered { protocol: Protocol::Grpc, grpc_status: Some(code), ..http(200) }
}

/// The samples of a family that have all of these labels, as `labels -> value`.
fn samples(telemetry: &Telemetry, name: &str, labels: &[&str]) -> Vec<String> {
    let mut page = Page::default();
    telemetry.render(&mut page);
    let page = page.finish();
    let lines = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    lines.filter(|line| labels.iter().all(|label| line.contains(label))).map(str::to_owned).collect()
}

fn value(telemetry: &Telemetry, name: &str, labels: &[&str]) -> u64 {
    let samples = samples(telemetry, name, labels);
    assert_eq!(samples.len(), 1, "{name} {labels:?}: {samples:?}");
    samples[0].rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_request_is_counted_with_the_labels_that_dashboards_read() {
    let telemetry = telemetry();
    let counters = telemetry.backend(Some(&origin(None)), &web(), &backend("web-v1"));
    counters.answered(Some(&endpoint("web-v1")), http(200));
    counters.answered(Some(&endpoint("web-v1")), http(200));
    assert_eq!(
        samples(&telemetry, "istio_requests_total", &[]),
        [concat!(
            r#"istio_requests_total{reporter="source",source_workload="client",source_canonical_service="client","#,
            r#"source_canonical_revision="latest",source_workload_namespace="shop","#,
            r#"source_principal="spiffe://cluster.local/ns/shop/sa/client",source_app="client",source_version="unknown","#,
            r#"source_cluster="Kubernetes",destination_workload="web-v1",destination_canonical_service="web-v1","#,
            r#"destination_canonical_revision="latest",destination_workload_namespace="shop","#,
            r#"destination_principal="spiffe://cluster.local/ns/shop/sa/web",destination_app="web-v1","#,
            r#"destination_cluster="Kubernetes",destination_service="web-v1.shop.svc.cluster.local","#,
            r#"destination_service_name="web-v1",destination_service_namespace="shop","#,
            r#"connection_security_policy="mutual_tls",request_protocol="http",response_code="200","#,
            r#"grpc_response_status="",response_flags="-"} 2"#,
        )]
    );
}

#[test]
fn statuses_workloads_and_own_answers_are_told_apart() {
    let telemetry = telemetry();
    let counters = telemetry.backend(Some(&origin(None)), &web(), &backend("web"));
    counters.answered(Some(&endpoint("web-v1")), http(200));
    counters.answered(Some(&endpoint("web-v2")), http(503));
    counters.answered(None, Answered { own: Some("no-endpoint"), ..http(503) });
    let requests = |labels: &[&str]| value(&telemetry, "istio_requests_total", labels);
    assert_eq!(requests(&[r#"destination_workload="web-v1""#, r#"response_code="200""#]), 1);
    assert_eq!(requests(&[r#"destination_workload="web-v2""#, r#"response_code="503""#]), 1);
    assert_eq!(requests(&[r#"destination_workload="unknown""#, r#"response_flags="no-endpoint""#]), 1);
    assert_eq!(counters.by_class(), StatusClasses { success: 1, server_error: 2, ..Default::default() });
}

#[test]
fn retries_that_were_made_and_that_a_budget_prevented_are_counted_apart() {
    let telemetry = telemetry();
    let counters = telemetry.backend(Some(&origin(Some("canary"))), &web(), &backend("web-v2"));
    counters.retried();
    counters.retried();
    counters.retry_refused();
    let labels = [r#"rule="canary""#, r#"backend="service/shop/web-v2:80""#];
    assert_eq!(value(&telemetry, "gamut_route_retries_total", &labels), 2);
    assert_eq!(value(&telemetry, "gamut_route_retry_budget_exhausted_total", &labels), 1);
}

#[test]
fn a_grpc_failure_counts_as_one_though_its_http_status_is_200() {
    let telemetry = telemetry();
    let counters = telemetry.backend(None, &web(), &backend("web"));
    counters.answered(Some(&endpoint("web")), grpc(0));
    counters.answered(Some(&endpoint("web")), grpc(14));
    counters.answered(Some(&endpoint("web")), grpc(999));
    let requests = |labels: &[&str]| value(&telemetry, "istio_requests_total", labels);
    assert_eq!(requests(&[r#"request_protocol="grpc""#, r#"grpc_response_status="14""#]), 1);
    assert_eq!(counters.by_class().server_error, 1);
    assert_eq!(counters.by_class().total(), 3);
}

#[test]
fn a_status_that_is_no_status_counts_as_500() {
    let telemetry = telemetry();
    let counters = telemetry.backend(None, &web(), &backend("web"));
    for status in [0, 99, 600, 999, u16::MAX] {
        counters.answered(Some(&endpoint("web")), http(status));
    }
    assert_eq!(value(&telemetry, "istio_requests_total", &[r#"response_code="500""#]), 5);
}

#[test]
fn counters_outlive_the_table_that_registered_them() {
    let telemetry = telemetry();
    telemetry.backend(Some(&origin(Some("canary"))), &web(), &backend("web-v2")).answered(None, http(200));
    let again = telemetry.backend(Some(&origin(Some("canary"))), &web(), &backend("web-v2"));
    assert_eq!(again.by_class().success, 1);
    let labels = [r#"route="httproute/shop/web""#, r#"rule="canary""#, r#"class="2xx""#];
    assert_eq!(value(&telemetry, "gamut_route_requests_total", &labels), 1);
}

#[test]
fn a_flood_of_routes_makes_room_by_forgetting_what_no_table_uses() {
    let telemetry = telemetry();
    let kept = telemetry.backend(None, &web(), &backend("kept"));
    for n in 0..MAX_ROUTES * 2 {
        telemetry.backend(None, &web(), &backend(&format!("web-{n}")));
    }
    assert!(telemetry.routes().len() <= MAX_ROUTES);
    let again = telemetry.backend(None, &web(), &backend("kept"));
    assert!(Arc::ptr_eq(&kept, &again));
}

#[test]
fn with_as_many_pairs_of_rule_and_backend_in_use_as_a_page_has_another_is_left_out_until_there_is_room() {
    let telemetry = telemetry();
    let mut held: Vec<_> =
        (0..MAX_ROUTES).map(|n| telemetry.backend(None, &web(), &backend(&format!("web-{n}")))).collect();
    let beyond = || telemetry.backend(None, &web(), &backend("beyond"));
    let shown = || samples(&telemetry, "gamut_route_requests_total", &["beyond"]).len();
    beyond().answered(None, http(200));
    assert_eq!((telemetry.routes().len(), shown()), (MAX_ROUTES, 0));
    assert!(samples(&telemetry, "gamut_route_requests_total", &["\"other\""]).is_empty());

    held.pop();
    beyond().answered(None, http(200));
    assert!(telemetry.routes().len() == MAX_ROUTES && shown() > 0);
}

#[test]
fn callers_are_counted_by_identity_and_a_flood_of_them_under_other() {
    let telemetry = telemetry();
    let port = telemetry.inbound(8080);
    let caller = |n: usize| SpiffeId::new("cluster.local", "shop", &format!("client-{n}")).unwrap();
    port.answered(None, http(403));
    for n in 0..100 {
        port.answered(Some(&caller(n)), http(200));
    }
    let requests = |labels: &[&str]| value(&telemetry, "istio_requests_total", labels);
    let first = r#"source_principal="spiffe://cluster.local/ns/shop/sa/client-0""#;
    assert_eq!(requests(&[r#"reporter="destination""#, first]), 1);
    assert_eq!(requests(&[r#"connection_security_policy="none""#, r#"response_code="403""#]), 1);
    assert_eq!(requests(&[r#"source_principal="other""#]), 100 - 63);
}

#[test]
fn latencies_add_up_over_proxies_because_buckets_are_fixed() {
    let telemetry = telemetry();
    let counters = telemetry.backend(None, &web(), &backend("web"));
    counters.answered(Some(&endpoint("web")), http(200));
    let buckets = |le: &str| value(&telemetry, "istio_request_duration_milliseconds_bucket", &[le]);
    assert_eq!((buckets(r#"le="1""#), buckets(r#"le="5""#), buckets(r#"le="+Inf""#)), (0, 1, 1));
    assert_eq!(value(&telemetry, "istio_request_duration_milliseconds_count", &[]), 1);
}

#[test]
fn connections_bytes_sessions_and_own_answers_are_counted() {
    let telemetry = telemetry();
    let open = telemetry.connection(Direction::Outbound);
    drop(telemetry.connection(Direction::Outbound));
    telemetry.own_answer(Direction::Inbound, "app-connect");
    telemetry.detect_timeout(Direction::Inbound);
    telemetry.http2_closed(Direction::Inbound, h2::Reason::ENHANCE_YOUR_CALM);
    let session = telemetry.session(Some(&origin(None)), &web(), "route/x");
    session.count(SessionOutcome::Kept);
    let tcp = telemetry.backend(None, &web(), &backend("db")).tcp(&endpoint("db"));
    tcp.sent(7);

    let outbound = [r#"direction="outbound""#];
    assert_eq!(value(&telemetry, "gamut_connections_opened_total", &outbound), 2);
    assert_eq!(value(&telemetry, "gamut_connections_closed_total", &outbound), 1);
    assert_eq!(value(&telemetry, "gamut_own_answers_total", &[r#"reason="app-connect""#]), 1);
    assert_eq!(value(&telemetry, "gamut_detect_timeouts_total", &[r#"direction="inbound""#]), 1);
    assert_eq!(value(&telemetry, "gamut_http2_closed_total", &[r#"code="enhance-your-calm""#]), 1);
    assert_eq!(value(&telemetry, "gamut_sessions_total", &[r#"outcome="kept""#]), 1);
    assert_eq!(value(&telemetry, "istio_tcp_sent_bytes_total", &[]), 7);
    assert_eq!(value(&telemetry, "istio_tcp_connections_closed_total", &[]), 0);
    drop((open, tcp));
    assert_eq!(value(&telemetry, "gamut_connections_closed_total", &outbound), 2);
}

#[test]
fn durations_have_opentelemetrys_names_and_a_method_nobody_knows_is_other() {
    let telemetry = telemetry();
    let counters = telemetry.backend(Some(&origin(Some("canary"))), &web(), &backend("web-v2"));
    counters.answered(Some(&endpoint("web-v2")), http(200));
    let odd = http::Method::from_bytes(b"BREW").unwrap();
    counters.answered(Some(&endpoint("web-v2")), Answered { method: (&odd).into(), ..http(418) });
    let count = |labels: &[&str]| value(&telemetry, "http_client_request_duration_seconds_count", labels);
    let service =
        [r#"server_address="web.shop.svc.cluster.local""#, r#"server_port="80""#, r#"rule="canary""#];
    assert_eq!(count(&[&service[..], &[r#"http_request_method="GET""#, r#"error_type="""#]].concat()), 1);
    assert_eq!(count(&[r#"http_request_method="_OTHER""#, r#"error_type="418""#]), 1);
    let buckets =
        |le: &str| value(&telemetry, "http_client_request_duration_seconds_bucket", &[le, r#"_code="200""#]);
    assert_eq!((buckets(r#"le="0.001""#), buckets(r#"le="0.005""#)), (0, 1));
    // Both are one series to Istio's names, whose method isn't told.
    assert_eq!(value(&telemetry, "istio_request_duration_milliseconds_count", &[]), 2);
}

#[test]
fn what_came_to_the_app_is_timed_by_caller_and_status_and_only_from_500_on_it_failed() {
    let telemetry = telemetry();
    let port = telemetry.inbound(8080);
    let caller = SpiffeId::new("cluster.local", "shop", "client").unwrap();
    for status in [200, 404, 503] {
        port.answered(Some(&caller), http(status));
    }
    let at = [
        r#"server_port="8080""#,
        r#"url_scheme="http""#,
        r#"http_request_method="GET""#,
        r#"source_principal="spiffe://cluster.local/ns/shop/sa/client""#,
    ];
    let served = |part: &str, labels: &[&str]| {
        let name = format!("http_server_request_duration_seconds_{part}");
        samples(&telemetry, &name, &[&at[..], labels].concat())
            .iter()
            .map(|sample| sample.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum::<f64>()
    };
    for (status, error) in [("200", ""), ("404", ""), ("503", "503")] {
        let labels = [format!(r#"http_response_status_code="{status}""#), format!(r#"error_type="{error}""#)];
        assert_eq!(served("count", &labels.each_ref().map(String::as_str)), 1.0, "{status}");
    }
    let ok = r#"http_response_status_code="200""#;
    let bucket = |le: &str| served("bucket", &[ok, le]);
    assert_eq!((bucket(r#"le="0.001""#), bucket(r#"le="0.005""#)), (0.0, 1.0));
    assert!((served("sum", &[ok]) - 0.003).abs() < 1e-9, "{}", served("sum", &[ok]));
}

#[tokio::test(start_paused = true)]
async fn ejections_are_counted_and_who_is_ejected_only_until_it_isnt() {
    let telemetry = telemetry();
    let counters = telemetry.endpoints(&backend("web-v2"));
    let ejected = |address: &str, seconds| EjectedEndpoint {
        address: address.parse().unwrap(),
        pod: None,
        until: tokio::time::Instant::now() + Duration::from_secs(seconds),
    };
    counters.ejected();
    counters.ejected();
    counters.ejection_refused();
    counters.set_ejected(vec![ejected("10.0.0.1:80", 10), ejected("10.0.0.2:80", 30)]);
    let told = |name: &str| value(&telemetry, name, &[r#"backend="service/shop/web-v2:80""#]);
    assert_eq!(told("gamut_backend_ejections_total"), 2);
    assert_eq!(told("gamut_backend_ejections_refused_total"), 1);
    assert_eq!(told("gamut_backend_ejected_endpoints"), 2);
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(told("gamut_backend_ejected_endpoints"), 1);
    assert_eq!(told("gamut_backend_ejections_total"), 2, "what was, was");
}

#[test]
fn a_backend_that_answers_with_every_status_there_is_fills_no_page() {
    let telemetry = telemetry();
    let counters = telemetry.backend(None, &web(), &backend("web"));
    for status in 100..600 {
        counters.answered(Some(&endpoint("web")), http(status));
    }
    let counts = samples(&telemetry, "http_client_request_duration_seconds_count", &[]);
    assert_eq!(counts.len(), 33);
    assert_eq!(value(&telemetry, "istio_request_duration_milliseconds_count", &[]), 500);
}

/// Counters of which each has counted something.
pub(crate) fn exercised() -> Telemetry {
    let telemetry = telemetry();
    let counters = telemetry.backend(Some(&origin(Some("canary"))), &web(), &backend("web-v2"));
    counters.answered(Some(&endpoint("web-v2")), http(200));
    telemetry.inbound(8080).answered(None, http(200));
    drop(counters.tcp(&endpoint("web-v2")));
    telemetry.own_answer(Direction::Outbound, "no-route");
    telemetry.http2_closed(Direction::Outbound, h2::Reason::PROTOCOL_ERROR);
    telemetry.endpoints(&backend("web-v2")).begin();
    telemetry.session(Some(&origin(None)), &web(), "route/x").count(SessionOutcome::Kept);
    telemetry
}

/// Sums what a query's selector `name{labels}` selects.
fn selected(telemetry: &Telemetry, name: &str, labels: &[&str]) -> u64 {
    let values = samples(telemetry, name, labels);
    values.iter().map(|sample| sample.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// Flagger judges a canary by what its pods say (`reporter="destination"`), by success and by the quantile of durations:
/// `pkg/metrics/observers/istio.go`, which is also what it takes for routes of the Gateway API.
#[test]
fn flaggers_queries_select_what_the_canarys_pods_answered() {
    let canary = Telemetry::new(Workload { name: "web-canary".to_owned(), ..telemetry().0.own.clone() });
    let caller = SpiffeId::new("cluster.local", "shop", "client").unwrap();
    for status in [200, 200, 200, 503] {
        canary.inbound(8080).answered(Some(&caller), http(status));
    }
    let target = [
        r#"reporter="destination""#,
        r#"destination_workload_namespace="shop""#,
        r#"destination_workload="web-canary""#,
    ];
    let failed = selected(&canary, "istio_requests_total", &[&target[..], &[r#"response_code="5"#]].concat());
    assert_eq!((selected(&canary, "istio_requests_total", &target), failed), (4, 1));
    let within = |le: &str| {
        let bucket = [&target[..], &[le]].concat();
        selected(&canary, "istio_request_duration_milliseconds_bucket", &bucket)
    };
    assert_eq!((within(r#"le="1""#), within(r#"le="5""#), within(r#"le="+Inf""#)), (0, 4, 4));
}

/// Argo Rollouts' documented analysis asks the callers' side about the canary's Service, by its name in DNS.
#[test]
fn argo_rollouts_query_selects_what_callers_got_from_the_canarys_service() {
    let client = telemetry();
    for (service, statuses) in [("web-stable", [200, 200]), ("web-canary", [200, 500])] {
        let counters = client.backend(Some(&origin(None)), &web(), &backend(service));
        for status in statuses {
            counters.answered(Some(&endpoint(service)), http(status));
        }
    }
    let target = [r#"reporter="source""#, r#"destination_service="web-canary.shop.svc.cluster.local""#];
    let failed = selected(&client, "istio_requests_total", &[&target[..], &[r#"response_code="5"#]].concat());
    assert_eq!((selected(&client, "istio_requests_total", &target), failed), (2, 1));
}
