//! A case: objects, what their conditions must be, requests, and what must become of them.
//!
//! Every case is in the same small world ([`WORLD`]): in namespace `shop` the apps `one`, `two` and `three` with a Service
//! of the same name each, a Service `nobody` without endpoints, and a `client`; in namespace `rivals` the app and Service
//! `rival`, in `others` the app `stranger`, which are clients too. Every case has a Service of its own to attach routes to,
//! called as the case and leading to `one`, so that cases don't meet.
//!
//! What all cases share isn't written: an object's `apiVersion`, its namespace (`shop`) and name (the case's), a
//! route's `parentRefs` (the case's Service). Routes without entry in `conditions` must be `Accepted` and have
//! `ResolvedRefs`, both true, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::LazyLock,
};

use serde::Deserialize;
use serde_json::{Value, json};

/// One file of `cases/`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Case {
    /// `TOPIC/NAME`.
    #[serde(skip)]
    pub(crate) id: String,
    /// The clauses of `CLAUSES.md` that it stands for.
    pub(crate) clauses: Vec<String>,
    /// Its objects.
    #[serde(default)]
    pub(crate) objects: Vec<Value>,
    /// `KIND/NAME`, `KIND/NAMESPACE/NAME`, each also with `@PARENT` behind it, and lines of the form
    /// `TYPE=STATUS REASON` or `TYPE=STATUS REASON: part of the message`.
    #[serde(default)]
    pub(crate) conditions: BTreeMap<String, Vec<String>>,
    /// What is sent, and what must become of it.
    #[serde(default)]
    pub(crate) requests: Vec<Question>,
    /// The controller's setting: another mesh is asked then.
    #[serde(default)]
    pub(crate) require_reference_grant: bool,
    /// Why no mesh is asked.
    pub(crate) table_only: Option<String>,
    /// Why the table alone isn't asked for answers.
    pub(crate) mesh_only: Option<String>,
}

/// A request and its expected answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Question {
    /// The client's namespace.
    #[serde(default = "shop")]
    pub(crate) from: String,
    /// The Service that is dialled, as `NAME` or `NAME.NAMESPACE`; the case's.
    pub(crate) to: Option<String>,
    #[serde(default = "http_port")]
    pub(crate) port: u16,
    #[serde(default = "get")]
    pub(crate) method: String,
    /// Path and query.
    #[serde(default = "root")]
    pub(crate) path: String,
    /// What stands in `Host` in place of what is dialled.
    pub(crate) host: Option<String>,
    /// Lines `name: value`.
    #[serde(default)]
    pub(crate) headers: Vec<String>,
    /// A unary gRPC call of this path in place of an HTTP request.
    pub(crate) grpc: Option<String>,
    /// A connection of bytes in place of a request; the backend's port speaks first.
    #[serde(default)]
    pub(crate) tcp: bool,
    /// A request in the application's own TLS, for this name.
    pub(crate) sni: Option<String>,
    pub(crate) expect: Expect,
}

/// What must become of a request. What isn't named isn't looked at, but for the status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Expect {
    /// 200 where nothing else is expected.
    pub(crate) status: Option<u16>,
    /// The gRPC status, in place of the HTTP one.
    pub(crate) grpc: Option<u16>,
    /// The app that answers.
    pub(crate) backend: Option<String>,
    /// `gamut-answer`: the sidecar's own answer, and why.
    pub(crate) reason: Option<String>,
    pub(crate) location: Option<String>,
    /// Path and query as the backend sees them.
    pub(crate) path: Option<String>,
    /// The host as the backend sees it.
    pub(crate) host: Option<String>,
    /// Headers as the backend sees them; null: not there.
    pub(crate) headers: BTreeMap<String, Option<String>>,
    /// Headers of the answer; null: not there.
    pub(crate) response: BTreeMap<String, Option<String>>,
    /// Over many requests: how the apps, or statuses, share them.
    pub(crate) shares: BTreeMap<String, u64>,
    /// Over many requests: all are answered by one app, whichever it is.
    pub(crate) steady: bool,
    /// Connections that are reset.
    pub(crate) closed: bool,
    /// Services that get copies (table only: a mirror's answer is dropped).
    pub(crate) mirrors: Vec<String>,
}

fn shop() -> String {
    "shop".to_owned()
}

fn http_port() -> u16 {
    80
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

/// What all cases are in, without pods.
pub(crate) const WORLD: &str = "
- {kind: Namespace, metadata: {name: shop, labels: {gamut.mesh/inject: enabled}}}
- {kind: Namespace, metadata: {name: rivals, labels: {gamut.mesh/inject: enabled}}}
- {kind: Namespace, metadata: {name: others, labels: {gamut.mesh/inject: enabled}}}
- {kind: Service, metadata: {name: one}, spec: {selector: {app: one}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tls, port: 443, targetPort: 8443}, {name: bytes, port: 9001, targetPort: 9001, appProtocol: tcp}]}}
- {kind: Service, metadata: {name: two}, spec: {selector: {app: two}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tls, port: 443, targetPort: 8443}, {name: bytes, port: 9001, targetPort: 9001, appProtocol: tcp}]}}
- {kind: Service, metadata: {name: three}, spec: {selector: {app: three}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tls, port: 443, targetPort: 8443}]}}
- {kind: Service, metadata: {name: nobody}, spec: {selector: {app: nobody}, ports: [{name: http, port: 80, targetPort: 8080}]}}
- {kind: Service, metadata: {name: rival, namespace: rivals}, spec: {selector: {app: rival}, ports: [{name: http, port: 80, targetPort: 8080}]}}
";

/// The apps, by namespace. `client` sends, the others answer; each is named by what it answers as `ServiceVersion`.
pub(crate) const APPS: [(&str, &str); 6] = [
    ("shop", "client"),
    ("shop", "one"),
    ("shop", "two"),
    ("shop", "three"),
    ("rivals", "rival"),
    ("others", "stranger"),
];

/// Who sends for a namespace.
pub(crate) fn client_of(namespace: &str) -> &'static str {
    APPS.iter().find(|(of, _)| *of == namespace).unwrap_or_else(|| panic!("no client in {namespace}")).1
}

/// Every case, in the order of their ids.
pub(crate) fn all() -> &'static [Case] {
    static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration/corpus/cases");
        let mut read = Vec::new();
        for topic in entries(&cases) {
            for file in entries(&cases.join(&topic)) {
                let text = fs::read_to_string(cases.join(&topic).join(&file)).unwrap();
                let name =
                    file.strip_suffix(".yaml").unwrap_or_else(|| panic!("{topic}/{file} isn't a case"));
                assert!(text.starts_with("# "), "{topic}/{name} doesn't say what it is about");
                let mut case: Case =
                    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{topic}/{name}: {error}"));
                case.id = format!("{topic}/{name}");
                read.push(case);
            }
        }
        let names: BTreeSet<&str> = read.iter().map(Case::name).collect();
        assert_eq!(names.len(), read.len(), "two cases have the same name, and would share a Service");
        read
    });
    &CASES
}

fn entries(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

impl Case {
    /// Its name, which is that of its Service.
    pub(crate) fn name(&self) -> &str {
        self.id.split_once('/').map_or(self.id.as_str(), |(_, name)| name)
    }

    /// Its objects as Kubernetes has them.
    pub(crate) fn manifests(&self) -> Vec<Value> {
        let own: Vec<Value> = self.objects.iter().map(|object| whole(object, self.name())).collect();
        let is_own =
            |object: &Value| object["kind"] == "Service" && object["metadata"]["name"] == self.name();
        let service = json!({"kind": "Service", "spec": {
            "selector": {"app": "one"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
        match own.iter().any(is_own) {
            true => own,
            false => [vec![whole(&service, self.name())], own].concat(),
        }
    }

    /// The lines that the conditions of a route for a parent must have.
    pub(crate) fn conditions_of(&self, kind: &str, namespace: &str, name: &str, parent: &str) -> Vec<String> {
        let names = [format!("{kind}/{name}"), format!("{kind}/{namespace}/{name}")];
        let keys = names.iter().flat_map(|name| [format!("{name}@{parent}"), name.clone()]);
        let written = keys.filter_map(|key| self.conditions.get(&key)).next();
        written.cloned().unwrap_or_else(|| {
            vec!["Accepted=True Accepted".to_owned(), "ResolvedRefs=True ResolvedRefs".to_owned()]
        })
    }
}

/// The world's objects as Kubernetes has them.
pub(crate) fn world() -> Vec<Value> {
    let objects: Vec<Value> = serde_saphyr::from_str(WORLD).unwrap();
    objects.iter().map(|object| whole(object, "")).collect()
}

/// An object with what needn't be written.
fn whole(object: &Value, name: &str) -> Value {
    let mut object = object.clone();
    let kind = object["kind"].as_str().expect("every object has a kind").to_owned();
    let version = match kind.as_str() {
        "Service" | "Namespace" => "v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        "XBackend" | "XBackendTrafficPolicy" => "gateway.networking.x-k8s.io/v1alpha1",
        _ => "gateway.networking.k8s.io/v1",
    };
    let fields = object.as_object_mut().expect("an object");
    fields.entry("apiVersion").or_insert_with(|| json!(version));
    let metadata = fields.entry("metadata").or_insert_with(|| json!({})).as_object_mut().expect("metadata");
    metadata.entry("name").or_insert_with(|| json!(name));
    if kind != "Namespace" {
        metadata.entry("namespace").or_insert_with(|| json!("shop"));
    }
    if kind.ends_with("Route") {
        let spec = fields.entry("spec").or_insert_with(|| json!({})).as_object_mut().expect("spec");
        let parent = json!([{"group": "", "kind": "Service", "name": name}]);
        spec.entry("parentRefs").or_insert(parent);
    }
    object
}
