//! A Pod object as something to run: defaults filled in, names resolved, what can't be done here refused.
//!
//! Refusals name the container and the field. Fields that only matter to a real cluster (scheduling, resources, ...) are
//! passed over; `docs/reference/local.md` lists them.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, Pod, PodSecurityContext, SecurityContext, VolumeMount,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::{
    actions::{self, Action, Probe},
    lifecycle::{RestartPolicy, Role},
    volumes::{self, VolumePlan},
};
use crate::{linux::capabilities, paths};

/// What a Pod object asks for.
#[derive(Clone, Debug)]
pub(crate) struct PodPlan {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) host_name: String,
    pub(crate) restart: RestartPolicy,
    /// Between SIGTERM and SIGKILL, preStop included.
    pub(crate) grace: Duration,
    /// Init containers and sidecars in their order, then the app's containers.
    pub(crate) containers: Vec<ContainerPlan>,
    pub(crate) volumes: BTreeMap<String, VolumePlan>,
    /// The object itself, for the downward API.
    pub(crate) pod: Box<Pod>,
}

/// What one container asks for.
#[derive(Clone, Debug)]
pub(crate) struct ContainerPlan {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) image: String,
    /// The program and its arguments, variables not yet expanded.
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<EnvVar>,
    pub(crate) environment_from: Vec<EnvFromSource>,
    pub(crate) user: UserPlan,
    pub(crate) working_directory: Option<String>,
    pub(crate) mounts: Vec<VolumeMount>,
    pub(crate) startup: Option<Probe>,
    pub(crate) readiness: Option<Probe>,
    pub(crate) liveness: Option<Probe>,
    pub(crate) post_start: Option<Action>,
    pub(crate) pre_stop: Option<Action>,
}

/// As whom a container runs and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserPlan {
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) more_groups: Vec<u32>,
    /// The capabilities that are kept, as bits.
    pub(crate) capabilities: u64,
    pub(crate) no_new_privileges: bool,
}

/// A Pod that can't run here.
#[derive(Debug, PartialEq, Error)]
pub(crate) enum PlanError {
    #[error("{field} can't be read: {problem}")]
    Field { field: String, problem: String },
    #[error("spec.containers is empty; a pod needs at least one container")]
    NoContainers,
    #[error(
        "{container}: image {image:?} without a command can't run here: gamut up has no images; give the container a \
         command (a program of this machine), or use image gamut.mesh/echo"
    )]
    NoCommand { container: String, image: String },
    #[error(
        "{container}: securityContext.runAsNonRoot is true, but the container would run as root; set runAsUser"
    )]
    RootForbidden { container: String },
    #[error(
        "{container}: securityContext.{field} is {value}; it must be a user or group id of 0 to 4294967295"
    )]
    Id { container: String, field: &'static str, value: i64 },
    #[error("{container}: securityContext.capabilities names {name:?}, which is no capability")]
    Capability { container: String, name: String },
    #[error("{container}: {problem}")]
    Action { container: String, problem: String },
    #[error("{container}: volumeMounts names volume {volume:?}, which spec.volumes doesn't have")]
    NoSuchVolume { container: String, volume: String },
    #[error("spec.volumes {volume:?}: {problem}")]
    Volume { volume: String, problem: String },
    #[error("spec.restartPolicy is {0:?}; it must be Always, OnFailure or Never")]
    RestartPolicy(String),
    #[error(
        "spec.hostNetwork is not supported by gamut up: each pod has a network of its own; remove the field"
    )]
    HostNetwork,
}

/// What is to be run for a Pod object.
///
/// # Errors
/// The first thing found that can't be done here.
pub(crate) fn plan(object: &Value) -> Result<PodPlan, PlanError> {
    let pod: Pod = read_pod(object)?;
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref().ok_or(PlanError::NoContainers)?;
    if spec.host_network == Some(true) {
        return Err(PlanError::HostNetwork);
    }
    if spec.containers.is_empty() {
        return Err(PlanError::NoContainers);
    }
    let restart = match spec.restart_policy.as_deref() {
        None | Some("Always") => RestartPolicy::Always,
        Some("OnFailure") => RestartPolicy::OnFailure,
        Some("Never") => RestartPolicy::Never,
        Some(other) => return Err(PlanError::RestartPolicy(other.to_owned())),
    };
    let volumes = spec.volumes.iter().flatten().map(|volume| {
        let planned = volumes::plan(volume)
            .map_err(|problem| PlanError::Volume { volume: volume.name.clone(), problem })?;
        Ok((volume.name.clone(), planned))
    });
    let volumes: BTreeMap<String, VolumePlan> = volumes.collect::<Result<_, PlanError>>()?;

    let init = spec.init_containers.iter().flatten().map(|container| {
        let always = container.restart_policy.as_deref() == Some("Always");
        (container, if always { Role::Sidecar } else { Role::Init })
    });
    let apps = spec.containers.iter().map(|container| (container, Role::App));
    let containers = init
        .chain(apps)
        .map(|(container, role)| plan_container(container, role, spec.security_context.as_ref(), &volumes));
    let name = metadata.name.clone().unwrap_or_default();
    Ok(PodPlan {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        // As long as the kernel allows a host name to be.
        host_name: spec.hostname.clone().unwrap_or_else(|| name.chars().take(63).collect()),
        name,
        restart,
        grace: seconds(spec.termination_grace_period_seconds.unwrap_or(30)),
        containers: containers.collect::<Result<_, _>>()?,
        volumes,
        pod: Box::new(pod),
    })
}

/// Reads container by container first, so that an error can say which one it is in.
fn read_pod(object: &Value) -> Result<Pod, PlanError> {
    for list in ["initContainers", "containers"] {
        let containers = object.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            Container::deserialize(container).map_err(|error| PlanError::Field {
                field: format!("spec.{list}[{index}] {name:?}"),
                problem: error.to_string(),
            })?;
        }
    }
    Pod::deserialize(object)
        .map_err(|error| PlanError::Field { field: "spec".to_owned(), problem: error.to_string() })
}

fn plan_container(
    container: &Container,
    role: Role,
    pod_security: Option<&PodSecurityContext>,
    volumes: &BTreeMap<String, VolumePlan>,
) -> Result<ContainerPlan, PlanError> {
    let place = || format!("container {:?}", container.name);
    let probe = |probe: &Option<_>, field: &str| {
        let planned = probe.as_ref().map(|probe| actions::plan_probe(probe, container, field)).transpose();
        planned.map_err(|problem| PlanError::Action { container: place(), problem })
    };
    let hook = |hook: Option<&_>, field: &str| {
        let planned = hook.map(|hook| actions::plan_hook(hook, container, field)).transpose();
        planned.map_err(|problem| PlanError::Action { container: place(), problem })
    };
    let mounts = container.volume_mounts.clone().unwrap_or_default();
    if let Some(unknown) = mounts.iter().find(|mount| !volumes.contains_key(&mount.name)) {
        return Err(PlanError::NoSuchVolume { container: place(), volume: unknown.name.clone() });
    }
    let lifecycle = container.lifecycle.as_ref();
    Ok(ContainerPlan {
        name: container.name.clone(),
        role,
        image: container.image.clone().unwrap_or_default(),
        arguments: arguments(container)?,
        environment: container.env.clone().unwrap_or_default(),
        environment_from: container.env_from.clone().unwrap_or_default(),
        user: user(container, pod_security)?,
        working_directory: container.working_dir.clone(),
        mounts,
        startup: probe(&container.startup_probe, "startupProbe")?,
        readiness: probe(&container.readiness_probe, "readinessProbe")?,
        liveness: probe(&container.liveness_probe, "livenessProbe")?,
        post_start: hook(
            lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()),
            "lifecycle.postStart",
        )?,
        pre_stop: hook(lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()), "lifecycle.preStop")?,
    })
}

/// The command, or what stands in for the two images that are built in.
fn arguments(container: &Container) -> Result<Vec<String>, PlanError> {
    let image = container.image.as_deref().unwrap_or_default();
    let command = container.command.as_deref().unwrap_or_default();
    let arguments = container.args.as_deref().unwrap_or_default();
    let built_in = match repository(image) {
        "gamut.mesh/echo" => Some(vec![paths::EXECUTABLE.to_owned(), "echo".to_owned()]),
        "gamut.mesh/gamut" => Some(vec![paths::EXECUTABLE.to_owned()]),
        // An image with one file, as the mesh's own: the file itself, on this machine.
        program if program.starts_with('/') => Some(vec![program.to_owned()]),
        _ => None,
    };
    let program = match (command, built_in) {
        ([], Some(built_in)) => built_in,
        ([], None) => {
            let container = format!("container {:?}", container.name);
            return Err(PlanError::NoCommand { container, image: image.to_owned() });
        }
        // The image's only file, wherever the manifest believes it to be.
        ([first, rest @ ..], Some(built_in)) if first.rsplit('/').next() == Some("gamut") => {
            [&built_in[..1], rest].concat()
        }
        (command, _) => command.to_vec(),
    };
    Ok([&program, arguments].concat())
}

/// An image's name without tag and digest.
fn repository(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    match name.rsplit_once(':') {
        // A colon before a slash belongs to a registry's port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

fn user(container: &Container, pod: Option<&PodSecurityContext>) -> Result<UserPlan, PlanError> {
    let place = || format!("container {:?}", container.name);
    let none = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&none);
    let id = |field, value: Option<i64>| {
        let id = value.map(u32::try_from).transpose();
        id.map_err(|_| PlanError::Id { container: place(), field, value: value.unwrap_or_default() })
    };
    let user = id("runAsUser", own.run_as_user.or(pod.and_then(|pod| pod.run_as_user)))?.unwrap_or(0);
    let group = id("runAsGroup", own.run_as_group.or(pod.and_then(|pod| pod.run_as_group)))?.unwrap_or(0);
    let fs_group = id("fsGroup", pod.and_then(|pod| pod.fs_group))?;
    let supplemental = pod.and_then(|pod| pod.supplemental_groups.as_deref()).unwrap_or_default();
    let mut more_groups = supplemental
        .iter()
        .map(|group| id("supplementalGroups", Some(*group)).map(Option::unwrap_or_default))
        .collect::<Result<Vec<u32>, _>>()?;
    more_groups.extend(fs_group);
    let non_root = own.run_as_non_root.or(pod.and_then(|pod| pod.run_as_non_root));
    if non_root == Some(true) && user == 0 {
        return Err(PlanError::RootForbidden { container: place() });
    }
    let names = own.capabilities.as_ref();
    let add = names.and_then(|names| names.add.as_deref()).unwrap_or_default();
    let drop = names.and_then(|names| names.drop.as_deref()).unwrap_or_default();
    let capabilities = capabilities::granted(add, drop, own.privileged == Some(true))
        .map_err(|name| PlanError::Capability { container: place(), name })?;
    let no_new_privileges = own.allow_privilege_escalation == Some(false);
    Ok(UserPlan { user, group, more_groups, capabilities, no_new_privileges })
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(container: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-1", "namespace": "demo", "uid": "u-1"},
            "spec": {"containers": [container]}
        })
    }

    fn only(container: Value) -> Result<ContainerPlan, PlanError> {
        plan(&pod(container)).map(|mut plan| plan.containers.remove(0))
    }

    #[test]
    fn the_echo_image_needs_no_command() {
        for image in ["gamut.mesh/echo", "gamut.mesh/echo:1.2", "gamut.mesh/echo@sha256:abc"] {
            let planned = only(json!({"name": "app", "image": image, "args": ["--port", "80"]})).unwrap();
            assert_eq!(planned.arguments, [paths::EXECUTABLE, "echo", "--port", "80"]);
        }
    }

    #[test]
    fn our_own_image_runs_our_own_executable_wherever_it_is_said_to_be() {
        let planned = only(json!({"name": "p", "image": "gamut.mesh/gamut:dev", "args": ["proxy"]})).unwrap();
        assert_eq!(planned.arguments, [paths::EXECUTABLE, "proxy"]);
        let planned =
            only(json!({"name": "p", "image": "gamut.mesh/gamut", "command": ["/gamut", "init"]})).unwrap();
        assert_eq!(planned.arguments, [paths::EXECUTABLE, "init"]);
    }

    #[test]
    fn an_image_that_is_a_program_of_this_machine_runs_it() {
        let image = "/opt/bench/gamut-proxy";
        let planned = only(json!({"name": "p", "image": image, "args": ["proxy"]})).unwrap();
        assert_eq!(planned.arguments, [image, "proxy"]);
        let planned = only(json!({"name": "p", "image": image, "command": ["/gamut", "drain"]})).unwrap();
        assert_eq!(planned.arguments, [image, "drain"]);
    }

    #[test]
    fn any_other_image_without_a_command_is_told_in_one_line() {
        let error = only(json!({"name": "app", "image": "registry:5000/nginx"})).unwrap_err();
        assert_eq!(
            error,
            PlanError::NoCommand {
                container: "container \"app\"".into(),
                image: "registry:5000/nginx".into()
            }
        );
        assert!(!error.to_string().contains('\n'));
        let planned =
            only(json!({"name": "app", "image": "nginx", "command": ["sleep"], "args": ["9"]})).unwrap();
        assert_eq!(planned.arguments, ["sleep", "9"]);
    }

    #[test]
    fn an_error_in_a_container_says_in_which_one() {
        let error =
            only(json!({"name": "app", "image": "gamut.mesh/echo", "ports": [{"containerPort": "http"}]}));
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("spec.containers[0] \"app\" can't be read: invalid type: string"), "{text}");
    }

    #[test]
    fn a_containers_own_security_context_beats_the_pods() {
        let mut object = pod(json!({
            "name": "app", "image": "gamut.mesh/echo",
            "securityContext": {"runAsUser": 7, "capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": false}
        }));
        object["spec"]["securityContext"] =
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]});
        let planned = plan(&object).unwrap().containers.remove(0).user;
        let expected =
            UserPlan { user: 7, group: 2, more_groups: vec![4, 3], capabilities: 0, no_new_privileges: true };
        assert_eq!(planned, expected);
    }

    #[test]
    fn root_is_refused_where_the_manifest_forbids_it() {
        let container =
            json!({"name": "app", "image": "gamut.mesh/echo", "securityContext": {"runAsNonRoot": true}});
        assert_eq!(
            only(container).unwrap_err(),
            PlanError::RootForbidden { container: "container \"app\"".into() }
        );
    }

    #[test]
    fn init_containers_and_sidecars_come_first_and_are_told_apart() {
        let mut object = pod(json!({"name": "app", "image": "gamut.mesh/echo"}));
        object["spec"]["initContainers"] = json!([
            {"name": "setup", "image": "x", "command": ["true"]},
            {"name": "proxy", "image": "x", "command": ["true"], "restartPolicy": "Always"},
        ]);
        let roles: Vec<Role> =
            plan(&object).unwrap().containers.iter().map(|container| container.role).collect();
        assert_eq!(roles, [Role::Init, Role::Sidecar, Role::App]);
    }

    #[test]
    fn a_mount_of_a_volume_that_is_not_there_is_refused() {
        let container = json!({"name": "app", "image": "gamut.mesh/echo", "volumeMounts": [{"name": "v", "mountPath": "/run/v"}]});
        assert!(matches!(only(container), Err(PlanError::NoSuchVolume { .. })));
    }
}
