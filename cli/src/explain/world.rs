//! The objects that a question is about: from files, or from a running instance.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use gamut_controller::{
    index::{Index, Settings},
    source::SourceEvent,
};
use gamut_controller_api::MtlsMode;
use gamut_injector::{Config, Injection, NamespaceView};
use gamut_local::Client;
use gamut_manifest::{Object, Origin};

/// The kinds that tables are made of, and those that clients are.
const KINDS: &[&str] = &[
    "Namespace",
    "Service",
    "HTTPRoute",
    "GRPCRoute",
    "TLSRoute",
    "TCPRoute",
    "ReferenceGrant",
    "XBackend",
    "XBackendTrafficPolicy",
    "Deployment",
    "StatefulSet",
    "Job",
    "Pod",
];

/// Objects, by nothing in particular: there are few, and each is asked for once.
pub(super) struct World {
    objects: Vec<Object>,
}

impl World {
    /// Manifests. What can't be read is told on standard error and left out, as `gamut up` does.
    pub(super) fn of_files(paths: &[PathBuf]) -> Self {
        let (objects, errors) = gamut_manifest::load(paths);
        errors.iter().for_each(|error| eprintln!("gamut: {error}"));
        Self { objects }
    }

    /// A running instance's objects as they are now.
    ///
    /// # Errors
    /// There is no such instance, or it broke off.
    pub(super) fn of_instance(client: &Client) -> anyhow::Result<Self> {
        let origin = Origin { file: Arc::new(PathBuf::from("the running instance")), document: 0, line: 1 };
        let mut objects = Vec::new();
        for kind in KINDS {
            let values = client.objects(kind)?;
            objects.extend(values.into_iter().filter_map(|value| Object::from_value(value, &origin).ok()));
        }
        Ok(Self { objects })
    }

    /// The object, if it is there.
    pub(super) fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<&Object> {
        let is = |object: &&Object| {
            object.kind == kind
                && object.name == name
                && object.namespace.as_deref().is_none_or(|of| of == namespace)
        };
        self.objects.iter().find(is)
    }

    /// Why a workload's pods have no sidecar; `None` if they have one.
    pub(super) fn not_meshed(&self, workload: &Object) -> Option<String> {
        let pod =
            if workload.kind == "Pod" { Some(&workload.raw) } else { workload.raw.pointer("/spec/template") };
        let name = workload.namespace.clone().unwrap_or_default();
        let labels =
            self.object("Namespace", "", &name).map_or_else(BTreeMap::new, |object| object.labels.clone());
        match gamut_injector::inject(pod?, &NamespaceView { name, labels }, &Config::default()) {
            Ok(Injection::Injected(_)) => None,
            Ok(Injection::Skipped(reason)) => Some(reason.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// The controller's index of all this.
    pub(super) fn into_index(self) -> Index {
        let mut index = Index::new(Settings {
            trust_domain: "cluster.local".to_owned(),
            system_namespace: "gamut-system".to_owned(),
            mtls: MtlsMode::Permissive,
            require_reference_grant: false,
        });
        let events = self.objects.into_iter().map(|object| SourceEvent::Applied(Box::new(object)));
        index.apply(events.chain([SourceEvent::Synced]).collect());
        index
    }
}
