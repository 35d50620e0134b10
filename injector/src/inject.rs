//! [`inject`]: the patch, put together.
//!
//! The pod is looked at through Kubernetes' types but changed as JSON, so that fields which this version of the types
//! doesn't know come out as they went in.

use json_patch::Patch;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    config::{Config, NamespaceView},
    containers,
    decide::{Skipped, decide},
    names::{
        INIT_CONTAINER, INJECTED, OWN_PORTS, PROBES_VARIABLE, PROXY_CONTAINER, PROXY_UID, ROOTS_VOLUME,
        TOKEN_VOLUME,
    },
    probes::{self, Originals},
    settings::{SettingErrors, Settings, Warning},
};

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    /// It has its sidecar now.
    Injected(Injected),
    /// It stays as it is.
    Skipped(Skipped),
}

/// A pod with its sidecar.
#[derive(Clone, Debug, PartialEq)]
pub struct Injected {
    /// The pod.
    pub pod: Value,
    /// The way there, as a webhook answers (RFC 6902). Empty if the pod was injected before.
    pub patch: Patch,
    /// What its author should know.
    pub warnings: Vec<Warning>,
}

/// Why a pod that should have a sidecar is refused instead. Starting it without one would leave it outside the mesh silently.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InjectError {
    /// Not the shape of a pod.
    #[error("the object isn't a pod: {part}: {reason}")]
    NotAPod {
        /// `metadata` or `spec`.
        part: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The label is neither of its values.
    #[error("label gamut.mesh/inject of the {object} is {value:?}; it must be \"enabled\" or \"disabled\"")]
    Label {
        /// The pod or the namespace.
        object: &'static str,
        /// What it says.
        value: String,
    },
    /// Values of annotations.
    #[error(transparent)]
    Settings(#[from] SettingErrors),
    /// The app would be exempt from redirection.
    #[error(
        "container {container} runs as user {PROXY_UID}, the sidecar's own, whose traffic isn't redirected; give it another runAsUser"
    )]
    ProxyUser {
        /// The app's container.
        container: String,
    },
    /// The name is needed.
    #[error("the pod has a {kind} named {name}, the name of one of the sidecar's; rename it")]
    NameTaken {
        /// Container or volume.
        kind: &'static str,
        /// The name.
        name: String,
    },
}

/// Gives a pod its sidecar, or says why not.
///
/// `pod` is a Pod, or the template of one (`metadata` and `spec`).
///
/// # Errors
/// If the pod should have a sidecar but can't as it is.
pub fn inject(pod: &Value, namespace: &NamespaceView, config: &Config) -> Result<Injection, InjectError> {
    let metadata: ObjectMeta = part(pod, "metadata")?;
    let spec: PodSpec = part(pod, "spec")?;
    let labels = metadata.labels.unwrap_or_default();
    let annotations = metadata.annotations.unwrap_or_default();
    if let Some(reason) = decide(&labels, &annotations, &spec, namespace, config)? {
        return Ok(Injection::Skipped(reason));
    }
    let (settings, mut warnings) =
        Settings::parse(&annotations, spec.termination_grace_period_seconds, config)?;
    let injected_before = labels.get(INJECTED).is_some_and(|value| value == "true");
    if !injected_before {
        check_names(&spec)?;
    }
    check_app(&spec, &mut warnings)?;

    let mut patched = pod.clone();
    let known = if injected_before { known_originals(&spec) } else { Originals::default() };
    let mut originals = Originals::default();
    for app in app_containers(&mut patched) {
        if app.list == "containers" {
            delay_stop(app.json, settings.app_stop_delay, &app.view)?;
        }
        probes::rewrite(app.json, &app.view, &known, &mut originals, &mut warnings);
    }
    let init = containers::init_container(&settings, config);
    let proxy = containers::proxy_container(&settings, &originals, config);
    let spec = child(&mut patched, "spec")?;
    let init_containers = [to_values(&[init, proxy])?, others(spec, "initContainers")].concat();
    spec["initContainers"] = init_containers.into();
    let volumes = [others(spec, "volumes"), to_values(&containers::volumes(config))?].concat();
    spec["volumes"] = volumes.into();
    child(child(&mut patched, "metadata")?, "labels")?[INJECTED] = "true".into();

    let patch = json_patch::diff(pod, &patched);
    Ok(Injection::Injected(Injected { pod: patched, patch, warnings }))
}

fn part<T: DeserializeOwned + Default>(pod: &Value, part: &'static str) -> Result<T, InjectError> {
    let error = |reason: String| InjectError::NotAPod { part, reason };
    match pod.get(part) {
        Some(value) => serde_json::from_value(value.clone()).map_err(|reason| error(reason.to_string())),
        // A template's metadata may be missing; a pod without a spec is none.
        None if part == "metadata" && pod.is_object() => Ok(T::default()),
        None => Err(error("it is missing".to_owned())),
    }
}

fn is_ours(name: &str) -> bool {
    [INIT_CONTAINER, PROXY_CONTAINER, TOKEN_VOLUME, ROOTS_VOLUME].contains(&name)
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn check_names(spec: &PodSpec) -> Result<(), InjectError> {
    let containers = containers(spec).map(|container| ("container", &container.name));
    let volumes = spec.volumes.iter().flatten().map(|volume| ("volume", &volume.name));
    match containers.chain(volumes).find(|(_, name)| is_ours(name)) {
        Some((kind, name)) => Err(InjectError::NameTaken { kind, name: name.clone() }),
        None => Ok(()),
    }
}

fn check_app(spec: &PodSpec, warnings: &mut Vec<Warning>) -> Result<(), InjectError> {
    if spec.dns_policy.as_deref() == Some("Default") {
        warnings.push(Warning::NoClusterDns);
    }
    let of_the_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    for container in containers(spec).filter(|container| !is_ours(&container.name)) {
        let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
        if own.or(of_the_pod) == Some(PROXY_UID) {
            return Err(InjectError::ProxyUser { container: container.name.clone() });
        }
        let declared =
            container.ports.iter().flatten().filter_map(|port| u16::try_from(port.container_port).ok());
        warnings.extend(
            declared
                .filter(|port| OWN_PORTS.contains(port))
                .map(|port| Warning::OwnPort { container: container.name.clone(), port }),
        );
    }
    Ok(())
}

/// What an earlier injection noted in the sidecar's environment.
fn known_originals(spec: &PodSpec) -> Originals {
    let sidecar = containers(spec).find(|container| container.name == PROXY_CONTAINER);
    let variables = sidecar.and_then(|sidecar| sidecar.env.as_ref()).into_iter().flatten();
    let mut values =
        variables.filter(|variable| variable.name == PROBES_VARIABLE).filter_map(|it| it.value.as_ref());
    values.next().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// A container that isn't ours, to be changed.
struct AppContainer<'a> {
    /// The field of the spec that it is in.
    list: &'a str,
    json: &'a mut Value,
    view: Container,
}

fn app_containers(pod: &mut Value) -> impl Iterator<Item = AppContainer<'_>> {
    let fields = pod.get_mut("spec").and_then(Value::as_object_mut).into_iter().flatten();
    let lists = fields.filter(|(field, _)| matches!(field.as_str(), "initContainers" | "containers"));
    lists.flat_map(|(list, items)| {
        items.as_array_mut().into_iter().flatten().filter_map(move |json| {
            let view: Container = serde_json::from_value(json.clone()).ok()?;
            (!is_ours(&view.name)).then_some(AppContainer { list, json, view })
        })
    })
}

/// Lets an app's container go on for some seconds after the pod has begun to end, unless it has a hook of its own.
fn delay_stop(container: &mut Value, seconds: Option<i64>, view: &Container) -> Result<(), InjectError> {
    let has_hook = view.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some());
    if let Some(seconds) = seconds.filter(|_| !has_hook) {
        child(container, "lifecycle")?["preStop"] = json!({"sleep": {"seconds": seconds}});
    }
    Ok(())
}

/// A list of the pod's spec without what an earlier injection put there.
fn others(spec: &Value, field: &str) -> Vec<Value> {
    let list = spec.get(field).and_then(Value::as_array).into_iter().flatten();
    let ours = |item: &&Value| item.get("name").and_then(Value::as_str).is_some_and(is_ours);
    list.filter(|item| !ours(item)).cloned().collect()
}

fn to_values(items: &[impl Serialize]) -> Result<Vec<Value>, InjectError> {
    let values: Result<Vec<Value>, _> = items.iter().map(serde_json::to_value).collect();
    values.map_err(|error| InjectError::NotAPod { part: "spec", reason: error.to_string() })
}

/// A field that holds an object; an empty one is put there if it's missing or `null`. Both are objects afterwards, so that
/// setting their fields by index is sound.
fn child<'a>(parent: &'a mut Value, field: &'static str) -> Result<&'a mut Value, InjectError> {
    let error = || InjectError::NotAPod { part: field, reason: "it isn't an object".to_owned() };
    let child = parent.as_object_mut().ok_or_else(error)?.entry(field).or_insert(Value::Null);
    if child.is_null() {
        *child = json!({});
    }
    if child.is_object() { Ok(child) } else { Err(error()) }
}
