//! `gamut inject`: manifests in, the same manifests with sidecars out, for whoever wants no webhook or wants to look.
//!
//! Every object is printed. Workloads get the very patch that the webhook and `gamut up` use, with the settings of the cluster that is asked: those that its injector
//! has. Whether a namespace asks for sidecars is what the manifests say of it, else what the cluster says; one that nobody knows counts
//! as labelled, because whoever calls this has asked for injection. With `--offline`, or without a kubeconfig, no cluster is asked
//! anything, and sidecars are told what a default installation tells them.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use gamut_injector::{Config, INJECT, Injection, NamespaceView, values};
use gamut_kubernetes::{Cluster, Context};
use gamut_manifest::Object;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    output,
    world::{self, Choice, SYSTEM_NAMESPACE, World},
};

/// Whose settings sidecars are told.
const INJECTOR: &str = "gamut-injector";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kubernetes manifests: files, directories with *.yaml, *.yml and *.json, or `-` for standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "DIR|FILE", num_args = 1..)]
    paths: Vec<PathBuf>,
    /// The image of the sidecar [default: the installation's]
    #[arg(long, value_name = "IMAGE", value_parser = values::image)]
    image: Option<String>,
    /// The trust domain of all identities [default: the installation's]
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: Option<String>,
    /// Inject as in the cluster of this context of the kubeconfig [default: the current context]
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,
    /// Inject as in the cluster of this kubeconfig [env: KUBECONFIG] [default: ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Ask no cluster: inject as a default installation does
    #[arg(long, conflicts_with_all = ["context", "kubeconfig"])]
    offline: bool,
    /// What to print: documents, or one List
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// How manifests are printed.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Format {
    #[default]
    Yaml,
    Json,
}

/// What decides about pods beside what they say themselves.
#[derive(Debug, Default)]
struct Installation {
    config: Config,
    namespaces: HashMap<String, NamespaceView>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let installation = match args.offline {
        true => Installation::default(),
        false => world::ask(asked(args))?,
    };
    let paths: Vec<PathBuf> = args.paths.iter().map(|path| readable(path)).collect();
    let (objects, errors) = gamut_manifest::load(&paths);
    errors.iter().for_each(output::tell);
    let (printed, refused) = injected(objects, args, installation);
    output::write(&match args.output {
        Format::Json => as_list(printed)?,
        Format::Yaml => as_documents(&printed)?,
    })?;
    Ok(if refused || !errors.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// All objects as they are to be printed, and whether one of them couldn't be injected.
fn injected(objects: Vec<Object>, args: &Args, installation: Installation) -> (Vec<Value>, bool) {
    let Installation { mut config, namespaces: mut known } = installation;
    config.image = args.image.clone().unwrap_or(config.image);
    config.trust_domain = args.trust_domain.clone().unwrap_or(config.trust_domain);
    known.extend(namespaces(&objects));
    let (mut printed, mut refused) = (Vec::with_capacity(objects.len()), false);
    for mut object in objects {
        let refusal = match template(&object.kind) {
            Some(path) => inject(&mut object, path, &known, &config),
            None => Ok(()),
        };
        if let Err(refusal) = refusal {
            output::tell(format!("{}: {}: {refusal}", object.origin, object.id()));
            refused = true;
        }
        printed.push(as_written(object.raw));
    }
    (printed, refused)
}

/// What the cluster that is meant says; a default installation where none is.
async fn asked(args: &Args) -> anyhow::Result<Installation> {
    let choice = Choice { name: None, context: args.context.clone(), kubeconfig: args.kubeconfig.clone() };
    match choice.try_cluster().await? {
        None => Ok(Installation::default()),
        Some((cluster, context)) => {
            let said = of_cluster(cluster, context).await;
            said.context("how sidecars are told what to do there can't be had (--offline asks nobody)")
        }
    }
}

/// What a cluster says. Which cluster that is goes to standard error, because standard output is for manifests.
async fn of_cluster(cluster: Cluster, context: Context) -> anyhow::Result<Installation> {
    let world = World::Cluster(cluster, context);
    output::tell(format!("as in {}", world.place().await?.line(Timestamp::now())));
    let objects = world.objects("Namespace").await?.unwrap_or_default();
    let config = match world.workload("Deployment", SYSTEM_NAMESPACE, INJECTOR).await? {
        Some(deployment) => gamut_webhook::sidecars_of(&deployment.raw)?,
        None => {
            output::tell("Gamut isn't installed there: sidecars are as of a default installation");
            Config::default()
        }
    };
    Ok(Installation { config, namespaces: namespaces(&objects) })
}

/// `-` as a path that can be read like any other.
fn readable(path: &Path) -> PathBuf {
    PathBuf::from(if path.as_os_str() == "-" {
        OsStr::new(gamut_manifest::STANDARD_INPUT)
    } else {
        path.as_os_str()
    })
}

/// Where a kind keeps its pod, as a JSON pointer; `None` for kinds without one.
fn template(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicationController" => {
            Some("/spec/template")
        }
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// Injects the object's pod in place. Standard error tells what its author should know.
fn inject(
    object: &mut Object,
    path: &str,
    namespaces: &HashMap<String, NamespaceView>,
    config: &Config,
) -> anyhow::Result<()> {
    let (place, id) = (object.origin.to_string(), object.id());
    let Some(pod) = object.raw.pointer_mut(path) else {
        anyhow::bail!("{} is missing", path.trim_start_matches('/').replace('/', "."));
    };
    let name = object.namespace.clone().unwrap_or_default();
    let asked_for = || NamespaceView {
        name: name.clone(),
        labels: BTreeMap::from([(INJECT.to_owned(), "enabled".to_owned())]),
    };
    let namespace = namespaces.get(&name).cloned().unwrap_or_else(asked_for);
    match gamut_injector::inject(pod, &namespace, config)? {
        Injection::Injected(injected) => {
            for warning in &injected.warnings {
                output::tell(format!("{place}: {id}: {warning}"));
            }
            *pod = injected.pod;
        }
        Injection::Skipped(reason) => output::tell(format!("{place}: {id}: no sidecar: {reason}")),
    }
    Ok(())
}

fn namespaces(objects: &[Object]) -> HashMap<String, NamespaceView> {
    let namespaces = objects.iter().filter(|object| object.kind == "Namespace");
    let view = |object: &Object| NamespaceView { name: object.name.clone(), labels: object.labels.clone() };
    namespaces.map(|object| (object.name.clone(), view(object))).collect()
}

/// Without what reading filled in and only an API server may.
fn as_written(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["uid", "creationTimestamp", "generation"] {
            metadata.shift_remove(field);
        }
    }
    object
}

fn as_documents(objects: &[Value]) -> anyhow::Result<String> {
    let documents = objects.iter().map(|object| Ok(serde_saphyr::to_string(object)?));
    Ok(documents.collect::<anyhow::Result<Vec<_>>>()?.join("---\n"))
}

fn as_list(objects: Vec<Value>) -> anyhow::Result<String> {
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    Ok(serde_json::to_string_pretty(&list)? + "\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::world::scripted::{self, Documents, forbidden, list};

    const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
";

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Line::parse_from([&["inject", "-f", "-"], words].concat()).args
    }

    /// Objects read back from what `gamut inject` would print for a manifest, and whether all went well.
    fn read_back(manifest: &str, args: &Args, installation: Installation) -> (Vec<Object>, bool) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("in.yaml"), manifest).unwrap();
        let (objects, errors) = gamut_manifest::load(&[directory.path().join("in.yaml")]);
        assert!(errors.is_empty(), "{errors:?}");
        let (printed, refused) = super::injected(objects, args, installation);
        fs::write(directory.path().join("out.yaml"), as_documents(&printed).unwrap()).unwrap();
        let (objects, errors) = gamut_manifest::load(&[directory.path().join("out.yaml")]);
        assert!(errors.is_empty(), "what is printed reads back: {errors:?}");
        (objects, !refused)
    }

    fn injected(manifest: &str) -> Vec<Object> {
        let (objects, well) = read_back(manifest, &args(&["--offline"]), Installation::default());
        assert!(well);
        objects
    }

    /// A kubeconfig with a context `there`, whose cluster has these documents, and a current one whose cluster tells nobody anything.
    fn kubeconfig(directory: &Path, documents: Documents) -> String {
        let path = directory.join("kubeconfig");
        let (there, here) =
            (scripted::server(documents), scripted::server(vec![("/version", forbidden("nobody may ask"))]));
        let text = format!(
            "apiVersion: v1\nkind: Config\nusers: [{{name: a, user: {{}}}}]\n\
             clusters: [{{name: there, cluster: {{server: \"{there}\"}}}}, {{name: here, cluster: {{server: \"{here}\"}}}}]\n\
             contexts: [{{name: there, context: {{cluster: there, user: a}}}}, {{name: here, context: {{cluster: here, user: a}}}}]\n\
             current-context: here\n"
        );
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// A cluster with Gamut, which is set as few are, and with these namespaces.
    fn installed(namespaces: &[Value]) -> Documents {
        let env = json!([
            {"name": "GAMUT_TRUST_DOMAIN", "value": "prod.example.com"},
            {"name": "GAMUT_SIDECAR_IMAGE", "value": "registry.example.com/gamut-proxy:edge"},
        ]);
        let container = json!({"name": "injector", "args": ["injector"], "env": env});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": "gamut-system", "name": "gamut-injector"},
            "spec": {"template": {"spec": {"containers": [container]}}},
        });
        vec![
            ("/version", json!({"gitVersion": "v1.34.4"})),
            ("/api/v1/namespaces", list(namespaces)),
            ("/apis/apps/v1/namespaces/gamut-system/deployments/gamut-injector", deployment),
        ]
    }

    fn namespace(name: &str, label: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {INJECT: label}}})
    }

    #[tokio::test]
    async fn a_cluster_that_is_named_decides_and_its_installation_says_how() {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = kubeconfig(directory.path(), installed(&[namespace("shop", "enabled")]));
        let args = args(&["--kubeconfig", &kubeconfig, "--context", "there"]);
        let (objects, well) = read_back(DEPLOYMENT, &args, asked(&args).await.unwrap());
        assert!(well);
        let sidecar = objects[0].raw.pointer("/spec/template/spec/initContainers/1").unwrap();
        assert_eq!(sidecar["image"], "registry.example.com/gamut-proxy:edge");
        let domain = json!({"name": "GAMUT_TRUST_DOMAIN", "value": "prod.example.com"});
        assert!(sidecar["env"].as_array().unwrap().contains(&domain), "{sidecar:#}");
    }

    #[tokio::test]
    async fn a_namespace_of_the_cluster_decides_unless_the_files_say_what_becomes_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = kubeconfig(directory.path(), installed(&[namespace("shop", "disabled")]));
        let args = args(&["--kubeconfig", &kubeconfig, "--context", "there"]);
        let (objects, _) = read_back(DEPLOYMENT, &args, asked(&args).await.unwrap());
        assert!(init_containers(&objects[0]).is_empty());
        let labelled = format!("{DEPLOYMENT}---\n{}", namespace("shop", "enabled"));
        let (objects, _) = read_back(&labelled, &args, asked(&args).await.unwrap());
        assert_eq!(init_containers(&objects[0]), ["gamut-init", "gamut-proxy"]);
    }

    #[tokio::test]
    async fn flags_win_over_the_installation() {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = kubeconfig(directory.path(), installed(&[]));
        let args = args(&["--kubeconfig", &kubeconfig, "--context", "there", "--image", "mine:1"]);
        let (objects, _) = read_back(DEPLOYMENT, &args, asked(&args).await.unwrap());
        assert_eq!(objects[0].raw.pointer("/spec/template/spec/initContainers/1/image").unwrap(), "mine:1");
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_answer_is_named_with_the_way_around() {
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = kubeconfig(directory.path(), installed(&[]));
        let error = asked(&args(&["--kubeconfig", &kubeconfig])).await.unwrap_err();
        let line = crate::failure::one_line(&error);
        assert!(line.contains("--offline asks nobody") && line.contains("context here"), "{line}");
        let error = asked(&args(&["--kubeconfig", &kubeconfig, "--context", "nowhere"])).await.unwrap_err();
        assert!(crate::failure::one_line(&error).contains("no context \"nowhere\""), "{error:#}");
    }

    #[tokio::test]
    async fn a_cluster_without_gamut_gets_sidecars_as_of_a_default_installation() {
        let directory = tempfile::tempdir().unwrap();
        let mut documents = installed(&[]);
        documents.truncate(2);
        let kubeconfig = kubeconfig(directory.path(), documents);
        let installation = asked(&args(&["--kubeconfig", &kubeconfig, "--context", "there"])).await.unwrap();
        assert_eq!(format!("{:?}", installation.config), format!("{:?}", Config::default()));
    }

    #[test]
    fn what_kubernetes_and_gamut_themselves_run_gets_no_sidecar() {
        for theirs in ["kube-system", "gamut-system"] {
            let objects = injected(&DEPLOYMENT.replace("namespace: shop", &format!("namespace: {theirs}")));
            assert!(init_containers(&objects[0]).is_empty(), "{theirs}");
        }
    }

    #[test]
    fn sidecars_are_of_the_sidecars_own_image() {
        let objects = injected(DEPLOYMENT);
        let image = objects[0].raw.pointer("/spec/template/spec/initContainers/1/image").unwrap();
        assert_eq!(image, concat!("gamut.mesh/gamut-proxy:", env!("CARGO_PKG_VERSION")));
    }

    fn init_containers(object: &Object) -> Vec<&str> {
        let containers = object.raw.pointer("/spec/template/spec/initContainers").and_then(Value::as_array);
        containers.into_iter().flatten().filter_map(|container| container["name"].as_str()).collect()
    }

    #[test]
    fn a_workload_is_injected_when_its_namespace_is_not_among_the_files() {
        let objects = injected(DEPLOYMENT);
        assert_eq!(init_containers(&objects[0]), ["gamut-init", "gamut-proxy"]);
    }

    #[test]
    fn a_namespace_among_the_files_decides_and_is_printed_as_it_is() {
        let objects = injected(&format!(
            "{DEPLOYMENT}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n"
        ));
        assert!(init_containers(&objects[0]).is_empty());
        assert_eq!((objects.len(), objects[1].kind.as_str()), (2, "Namespace"));
    }
}
