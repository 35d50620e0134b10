//! `gamut cleanup`: the end of an uninstallation. Helm knows what it made; this removes what the control plane has made by itself.
//!
//! By then the control plane and its roles are gone, so that nobody puts anything back. No Secret is read: whoever reads the CA's can be anybody.

use std::{env, path::PathBuf};

use gamut_kubernetes::{ApiError, Cluster, MANAGED_BY, Resource, Selection, core};
use serde_json::Value;
use tracing::info;

/// The namespace of the control plane.
const SYSTEM_NAMESPACE: &str = "gamut-system";

/// What there can be, by kind and name. The trust bundle is in every namespace that had sidecars.
const MADE: [(Resource, &str); 5] = [
    (core::CONFIG_MAP, "gamut-trust-bundle"),
    (core::LEASE, "gamut-controller"),
    (core::CLUSTER_TRUST_BUNDLES[0], "gamut-trust-bundle"),
    (core::CLUSTER_TRUST_BUNDLES[1], "gamut-trust-bundle"),
    (Resource::cluster("gateway.networking.x-k8s.io", "v1alpha1", "XMesh", "xmeshes"), "gamut"),
];

/// The Secrets there can be: their names are ours.
const SECRETS: [&str; 3] = ["gamut-ca", "gamut-ca-roots", "gamut-session-keys"];

/// Where to clean up.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cluster, if not the one that this pod runs in. KUBECONFIG's isn't taken for meant
    #[arg(long, env = "GAMUT_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The Secret that the CA signed with, if it is its owner's: it stays, whatever it is called
    #[arg(long, env = "GAMUT_CA_EXISTING_SECRET", value_name = "NAME")]
    existing_secret: Option<String>,
}

/// Deletes all of it. What is gone already is no error, so that it can be tried again.
///
/// # Errors
/// If there is no cluster, or it refuses.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.kubeconfig.is_some() || env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
        "this deletes what an installation has made, the CA's key included, and helm uninstall runs it in the cluster; to do it from here, \
         name the cluster with --kubeconfig FILE"
    );
    let cluster = Cluster::connect(args.kubeconfig.as_deref()).await?;
    Ok(clean(&cluster, args.existing_secret.as_deref()).await?)
}

async fn clean(cluster: &Cluster, existing_secret: Option<&str>) -> Result<(), ApiError> {
    for name in SECRETS.into_iter().filter(|name| existing_secret != Some(name)) {
        delete(cluster, &core::SECRET, Some(SYSTEM_NAMESPACE), name).await?;
    }
    for (resource, name) in &MADE {
        for object in ours(cluster, resource, name).await? {
            let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
            delete(cluster, resource, namespace, name).await?;
        }
    }
    Ok(())
}

async fn delete(
    cluster: &Cluster,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
) -> Result<(), ApiError> {
    if cluster.delete(resource, namespace, name).await? {
        info!(kind = resource.kind, namespace, name, "deleted");
    }
    Ok(())
}

/// The objects of a name that are ours; none where the kind isn't served.
async fn ours(cluster: &Cluster, resource: &Resource, name: &str) -> Result<Vec<Value>, ApiError> {
    // Its role allows lists of these names alone. Only the trust bundle is looked for in all namespaces.
    let everywhere = !resource.namespaced || *resource == core::CONFIG_MAP;
    let namespace = (!everywhere).then_some(SYSTEM_NAMESPACE);
    let selection = Selection {
        labels: Some(format!("{}={}", MANAGED_BY.0, MANAGED_BY.1)),
        ..Selection::named(namespace, name)
    };
    Ok(cluster.list(resource, &selection.metadata_only()).await?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use http::{Method, Request, Response};
    use http_body_util::Full;
    use kube::client::Body;
    use serde_json::json;
    use tower::service_fn;

    use super::*;
    use crate::world::scripted::list;

    const BUNDLES: &str = "/api/v1/configmaps";

    /// What a cluster is asked for that has the trust bundle in one namespace, and everything else that it is told to delete.
    async fn asked(existing_secret: Option<&str>) -> Vec<String> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heard = seen.clone();
        let service = service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            heard.lock().unwrap().push(format!("{} {path}", request.method()));
            let bundle = json!({"metadata": {"namespace": "shop", "name": "gamut-trust-bundle"}});
            let (code, document) = match *request.method() {
                Method::GET if path == BUNDLES => (200, list(&[bundle])),
                Method::DELETE => (200, json!({"kind": "Status", "status": "Success"})),
                _ => (
                    404,
                    json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "no"}),
                ),
            };
            let answer = Response::builder().status(code).body(Full::<Bytes>::from(document.to_string()));
            async move { Ok::<_, kube::Error>(answer.unwrap()) }
        });
        clean(&Cluster::over(kube::Client::new(service, "default")), existing_secret).await.unwrap();
        let seen = seen.lock().unwrap();
        seen.clone()
    }

    #[tokio::test]
    async fn secrets_are_deleted_unread_and_the_rest_where_it_is_found() {
        let asked = asked(None).await;
        let secrets = asked.iter().filter(|asked| asked.contains("/secrets"));
        let secret = "/api/v1/namespaces/gamut-system/secrets";
        let expected = ["gamut-ca", "gamut-ca-roots", "gamut-session-keys"];
        let expected = expected.map(|name| format!("DELETE {secret}/{name}"));
        assert_eq!(secrets.cloned().collect::<Vec<_>>(), expected);
        let bundle = "DELETE /api/v1/namespaces/shop/configmaps/gamut-trust-bundle".to_owned();
        assert!(asked.contains(&bundle), "{asked:#?}");
    }

    #[tokio::test]
    async fn a_secret_of_the_users_stays_whatever_it_is_called() {
        let asked = asked(Some("gamut-ca")).await;
        assert!(!asked.iter().any(|asked| asked.ends_with("/gamut-ca")), "{asked:#?}");
        assert!(asked.iter().any(|asked| asked.ends_with("/gamut-session-keys")), "{asked:#?}");
    }
}
