//! What the node tells about itself: the status for `gamut status`, the summary of a start, objects, namespaces, logs.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use gamut_manifest::{ObjectId, Reading};
use serde_json::Value;

use super::{
    admission::SYSTEM_NAMESPACE,
    cluster::Cluster,
    components::ComponentState,
    control_server::Answer,
    kubelet::NodePod,
    objects::{self, file_name},
};
use crate::{
    control::{
        ComponentReport, ContainerReport, Entrance, ExecUser, LogPart, LogPlace, Namespace, PodReport, Reply,
        Summary, Target,
    },
    linux::namespaces,
    paths,
    pod::{
        environment,
        lifecycle::{Container, Role, Run},
        output,
    },
};

/// All pods, by namespace and name, each with the process in whose network its sidecar can be asked.
pub(crate) fn pods(cluster: &Cluster) -> Vec<(PodReport, Option<i32>)> {
    let mut pods: Vec<(PodReport, Option<i32>)> =
        cluster.kubelet.iter().map(|(_, pod)| report_pod(pod)).collect();
    pods.sort_by(|(a, _), (b, _)| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    pods
}

fn report_pod(pod: &NodePod) -> (PodReport, Option<i32>) {
    let containers = &pod.state.containers;
    let sidecar = containers.iter().find(|container| container.name == gamut_injector::PROXY_CONTAINER);
    let asked = pod.meshed && sidecar.is_some_and(|sidecar| sidecar.started);
    let of_workload = pod.workload.kind != "Pod";
    let report = PodReport {
        namespace: pod.plan.namespace.clone(),
        name: pod.plan.name.clone(),
        uid: pod.plan.uid.clone(),
        workload: of_workload.then(|| format!("{} {}", pod.workload.kind, pod.workload.name)),
        ips: pod.addresses.iter().map(ToString::to_string).collect(),
        phase: pod.state.phase().to_owned(),
        ready: pod.state.ready(),
        terminating: pod.deleted.is_some(),
        meshed: pod.meshed,
        containers: containers.iter().map(report_container).collect(),
        proxy: None,
        proxy_error: None,
    };
    (report, pod.state.sandbox.filter(|_| asked))
}

fn report_container(container: &Container) -> ContainerReport {
    let (state, pid) = match (&container.run, &container.last) {
        (Run::Running { process, .. }, _) => ("running".to_owned(), *process),
        (Run::Ended(exit), _) if exit.code == 0 => ("exited: done".to_owned(), None),
        (Run::Ended(exit), _) => (format!("exited: {}", exit.in_words()), None),
        (Run::Waiting { .. }, Some(exit)) => (format!("waiting: {}", exit.in_words()), None),
        (Run::Waiting { .. }, None) => ("waiting: not started yet".to_owned(), None),
    };
    let role = match container.role {
        Role::Init => "init",
        Role::Sidecar => "sidecar",
        Role::App => "app",
    };
    ContainerReport {
        name: container.name.clone(),
        role: role.to_owned(),
        state,
        pid,
        restarts: container.restarts,
        ready: container.ready,
    }
}

/// The components.
pub(crate) fn components(states: &[ComponentState]) -> Vec<ComponentReport> {
    let reports = states.iter().map(|state| ComponentReport {
        name: state.name.to_owned(),
        pid: state.process,
        restarts: state.restarts,
        ready: state.ready,
    });
    reports.collect()
}

/// All objects of a kind, with the statuses that the controller has written. Its session keys, which it owns, are
/// where it has put them.
pub(crate) fn objects(cluster: &Cluster, kind: &str) -> Vec<Value> {
    let with_status = |id: &ObjectId, object: &Value| {
        let mut object = object.clone();
        if let Some(status) = status(id) {
            object["status"] = status;
        }
        object
    };
    let of_controller = (kind == "Secret").then(session_keys).flatten();
    cluster.objects.of_kind(kind).map(|(id, object)| with_status(id, object)).chain(of_controller).collect()
}

fn session_keys() -> Option<Value> {
    let id = objects::id("Secret", SYSTEM_NAMESPACE, "gamut-session-keys");
    let written = fs::read(Path::new(paths::CLUSTER).join(file_name(&id))).ok()?;
    serde_json::from_slice(&written).ok()
}

/// The status that the controller has written for an object, if it has.
pub(crate) fn status(id: &ObjectId) -> Option<Value> {
    let written = fs::read(Path::new(paths::STATUS).join(file_name(id))).ok()?;
    serde_json::from_slice(&written).ok()
}

/// What a start has brought, and what to try next.
pub(crate) fn summary(cluster: &Cluster, reading: &Reading, milliseconds: u64) -> Summary {
    let pods: Vec<&NodePod> =
        cluster.kubelet.iter().map(|(_, pod)| pod).filter(|pod| pod.deleted.is_none()).collect();
    let namespaces = reading.objects.iter().filter_map(|object| object.namespace.clone());
    let namespaces: BTreeSet<String> = namespaces.filter(|namespace| namespace != SYSTEM_NAMESPACE).collect();
    Summary {
        milliseconds,
        pods: pods.len(),
        meshed: pods.iter().filter(|pod| pod.meshed).count(),
        namespaces: namespaces.into_iter().collect(),
        services: cluster.count("Service"),
        routes: ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"]
            .map(|kind| cluster.count(kind))
            .iter()
            .sum(),
        errors: cluster.problems.of_manifests(),
        conditions: cluster.problems.routes.len(),
        example: example(cluster, reading),
    }
}

/// A call of a Service from a pod: a route's parent from a client, as far as there are such.
fn example(cluster: &Cluster, reading: &Reading) -> Option<String> {
    let deployments = || cluster.workloads.iter().filter(|workload| workload.id.kind == "Deployment");
    let client =
        deployments().find(|workload| workload.id.name.contains("client")).or(deployments().next())?;
    let namespace = client.id.namespace.as_deref()?;
    let parent = reading.objects.iter().filter(|object| object.kind == "HTTPRoute").find_map(|route| {
        let parents = route.raw.pointer("/spec/parentRefs")?.as_array()?;
        let parent =
            parents.iter().find(|parent| parent.get("kind").and_then(Value::as_str) == Some("Service"))?;
        let own = parent.get("namespace").and_then(Value::as_str).or(route.namespace.as_deref())?;
        Some((own.to_owned(), parent.get("name")?.as_str()?.to_owned()))
    });
    let services = || reading.objects.iter().filter(|object| object.kind == "Service");
    let any = || {
        let service = services().find(|service| !service.name.contains("client"))?;
        Some((service.namespace.clone()?, service.name.clone()))
    };
    let (in_namespace, service) = parent.or_else(any)?;
    let object = services().find(|object| {
        object.name == service && object.namespace.as_deref() == Some(in_namespace.as_str())
    })?;
    let port = object.raw.pointer("/spec/ports/0/port").and_then(Value::as_u64).unwrap_or(80);
    let port = if port == 80 { String::new() } else { format!(":{port}") };
    let host = if in_namespace == namespace { service } else { format!("{service}.{in_namespace}") };
    let option = if namespace == "default" { String::new() } else { format!("-n {namespace} ") };
    Some(format!("{option}deploy/{} -- curl -s http://{host}{port}/", client.id.name))
}

/// The namespaces of a target, opened.
pub(crate) fn entrance(
    cluster: &Cluster,
    target: &Target,
    namespace: &str,
    container: Option<&str>,
) -> Answer {
    let entered = match target {
        Target::Node => {
            let node = i32::try_from(std::process::id()).unwrap_or_default();
            open(node, node, "the node".to_owned(), Vec::new())
        }
        Target::Pod(_) | Target::Workload { .. } | Target::Service(_) => {
            find(cluster, target, namespace).and_then(|pod| enter(cluster, pod, container))
        }
    };
    match entered {
        Ok((entrance, held)) => match serde_json::to_value(entrance) {
            Ok(entrance) => Answer::Reply(Reply::Ok(entrance), held),
            Err(error) => Answer::error(error.to_string()),
        },
        Err(problem) => Answer::error(problem),
    }
}

/// The process in whose network a pod's sidecar answers.
pub(crate) fn sidecar(cluster: &Cluster, namespace: &str, name: &str) -> Result<i32, String> {
    let pod = find(cluster, &Target::Pod(name.to_owned()), namespace)?;
    match report_pod(pod) {
        (report, _) if !report.meshed => Err(format!("{} has no sidecar", pod.title())),
        (_, process) => process.ok_or_else(|| format!("the sidecar of {} hasn't started yet", pod.title())),
    }
}

/// What a container of a target has printed.
pub(crate) fn logs(
    cluster: &Cluster,
    target: &Target,
    namespace: &str,
    container: Option<&str>,
    after: Option<LogPlace>,
) -> Answer {
    let file = match (target, container) {
        (Target::Node, component) => log_of_component(component),
        _ => find(cluster, target, namespace).and_then(|pod| {
            let (name, _) = pod.container_process(container).ok_or_else(|| no_container(pod, container))?;
            Ok(output::log_file(&pod.plan, name))
        }),
    };
    file.map_or_else(Answer::error, |file| {
        let (text, place) = output::read(&file, after);
        Answer::ok(LogPart { text, place: place.or(after) })
    })
}

fn log_of_component(component: Option<&str>) -> Result<PathBuf, String> {
    match component {
        Some(name @ ("ca" | "controller")) => Ok(Path::new(paths::LOGS).join(format!("{name}.log"))),
        Some(other) => Err(format!("the node has no component {other:?}; -c ca or -c controller")),
        None => Err("name a component: -c ca or -c controller".to_owned()),
    }
}

fn enter(
    cluster: &Cluster,
    pod: &NodePod,
    container: Option<&str>,
) -> Result<(Entrance, Vec<OwnedFd>), String> {
    if pod.state.outcome.is_some() {
        let (title, phase) = (pod.title(), pod.state.phase());
        return Err(format!(
            "{title} has ended ({phase}), so nothing can run in it; `gamut logs` has what it printed"
        ));
    }
    let sandbox = pod.state.sandbox.ok_or_else(|| format!("{} isn't running yet", pod.title()))?;
    let (name, process) = pod.container_process(container).ok_or_else(|| no_container(pod, container))?;
    let process = match process {
        Some(process) => process,
        // Without any container of its own the pod still has its network and names.
        None if container.is_none() => sandbox,
        None => return Err(format!("container {name} of {} isn't running", pod.title())),
    };
    let plan = pod.plan.containers.iter().find(|plan| plan.name == name);
    let environment = plan.map(|plan| {
        let resolved = environment::resolve(plan, &pod.plan.pod, &pod.addresses, &cluster.data());
        resolved.map(|resolved| resolved.declared).unwrap_or_default()
    });
    let title = format!("{}, container {name}", pod.title());
    let (mut entrance, held) = open(process, sandbox, title, environment.unwrap_or_default())?;
    // Root stays as mighty as whoever has called; another user is no more than the container's own program.
    entrance.user = plan.map(|plan| &plan.user).filter(|user| user.user != 0).map(|user| ExecUser {
        user: user.user,
        group: user.group,
        more_groups: user.more_groups.clone(),
    });
    Ok((entrance, held))
}

/// The process namespace last: who enters it can't start threads any more.
fn open(
    mounts_of: i32,
    rest_of: i32,
    description: String,
    environment: Vec<(String, String)>,
) -> Result<(Entrance, Vec<OwnedFd>), String> {
    let kinds = [
        (Namespace::Mnt, mounts_of),
        (Namespace::Net, rest_of),
        (Namespace::Uts, rest_of),
        (Namespace::Ipc, rest_of),
        (Namespace::Pid, rest_of),
    ];
    let held = kinds.iter().map(|(kind, process)| Ok(OwnedFd::from(namespaces::open(*process, *kind)?)));
    let held: std::io::Result<Vec<OwnedFd>> = held.collect();
    let held = held.map_err(|error| format!("{description} has just ended ({error}); try again"))?;
    let namespaces = kinds.into_iter().map(|(kind, _)| kind).collect();
    Ok((Entrance { namespaces, environment, user: None, description }, held))
}

fn find<'a>(cluster: &'a Cluster, target: &Target, namespace: &str) -> Result<&'a NodePod, String> {
    let selector = match target {
        Target::Service(name) => selector(cluster, namespace, name)?,
        _ => BTreeMap::new(),
    };
    let is_meant = |pod: &NodePod| match target {
        Target::Pod(name) => pod.plan.name == *name,
        Target::Workload { kind, name } => pod.workload.kind == *kind && pod.workload.name == *name,
        // A selector means the pods of its own namespace alone.
        Target::Service(_) => pod.plan.namespace == namespace && has_labels(pod, &selector),
        Target::Node => false,
    };
    let all = || cluster.kubelet.iter().map(|(_, pod)| pod);
    let candidates = all().filter(|pod| pod.plan.namespace == namespace && is_meant(pod));
    let best = candidates.max_by_key(|pod| {
        let first = (pod.workload.kind == "StatefulSet").then(|| Reverse(ordinal(&pod.plan.name)));
        (pod.deleted.is_none(), pod.state.outcome.is_none(), first, pod.state.ready())
    });
    best.ok_or_else(|| {
        let elsewhere = all()
            .find(|pod| is_meant(pod))
            .map(|pod| format!("; there is one in namespace {0}: add -n {0}", pod.plan.namespace));
        let of_workload = || {
            let Target::Pod(name) = target else { return None };
            let workload = cluster.workloads.iter().map(|workload| &workload.id).find(|id| {
                id.kind != "Pod" && id.name == *name && id.namespace.as_deref() == Some(namespace)
            })?;
            let written = Target::written(&workload.kind, name)?;
            Some(format!("; there is {} {name}: write {written}", workload.kind))
        };
        let hint = elsewhere.or_else(of_workload).unwrap_or_default();
        match target {
            Target::Service(name) => format!("Service {name} of namespace {namespace} selects no pod"),
            _ => format!("there is no {target} in namespace {namespace}{hint}"),
        }
    })
}

/// What a Service's pods are labelled with.
fn selector(cluster: &Cluster, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, String> {
    let service = cluster.objects.get(&objects::id("Service", namespace, name));
    let service = service.ok_or_else(|| format!("there is no Service {name} in namespace {namespace}"))?;
    let entries = service.pointer("/spec/selector").and_then(Value::as_object).into_iter().flatten();
    let selector: BTreeMap<String, String> =
        entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    match selector.is_empty() {
        true => {
            Err(format!("Service {name} of namespace {namespace} has no selector, so nobody knows its pods"))
        }
        false => Ok(selector),
    }
}

fn has_labels(pod: &NodePod, selector: &BTreeMap<String, String>) -> bool {
    let object = pod.object();
    let label = |key: &String| object.pointer("/metadata/labels")?.get(key)?.as_str();
    selector.iter().all(|(key, value)| label(key) == Some(value.as_str()))
}

/// The number of a StatefulSet's pod.
fn ordinal(pod: &str) -> u64 {
    pod.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(u64::MAX)
}

fn no_container(pod: &NodePod, container: Option<&str>) -> String {
    let names: Vec<&str> = pod.plan.containers.iter().map(|container| container.name.as_str()).collect();
    format!("{} has no container {}; it has {}", pod.title(), container.unwrap_or_default(), names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_has_the_logs_of_its_components_and_no_other_file() {
        assert!(log_of_component(Some("ca")).unwrap().ends_with("ca.log"));
        for other in [None, Some("nix"), Some("../../etc/passwd")] {
            assert!(log_of_component(other).unwrap_err().contains("-c ca or -c controller"), "{other:?}");
        }
    }
}
