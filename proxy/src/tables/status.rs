//! What `/status` and `/config_dump` say about tables, for people and for `gamut status`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use gamut_controller_api::{AddressAnswer, EndpointSet, InboundPolicy};
use gamut_route::RouteTable;
use serde::{Deserialize, Serialize};

/// The subscription and all that it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesStatus {
    /// How it stands with the controller.
    pub controller: SubscriptionState,
    /// Everything that is subscribed, by key.
    pub tables: Vec<TableStatus>,
}

/// How it stands with the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum SubscriptionState {
    /// Deliveries are coming in.
    #[serde(rename_all = "camelCase")]
    Connected {
        /// The controller's address.
        address: String,
        /// For how long.
        seconds: u64,
    },
    /// There is no connection: what was delivered last stays in force.
    #[serde(rename_all = "camelCase")]
    Away {
        /// The controller's address.
        address: String,
        /// For how long.
        seconds: u64,
        /// What ended the last connection, or kept the last try from becoming one.
        reason: String,
    },
}

/// What to do about roots that neither side knows of the other.
const OTHER_ROOTS: &str = "the mesh has other roots than this sidecar, as after an uninstallation and a new installation: restart its pod";

/// Whether a connection ended because one side doesn't know the root of the other's certificate, in rustls' words: its own error,
/// or the peer's alert. Waiting doesn't help then: the roots of a mesh that was installed anew come with a new start.
pub fn is_of_other_roots(reason: &str) -> bool {
    ["UnknownIssuer", "UnknownCA"].iter().any(|word| reason.contains(word))
}

/// Why the controller is away, with what to do where waiting doesn't help.
pub(super) fn with_remedy(reason: String) -> String {
    if is_of_other_roots(&reason) { format!("{reason}; {OTHER_ROOTS}") } else { reason }
}

/// One subscribed key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableStatus {
    /// The key as messages print it.
    pub key: String,
    /// The version that is held, in hexadecimal; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How long it has been held.
    pub age_seconds: u64,
    /// Whether it is in force.
    pub state: TableState,
}

/// Whether a resource is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum TableState {
    /// It is.
    Active,
    /// It isn't yet; the one before it is, if there was one.
    #[serde(rename_all = "camelCase")]
    Pending {
        /// What has to arrive first: itself, or what it names.
        missing: Vec<String>,
    },
    /// The newest one can't be used; the last good one is in force, if there was one.
    #[serde(rename_all = "camelCase")]
    Refused {
        /// Why.
        reason: String,
    },
}

/// Everything in force, whole. Without session keys: no type here holds any.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dump {
    /// How our own pod takes traffic in.
    pub inbound_policy: Option<Arc<InboundPolicy>>,
    /// What the controller says about each address that is in use.
    pub addresses: BTreeMap<SocketAddr, AddressAnswer>,
    /// The tables, by Service and port.
    pub tables: Vec<Arc<RouteTable>>,
    /// The endpoints that they name, by backend.
    pub endpoints: Vec<Arc<EndpointSet>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_of_an_earlier_installation_is_told_to_start_anew_and_one_that_only_waits_is_not() {
        for reason in
            ["invalid peer certificate: UnknownIssuer", "transport error: received fatal alert: UnknownCA"]
        {
            let said = with_remedy(reason.to_owned());
            assert!(said.starts_with(reason) && said.ends_with("restart its pod"), "{said}");
        }
        assert_eq!(with_remedy("connection refused".to_owned()), "connection refused");
    }
}
