//! The XMesh: made at the start, and told what this mesh can do.
//!
//! GEP-3949: an XMesh stands for a mesh in a cluster; `spec.controllerName` says whose it is and can't be changed. The official suite
//! reads from its status what to test. Only the replica that holds the Lease writes, and only to XMeshes that are ours.

use std::time::Duration;

use gamut_kubernetes::{ApiError, Cluster, Created, Event, Leadership, Replaced, Watch};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{features, kinds::MESH, write::labelled};
use crate::status::{CONTROLLER, whole_seconds};

/// How long to wait after a failure before all is looked at again.
const AGAIN: Duration = Duration::from_secs(5);

/// The name of the XMesh that is made where there is none of ours.
const DEFAULT_NAME: &str = "gamut";

/// Keeps the XMeshes that are ours up to date, while this replica leads; without end.
pub async fn keep(cluster: Cluster, mut leadership: Leadership) {
    while leadership.differs_from(false).await {
        tokio::select! {
            () = lead(&cluster) => {}
            _ = lost(&mut leadership) => {}
        }
    }
}

async fn lost(leadership: &mut Leadership) -> bool {
    leadership.differs_from(true).await
}

async fn lead(cluster: &Cluster) {
    let mut watch = Watch::new(cluster.clone(), MESH, Default::default());
    let (mut seen, mut made) = (false, false);
    loop {
        // Failures are the source's to report: it watches the same server.
        let Ok(events) = watch.next().await else { continue };
        for event in events {
            let done = match event {
                Event::Applied(mesh) if is_ours(&mesh) => {
                    seen = true;
                    tell(cluster, mesh).await
                }
                // Once: who deletes it later means it.
                Event::Complete if !seen && !made => {
                    made = true;
                    make(cluster).await
                }
                _ => Ok(()),
            };
            if let Err(error) = done {
                warn!("XMesh: {error}");
                sleep(AGAIN).await;
                watch = Watch::new(cluster.clone(), MESH, Default::default());
                (seen, made) = (false, false);
                break;
            }
        }
    }
}

fn is_ours(mesh: &Value) -> bool {
    mesh.pointer("/spec/controllerName").and_then(Value::as_str) == Some(CONTROLLER)
}

async fn make(cluster: &Cluster) -> Result<(), ApiError> {
    let mesh = json!({
        "apiVersion": MESH.api_version(),
        "kind": MESH.kind,
        "metadata": {"name": DEFAULT_NAME},
        "spec": {"controllerName": CONTROLLER},
    });
    match cluster.create(&MESH, &labelled(&mesh)).await? {
        Created::New(_) => info!("created XMesh {DEFAULT_NAME}"),
        Created::Existed => {
            warn!(
                "XMesh {DEFAULT_NAME} belongs to another mesh; make one with spec.controllerName {CONTROLLER} under another name"
            );
        }
    }
    Ok(())
}

/// Writes the status of an XMesh, if it says anything else.
async fn tell(cluster: &Cluster, mut mesh: Value) -> Result<(), ApiError> {
    let status = status(&mesh, Timestamp::now());
    if mesh.get("status") == Some(&status) {
        return Ok(());
    }
    if let Some(mesh) = mesh.as_object_mut() {
        mesh.insert("status".to_owned(), status);
    }
    // Outdated: the watch brings what it is now.
    let (Replaced::Done(_) | Replaced::Outdated) = cluster.replace_status(&MESH, &mesh).await?;
    Ok(())
}

/// The status that an XMesh should have: our conditions in place of theirs of the same type, others' as they are.
fn status(mesh: &Value, now: Timestamp) -> Value {
    let generation = mesh.pointer("/metadata/generation").cloned().unwrap_or_default();
    let before = mesh.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let (accepted, mut conditions): (Vec<Value>, Vec<Value>) =
        before.into_iter().partition(|condition| condition.get("type") == Some(&json!("Accepted")));
    let since = accepted
        .into_iter()
        .find(|condition| condition.get("status") == Some(&json!("True")))
        .and_then(|condition| condition.get("lastTransitionTime").cloned());
    let accepted = json!({
        "type": "Accepted",
        "status": "True",
        "reason": "Accepted",
        "message": "Gamut serves routes whose parents are Services",
        "observedGeneration": generation,
        "lastTransitionTime": since.unwrap_or_else(|| whole_seconds(now).into()),
    });
    conditions.insert(0, accepted);
    let features: Vec<Value> = features::supported().into_iter().map(|name| json!({"name": name})).collect();
    json!({"conditions": conditions, "supportedFeatures": features})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_complete_and_written_only_once() {
        let waiting = json!({"type": "Accepted", "status": "Unknown", "reason": "Pending", "lastTransitionTime": "1970-01-01T00:00:00Z"});
        let foreign = json!({"type": "example.com/Healthy", "status": "True"});
        let mut mesh = json!({"metadata": {"generation": 1}, "status": {"conditions": [waiting, foreign]}});
        let first = status(&mesh, Timestamp::from_second(1_000).unwrap());
        assert_eq!(first["conditions"][0]["status"], "True");
        assert_eq!(first["conditions"][0]["lastTransitionTime"], "1970-01-01T00:16:40Z");
        assert_eq!(first["conditions"][1], foreign);
        mesh["status"] = first.clone();
        assert_eq!(status(&mesh, Timestamp::from_second(2_000).unwrap()), first);
    }

    #[test]
    fn only_our_own_meshes_are_ours() {
        assert!(is_ours(&json!({"spec": {"controllerName": "gamut.mesh/controller"}})));
        assert!(!is_ours(&json!({"spec": {"controllerName": "example.com/mesh"}})));
        assert!(!is_ours(&json!({})));
    }
}
