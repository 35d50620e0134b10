//! Who answered: the first line of every page, and the field `world` of all data.

use anyhow::Context as _;
use gamut_kubernetes::{Cluster, Context};
use gamut_local::control::Status;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::output::Age;

/// A world as people and programs are told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Place {
    /// A `gamut up`.
    Instance {
        /// Its name.
        name: String,
        /// Since when it runs.
        started: Timestamp,
        /// Its manifests.
        paths: Vec<String>,
    },
    /// A cluster.
    Cluster {
        /// The kubeconfig's context.
        context: String,
        /// The API server's URL.
        server: String,
        /// Its version: `v1.34.4`.
        version: String,
    },
    /// Manifests that run nowhere.
    Files {
        /// Which.
        paths: Vec<String>,
    },
    /// This machine, as a place for `gamut up`.
    Machine,
}

/// A cluster in messages about it.
pub(super) fn called(context: &Context) -> String {
    format!("context {} ({})", context.name, context.server)
}

impl Place {
    pub(super) fn instance(status: &Status) -> Self {
        Self::Instance {
            name: status.instance.clone(),
            started: status.started,
            paths: status.paths.iter().map(|path| path.display().to_string()).collect(),
        }
    }

    /// Asks the API server for its version.
    ///
    /// # Errors
    /// It doesn't answer.
    pub(crate) async fn cluster(cluster: &Cluster, context: &Context) -> anyhow::Result<Self> {
        let version = cluster.document("/version").await.with_context(|| called(context))?;
        let version = version.unwrap_or_default();
        let version = version.get("gitVersion").and_then(Value::as_str).unwrap_or("of unknown version");
        Ok(Self::Cluster {
            context: context.name.clone(),
            server: context.server.clone(),
            version: version.to_owned(),
        })
    }

    /// One line. `now` is what ages are counted from.
    pub(crate) fn line(&self, now: Timestamp) -> String {
        match self {
            Self::Instance { name, started, paths } => {
                format!("instance {name}, up {}, from {}", Age::between(*started, now), paths.join(", "))
            }
            Self::Cluster { context, server, version } => {
                format!("context {context}, {server}, Kubernetes {version}")
            }
            Self::Files { paths } => format!("manifests {}", paths.join(", ")),
            Self::Machine => "this machine".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_world_is_one_line() {
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        let line = |place: Place| place.line(now);
        let instance = Place::Instance {
            name: "demo".to_owned(),
            started: "2026-01-31T11:47:10Z".parse().unwrap(),
            paths: vec!["a".to_owned(), "b.yaml".to_owned()],
        };
        let cluster = Place::Cluster {
            context: "kind".to_owned(),
            server: "https://10.0.0.10:6443".to_owned(),
            version: "v1.34.4".to_owned(),
        };
        assert_eq!(line(instance), "instance demo, up 12m, from a, b.yaml");
        assert_eq!(line(cluster), "context kind, https://10.0.0.10:6443, Kubernetes v1.34.4");
        assert_eq!(line(Place::Files { paths: vec!["a".to_owned()] }), "manifests a");
    }
}
