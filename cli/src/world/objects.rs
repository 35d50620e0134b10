//! The objects that tables are made of: of files, or of a world as it is now. The controller's own index makes of them
//! what the mesh does, for commands that tell about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use gamut_controller::{
    index::{Index, Settings},
    source::SourceEvent,
};
use gamut_injector::{Config, Injection, NamespaceView};
use gamut_manifest::Object;
use gamut_route::NamespacedName;
use jiff::Timestamp;
use serde_json::Value;

use super::{Mesh, Place, World, has_sidecar};
use crate::output;

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

/// The kinds that endpoints are made of: whom a backend, or a session token, leads to.
const ENDPOINT_KINDS: &[&str] = &["Pod", "EndpointSlice"];

/// Objects, by nothing in particular: each is asked for once.
pub(crate) struct Objects {
    /// Whose they are.
    pub(crate) world: Place,
    /// What to know about them.
    pub(crate) notes: Vec<String>,
    /// Kinds that the world doesn't know.
    pub(crate) unknown: Vec<&'static str>,
    /// The Gateways that there are; `None` where that isn't known.
    pub(crate) gateways: Option<BTreeSet<NamespacedName>>,
    objects: Vec<Object>,
    /// Why endpoints aren't among them, if they aren't.
    no_endpoints: Option<String>,
    settings: Settings,
}

/// Of objects that weren't asked for endpoints.
const NOT_ASKED: &str = "nobody was asked for endpoints";

impl Objects {
    /// Manifests, and the settings of a default installation. What can't be read is told on standard error and left out, as
    /// `gamut up` does.
    pub(crate) fn of_files(paths: &[PathBuf]) -> Self {
        let (objects, errors) = gamut_manifest::load(paths);
        errors.iter().for_each(output::tell);
        let paths = paths.iter().map(|path| path.display().to_string()).collect();
        Self::new(Place::Files { paths }, Vec::new(), objects)
    }

    /// What the controller makes tables of, and its settings.
    ///
    /// # Errors
    /// Nobody answers, or the answer is no.
    pub(crate) async fn of_world(world: &World) -> anyhow::Result<Self> {
        let place = world.place().await?;
        let objects = Self::read(world, place).await?;
        Ok(objects.with(world.settings().await))
    }

    /// As [`Self::of_world`], where the mesh has been asked already: its controllers have told their settings.
    ///
    /// # Errors
    /// As [`Self::of_world`].
    pub(crate) async fn of_mesh(world: &World, mesh: &Mesh) -> anyhow::Result<Self> {
        let objects = Self::read(world, mesh.world.clone()).await?;
        let told = mesh.controllers.first().map(|controller| controller.settings.clone().into());
        Ok(objects.with(told.ok_or_else(|| "no controller answers".to_owned())))
    }

    /// Routes, and whom they lead to: by the settings of a default installation, because endpoints don't depend on them.
    ///
    /// # Errors
    /// As [`Self::of_world`].
    pub(crate) async fn of_backends(world: &World, place: Place) -> anyhow::Result<Self> {
        let mut objects = Self::read(world, place).await?;
        objects.add_endpoints(world).await;
        Ok(objects)
    }

    async fn read(world: &World, place: Place) -> anyhow::Result<Self> {
        let (mut objects, mut unknown) = (Vec::new(), Vec::new());
        for kind in KINDS {
            match world.objects(kind).await? {
                Some(read) => objects.extend(read),
                None => unknown.push(*kind),
            }
        }
        Ok(Self { gateways: world.gateways().await, ..Self::new(place, unknown, objects) })
    }

    fn new(world: Place, unknown: Vec<&'static str>, objects: Vec<Object>) -> Self {
        let (no_endpoints, settings) = (Some(NOT_ASKED.to_owned()), Settings::default());
        Self { world, notes: Vec::new(), unknown, gateways: None, objects, no_endpoints, settings }
    }

    fn with(mut self, settings: Result<Settings, String>) -> Self {
        match settings {
            Ok(settings) => self.settings = settings,
            Err(reason) => {
                self.notes.push(format!("with the settings of a default installation, because {reason}"));
            }
        }
        self
    }

    /// Adds a workload, if it is there.
    ///
    /// # Errors
    /// As [`Self::of_world`].
    pub(crate) async fn add_workload(
        &mut self,
        world: &World,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<()> {
        self.objects.extend(world.workload(kind, namespace, name).await?);
        Ok(())
    }

    /// Adds what endpoints are made of. Not everybody who may read routes may read that: then nothing is said about them.
    pub(crate) async fn add_endpoints(&mut self, world: &World) {
        let mut endpoints = Vec::new();
        for kind in ENDPOINT_KINDS {
            match world.objects(kind).await {
                Ok(read) => endpoints.extend(read.unwrap_or_default()),
                Err(error) => return self.no_endpoints = Some(format!("{error:#}")),
            }
        }
        self.objects.extend(endpoints);
        self.no_endpoints = None;
    }

    /// Adds what it takes to open session tokens, as far as it may be read: endpoints must be there already.
    pub(crate) async fn add_what_opens_tokens(&mut self, world: &World) {
        let read = world.objects("Secret").await;
        let failed = read.as_ref().err().map(|error| format!("{error:#}"));
        self.objects.extend(read.ok().flatten().unwrap_or_default());
        let reasons = self.no_endpoints.iter().chain(&failed);
        // Not everybody who may read routes may open tokens.
        self.notes.extend(reasons.map(|reason| format!("session tokens aren't opened: {reason}")));
    }

    /// Whether endpoints are among the objects.
    pub(crate) fn has_endpoints(&self) -> bool {
        self.no_endpoints.is_none()
    }

    /// Who is asked, in one line.
    pub(crate) fn line(&self) -> String {
        self.world.line(Timestamp::now())
    }

    /// All of a kind.
    pub(crate) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(move |object| object.kind == kind)
    }

    /// The object, if it is there.
    pub(crate) fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<&Object> {
        let is = |object: &&Object| {
            object.kind == kind
                && object.name == name
                && object.namespace.as_deref().is_none_or(|of| of == namespace)
        };
        self.objects.iter().find(is)
    }

    /// Why a workload's pods have no sidecar; `None` if they have one.
    pub(crate) fn not_meshed(&self, workload: &Object) -> Option<String> {
        let is_pod = workload.kind == "Pod";
        let pod = if is_pod { Some(&workload.raw) } else { workload.raw.pointer("/spec/template") }?;
        if has_sidecar(pod) {
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
    pub(crate) fn into_index(self) -> Index {
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
