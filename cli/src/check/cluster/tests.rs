//! Clusters in several states of health, from the API server's documents to the page.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gamut_ca::CaStatus;
use gamut_controller::{ControllerStatus, SettingsStatus, SourceStatus, SubscriberStatus};
use gamut_controller_api::MtlsMode;
use gamut_local::control::PodReport;
use gamut_route::Uid;
use gamut_webhook::{CaBundle, Cause, InjectorStatus, OwnCertificate, WithoutSidecar};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::world::{
    OwnStatus,
    scripted::{self, Documents, REVIEWS, component, forbidden, list},
};

/// A root's certificate, PEM.
fn root() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&key).unwrap().pem()
}

fn namespace(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}})
}

fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["containers"] = json!([{"name": "app", "image": "app"}]);
    json!({
        "metadata": {
            "namespace": "shop", "name": name, "labels": {"pod-template-hash": "5d4f"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d4f"}],
        },
        "spec": spec,
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// A definition as far as anything is read of it: of the experimental channel with the fields for sessions, which the
/// standard channel hasn't.
fn definition(kind: &str, name: &str, channel: &str) -> Value {
    let session = json!({"properties": {"type": {}, "cookie": {}, "header": {}, "absoluteTimeout": {}}});
    let fields = match (channel, kind) {
        ("experimental", "HTTPRoute" | "GRPCRoute") => {
            json!({"rules": {"items": {"properties": {"backendRefs": {}, "sessionPersistence": session}}}})
        }
        ("experimental", _) => json!({"sessionPersistence": session}),
        _ => json!({"rules": {"items": {"properties": {"backendRefs": {}}}}}),
    };
    let schema = json!({"openAPIV3Schema": {"properties": {"spec": {"properties": fields}}}});
    json!({
        "metadata": {"name": name, "annotations": {
            "gateway.networking.k8s.io/bundle-version": "v1.7.0", "gateway.networking.k8s.io/channel": channel,
        }},
        "spec": {"names": {"kind": kind}, "versions": [{"name": "v1", "served": true, "schema": schema}]},
    })
}

fn definitions(channel: &str) -> Vec<Value> {
    let mut names = vec![
        ("HTTPRoute", "httproutes.gateway.networking.k8s.io"),
        ("GRPCRoute", "grpcroutes.gateway.networking.k8s.io"),
    ];
    if channel == "experimental" {
        names.extend([
            ("XBackend", "xbackends.gateway.networking.x-k8s.io"),
            ("XBackendTrafficPolicy", "xbackendtrafficpolicies.gateway.networking.x-k8s.io"),
        ]);
    }
    names.into_iter().map(|(kind, name)| definition(kind, name, channel)).collect()
}

fn lease(ahead: i64) -> Value {
    let renewed = Timestamp::now() + SignedDuration::from_secs(ahead);
    json!({"spec": {"holderIdentity": "controller-1", "renewTime": renewed.to_string()}})
}

fn webhook(bundle: &str) -> Value {
    let client =
        json!({"caBundle": bundle, "service": {"namespace": "gamut-system", "name": "gamut-injector"}});
    json!({"metadata": {"name": "gamut-injector"}, "webhooks": [
        {"name": "pods.gamut.mesh", "failurePolicy": "Fail", "clientConfig": client},
    ]})
}

fn slice(pods: &[&str]) -> Value {
    let endpoint = |pod: &&str| json!({"conditions": {"ready": true}, "targetRef": {"name": pod}});
    let endpoints: Vec<Value> = pods.iter().map(endpoint).collect();
    json!({"metadata": {"labels": {"kubernetes.io/service-name": "gamut-injector"}}, "endpoints": endpoints})
}

fn node(version: &str) -> Value {
    json!({"metadata": {"name": "node"}, "status": {"nodeInfo": {"kubeletVersion": version}}})
}

fn published(root: &str) -> Value {
    let of = |namespace: &str| json!({"metadata": {"namespace": namespace, "name": "gamut-trust-bundle"}, "data": {"root.pem": root}});
    list(&[of("gamut-system"), of("shop")])
}

/// A cluster in which all is well.
fn healthy() -> Documents {
    let root = root();
    let components = ["controller", "ca", "injector"].map(|name| component(name, true));
    let mesh = json!({
        "metadata": {"name": "gamut"}, "spec": {"controllerName": "gamut.mesh/controller"},
        "status": {"conditions": [{"type": "Accepted", "status": "True"}], "supportedFeatures": [{}, {}]},
    });
    vec![
        ("/version", json!({"gitVersion": "v1.34.4"})),
        ("/api/v1/nodes", list(&[node("v1.34.4")])),
        ("/api/v1/namespaces", list(&[namespace("shop", json!({"gamut.mesh/inject": "enabled"}))])),
        ("/api/v1/pods", list(&components)),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", list(&definitions("experimental"))),
        (WEBHOOKS, list(&[webhook(&STANDARD.encode(&root))])),
        (
            "/api/v1/namespaces/gamut-system/services",
            list(&[json!({"metadata": {"name": "gamut-injector"}})]),
        ),
        (SLICES, list(&[slice(&["injector-1", "injector-2"])])),
        (LEASE, lease(-2)),
        ("/api/v1/configmaps", published(&root)),
        ("/apis/gateway.networking.x-k8s.io/v1alpha1/xmeshes", list(&[mesh])),
        (REVIEWS, json!({"status": {"allowed": true}})),
    ]
}

const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/gamut-system/endpointslices";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/gamut-system/leases/gamut-controller";

/// The same with other answers.
fn but(mut documents: Documents, others: Documents) -> Documents {
    documents.retain(|(path, _)| others.iter().all(|(other, _)| other != path));
    documents.extend(others);
    documents
}

async fn checked(documents: Documents) -> String {
    let report = now(&scripted::cluster(documents), &scripted::context()).await.unwrap();
    report.page(Timestamp::UNIX_EPOCH).render(false)
}

async fn checked_before(documents: Documents) -> String {
    let report = before(&scripted::cluster(documents), &scripted::context()).await.unwrap();
    report.page(Timestamp::UNIX_EPOCH).render(false)
}

#[tokio::test]
async fn what_is_well_is_said_and_what_may_not_be_asked_is_a_finding() {
    insta::assert_snapshot!(checked(healthy()).await);
}

#[tokio::test]
async fn whatever_is_broken_has_its_line_and_its_remedy() {
    let restricted =
        json!({"gamut.mesh/inject": "enabled", "pod-security.kubernetes.io/enforce": "restricted"});
    let namespaces = [namespace("shop", restricted), namespace("lab", json!({"gamut.mesh/inject": "yes"}))];
    let pods = [
        component("controller", true),
        component("injector", false),
        pod("web-1", json!({})),
        pod("web-2", json!({})),
        pod("agent", json!({"hostNetwork": true})),
    ];
    let documents = vec![
        ("/version", json!({"gitVersion": "v1.28.9"})),
        ("/api/v1/nodes", list(&[node("v1.28.9")])),
        ("/api/v1/namespaces", list(&namespaces)),
        ("/api/v1/pods", list(&pods)),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", list(&[])),
        (WEBHOOKS, list(&[webhook("")])),
        (SLICES, list(&[slice(&[])])),
        (LEASE, lease(120)),
        ("/api/v1/configmaps", list(&[])),
        ("/apis/gateway.networking.x-k8s.io/v1alpha1/xmeshes", list(&[])),
    ];
    insta::assert_snapshot!(checked(but(healthy(), documents)).await);
}

#[tokio::test]
async fn a_bundle_that_lacks_the_published_root_and_one_that_is_none_are_told_apart() {
    for (bundle, said) in [
        (STANDARD.encode(root()), "caBundle lacks a root that the CA has published"),
        ("!".to_owned(), "caBundle can't be read"),
        (STANDARD.encode("x"), "caBundle can't be read"),
    ] {
        let page = checked(but(healthy(), vec![(WEBHOOKS, list(&[webhook(&bundle)]))])).await;
        assert!(page.contains(said), "{page}");
    }
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_is_no_leader() {
    for (document, said) in [
        (lease(-100), "renewed it 10"),
        (json!({"spec": {}}), "no controller leads"),
        (json!({"kind": "Status", "code": 404, "reason": "NotFound"}), "no controller has ever led"),
    ] {
        let page = checked(but(healthy(), vec![(LEASE, document)])).await;
        assert!(page.contains(said), "{page}");
    }
}

#[tokio::test]
async fn a_cluster_without_gamut_is_told_how_to_get_it_and_nothing_else() {
    insta::assert_snapshot!(checked(but(healthy(), vec![("/api/v1/pods", list(&[]))])).await);
}

#[tokio::test]
async fn somebody_who_may_read_little_gets_what_can_be_read() {
    let nothing = [
        "/api/v1/nodes",
        "/api/v1/namespaces",
        "/api/v1/pods",
        "/api/v1/configmaps",
        WEBHOOKS,
        LEASE,
        SLICES,
    ]
    .map(|path| (path, forbidden("you cannot list this at the cluster scope")));
    insta::assert_snapshot!(checked(but(healthy(), nothing.into())).await);
}

#[tokio::test]
async fn a_good_place_to_install_is_said_to_be_one() {
    insta::assert_snapshot!(checked_before(but(healthy(), vec![("/api/v1/pods", list(&[]))])).await);
}

#[tokio::test]
async fn what_keeps_from_installing_is_told_beforehand() {
    let documents = vec![
        ("/version", json!({"gitVersion": "v1.28.9"})),
        ("/api/v1/nodes", list(&[node("v1.28.9"), node("v1.29.0")])),
        (
            "/api/v1/namespaces",
            list(&[namespace("shop", json!({"pod-security.kubernetes.io/enforce": "baseline"}))]),
        ),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", list(&[])),
        (REVIEWS, json!({"status": {"allowed": false}})),
    ];
    insta::assert_snapshot!(checked_before(but(healthy(), documents)).await);
}

#[tokio::test]
async fn a_standard_channel_leaves_the_annotation_for_sessions() {
    let standard = list(&definitions("standard"));
    let documents = vec![("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", standard)];
    let page = checked_before(but(healthy(), documents)).await;
    assert!(page.contains("v1.7.0, standard channel"), "{page}");
    assert!(
        page.contains("annotation gamut.mesh/session-persistence; the CRDs have no field for them"),
        "{page}"
    );
}

fn sidecar(name: &str, status: Value) -> PodReport {
    let object = json!({
        "metadata": {"namespace": "shop", "name": name, "uid": name},
        "spec": {"initContainers": [{"name": "gamut-proxy", "restartPolicy": "Always"}]},
        "status": {"phase": "Running"},
    });
    PodReport { proxy: Some(status), ready: true, ..world::pod_report(&object) }
}

fn status(not_after: i64, table: Value) -> Value {
    json!({
        "identity": "spiffe://cluster.local/ns/shop/sa/web",
        "certificate": {"serial": "1", "notBefore": 0, "notAfter": not_after},
        "ready": {"ready": true},
        "controller": {"state": "connected", "address": "c:15012", "seconds": 5},
        "tables": [{"key": "RouteTable shop/web:80", "ageSeconds": 5, "state": table}],
        "backends": [], "sessions": [],
    })
}

fn mesh(pods: Vec<PodReport>, proxy_version: &str) -> world::Mesh {
    let subscriber = SubscriberStatus {
        namespace: "shop".to_owned(),
        pod: "good".to_owned(),
        uid: Uid::of("good"),
        proxy_version: proxy_version.to_owned(),
        connected_since: String::new(),
        keys: 1,
        in_sync: true,
        behind: Vec::new(),
        refused: Vec::new(),
    };
    let settings = SettingsStatus {
        trust_domain: "cluster.local".to_owned(),
        mtls: MtlsMode::Permissive,
        require_reference_grant: false,
    };
    let source = SourceStatus { synced: true, problems: Vec::new(), resource_version: None, unwritten: 0 };
    let controller =
        ControllerStatus { version: "0.1.0".to_owned(), settings, source, subscribers: vec![subscriber] };
    world::Mesh {
        world: Place::Machine,
        components: Vec::new(),
        pods,
        controllers: vec![controller],
        unasked: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
        waiting_for: Vec::new(),
    }
}

fn of_sidecars(mesh: world::Mesh) -> String {
    let now = Timestamp::from_second(1_000_000).unwrap();
    let mut findings = control_plane::controllers(&mesh);
    findings.extend(sidecars::all(mesh, now));
    Report { world: Place::Machine, purpose: Purpose::Operate, findings }.page(now).render(false)
}

#[test]
fn sidecars_in_order_are_counted() {
    let good = sidecar("good", status(2_000_000, json!({"state": "active"})));
    insta::assert_snapshot!(of_sidecars(mesh(vec![good], "0.1.0")));
}

#[test]
fn sidecars_out_of_order_are_named_with_what_to_do() {
    let mut expired = status(999_999, json!({"state": "active"}));
    expired["certificateProblem"] = "the CA doesn't answer".into();
    let expired = sidecar("expired", expired);
    let behind = sidecar(
        "behind",
        status(2_000_000, json!({"state": "pending", "missing": ["RouteTable shop/web:80"]})),
    );
    let refusing =
        sidecar("refusing", status(2_000_000, json!({"state": "refused", "reason": "no backend"})));
    let mut away = status(2_000_000, json!({"state": "active"}));
    away["controller"] = json!({"state": "away", "address": "c:15012", "seconds": 90, "reason": "refused"});
    away["certificateProblem"] = "the CA doesn't answer".into();
    let mut silent = sidecar("silent", Value::Null);
    silent.proxy = None;
    silent.proxy_error = Some("its sidecar can't be asked: no answer within 5 s".to_owned());
    let old = |sidecar| PodReport { workload: Some("Deployment web".to_owned()), ..sidecar };
    let good = old(sidecar("good", status(2_000_000, json!({"state": "active"}))));
    let pods = vec![expired, behind, old(refusing), sidecar("away", away), silent, good];
    let mut mesh = mesh(pods, "0.0.9");
    mesh.waiting_for = vec!["pod shop/new: container gamut-proxy: waiting: ErrImagePull".to_owned()];
    insta::assert_snapshot!(of_sidecars(mesh));
}

#[test]
fn sidecars_of_an_earlier_installation_are_named_with_the_workloads_to_restart() {
    let mut old = status(2_000_000, json!({"state": "active"}));
    let reason = "invalid peer certificate: UnknownIssuer; restart its pod";
    old["controller"] = json!({"state": "away", "address": "c:15012", "seconds": 90, "reason": reason});
    let of = |name: &str, workload: Option<&str>| PodReport {
        workload: workload.map(str::to_owned),
        ..sidecar(name, old.clone())
    };
    let pods =
        vec![of("web-1", Some("Deployment web")), of("web-2", Some("Deployment web")), of("bare", None)];
    insta::assert_snapshot!(of_sidecars(mesh(pods, "0.1.0")));
}

#[test]
fn a_sidecar_without_a_certificate_is_the_cas_fault_and_not_the_controllers() {
    let mut new = status(0, json!({"state": "active"}));
    new["certificate"] = Value::Null;
    new["certificateProblem"] = "can't connect to the CA at ca:15010: no route to host".into();
    let reason = "it hasn't been reached yet";
    new["controller"] = json!({"state": "away", "address": "c:15012", "seconds": 90, "reason": reason});
    let mut mesh = mesh(vec![sidecar("new", new)], "0.1.0");
    mesh.components = world::components(&[component("controller", true)]);
    let page = of_sidecars(mesh);
    assert!(
        page.contains("shop/new has none yet: can't connect to the CA at ca:15010: no route to host"),
        "{page}"
    );
    assert!(page.contains("no CA is ready, which issues them: the line ca, or gamut logs"), "{page}");
    assert!(!page.contains("see controller"), "{page}");
}

#[test]
fn a_certificate_from_the_future_is_a_clocks_fault_and_a_minute_is_nobodys() {
    let page = |ahead: u64| {
        let mut status = status(2_000_000, json!({"state": "active"}));
        // It is a million seconds past the epoch, and what a CA issues it sets back.
        let begins = 1_000_000 + ahead - gamut_ca::authority::BACKDATE.as_secs();
        status["certificate"]["notBefore"] = begins.into();
        of_sidecars(mesh(vec![sidecar("good", status)], "0.1.0"))
    };
    let an_hour = page(3600);
    for said in [
        "certificates  warning  shop/good: issued 3600 s in the future",
        "certificates: the clock of the CA's node is ahead, or this machine's behind: set them by NTP",
        "the mesh works, with what the warnings say",
    ] {
        assert!(an_hour.contains(said), "{said}: {an_hour}");
    }
    assert!(page(61).contains("issued 61 s in the future"), "{}", page(61));
    assert!(!page(60).contains("in the future"), "{}", page(60));
}

fn authority(signs_until: &str, problems: &[&str]) -> (String, CaStatus) {
    let problems = problems.iter().map(ToString::to_string).collect();
    ("gamut-ca-x".to_owned(), CaStatus { signs_until: signs_until.to_owned(), roots: 1, problems })
}

/// When an injector's certificate ends that is good now.
const WELL: &str = "1970-01-13T00:00:00Z";

fn injector(not_after: &str) -> InjectorStatus {
    let not_after = not_after.to_owned();
    InjectorStatus {
        ready: true,
        certificate: Some(OwnCertificate { serial: "1".to_owned(), not_after }),
        certificate_problem: None,
        ca_bundle: CaBundle::Written { roots: 1 },
        without_sidecar: Vec::new(),
        without_sidecar_total: 0,
        problems: Vec::new(),
        pod_security: Vec::new(),
    }
}

fn of_own(own: &OwnStatus) -> String {
    let now = "1970-01-12T13:46:40Z".parse().unwrap();
    let findings = control_plane::own(own, now);
    Report { world: Place::Machine, purpose: Purpose::Operate, findings }.page(now).render(false)
}

#[test]
fn cas_and_injectors_in_order_say_until_when() {
    let own = OwnStatus {
        authorities: vec![authority("1980-01-01T00:00:00Z", &[])],
        // Theirs are issued one after the other: one line says both are well, until the first of them isn't.
        injectors: [("gamut-injector-x", "1970-01-13T00:00:01Z"), ("gamut-injector-y", WELL)]
            .map(|(pod, not_after)| (pod.to_owned(), injector(not_after)))
            .into(),
        unasked: Vec::new(),
    };
    insta::assert_snapshot!(of_own(&own));
}

#[test]
fn what_keeps_cas_and_injectors_from_their_work_is_told_with_what_to_do() {
    let broken = "Secret gamut-system/our-pki: ca.crt can't be used; what it held before goes on signing";
    let old = WithoutSidecar {
        namespace: "shop".to_owned(),
        name: "old".to_owned(),
        owner: None,
        cause: Cause::NotInjected,
        message: String::new(),
    };
    let worried = InjectorStatus {
        certificate_problem: Some("can't connect to the CA".to_owned()),
        ca_bundle: CaBundle::Failed { reason: "not allowed".to_owned() },
        problems: vec!["no answer; pods without a sidecar aren't looked for meanwhile".to_owned()],
        without_sidecar: vec![old],
        without_sidecar_total: 1,
        ..injector(WELL)
    };
    let ended = OwnCertificate { serial: "1".to_owned(), not_after: "1970-01-12T00:00:00Z".to_owned() };
    let injectors = [
        ("worried", worried),
        ("ended", InjectorStatus { certificate: Some(ended), ..injector(WELL) }),
        ("new", InjectorStatus { certificate: None, ..injector(WELL) }),
    ];
    let own = OwnStatus {
        authorities: vec![
            authority("1970-01-20T00:00:00Z", &[broken]),
            authority("1970-01-01T00:00:00Z", &[]),
        ],
        injectors: injectors.map(|(pod, status)| (pod.to_owned(), status)).into(),
        unasked: vec!["ca gamut-ca-y can't be asked: no answer within 5 s".to_owned()],
    };
    insta::assert_snapshot!(of_own(&own));
}

#[tokio::test]
async fn a_component_that_died_is_shown_with_its_last_words() {
    let mut ca = component("ca", false);
    let words = "gamut: Secret gamut-system/our-pki: ca.crt can't be used";
    ca["status"]["containerStatuses"][0]["lastState"] = json!({"terminated": {"message": words}});
    let pods = list(&[component("controller", true), ca, component("injector", true)]);
    let page = checked(but(healthy(), vec![("/api/v1/pods", pods)])).await;
    assert!(page.contains(&format!("0 of 1 pod ready; its last words: {words}")), "{page}");
}

#[tokio::test]
async fn definitions_that_are_too_old_or_lack_a_kind_are_told_with_what_that_costs() {
    let with = async |definitions: Vec<Value>| {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        checked(but(healthy(), vec![(path, list(&definitions))])).await
    };
    let mut old = definitions("standard");
    for definition in &mut old {
        definition["metadata"]["annotations"]["gateway.networking.k8s.io/bundle-version"] = json!("v1.0.0");
    }
    let page = with(old).await;
    assert!(
        page.contains("v1.0.0, standard channel: too old for routes whose parents are Services"),
        "{page}"
    );
    assert!(page.contains("1.1 is the oldest"), "{page}");
    let mut lacking = definitions("standard");
    lacking.retain(|definition| definition["spec"]["names"]["kind"] != "GRPCRoute");
    let page = with(lacking).await;
    assert!(page.contains("v1.7.0, standard channel; GRPCRoute is missing"), "{page}");
}

/// A workload as the API server lists it.
fn deployment(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

#[tokio::test]
async fn a_component_that_cannot_start_is_named_with_the_reason_and_the_remedy_and_is_not_asked() {
    let waiting = |reason: &str, message: &str| json!([{"name": "gamut", "state": {"waiting": {"reason": reason, "message": message}}}]);
    let mut no_image = component("ca", false);
    no_image["status"]["containerStatuses"] = waiting("ErrImagePull", "gamut:9 not found");
    let mut crashed = component("injector", false);
    crashed["status"]["containerStatuses"] = waiting("CrashLoopBackOff", "back-off 5m0s");
    crashed["status"]["containerStatuses"][0]["lastState"] =
        json!({"terminated": {"message": "gamut: no token"}});
    let mut pending = component("controller", false);
    pending["status"]["containerStatuses"] = json!([]);
    let no_room = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"});
    pending["status"]["conditions"] = json!([no_room]);
    let pods = list(&[pending, no_image, crashed]);
    let page = checked(but(healthy(), vec![("/api/v1/pods", pods)])).await;
    for said in [
        "0 of 1 pod ready; gamut-ca-5d4f-x: ErrImagePull: gamut:9 not found",
        "correct the chart's values below image",
        "0 of 1 pod ready; gamut-injector-5d4f-x: CrashLoopBackOff; its last words: gamut: no token",
        "logs gamut-injector-5d4f-x --previous",
        "0 of 1 pod ready; gamut-controller-5d4f-x: Unschedulable: 0/1 nodes are available",
        "no node takes it",
    ] {
        assert!(page.contains(said), "{said}: {page}");
    }
    assert!(!page.contains("can't be asked"), "{page}");
}

#[tokio::test]
async fn a_component_that_was_scaled_to_nothing_or_whose_pods_are_refused_is_told_by_its_deployment() {
    let without_ca = list(&[component("controller", true), component("injector", true)]);
    let mut refused = deployment("gamut-system", "gamut-ca", json!({"replicas": 1}));
    let failure = json!({"type": "ReplicaFailure", "message": "exceeded quota"});
    refused["status"] = json!({"conditions": [failure]});
    for (deployments, said) in [
        (
            vec![deployment("gamut-system", "gamut-ca", json!({"replicas": 0}))],
            "\n  kubectl scale -n gamut-system deployment/gamut-ca --replicas=1\n",
        ),
        (vec![refused], "no pod of service account gamut-ca: exceeded quota"),
        (vec![], "no pod of service account gamut-ca, and no Deployment gamut-ca"),
    ] {
        let documents = vec![("/api/v1/pods", without_ca.clone()), (DEPLOYMENTS, list(&deployments))];
        let page = checked(but(healthy(), documents)).await;
        assert!(page.contains(said), "{page}");
    }
}

const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";

#[tokio::test]
async fn every_misspelt_annotation_is_a_line_that_names_who_has_it_and_what_is_meant() {
    let annotations = json!({"gamut.mesh/mtsl": "strict", "gamut.mesh/drain-time": "30"});
    let web = |name: &str| {
        deployment("shop", name, json!({"template": {"metadata": {"annotations": annotations}}}))
    };
    let slow = json!({"gamut.mesh/drain-time": "45s"});
    let slow = json!({"metadata": {"annotations": slow}, "spec": {"terminationGracePeriodSeconds": 45}});
    let slow = deployment("shop", "slow", json!({"template": slow}));
    let service = json!({"metadata": {"namespace": "shop", "name": "db", "annotations": {"gamut.mesh/opaque-port": "5432"}}});
    let mut shop = namespace("shop", json!({"gamut.mesh/inject": "enabled"}));
    shop["metadata"]["annotations"] = json!({"gamut.mesh/mtls": "stritc"});
    let template = json!({"metadata": {"labels": {"gamut.mesh/injct": "disabled"}}});
    let nightly = deployment("shop", "nightly", json!({"jobTemplate": {"spec": {"template": template}}}));
    let mut of_it = deployment("shop", "nightly-1", json!({"template": template}));
    of_it["metadata"]["ownerReferences"] = json!([{"kind": "CronJob", "name": "nightly"}]);
    let annotations =
        json!({"gamut.mesh/sesion-scope": "backend", "gamut.mesh/session-persistence": "{type: Cokie}"});
    let route = json!({"metadata": {"namespace": "shop", "name": "web", "uid": "1", "annotations": annotations}, "spec": {}});
    let documents = vec![
        ("/api/v1/namespaces", list(&[shop])),
        ("/api/v1/services", list(&[service])),
        ("/apis/gateway.networking.k8s.io/v1/httproutes", list(&[route])),
        (DEPLOYMENTS, list(&[web("web"), web("api"), slow])),
        ("/apis/batch/v1/cronjobs", list(&[nightly])),
        ("/apis/batch/v1/jobs", list(&[of_it])),
    ];
    let page = checked(but(healthy(), documents)).await;
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("annotations")).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn an_admission_policy_that_is_gone_or_toothless_is_told_with_what_is_open_and_how_it_comes_back() {
    const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
    let policy = json!({"metadata": {"name": "gamut-control-plane"}});
    let binding = |actions: Value| json!({"metadata": {"name": "gamut-control-plane"}, "spec": {"policyName": "gamut-control-plane", "validationActions": actions}});
    let (deny, audit) = (binding(json!(["Deny"])), binding(json!(["Audit"])));
    let page = async |policies: &[Value], bindings: &[Value]| {
        checked(but(healthy(), vec![(POLICIES, list(policies)), (BINDINGS, list(bindings))])).await
    };
    for (policies, bindings, said) in [
        (vec![], vec![deny.clone()], "there is no ValidatingAdmissionPolicy gamut-control-plane"),
        (vec![policy.clone()], vec![], "there is no ValidatingAdmissionPolicyBinding gamut-control-plane"),
        (vec![policy.clone()], vec![audit], "doesn't deny what policy gamut-control-plane forbids"),
    ] {
        let page = page(&policies, &bindings).await;
        assert!(
            page.contains(said) && page.contains("may create any Secret") && page.contains("`helm upgrade`"),
            "{page}"
        );
    }
    let page = page(&[policy], &[deny]).await;
    assert!(page.contains("the control plane may create what has its names alone"), "{page}");
}
