//! The injector on a real API server: asked through the chart's webhook configuration, with a certificate from the real CA.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::harness::{Cluster, Process, json_of, until};

/// What the chart makes beside the webhook configuration, but for pods: here the injector is a process beside the API server, at the node's address.
const OBJECTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: injector, namespace: gamut-system}
spec:
  serviceAccountName: gamut-injector
  schedulerName: none # it exists, which is all that a token needs; on a node that there is not, Kubernetes collects it as garbage
  containers: [{name: injector, image: none}]
---
apiVersion: v1
kind: Service
metadata: {name: gamut-injector, namespace: gamut-system}
spec: {ports: [{port: 443, targetPort: 15016}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: gamut-injector, namespace: gamut-system, labels: {kubernetes.io/service-name: gamut-injector}}
addressType: IPv4
ports: [{port: 15016}]
endpoints: [{addresses: [10.0.0.10]}]
";

/// The chart's webhook configuration.
fn configuration(cluster: &Cluster) -> String {
    let chart = ["template", "gamut", Cluster::CHART, "--namespace=gamut-system", "--kube-version=1.34.0"];
    cluster.run("helm", &[chart.as_slice(), &["--show-only=templates/webhook.yaml"]].concat())
}

/// The CA and an injector that the API server asks.
struct Running {
    ca: Process,
    injector: Process,
    directory: tempfile::TempDir,
}

impl Running {
    /// Another injector with the same token.
    fn replica(&self, cluster: &Cluster, more: &[&str]) -> Process {
        replica(cluster, &self.directory, more)
    }
}

fn replica(cluster: &Cluster, directory: &tempfile::TempDir, more: &[&str]) -> Process {
    let (token, roots) = (directory.path().join("token"), directory.path().join("root.pem"));
    let files = ["--token-file", token.to_str().unwrap(), "--roots-file", roots.to_str().unwrap()];
    cluster.injector(&[files.as_slice(), more].concat())
}

fn start(cluster: &Cluster) -> Running {
    let directory = tempfile::tempdir().unwrap();
    cluster.apply(OBJECTS);
    let ca = cluster.ca(15_010, &[]);
    ca.says("the CA is ready");
    let bound = ["--bound-object-kind=Pod", "--bound-object-name=injector", "--audience=gamut.mesh/ca"];
    let token = cluster
        .kubectl(&[&["create", "token", "gamut-injector", "-n", "gamut-system"], bound.as_slice()].concat());
    std::fs::write(directory.path().join("token"), token).unwrap();
    cluster.wait_for("gamut-system", "configmap/gamut-trust-bundle");
    let roots = cluster.value("gamut-system", "configmap/gamut-trust-bundle", r#".data.root\.pem"#);
    std::fs::write(directory.path().join("root.pem"), roots).unwrap();
    let injector = replica(cluster, &directory, &[]);
    cluster.apply(&configuration(cluster));
    injector.says("the API server knows the webhook by the published roots");
    until("the injector is ready", || cluster.get("http://127.0.0.1:15017/ready").0 == 200);
    // A dry run is refused for as long as kube-proxy hasn't made the way, and the API server hasn't read the configuration.
    cluster.kubectl(&["label", "namespace", "shop", "gamut.mesh/inject=enabled"]);
    until("the API server asks the injector", || {
        let pod = pod("shop", "probe", "");
        cluster.try_apply(&pod, &["--dry-run=server"]).status.success() && injector.has_said("injected")
    });
    Running { ca, injector, directory }
}

fn pod(namespace: &str, name: &str, metadata: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, {metadata}}}
spec:
  schedulerName: none
  initContainers: [{{name: migrate, image: none}}]
  containers: [{{name: web, image: none, readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}}}}}]
"
    )
}

fn init_containers(cluster: &Cluster, namespace: &str, pod: &str) -> String {
    cluster.value(namespace, &format!("pod/{pod}"), ".spec.initContainers[*].name")
}

fn refusal(cluster: &Cluster, manifest: &str) -> String {
    let output = cluster.try_apply(manifest, &[]);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn pods_get_their_sidecars_by_the_label_of_namespace_or_pod_and_wrong_ones_their_reason() {
    let Some(cluster) = Cluster::take() else { return };
    let running = start(&cluster);

    cluster.apply(&pod("shop", "web", ""));
    assert_eq!(init_containers(&cluster, "shop", "web"), "gamut-init gamut-proxy migrate");
    let probe = cluster.value("shop", "pod/web", ".spec.containers[0].readinessProbe.httpGet.port");
    assert_eq!(probe, "15021");
    cluster.apply(&pod("shop", "out", "labels: {gamut.mesh/inject: disabled}"));
    assert_eq!(init_containers(&cluster, "shop", "out"), "migrate");
    cluster.apply(&pod("lab", "in", "labels: {gamut.mesh/inject: enabled}"));
    assert_eq!(init_containers(&cluster, "lab", "in"), "gamut-init gamut-proxy migrate");
    cluster.apply(&pod("lab", "plain", ""));
    assert_eq!(init_containers(&cluster, "lab", "plain"), "migrate");

    let message = refusal(&cluster, &pod("shop", "wrong", "annotations: {gamut.mesh/mtls: stirct}"));
    assert!(
        message
            .contains("pod shop/wrong: annotation gamut.mesh/mtls: \"stirct\" is not strict or permissive")
    );
    let message = refusal(&cluster, &pod("lab", "typo", "labels: {gamut.mesh/inject: enalbed}"));
    assert!(message.contains("label gamut.mesh/inject of the pod is \"enalbed\""), "{message}");

    cluster.kubectl(&["label", "namespace", "shop", "pod-security.kubernetes.io/enforce=baseline"]);
    let message = refusal(&cluster, &pod("shop", "forbidden", ""));
    let (result, detail) = cluster.check("Pod Security");
    assert_eq!(result, "failed", "{detail}");
    assert!(detail.contains("is forbidden in shop (baseline)"), "{detail}");
    cluster.kubectl(&["label", "namespace", "shop", "pod-security.kubernetes.io/enforce-"]);
    assert!(
        message.contains(
            "Warning: gamut: pod shop/forbidden: namespace shop enforces Pod Security level baseline"
        )
    );
    assert!(message.contains("violates PodSecurity"), "{message}");

    running.injector.terminate();
    running.ca.terminate();
}

#[test]
fn without_an_injector_meshed_namespaces_wait_and_everybody_else_goes_on() {
    let Some(cluster) = Cluster::take() else { return };
    let running = start(&cluster);
    running.injector.kill();

    let message = refusal(&cluster, &pod("shop", "web", ""));
    assert!(message.contains("failed calling webhook \"namespace.injector.gamut.mesh\""), "{message}");
    for namespace in ["lab", "gamut-system", "kube-system"] {
        cluster.kubectl(&["label", "namespace", namespace, "--overwrite", "gamut.mesh/inject-"]);
        cluster.apply(&pod(namespace, "bystander", ""));
        cluster.kubectl(&["delete", "-n", namespace, "pod", "bystander", "--force", "--grace-period=0"]);
    }
    // Not even a label can lock out what the mesh and the cluster need to start.
    for namespace in ["gamut-system", "kube-system"] {
        cluster.kubectl(&["label", "namespace", namespace, "gamut.mesh/inject=enabled"]);
        cluster.apply(&pod(namespace, "bystander", ""));
        cluster.kubectl(&["label", "namespace", namespace, "gamut.mesh/inject-"]);
        cluster.kubectl(&["delete", "-n", namespace, "pod", "bystander", "--force", "--grace-period=0"]);
    }
    running.ca.terminate();
}

#[test]
fn the_ca_bundle_is_put_back_when_it_is_wiped_and_two_replicas_agree_on_it() {
    let Some(cluster) = Cluster::take() else { return };
    let running = start(&cluster);
    let second = running.replica(&cluster, &["--listen", "127.0.0.1:15026", "--admin", "127.0.0.1:15027"]);
    second.says("the API server knows the webhook by the published roots");
    let value =
        |path: &str| cluster.value("gamut-system", "mutatingwebhookconfiguration/gamut-injector", path);
    let bundle = || value(".webhooks[*].clientConfig.caBundle");
    let written = bundle();
    let generation = || value(".metadata.generation").parse::<u64>().unwrap();
    let before = generation();
    assert_eq!(written.split(' ').count(), 2, "both webhooks have it: {written}");
    let wiped = r#"[{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]"#;
    cluster.kubectl(&["patch", "mutatingwebhookconfiguration", "gamut-injector", "--type=json", "-p", wiped]);
    until("it is there again", || bundle() == written);
    assert_eq!(generation(), before + 2, "it was wiped once, and written once");
    // What an upgrade of the chart does: the same manifest, which doesn't have the field.
    cluster.apply(&configuration(&cluster));
    assert_eq!(bundle(), written);
    second.terminate();
    running.injector.terminate();
    running.ca.terminate();
}

#[test]
fn pods_without_the_sidecar_that_they_should_have_are_told_about() {
    let Some(cluster) = Cluster::take() else { return };
    cluster.apply(&pod("lab", "old", ""));
    let running = start(&cluster);
    cluster.kubectl(&["label", "namespace", "lab", "gamut.mesh/inject=enabled"]);
    let network =
        pod("lab", "agent", "").replace("schedulerName: none", "schedulerName: none\n  hostNetwork: true");
    let output = cluster.try_apply(&network, &[]);
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(
        warning
            .contains("Warning: gamut: pod lab/agent: it gets no sidecar: the pod uses the host's network")
    );

    for (name, words) in [("old", "kubectl rollout restart"), ("agent", "uses the host's network")] {
        until("there is an Event", || {
            let selector = format!("--field-selector=reason=NoSidecar,involvedObject.name={name}");
            cluster
                .kubectl(&["get", "events", "-n", "lab", &selector, "-o", "jsonpath={.items[*].message}"])
                .contains(words)
        });
    }
    let (_, status) = cluster.get("http://127.0.0.1:15017/status");
    assert!(status.contains("\"withoutSidecarTotal\": 2"), "{status}");
    running.injector.terminate();
    running.ca.terminate();
}

/// Nobody who creates pods by it reads an admission warning.
const MISSPELT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: misspelt, namespace: lab}
spec:
  replicas: 0
  selector: {matchLabels: {app: misspelt}}
  template:
    metadata:
      labels: {app: misspelt}
      annotations: {gamut.mesh/mtsl: strict, gamut.mesh/drain-time: '30'}
    spec: {containers: [{name: web, image: none}]}
---
apiVersion: v1
kind: Service
metadata: {name: misspelt, namespace: lab, annotations: {gamut.mesh/opaque-port: '5432'}}
spec: {ports: [{port: 5432}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: misspelt
  namespace: lab
  annotations: {gamut.mesh/sesion-scope: backend, gamut.mesh/session-persistence: '{type: Cokie}'}
spec: {parentRefs: [{group: '', kind: Service, name: misspelt}]}
";

#[test]
fn misspelt_annotations_are_told_where_they_are_by_events_and_by_check() {
    let Some(cluster) = Cluster::take() else { return };
    cluster.install_gateway_api();
    let running = start(&cluster);
    cluster.apply(MISSPELT);
    cluster.kubectl(&["annotate", "namespace", "lab", "gamut.mesh/mtsl=strict", "--overwrite"]);
    let meant = "write gamut.mesh/mtls, if that was meant";
    let unread = r#"gamut.mesh/drain-time: "30" is not a duration"#;
    for (object, words) in [
        ("deployment/misspelt", &[meant, unread][..]),
        ("service/misspelt", &["write gamut.mesh/opaque-ports, if that was meant"]),
        ("httproute/misspelt", &["write gamut.mesh/session-scope, if that was meant"]),
    ] {
        until("it is described with what is wrong", || {
            let described = cluster.kubectl(&["describe", object, "-n", "lab"]);
            described.contains("InvalidAnnotation") && words.iter().all(|word| described.contains(word))
        });
    }
    until("the Event about the namespace is in it", || {
        let selector = "--field-selector=reason=InvalidAnnotation,involvedObject.kind=Namespace";
        let path = ["-o", "jsonpath={.items[*].message}"];
        cluster
            .kubectl(&[&["get", "events", "-n", "lab", selector], path.as_slice()].concat())
            .contains(meant)
    });

    let report = json_of(&cluster.gamut(&["check", "-o", "json"]));
    let findings = report["findings"].as_array().unwrap();
    let is_told = |finding: &Value| {
        let detail = finding["detail"].as_str().unwrap();
        finding["result"] == "failed" && detail.contains("Deployment lab/misspelt") && detail.contains(unread)
    };
    assert!(findings.iter().any(is_told), "{report:#}");
    let page = report.to_string();
    assert!(page.contains("Namespace lab: annotation gamut.mesh/mtsl") && page.contains(meant), "{page}");
    for said in
        ["annotation gamut.mesh/sesion-scope is unknown", "annotation gamut.mesh/session-persistence: type"]
    {
        assert!(page.contains(&format!("HTTPRoute lab/misspelt: {said}")), "{page}");
    }

    let all = ["deployment/misspelt", "service/misspelt", "httproute/misspelt"];
    cluster.kubectl(&[&["delete", "-n", "lab"], all.as_slice()].concat());
    cluster.kubectl(&["annotate", "namespace", "lab", "gamut.mesh/mtsl-"]);
    assert_eq!(cluster.check("annotations").0, "ok");
    running.injector.terminate();
    running.ca.terminate();
}

/// A mutating webhook of somebody else's, behind ours in the API server's order, which adds a container with a probe.
fn add_an_agent(cluster: &Cluster, directory: &tempfile::TempDir) -> Process {
    let certificate = rcgen::generate_simple_self_signed(vec!["10.0.0.10".to_owned()]).unwrap();
    let pem = directory.path().join("webhook.pem");
    let chain = certificate.cert.pem();
    std::fs::write(&pem, certificate.signing_key.serialize_pem() + &chain).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../integration/cluster/tests/second_webhook.py");
    let mut command = cluster.inside("python3");
    command.args(["-B", script, "15443"]).arg(&pem);
    let webhook = Process::start("second webhook", command);
    webhook.says("listening");
    cluster.apply(&format!(
        "
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {{name: second}}
webhooks:
  - name: agent.example.com
    clientConfig: {{url: 'https://10.0.0.10:15443/', caBundle: {}}}
    rules: [{{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods], scope: Namespaced}}]
    failurePolicy: Fail
    sideEffects: None
    admissionReviewVersions: [v1]
    namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: shop}}}}
",
        STANDARD.encode(chain)
    ));
    webhook
}

#[test]
fn what_another_webhook_adds_after_ours_has_its_probes_led_through_the_one_sidecar_too() {
    let Some(cluster) = Cluster::take() else { return };
    let running = start(&cluster);
    let second = add_an_agent(&cluster, &running.directory);
    until("the API server asks the second webhook", || {
        let pod = pod("shop", "probe", "");
        cluster.try_apply(&pod, &["--dry-run=server"]).status.success()
            && second.has_said("after the sidecar")
    });
    cluster.apply(&pod("shop", "web", ""));
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", "second"]);

    assert_eq!(init_containers(&cluster, "shop", "web"), "gamut-init gamut-proxy migrate");
    let value = |path: &str| cluster.value("shop", "pod/web", path);
    assert_eq!(value(".spec.containers[*].name"), "web agent");
    assert_eq!(value(".spec.volumes[*].name").matches("gamut-").count(), 2, "each volume once");
    let paths = value(".spec.containers[*].readinessProbe.httpGet.path");
    assert_eq!(paths, "/app/web/readiness /app/agent/readiness");
    assert_eq!(value(".spec.containers[*].readinessProbe.httpGet.port"), "15021 15021");
    let originals =
        value(r#".spec.initContainers[?(@.name=="gamut-proxy")].env[?(@.name=="GAMUT_PROBES")].value"#);
    let originals: Value = serde_json::from_str(&originals).unwrap();
    assert_eq!(originals["/app/web/readiness"]["httpGet"]["port"], 8080, "{originals:#}");
    assert_eq!(originals["/app/agent/readiness"]["httpGet"]["port"], 9100, "{originals:#}");
    running.injector.terminate();
    running.ca.terminate();
}
