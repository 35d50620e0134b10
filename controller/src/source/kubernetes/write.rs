//! Writes to the API server: statuses that others write to as well, and objects that are created once.
//!
//! A status is read, merged and replaced; if somebody else was faster, again. Only the replica that holds the Lease writes any; what
//! another leaves out is written by the one that does, or when it takes over.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use gamut_kubernetes::{ApiError, Cluster, Created, Leadership, MANAGED_BY, Replaced, Resource, core};
use gamut_manifest::ObjectId;
use jiff::Timestamp;
use serde_json::{Value, json};
use thiserror::Error;
use tracing::{debug, info};

use super::super::{Said, Write};
use crate::status::merge;

/// How often a status is read again because somebody else was faster.
const TRIES: usize = 8;

/// Which resource, in which version, each kind is at present.
#[derive(Clone, Debug, Default)]
pub(super) struct Served(Arc<RwLock<BTreeMap<&'static str, Resource>>>);

/// Writes to the API server.
#[derive(Clone, Debug)]
pub struct KubernetesWriter {
    cluster: Cluster,
    leadership: Leadership,
    served: Served,
}

/// Why a write failed.
#[derive(Debug, Error)]
pub enum KubernetesWriteError {
    /// A request failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Others write all the time.
    #[error(
        "status of {0}: somebody else has changed it {TRIES} times while it was written; who fights over it?"
    )]
    Contended(ObjectId),
    /// A programmer's mistake.
    #[error("{0} objects are not created by the controller")]
    Kind(String),
}

impl Served {
    pub(super) fn set(&self, kind: &'static str, resource: Option<Resource>) {
        // A map that a panic interrupted is as good as before.
        let mut served = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match resource {
            Some(resource) => served.insert(kind, resource),
            None => served.remove(kind),
        };
    }

    fn get(&self, kind: &str) -> Option<Resource> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(kind).copied()
    }
}

impl KubernetesWriter {
    pub(super) fn new(cluster: Cluster, leadership: Leadership, served: Served) -> Self {
        Self { cluster, leadership, served }
    }

    /// Carries out one write.
    pub(in crate::source) async fn write(&self, write: &Write) -> Result<(), KubernetesWriteError> {
        match write {
            // An object that is gone has taken its status along.
            Write::Status { said: None, .. } => Ok(()),
            Write::Status { id, said: Some(said), .. } => self.write_status(id, said).await,
            Write::Create(object) => self.create(object).await,
            Write::Replace(object) => self.replace(object).await,
        }
    }

    async fn write_status(&self, id: &ObjectId, said: &Said) -> Result<(), KubernetesWriteError> {
        // Not served any more: there is nothing left to say it about.
        let Some(resource) = self.served.get(&id.kind) else { return Ok(()) };
        for _ in 0..TRIES {
            if !self.leadership.holds() {
                return Ok(());
            }
            let Some(mut object) = self.cluster.get(&resource, id.namespace.as_deref(), &id.name).await?
            else {
                return Ok(());
            };
            let generation =
                object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default();
            if generation != said.generation {
                debug!("{id} has changed since its status was found; the watch will tell");
                return Ok(());
            }
            let before = object.get("status").cloned().unwrap_or_else(|| json!({}));
            let Some(status) = merge(&before, said.list, &said.entries, said.generation, Timestamp::now())
            else {
                return Ok(());
            };
            if let Some(object) = object.as_object_mut() {
                object.insert("status".to_owned(), status);
            }
            // Read long ago? Then the Lease may be another's by now.
            if self.leadership.holds()
                && let Replaced::Done(_) = self.cluster.replace_status(&resource, &object).await?
            {
                return Ok(());
            }
            debug!("{id} was changed while its status was written; it is read again");
        }
        Err(KubernetesWriteError::Contended(id.clone()))
    }

    async fn create(&self, object: &Value) -> Result<(), KubernetesWriteError> {
        let (kind, resource) = kind_of(object)?;
        if let Created::New(_) = self.cluster.create(&resource, &labelled(object)).await? {
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            info!("created {kind} {name}");
        }
        Ok(())
    }

    /// An object that somebody else has changed meanwhile is left alone: the watch tells, and what is due is found anew.
    async fn replace(&self, object: &Value) -> Result<(), KubernetesWriteError> {
        let (kind, resource) = kind_of(object)?;
        if self.leadership.holds()
            && let Replaced::Done(_) = self.cluster.replace(&resource, object).await?
        {
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            info!("replaced {kind} {name}");
        }
        Ok(())
    }
}

/// The kinds of objects that belong to the controller.
fn kind_of(object: &Value) -> Result<(&str, Resource), KubernetesWriteError> {
    match object.get("kind").and_then(Value::as_str).unwrap_or_default() {
        "Secret" => Ok(("Secret", core::SECRET)),
        kind => Err(KubernetesWriteError::Kind(kind.to_owned())),
    }
}

/// An object that says who made it.
pub(super) fn labelled(object: &Value) -> Value {
    let mut object = object.clone();
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    let labels = metadata.map(|metadata| metadata.entry("labels").or_insert_with(|| json!({})));
    if let Some(labels) = labels.and_then(Value::as_object_mut) {
        labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.into());
    }
    object
}
