//! Workloads of other kinds than Deployments in a strict namespace: Jobs that end, init containers of the app's own, probes and hooks.

use crate::{
    harness::{Cluster, until},
    shop::{Canary, Release},
};

/// Both ask a meshed Service; in a namespace that is strict nobody gets an answer who isn't in the mesh.
const JOBS: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: shop}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      initContainers:
        - {name: before, image: gamut.mesh/echo, imagePullPolicy: IfNotPresent, command: [client, "http://web/", --count=3]}
      containers:
        - {name: ask, image: gamut.mesh/echo, imagePullPolicy: IfNotPresent, command: [client, "http://web/", --count=5]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: yearly, namespace: shop}
spec:
  schedule: "0 0 1 1 *"
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          restartPolicy: Never
          containers:
            - {name: ask, image: gamut.mesh/echo, imagePullPolicy: IfNotPresent, command: [client, "http://web/", --count=5]}
"#;

/// Whatever the kubelet can ask a container, by port number and by name.
const PROBED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: probed, namespace: shop}
spec:
  terminationGracePeriodSeconds: 5
  containers:
    - name: app
      image: gamut.mesh/echo
      imagePullPolicy: IfNotPresent
      command: [server, --port=8080, --tcp=9000]
      ports: [{name: http, containerPort: 8080}]
      startupProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
      readinessProbe: {tcpSocket: {port: 9000}, periodSeconds: 1}
      livenessProbe: {exec: {command: [client, "http://127.0.0.1:8080/"]}, periodSeconds: 5, timeoutSeconds: 5}
      lifecycle:
        postStart: {httpGet: {path: /, port: http}}
        preStop: {httpGet: {path: /, port: 8080}}
    - name: other
      image: gamut.mesh/echo
      imagePullPolicy: IfNotPresent
      command: [server, --port=9080, --tls=9443, --crt=/cert.crt, --key=/cert.key]
      startupProbe: {httpGet: {scheme: HTTPS, path: /healthz, port: 9443}, periodSeconds: 1}
      readinessProbe: {grpc: {port: 9080}, periodSeconds: 1}
      livenessProbe: {httpGet: {scheme: HTTPS, path: /, port: 9443}, periodSeconds: 1}
      lifecycle:
        postStart: {exec: {command: [client, --help]}}
        preStop: {exec: {command: [client, "http://127.0.0.1:9080/"]}}
"#;

#[test]
fn jobs_end_and_their_init_containers_speak_mutual_tls() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.install_gateway_api();
    let release = Release::install(&cluster, &[]);
    let canary = Canary::start(&cluster);
    cluster.apply(JOBS);
    cluster.kubectl(&["create", "job", "-n", "shop", "now", "--from=cronjob/yearly"]);
    for job in ["once", "now"] {
        cluster.kubectl(&[
            "wait",
            "-n",
            "shop",
            &format!("job/{job}"),
            "--for=condition=Complete",
            "--timeout=90s",
        ]);
        let meshed = [
            "get",
            "pods",
            "-n",
            "shop",
            "-l",
            &format!("job-name={job},gamut.mesh/injected=true"),
            "-o",
            "name",
        ];
        assert_eq!(cluster.kubectl(&meshed).lines().count(), 1, "{job} was in the mesh");
    }
    // The namespace is strict: in plaintext they would get 403.
    for (job, container, requests) in [("once", "before", 3), ("once", "ask", 5), ("now", "ask", 5)] {
        let said = cluster.kubectl(&["logs", "-n", "shop", &format!("job/{job}"), "-c", container]);
        assert_eq!(said.matches("StatusCode=200").count(), requests, "{job}, {container}: {said}");
    }
    cluster.kubectl(&["delete", "-n", "shop", "jobs,cronjobs", "--all"]);
    drop(canary);
    release.uninstall();
}

#[test]
fn probes_and_hooks_of_a_strict_pod_work_as_without_the_mesh() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.install_gateway_api();
    let release = Release::install(&cluster, &[]);
    let canary = Canary::start(&cluster);
    cluster.apply(PROBED);
    cluster.kubectl(&["wait", "-n", "shop", "pod/probed", "--for=condition=Ready", "--timeout=60s"]);

    // Why the kubelet says that something of the pod's failed.
    let failed = || {
        let failed =
            ["get", "events", "-n", "shop", "--field-selector=involvedObject.name=probed,type=Warning"];
        cluster.kubectl(&[failed.as_slice(), &["-o", "jsonpath={.items[*].reason}"]].concat())
    };
    assert!(!failed().contains("FailedPostStartHook"), "{}", failed());
    let ready = r#".status.conditions[?(@.type=="Ready")].status"#;
    let health = |status: &str| {
        let exec = ["exec", "-n", "shop", "probed", "-c", "other", "--", "client", "--method=PUT"];
        let url = format!("http://127.0.0.1:9080/healthz?status={status}");
        cluster.kubectl(&[exec.as_slice(), &[&url]].concat());
    };
    // What a gRPC probe is told. The liveness probe asks another path, so that nothing is restarted.
    health("503");
    cluster.wait("shop", "pod/probed", ready, "False");
    health("200");
    cluster.wait("shop", "pod/probed", ready, "True");
    assert_eq!(cluster.value("shop", "pod/probed", ".status.containerStatuses[*].restartCount"), "0 0");
    cluster.kubectl(&["delete", "-n", "shop", "pod", "probed"]);
    assert!(!failed().contains("FailedPreStopHook"), "{}", failed());

    // The sidecar listens on every port; a probe sees the app's all the same.
    let closed = PROBED.replace("tcpSocket: {port: 9000}", "tcpSocket: {port: 9001}");
    cluster.kubectl(&["delete", "events", "-n", "shop", "--all"]);
    cluster.apply(&closed);
    until("the probe of a closed port fails", || failed().contains("Unhealthy"));
    assert_eq!(cluster.value("shop", "pod/probed", ready), "False");
    drop(canary);
    release.uninstall();
}
