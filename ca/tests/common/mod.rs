//! A whole CA on loopback and what surrounds it: an issuer of tokens, and the sidecar of pod `shop/web-0`.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use gamut_ca::{Ca, CaArgs, CaError, LocalIssuer, TokenRequest, authority::LEAF_LIFETIME};
use gamut_ca_api::AUDIENCE;
use gamut_identity::{CaClient, Certificate, Clock, Identity, SpiffeId};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

/// The UID of pod `shop/web-0`.
pub(crate) const POD: &str = "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10";

pub(crate) struct Town {
    directory: TempDir,
    issuer: LocalIssuer,
}

pub(crate) struct Running {
    pub(crate) address: String,
    pub(crate) admin: String,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), CaError>>,
}

impl Town {
    pub(crate) fn new() -> Self {
        let town = Self { directory: tempfile::tempdir().unwrap(), issuer: LocalIssuer::generate().unwrap() };
        fs::write(town.path("issuer.pem"), town.issuer.public_key()).unwrap();
        town
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn args(&self) -> CaArgs {
        CaArgs {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
            trust_domain: "cluster.local".to_owned(),
            kubeconfig: None,
            existing_secret: None,
            store_dir: Some(self.path("store")),
            bundle_file: vec![self.path("root.pem"), self.path("cluster/bundle.json")],
            issuer_key_file: Some(self.path("issuer.pem")),
            leaf_lifetime: LEAF_LIFETIME,
        }
    }

    pub(crate) async fn start(&self) -> Running {
        let ca = Ca::start(&self.args(), Clock::system()).await.unwrap();
        let (address, admin) = ca.addresses().unwrap();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(ca.serve(async move { stopped.await.unwrap_or_default() }));
        Running { address: address.to_string(), admin: admin.to_string(), stop, ended }
    }

    pub(crate) fn token(&self, audience: &str) -> String {
        let request = TokenRequest {
            namespace: "shop",
            service_account: "web",
            service_account_uid: "1",
            pod: "web-0",
            pod_uid: POD,
            audience,
            lifetime: Duration::from_secs(3600),
        };
        self.issuer.mint(&request, SystemTime::now()).unwrap()
    }

    pub(crate) fn client(&self, address: &str) -> CaClient {
        CaClient {
            address: address.to_owned(),
            ca: ca_id(),
            token_file: self.path("token"),
            roots_file: self.path("root.pem"),
            clock: Clock::system(),
        }
    }

    /// A sidecar of pod `web-0` with a good token.
    pub(crate) async fn sidecar(&self, ca: &Running) -> (Identity, Arc<Certificate>) {
        fs::write(self.path("token"), self.token(AUDIENCE)).unwrap();
        let identity = Identity::start(web(), self.client(&ca.address), Clock::system());
        let certificate = identity.ready().await;
        (identity, certificate)
    }
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
    }
}

pub(crate) fn web() -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", "web").unwrap()
}

pub(crate) fn ca_id() -> SpiffeId {
    SpiffeId::new("cluster.local", "gamut-system", "gamut-ca").unwrap()
}
