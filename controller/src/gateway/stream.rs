//! TCPRoute's and TLSRoute's rules: backends and weights, nothing else.

use serde::Deserialize;

use super::{http::HttpFilter, route::BackendRef};

/// `TCPRoute.spec.rules[]` and `TLSRoute.spec.rules[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamRule {
    /// Unique in the route.
    pub name: Option<String>,
    /// Where connections go. The CRDs have no `filters` here; one that is there is refused by the compiler.
    pub backend_refs: Vec<BackendRef<HttpFilter>>,
}
