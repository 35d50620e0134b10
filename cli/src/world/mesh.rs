//! The whole of a mesh at one moment: its own processes, pods, and what sidecars and controllers say.

use anyhow::Context as _;
use gamut_ca::CaStatus;
use gamut_controller::{ControllerStatus, SettingsStatus};
use gamut_kubernetes::{Cluster, Context, Selection, core};
use gamut_local::control::{PodReport, Status};
use gamut_webhook::InjectorStatus;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Place, SYSTEM_NAMESPACE, Trouble, ask, place, pod};

/// What a world says about its mesh.
#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    /// Who says it.
    pub(crate) world: Place,
    /// The mesh's own processes.
    pub(crate) components: Vec<Component>,
    /// Pods, each with what its sidecar says.
    pub(crate) pods: Vec<PodReport>,
    /// What the controllers say: one on a machine, one for each replica in a cluster.
    pub(crate) controllers: Vec<ControllerStatus>,
    /// Controllers that didn't answer, a line each.
    pub(crate) unasked: Vec<String>,
    /// What can't be done, a line each.
    pub(crate) problems: Vec<String>,
    /// What is written in the manifests of a `gamut up` and does nothing, a line each.
    pub(crate) warnings: Vec<String>,
    /// What isn't ready yet, a line each.
    pub(crate) waiting_for: Vec<String>,
}

/// A process of the mesh's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Component {
    /// `ca`, `controller` or `injector`.
    pub(crate) name: String,
    /// Its pod, in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
    /// It answers.
    pub(crate) ready: bool,
    /// How often it has died.
    pub(crate) restarts: u32,
    /// Its last words, if it has died, in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) died_of: Option<String>,
    /// What keeps it from starting, in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<Trouble>,
    /// Its container runs, so that it can be asked.
    #[serde(skip)]
    pub(crate) runs: bool,
}

/// What a cluster's CAs and injectors say of themselves, by pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnStatus {
    pub(crate) authorities: Vec<(String, CaStatus)>,
    pub(crate) injectors: Vec<(String, InjectorStatus)>,
    /// Those that didn't answer, a line each.
    pub(crate) unasked: Vec<String>,
}

/// The components of a cluster. Each runs as the service account `gamut-NAME`, which is what certificates know it by.
pub(crate) const COMPONENTS: [&str; 3] = ["controller", "ca", "injector"];

impl Mesh {
    pub(super) fn of_instance(status: Status) -> Self {
        let world = Place::instance(&status);
        let component = |report: gamut_local::control::ComponentReport| Component {
            name: report.name,
            pod: None,
            ready: report.ready,
            restarts: report.restarts,
            died_of: None,
            trouble: None,
            runs: true,
        };
        let controller: Option<ControllerStatus> =
            status.controller.and_then(|value| serde_json::from_value(value).ok());
        let unread = controller.iter().flat_map(|controller| controller.source.problems.clone());
        let problems = status.problems.into_iter().chain(unread).collect();
        Self {
            world,
            components: status.components.into_iter().map(component).collect(),
            pods: status.pods,
            controllers: controller.into_iter().collect(),
            unasked: Vec::new(),
            problems,
            warnings: status.warnings,
            waiting_for: status.waiting_for,
        }
    }

    pub(super) async fn of_cluster(
        cluster: &Cluster,
        context: &Context,
        namespace: Option<&str>,
    ) -> anyhow::Result<Self> {
        let world = Place::cluster(cluster, context).await?;
        let list = async |namespace: Option<&str>| {
            let selection = Selection { namespace: namespace.map(str::to_owned), ..Selection::default() };
            cluster.list(&core::POD, &selection).await
        };
        let objects = list(namespace).await.with_context(|| place::called(context))?.unwrap_or_default();
        let system = match namespace {
            None | Some(SYSTEM_NAMESPACE) => Ok(components(&objects)),
            // Somebody who may look at one namespace alone still gets that.
            Some(_) => match list(Some(SYSTEM_NAMESPACE)).await {
                Ok(objects) => Ok(components(&objects.unwrap_or_default())),
                Err(error) => Err(format!("the mesh's own pods can't be looked at: {error}")),
            },
        };
        Ok(Self::of_pods(cluster, world, &objects, system).await)
    }

    /// Asks the controllers and sidecars of pods that have been read already.
    pub(crate) async fn of_pods(
        cluster: &Cluster,
        world: Place,
        objects: &[Value],
        components: Result<Vec<Component>, String>,
    ) -> Self {
        let (components, mut problems) = match components {
            Ok(components) => {
                let missing = missing(&components);
                (components, missing)
            }
            Err(problem) => (Vec::new(), vec![problem]),
        };
        let mut unasked = Vec::new();
        let controllers: Vec<(String, ControllerStatus)> =
            ask_all(cluster, &components, "controller", ask::admin::CONTROLLER, &mut unasked).await;
        for (pod, status) in &controllers {
            let told = status.source.problems.iter();
            problems.extend(told.map(|problem| format!("controller {pod}: {problem}")));
        }
        let controllers = controllers.into_iter().map(|(_, status)| status).collect();
        let reported: Vec<(PodReport, &Value)> =
            objects.iter().map(|object| (pod::report(object), object)).collect();
        let is_looked_at = |pod: &PodReport| pod.meshed || pod.namespace == SYSTEM_NAMESPACE;
        let looked_at = reported.iter().filter(|(pod, _)| is_looked_at(pod));
        let mut waiting_for: Vec<String> =
            looked_at.filter_map(|(pod, object)| pod::waiting_for(pod, object)).collect();
        waiting_for.sort();
        let mut pods: Vec<PodReport> =
            reported.into_iter().map(|(pod, _)| pod).filter(|pod| !pod::is_over(pod)).collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        ask::sidecars(cluster, &mut pods).await;
        let warnings = Vec::new();
        Self { world, components, pods, controllers, unasked, problems, warnings, waiting_for }
    }
}

impl OwnStatus {
    /// Asks them all.
    pub(crate) async fn ask(cluster: &Cluster, components: &[Component]) -> Self {
        let mut unasked = Vec::new();
        let authorities = ask_all(cluster, components, "ca", ask::admin::CA, &mut unasked).await;
        let injectors = ask_all(cluster, components, "injector", ask::admin::INJECTOR, &mut unasked).await;
        Self { authorities, injectors, unasked }
    }
}

/// What each pod of a component says that runs; those that don't answer are noted.
async fn ask_all<T: DeserializeOwned>(
    cluster: &Cluster,
    components: &[Component],
    name: &str,
    port: u16,
    unasked: &mut Vec<String>,
) -> Vec<(String, T)> {
    let mut told = Vec::new();
    for pod in components.iter().filter(|c| c.name == name && c.runs).filter_map(|c| c.pod.as_ref()) {
        match ask::own(cluster, pod, port).await {
            Ok(status) => told.push((pod.clone(), status)),
            Err(reason) => unasked.push(format!("{name} {pod} can't be asked: {reason}")),
        }
    }
    told
}

/// By what settings the controller of a cluster compiles: any replica knows.
///
/// # Errors
/// Why none says, in one line.
pub(super) async fn settings(cluster: &Cluster) -> Result<SettingsStatus, String> {
    let selection = Selection { namespace: Some(SYSTEM_NAMESPACE.to_owned()), ..Selection::default() };
    let pods = cluster.list(&core::POD, &selection).await.map_err(|error| error.to_string())?;
    let mut reason = format!("namespace {SYSTEM_NAMESPACE} has no controller to ask");
    for component in components(&pods.unwrap_or_default()) {
        let Some(pod) = component.pod.filter(|_| component.name == "controller") else { continue };
        match ask::own::<ControllerStatus>(cluster, &pod, ask::admin::CONTROLLER).await {
            Ok(status) => return Ok(status.settings),
            Err(why) => reason = format!("controller {pod} can't be asked: {why}"),
        }
    }
    Err(reason)
}

/// The mesh's own pods among those of its namespace.
pub(crate) fn components(pods: &[Value]) -> Vec<Component> {
    let component = |pod: &Value| {
        let account = pod.pointer("/spec/serviceAccountName")?.as_str()?;
        let name = COMPONENTS.into_iter().find(|name| account.strip_prefix("gamut-") == Some(name))?;
        let report = pod::report(pod);
        let gone = report.namespace != SYSTEM_NAMESPACE || pod::is_over(&report) || report.terminating;
        (!gone).then(|| Component {
            name: name.to_owned(),
            ready: report.ready,
            restarts: report.containers.iter().map(|container| container.restarts).sum(),
            runs: report.containers.iter().any(|container| container.state == "running"),
            pod: Some(report.name),
            died_of: pod::last_words(pod),
            trouble: pod::trouble(pod),
        })
    };
    let mut components: Vec<Component> = pods.iter().filter_map(component).collect();
    let place = |name: &str| COMPONENTS.iter().position(|component| *component == name);
    components.sort_by(|a, b| (place(&a.name), &a.pod).cmp(&(place(&b.name), &b.pod)));
    components
}

/// A line for each component that has no pod, or one for all of them.
fn missing(components: &[Component]) -> Vec<String> {
    if components.is_empty() {
        return vec![format!(
            "Gamut isn't installed here: namespace {SYSTEM_NAMESPACE} has none of its pods; \
             `gamut check --pre` says whether it can be"
        )];
    }
    let has = |name: &&str| components.iter().any(|component| component.name == **name);
    let without = COMPONENTS.iter().filter(|name| !has(name));
    without
        .map(|name| format!("namespace {SYSTEM_NAMESPACE} has no pod of service account gamut-{name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(account: &str, name: &str, phase: &str) -> Value {
        json!({
            "metadata": {"namespace": "gamut-system", "name": name},
            "spec": {"serviceAccountName": account, "containers": [{"name": "gamut"}]},
            "status": {
                "phase": phase, "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "gamut", "restartCount": 3, "state": {"running": {}}}],
            },
        })
    }

    #[test]
    fn components_are_known_by_their_service_accounts() {
        let pods = [
            pod("gamut-ca", "ca-1", "Running"),
            pod("gamut-controller", "controller-2", "Running"),
            pod("gamut-controller", "controller-1", "Running"),
            pod("gamut-controller", "controller-0", "Failed"),
            pod("default", "other", "Running"),
        ];
        let components = components(&pods);
        let names: Vec<_> = components.iter().map(|c| c.pod.as_deref().unwrap()).collect();
        assert_eq!(names, ["controller-1", "controller-2", "ca-1"]);
        assert!(components[0].ready && components[0].restarts == 3 && components[0].runs);
        assert_eq!(
            missing(&components),
            ["namespace gamut-system has no pod of service account gamut-injector"]
        );
        assert!(missing(&[])[0].starts_with("Gamut isn't installed here"));
    }
}
