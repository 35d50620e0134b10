//! The roots as a ClusterTrustBundle, for workloads outside of the mesh that want to verify its certificates: they mount it by name
//! (`clusterTrustBundle` of a projected volume, KEP-3257) in any namespace.
//!
//! Clusters serve the kind behind a feature gate. Where it isn't served there is nothing to do, and it is looked for again;
//! sidecars never depend on it.

use std::time::Duration;

use gamut_kubernetes::{
    ApiError, Cluster, Created, Event, MANAGED_BY, Problem, Replaced, Resource, Selection, Watch, core,
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tracing::{info, warn};

use crate::bundle::TRUST_BUNDLE;

/// How long to wait after a failed write.
const AGAIN: Duration = Duration::from_secs(2);

/// What the API server has.
#[derive(Debug, PartialEq)]
enum Published {
    /// Nobody knows yet, or it isn't served.
    Unknown,
    /// It is served in this version, and there is none of our name.
    Absent(Resource),
    /// It is there.
    Present(Resource, Value),
}

/// Publishes what `bundle` says, for ever; puts it back when somebody changes or deletes it.
pub(crate) async fn publish_for_all(cluster: Cluster, mut bundle: watch::Receiver<String>) {
    let (tell, mut told) = mpsc::channel(4);
    let watch = Watch::of_versions(
        cluster.clone(),
        core::CLUSTER_TRUST_BUNDLES.to_vec(),
        Selection::named(None, TRUST_BUNDLE),
    );
    let publish = async {
        let (mut published, mut failed) = (Published::Unknown, String::new());
        loop {
            tokio::select! {
                news = told.recv() => match news {
                    Some((resource, events)) => published.hear(resource, events),
                    None => return,
                },
                changed = bundle.changed() => if changed.is_err() { return },
                () = sleep(AGAIN), if !failed.is_empty() => {}
            }
            let pem = bundle.borrow_and_update().clone();
            let now = published.write(&cluster, &pem).await.err().map(|error| error.to_string());
            let now = now.unwrap_or_default();
            if !now.is_empty() && now != failed {
                warn!("the trust bundle can't be published as a ClusterTrustBundle: {now}");
            }
            failed = now;
        }
    };
    tokio::join!(follow(watch, tell), publish);
}

impl Published {
    fn hear(&mut self, resource: Resource, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Applied(object) => *self = Self::Present(resource, object),
                Event::Deleted(_) => *self = Self::Absent(resource),
                Event::Complete if *self == Self::Unknown => *self = Self::Absent(resource),
                Event::Complete => {}
                Event::NotServed => *self = Self::Unknown,
            }
        }
    }

    /// Writes what should be there, if anything else is. What became of it is told by the watch.
    async fn write(&self, cluster: &Cluster, pem: &str) -> Result<(), ApiError> {
        match self {
            Self::Unknown => {}
            Self::Present(_, object) if holds(object, pem) => {}
            Self::Present(resource, object) => {
                // Outdated: the watch brings what it is now.
                let (Replaced::Done(_) | Replaced::Outdated) =
                    cluster.replace(resource, &filled(object.clone(), pem)).await?;
            }
            Self::Absent(resource) => {
                let object = json!({
                    "apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {"name": TRUST_BUNDLE},
                });
                if let Created::New(_) = cluster.create(resource, &filled(object, pem)).await? {
                    info!("the trust bundle is published as {} {TRUST_BUNDLE}", resource.kind);
                }
            }
        }
        Ok(())
    }
}

fn holds(object: &Value, pem: &str) -> bool {
    object.pointer("/spec/trustBundle").and_then(Value::as_str) == Some(pem)
}

/// Without `signerName`: who names one speaks for a signer of CertificateSigningRequests, which we aren't.
fn filled(mut object: Value, pem: &str) -> Value {
    object["spec"]["trustBundle"] = pem.into();
    object["metadata"]["labels"][MANAGED_BY.0] = MANAGED_BY.1.into();
    object
}

/// Tells what a watch says. Who hasn't the permission is told so once.
async fn follow(mut watch: Watch, tell: mpsc::Sender<(Resource, Vec<Event>)>) {
    let mut told = String::new();
    while let Some(resource) = watch.resource() {
        match watch.next().await {
            Ok(events) => {
                told.clear();
                let resource = watch.resource().unwrap_or(resource);
                if tell.send((resource, events)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let text = error.to_string();
                if text == told {
                    continue;
                }
                match error.problem {
                    Problem::Forbidden(_) => info!("no ClusterTrustBundle is published: {text}"),
                    _ => warn!("{text}; the ClusterTrustBundle stays as it is"),
                }
                told = text;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gamut_kubernetes::Key;

    use super::*;

    fn bundle(pem: &str) -> Event {
        Event::Applied(filled(json!({"metadata": {"name": TRUST_BUNDLE}}), pem))
    }

    #[test]
    fn what_is_there_is_known_in_the_version_that_is_served() {
        let [beta, alpha] = core::CLUSTER_TRUST_BUNDLES;
        let mut published = Published::Unknown;
        published.hear(beta, vec![Event::NotServed]);
        assert_eq!(published, Published::Unknown);
        published.hear(alpha, vec![Event::Complete]);
        assert_eq!(published, Published::Absent(alpha));
        published.hear(beta, vec![bundle("pem"), Event::Complete]);
        assert!(
            matches!(&published, Published::Present(resource, object) if *resource == beta && holds(object, "pem"))
        );
        published.hear(beta, vec![Event::Deleted(Key { namespace: None, name: TRUST_BUNDLE.into() })]);
        assert_eq!(published, Published::Absent(beta));
    }

    #[test]
    fn a_bundle_that_somebody_changed_is_written_over_and_keeps_what_isnt_ours() {
        let theirs = json!({"metadata": {"name": TRUST_BUNDLE, "labels": {"team": "a"}}, "spec": {"trustBundle": "x"}});
        let ours = filled(theirs, "pem");
        assert!(holds(&ours, "pem") && !holds(&ours, "other"));
        assert_eq!(ours["metadata"]["labels"], json!({"team": "a", MANAGED_BY.0: MANAGED_BY.1}));
    }
}
