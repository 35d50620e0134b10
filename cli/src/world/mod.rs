//! Which mesh a command asks, and how: a running `gamut up`, or a cluster.
//!
//! ```text
//! flags, GAMUT_INSTANCE, what runs, kubeconfig ─ Choice ─► World ─┬─ mesh: components, pods, what every sidecar says
//!                                                                 ├─ pods_of: the pods of a Target, as people name them
//!                                                                 ├─ line: one sidecar, asked again and again
//!                                                                 └─ objects: what the controller reads
//! ```
//!
//! Both worlds answer in the same types, so that what is made of the answers is made once. Which world it was is a
//! [`Place`], the first line of every page and a field of all data.

mod ask;
mod endpoints;
mod mesh;
mod objects;
mod place;
mod pod;
#[cfg(test)]
pub(crate) mod scripted;
mod target;

use std::{collections::BTreeSet, iter, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use clap::Arg;
use gamut_controller::{index::Settings, source};
/// Where the mesh's own objects live.
pub(crate) use gamut_identity::SYSTEM_NAMESPACE;
use gamut_kubernetes::{Cluster, ConnectError, Context, Resource, core};
use gamut_local::{Client, INSTANCE_VARIABLE, InstanceName};
use gamut_manifest::{Object, Origin};
use gamut_route::NamespacedName;
use serde_json::Value;

pub(crate) use self::{
    ask::Line,
    endpoints::{silence, without_sidecar},
    mesh::{COMPONENTS, Component, Mesh, OwnStatus, components},
    objects::Objects,
    place::Place,
    pod::{Trouble, has_sidecar, is_over, report as pod_report},
    target::Target,
};

/// The flags that say which world is meant.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Choice {
    /// Ask the `gamut up` of this name [env: GAMUT_INSTANCE]. Without --name, --context and --kubeconfig: the
    /// instance `default` if it runs, else the cluster of the kubeconfig's current context
    #[arg(long, value_name = "NAME", conflicts_with_all = ["context", "kubeconfig"])]
    pub(crate) name: Option<InstanceName>,
    /// Ask the cluster of this context of the kubeconfig
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) context: Option<String>,
    /// Ask the cluster of this kubeconfig [env: KUBECONFIG] [default: ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

/// Which world, and which namespaces of it.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Selection {
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Only this namespace
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    pub(crate) namespace: Option<String>,
    /// All namespaces, the mesh's own included
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// `-A` of commands that ask sidecars.
pub(crate) fn with_sidecars_only(all_namespaces: Arg) -> Arg {
    all_namespaces.help(
        "All namespaces; the mesh's own processes, which have no sidecar to ask, are in `status` and `check`",
    )
}

/// A mesh to ask.
#[derive(Clone, Debug)]
pub(crate) enum World {
    /// A `gamut up` on this machine, by its control socket.
    Instance(Client),
    /// A cluster, by its API server.
    Cluster(Cluster, Context),
}

impl Choice {
    /// `kubectl` with the flags that name the same cluster, for a shell.
    pub(crate) fn kubectl(&self) -> String {
        let quoted = |text: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
            if text.chars().all(is_plain) {
                text.to_owned()
            } else {
                format!("'{}'", text.replace('\'', r"'\''"))
            }
        };
        let context = self.context.iter().map(|context| format!(" --context {}", quoted(context)));
        let file =
            self.kubeconfig.iter().map(|file| format!(" --kubeconfig {}", quoted(&file.to_string_lossy())));
        iter::once("kubectl".to_owned()).chain(context).chain(file).collect()
    }

    /// Whether a flag names a cluster.
    pub(crate) fn names_cluster(&self) -> bool {
        self.context.is_some() || self.kubeconfig.is_some()
    }

    /// The instance that a flag, the environment, or its running says; `None` if a cluster is meant.
    ///
    /// # Errors
    /// The environment names what can't be an instance's name.
    pub(crate) fn instance(&self) -> anyhow::Result<Option<InstanceName>> {
        if self.names_cluster() {
            return Ok(None);
        }
        if let Some(name) = &self.name {
            return Ok(Some(name.clone()));
        }
        match std::env::var(INSTANCE_VARIABLE) {
            Ok(name) if !name.is_empty() => Ok(Some(name.parse().context(INSTANCE_VARIABLE)?)),
            _ => Ok(Some(InstanceName::default()).filter(|name| running().contains(name))),
        }
    }

    /// The world that is meant. Flags decide; without any, see `--name`.
    ///
    /// # Errors
    /// There is neither an instance nor a kubeconfig, or the kubeconfig can't be used.
    pub(crate) async fn world(&self) -> anyhow::Result<World> {
        match self.instance()? {
            Some(name) => Ok(World::Instance(Client::new(name))),
            None => {
                let (cluster, context) = self.try_cluster().await?.ok_or_else(nobody_to_ask)?;
                Ok(World::Cluster(cluster, context))
            }
        }
    }

    /// The cluster that is meant; `None` where nobody names one and there is no kubeconfig.
    ///
    /// # Errors
    /// The kubeconfig can't be used, or the one that is named isn't there.
    pub(crate) async fn try_cluster(&self) -> anyhow::Result<Option<(Cluster, Context)>> {
        match Cluster::of_context(self.kubeconfig.as_deref(), self.context.as_deref()).await {
            Ok(found) => Ok(Some(found)),
            Err(ConnectError::NoKubeconfig) if !self.names_cluster() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// That there is neither an instance nor a kubeconfig, and what to do.
pub(crate) fn nobody_to_ask() -> anyhow::Error {
    nobody(&running())
}

fn running() -> Vec<InstanceName> {
    gamut_local::running().unwrap_or_default()
}

fn nobody(running: &[InstanceName]) -> anyhow::Error {
    let names: Vec<&str> = running.iter().map(InstanceName::as_str).collect();
    let instances = match names.is_empty() {
        true => "no `gamut up` is running".to_owned(),
        false => format!("no `gamut up` named default is running (but: {})", names.join(", ")),
    };
    anyhow::anyhow!(
        "nobody to ask: {instances}, and there is no kubeconfig; start one with `gamut up -f DIR` or choose one with --name, \
         or name a cluster with --kubeconfig, KUBECONFIG or ~/.kube/config"
    )
}

impl Selection {
    /// The world that is meant.
    ///
    /// # Errors
    /// As [`Choice::world`], and if it has no such namespace.
    pub(crate) async fn world(&self) -> anyhow::Result<World> {
        let world = self.choice.world().await?;
        world.require(self.namespace.as_deref()).await?;
        Ok(world)
    }

    /// Whether objects of a namespace are to be shown: by default those of all namespaces but the mesh's own.
    pub(crate) fn has(&self, namespace: &str) -> bool {
        match &self.namespace {
            Some(wanted) => wanted == namespace,
            None => self.all_namespaces || namespace != SYSTEM_NAMESPACE,
        }
    }
}

impl World {
    /// Who answers.
    ///
    /// # Errors
    /// Nobody does.
    pub(crate) async fn place(&self) -> anyhow::Result<Place> {
        match self {
            Self::Instance(client) => Ok(Place::instance(&client.status()?)),
            Self::Cluster(cluster, context) => Place::cluster(cluster, context).await,
        }
    }

    /// Components, pods, and what the sidecars say: of one namespace, or of all.
    ///
    /// # Errors
    /// Nobody answers, or the answer is no. A sidecar that doesn't answer is no error.
    pub(crate) async fn mesh(&self, namespace: Option<&str>) -> anyhow::Result<Mesh> {
        match self {
            Self::Instance(client) => Ok(Mesh::of_instance(client.status()?)),
            Self::Cluster(cluster, context) => Mesh::of_cluster(cluster, context, namespace).await,
        }
    }

    /// All objects of a kind that the controller reads; `None` if a cluster doesn't know the kind.
    ///
    /// # Errors
    /// Nobody answers, or the answer is no.
    pub(crate) async fn objects(&self, kind: &str) -> anyhow::Result<Option<Vec<Object>>> {
        match self {
            Self::Cluster(cluster, context) => {
                source::read(cluster, kind).await.with_context(|| place::called(context))
            }
            Self::Instance(client) => {
                // The node keeps only objects that can be read, so there is no error to tell.
                let objects = client.objects(kind)?.into_iter();
                Ok(Some(objects.filter_map(|value| object(value, "the running instance")).collect()))
            }
        }
    }

    /// The Gateways that there are, which are nothing of ours. `None` where that isn't known: whoever asks may not list them. Of an
    /// instance nobody has to know, because manifests say what they mean.
    pub(crate) async fn gateways(&self) -> Option<BTreeSet<NamespacedName>> {
        let Self::Cluster(cluster, _) = self else { return None };
        let listed =
            cluster.list(&GATEWAY, &gamut_kubernetes::Selection::default().metadata_only()).await.ok()?;
        let name = |object: &Value| {
            let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
            Some(NamespacedName::new(text("/metadata/namespace")?, text("/metadata/name")?))
        };
        // A cluster that doesn't know the kind has none.
        Some(listed.iter().flatten().filter_map(name).collect())
    }

    /// A Deployment, StatefulSet, Job, Pod or Service, if it is there.
    ///
    /// # Errors
    /// Nobody answers, or the answer is no.
    pub(crate) async fn workload(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<Option<Object>> {
        match self {
            Self::Cluster(cluster, context) => {
                let Some(resource) = workloads(kind) else { return Ok(None) };
                let found = cluster.get(&resource, Some(namespace), name).await;
                let found = found.with_context(|| place::called(context))?;
                Ok(found.and_then(|value| object(value, &resource.path(Some(namespace)))))
            }
            Self::Instance(_) => {
                let mut objects = self.objects(kind).await?.unwrap_or_default().into_iter();
                let is = |object: &Object| {
                    (object.namespace.as_deref(), object.name.as_str()) == (Some(namespace), name)
                };
                Ok(objects.find(is))
            }
        }
    }

    /// Fails where a namespace isn't there: an empty answer about a mistyped name would look like a good one. Who may not look
    /// at namespaces, or gets no answer from the API server, is believed: what is asked next says so.
    ///
    /// # Errors
    /// There is no such namespace, or the instance doesn't answer.
    pub(crate) async fn require(&self, namespace: Option<&str>) -> anyhow::Result<()> {
        let Some(wanted) = namespace else { return Ok(()) };
        let is_there = match self {
            Self::Cluster(cluster, _) => {
                !matches!(cluster.get(&core::NAMESPACE, None, wanted).await, Ok(None))
            }
            Self::Instance(client) => {
                let is =
                    |object: &Value| object.pointer("/metadata/name").and_then(Value::as_str) == Some(wanted);
                wanted == SYSTEM_NAMESPACE || client.objects("Namespace")?.iter().any(is)
            }
        };
        match is_there {
            true => Ok(()),
            false => anyhow::bail!(self.no_namespace(wanted)),
        }
    }

    /// That there is none of this name, and where those are that there are.
    fn no_namespace(&self, wanted: &str) -> String {
        let list = match self {
            Self::Cluster(..) => "`kubectl get namespaces` lists those that there are",
            Self::Instance(_) => "`gamut status -A` has those whose pods run",
        };
        format!("there is no namespace {wanted}; {list}, and -n takes one of them")
    }

    /// By what settings the controller compiles.
    ///
    /// # Errors
    /// Why it doesn't say, in one line.
    pub(crate) async fn settings(&self) -> Result<Settings, String> {
        let settings = match self {
            Self::Cluster(cluster, _) => mesh::settings(cluster).await?,
            Self::Instance(client) => {
                let status = client.status().map_err(|error| error.to_string())?;
                let controller = Mesh::of_instance(status).controllers.pop();
                controller.ok_or("the controller doesn't answer")?.settings
            }
        };
        Ok(settings.into())
    }
}

fn object(value: Value, from: &str) -> Option<Object> {
    let origin = Origin { file: Arc::new(PathBuf::from(from)), document: 0, line: 0 };
    Object::from_value(value, &origin).ok()
}

const GATEWAY: Resource = Resource::namespaced("gateway.networking.k8s.io", "v1", "Gateway", "gateways");

/// Where the workloads and Services are that people name.
fn workloads(kind: &str) -> Option<Resource> {
    match kind {
        "Deployment" => Some(core::DEPLOYMENT),
        "StatefulSet" => Some(core::STATEFUL_SET),
        "Job" => Some(core::JOB),
        "Pod" => Some(core::POD),
        "Service" => Some(core::SERVICE),
        _ => None,
    }
}

/// Runs what asks a world. One thread: it waits far more than it works.
///
/// # Errors
/// What the question ends with, or there is no event queue.
pub(crate) fn ask<T>(question: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(question)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        choice: Choice,
    }

    fn choice(line: &[&str]) -> Choice {
        Line::try_parse_from([&["gamut"], line].concat()).unwrap().choice
    }

    #[test]
    fn flags_decide() {
        let named = choice(&["--name", "demo"]).instance().unwrap().unwrap();
        assert_eq!(named.as_str(), "demo");
        assert_eq!(choice(&["--context", "kind"]).instance().unwrap(), None);
        assert_eq!(choice(&["--kubeconfig", "x"]).instance().unwrap(), None);
    }

    #[test]
    fn kubectl_is_typed_with_the_flags_that_name_the_same_cluster() {
        assert_eq!(choice(&[]).kubectl(), "kubectl");
        let both = choice(&["--kubeconfig", "/home/me/it's mine", "--context", "admin@prod"]);
        assert_eq!(both.kubectl(), r"kubectl --context admin@prod --kubeconfig '/home/me/it'\''s mine'");
    }

    #[tokio::test]
    async fn a_namespace_that_is_not_there_is_an_error_and_one_that_may_not_be_looked_at_is_believed() {
        let world = scripted::world(vec![
            ("/api/v1/namespaces/shop", serde_json::json!({"metadata": {"name": "shop"}})),
            ("/api/v1/namespaces/secret", scripted::forbidden("namespaces is forbidden")),
        ]);
        for namespace in [None, Some("shop"), Some("secret")] {
            world.require(namespace).await.unwrap();
        }
        let error = world.require(Some("nosuch")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no namespace nosuch; `kubectl get namespaces` lists those that there are, and -n takes one of them"
        );
    }

    #[test]
    fn two_worlds_at_once_are_refused() {
        let error = Line::try_parse_from(["gamut", "--name", "demo", "--context", "kind"]).unwrap_err();
        assert!(error.to_string().contains("cannot be used with"), "{error}");
    }

    #[test]
    fn nobody_to_ask_is_said_with_both_remedies_and_with_what_runs_under_other_names() {
        let error = nobody(&["demo".parse().unwrap()]).to_string();
        for part in ["named default is running (but: demo)", "gamut up -f DIR", "--name", "KUBECONFIG"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
