//! `gamut inject`: manifests in, the same manifests with sidecars out, for whoever wants no webhook or wants to look.
//!
//! Every object is printed. Workloads get the very patch that the webhook and `gamut up` use. Whether a namespace asks for sidecars is
//! what the manifests say of it, or, with `--context`, what the cluster says; one that nobody knows counts as labelled,
//! because whoever calls this has asked for injection. Without `--context` no cluster is asked anything.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use gamut_injector::{Config, INJECT, Injection, NamespaceView};
use gamut_manifest::Object;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    output,
    world::{self, Choice},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kubernetes manifests: files, directories with *.yaml, *.yml and *.json, or `-` for standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "DIR|FILE", num_args = 1..)]
    paths: Vec<PathBuf>,
    /// The image of the sidecar
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// The trust domain of all identities
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: Option<String>,
    /// Let the namespaces of this context's cluster decide
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,
    /// Let the namespaces of this kubeconfig's cluster decide
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
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

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let paths: Vec<PathBuf> = args.paths.iter().map(|path| readable(path)).collect();
    let (objects, errors) = gamut_manifest::load(&paths);
    errors.iter().for_each(output::tell);
    let mut config = Config::default();
    config.image = args.image.clone().unwrap_or(config.image);
    config.trust_domain = args.trust_domain.clone().unwrap_or(config.trust_domain);

    let mut namespaces = namespaces(&objects);
    let choice = Choice { name: None, context: args.context.clone(), kubeconfig: args.kubeconfig.clone() };
    if choice.names_cluster() {
        namespaces.extend(world::ask(of_cluster(&choice))?);
    }
    let mut failed = !errors.is_empty();
    let mut printed = Vec::with_capacity(objects.len());
    for mut object in objects {
        let refusal = match template(&object.kind) {
            Some(path) => inject(&mut object, path, &namespaces, &config),
            None => Ok(()),
        };
        if let Err(refusal) = refusal {
            output::tell(format!("{}: {}: {refusal}", object.origin, object.id()));
            failed = true;
        }
        printed.push(as_written(object.raw));
    }
    output::write(&match args.output {
        Format::Json => as_list(printed)?,
        Format::Yaml => as_documents(&printed)?,
    })?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// `-` as a path that can be read like any other.
fn readable(path: &Path) -> PathBuf {
    PathBuf::from(if path.as_os_str() == "-" {
        OsStr::new(gamut_manifest::STANDARD_INPUT)
    } else {
        path.as_os_str()
    })
}

/// The cluster's namespaces. Which cluster that is goes to standard error, because standard output is for manifests.
async fn of_cluster(choice: &Choice) -> anyhow::Result<HashMap<String, NamespaceView>> {
    let world = choice.world().await?;
    output::tell(format!("namespaces as in {}", world.place().await?.line(Timestamp::now())));
    let objects = world.objects("Namespace").await?.unwrap_or_default();
    Ok(namespaces(&objects))
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

    use super::*;

    const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
";

    /// Objects read back from what `gamut inject` would print for a manifest.
    fn injected(manifest: &str) -> Vec<Object> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("in.yaml"), manifest).unwrap();
        let (mut objects, errors) = gamut_manifest::load(&[directory.path().join("in.yaml")]);
        assert!(errors.is_empty(), "{errors:?}");
        let namespaces = namespaces(&objects);
        for object in &mut objects {
            if let Some(path) = template(&object.kind) {
                inject(object, path, &namespaces, &Config::default()).unwrap();
            }
        }
        let printed: Vec<Value> = objects.into_iter().map(|object| as_written(object.raw)).collect();
        fs::write(directory.path().join("out.yaml"), as_documents(&printed).unwrap()).unwrap();
        let (objects, errors) = gamut_manifest::load(&[directory.path().join("out.yaml")]);
        assert!(errors.is_empty(), "what is printed reads back: {errors:?}");
        objects
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
