//! Manifests for tests: the few lines in which they differ, the many that they share.

use std::{fmt::Write, path::PathBuf};

/// A Deployment of the echo app, with ServiceAccount and readiness probe.
pub(crate) struct App {
    name: String,
    replicas: usize,
    arguments: Vec<String>,
    /// More labels of its pods, as lines of YAML.
    labels: String,
    /// A file of this machine, and where its pods have it.
    file: Option<(PathBuf, String)>,
    /// Annotations of its pods, likewise, below their field.
    annotations: String,
}

/// An app of one replica, labelled `app: <name>`, which answers its name as ServiceVersion.
pub(crate) fn app(name: &str) -> App {
    let (name, arguments) = (name.to_owned(), Vec::new());
    App { name, replicas: 1, arguments, labels: String::new(), annotations: String::new(), file: None }
}

impl App {
    pub(crate) fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// An argument for `gamut echo`.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Not in the mesh, though its namespace is.
    pub(crate) fn unmeshed(self) -> Self {
        self.label("gamut.mesh/inject: disabled")
    }

    /// Another label of its pods, as YAML.
    pub(crate) fn label(mut self, label: &str) -> Self {
        self.labels += &format!("\n        {label}");
        self
    }

    /// A file of this machine that all of its pods have, at this place.
    #[allow(dead_code, reason = "for the scenarios of faults under load")]
    pub(crate) fn file(mut self, file: PathBuf, place: &str) -> Self {
        self.file = Some((file, place.to_owned()));
        self
    }

    /// An annotation of its pods, as YAML.
    pub(crate) fn annotation(mut self, annotation: &str) -> Self {
        if self.annotations.is_empty() {
            self.annotations = "\n      annotations:".to_owned();
        }
        self.annotations += &format!("\n        {annotation}");
        self
    }

    /// The manifest, in a namespace.
    pub(crate) fn in_namespace(&self, namespace: &str) -> String {
        let Self { name, replicas, arguments, labels, annotations, file } = self;
        let (volumes, mounts) = file.as_ref().map_or_else(Default::default, |(file, place)| {
            let volume = format!("\n      volumes: [{{name: file, hostPath: {{path: {}}}}}]", file.display());
            (volume, format!("\n        volumeMounts: [{{name: file, mountPath: {place}}}]"))
        });
        format!(
            "---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: {namespace}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata:
      labels:
        app: {name}{labels}{annotations}
    spec:
      serviceAccountName: {name}{volumes}
      containers:
      - name: echo
        image: gamut.mesh/echo
        args: {arguments:?}
        env: [{{name: VERSION, value: {name}}}]{mounts}
        readinessProbe:
          httpGet: {{path: /healthz, port: 8080}}
          periodSeconds: 1
"
        )
    }
}

/// A namespace in the mesh, with the mTLS mode `strict` or `permissive`.
pub(crate) fn namespace(name: &str, mtls: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Namespace
metadata:
  name: {name}
  labels: {{gamut.mesh/inject: enabled}}
  annotations: {{gamut.mesh/mtls: {mtls}}}
"
    )
}

/// A Service whose port 80 leads to port 8080 of `app: <name>`.
pub(crate) fn service(namespace: &str, name: &str) -> String {
    service_with(namespace, name, name, "[{name: http, port: 80, targetPort: 8080}]", "")
}

/// A Service with all that can differ: the app that it selects, its ports, other fields of its spec (one line of YAML).
pub(crate) fn service_with(namespace: &str, name: &str, app: &str, ports: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {app}}}
  ports: {ports}
  {spec}
"
    )
}

/// An HTTPRoute of a Service; `rules` are lines of YAML, each rule a list item.
pub(crate) fn route(namespace: &str, name: &str, parent: &str, rules: &[&str]) -> String {
    let mut text = format!(
        "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{{group: '', kind: Service, {parent}}}]
  rules:
"
    );
    for rule in rules {
        let _ = writeln!(text, "  - {}", rule.trim().replace('\n', "\n    "));
    }
    text
}
