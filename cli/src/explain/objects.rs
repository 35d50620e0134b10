//! The objects that a question is about: of files, or of a world as it is now.

use std::{collections::BTreeMap, path::PathBuf};

use gamut_controller::{
    index::{Index, Settings},
    source::SourceEvent,
};
use gamut_injector::{Config, Injection, NamespaceView};
use gamut_manifest::Object;
use jiff::Timestamp;
use serde_json::Value;

use super::Client;
use crate::world::{self, Place, World};

/// The kinds that tables are made of.
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
];

/// The kinds that say what a session token means: whom it leads to, and the keys that open it.
const SESSION_KINDS: &[&str] = &["Pod", "EndpointSlice", "Secret"];

/// Objects, by nothing in particular: each is asked for once.
pub(super) struct Objects {
    /// Whose they are.
    pub(super) world: Place,
    /// What to know about them.
    pub(super) notes: Vec<String>,
    objects: Vec<Object>,
    settings: Settings,
}

impl Objects {
    /// Manifests, and the settings of a default installation. What can't be read is told on standard error and left out, as
    /// `gamut up` does.
    pub(super) fn of_files(paths: &[PathBuf]) -> Self {
        let (objects, errors) = gamut_manifest::load(paths);
        errors.iter().for_each(|error| eprintln!("gamut: {error}"));
        let paths = paths.iter().map(|path| path.display().to_string()).collect();
        Self { world: Place::Files { paths }, notes: Vec::new(), objects, settings: Settings::default() }
    }

    /// What the controller reads, its settings, and the client. `sessions`: also what it takes to open session tokens.
    ///
    /// # Errors
    /// Nobody answers, or the answer is no.
    pub(super) async fn of_world(
        world: &World,
        client: Option<&Client>,
        namespace: &str,
        sessions: bool,
    ) -> anyhow::Result<Self> {
        let place = world.place().await?;
        let (mut objects, mut notes) = (Vec::new(), Vec::new());
        for kind in KINDS {
            objects.extend(world.objects(kind).await?.unwrap_or_default());
        }
        if let Some(Client { kind, name, .. }) = client {
            objects.extend(world.workload(kind, namespace, name).await?);
        }
        for kind in SESSION_KINDS.iter().filter(|_| sessions) {
            match world.objects(kind).await {
                Ok(read) => objects.extend(read.unwrap_or_default()),
                // Not everybody who may read routes may open tokens.
                Err(error) => notes.push(format!("session tokens aren't opened: {error:#}")),
            }
        }
        let settings = world.settings().await.unwrap_or_else(|reason| {
            notes.push(format!("with the settings of a default installation, because {reason}"));
            Settings::default()
        });
        Ok(Self { world: place, notes, objects, settings })
    }

    /// Who is asked, in one line.
    pub(super) fn line(&self) -> String {
        self.world.line(Timestamp::now())
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
        let is_pod = workload.kind == "Pod";
        let pod = if is_pod { Some(&workload.raw) } else { workload.raw.pointer("/spec/template") }?;
        if world::has_sidecar(pod) {
            return None;
        }
        let name = workload.namespace.clone().unwrap_or_default();
        let labels =
            self.object("Namespace", "", &name).map_or_else(BTreeMap::new, |object| object.labels.clone());
        match gamut_injector::inject(pod, &NamespaceView { name, labels }, &Config::default()) {
            Ok(Injection::Injected(_)) if is_pod && is_running(pod) => Some(
                "it was made before sidecars were asked for, or without the injector; make it anew"
                    .to_owned(),
            ),
            Ok(Injection::Injected(_)) => None,
            Ok(Injection::Skipped(reason)) => Some(reason.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// The controller's index of all this.
    pub(super) fn into_index(self) -> Index {
        let mut index = Index::new(self.settings);
        let events = self.objects.into_iter().map(|object| SourceEvent::Applied(Box::new(object)));
        index.apply(events.chain([SourceEvent::Synced]).collect());
        index
    }
}

/// A pod of a world, and not of a manifest.
fn is_running(pod: &Value) -> bool {
    pod.pointer("/status/phase").is_some()
}
