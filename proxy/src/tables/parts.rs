//! What a table's activation is made of besides the table.

use std::{collections::HashMap, sync::Arc};

use gamut_controller_api::SessionKeys;
use gamut_route::BackendId;
use thiserror::Error;

use crate::{balance::Cluster, telemetry::Telemetry};

/// What [`crate::outbound::service::Service::new`] looks things up in. Everything that the table names has arrived:
/// a look-up that fails is a reason to refuse the table.
pub struct Parts<'a> {
    pub(super) clusters: &'a HashMap<BackendId, Arc<Cluster>>,
    pub(super) session_keys: &'a HashMap<String, Arc<SessionKeys>>,
    pub(super) telemetry: &'a Telemetry,
}

/// Why a resource can't be used. The last good one stays in force, and the controller is told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Refusal(pub String);

impl<'a> Parts<'a> {
    /// The parts from their maps.
    pub fn new(
        clusters: &'a HashMap<BackendId, Arc<Cluster>>,
        session_keys: &'a HashMap<String, Arc<SessionKeys>>,
        telemetry: &'a Telemetry,
    ) -> Self {
        Self { clusters, session_keys, telemetry }
    }

    /// The endpoints of a backend. The same cluster for as long as any table names it, so that connections and
    /// latencies survive a change of weights.
    ///
    /// # Errors
    /// When it hasn't arrived.
    pub fn cluster(&self, id: &BackendId) -> Result<Arc<Cluster>, Refusal> {
        self.clusters.get(id).cloned().ok_or_else(|| Refusal(format!("endpoints of {id} haven't arrived")))
    }

    /// The keys of a session scope.
    ///
    /// # Errors
    /// When they haven't arrived.
    pub fn session_keys(&self, scope: &str) -> Result<Arc<SessionKeys>, Refusal> {
        self.session_keys
            .get(scope)
            .cloned()
            .ok_or_else(|| Refusal(format!("keys of session scope {scope:?} haven't arrived")))
    }

    /// Where a table's counters are registered.
    pub fn telemetry(&self) -> &Telemetry {
        self.telemetry
    }
}
