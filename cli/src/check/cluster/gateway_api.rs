//! The Gateway API's definitions, which aren't ours: which there are, and what that leaves to write.

use gamut_controller::status::CONTROLLER;
use serde_json::Value;

use super::{
    Facts, Finding, Purpose,
    facts::{items, name, text},
    few, unread,
};
use crate::check::sessions;

const WHAT: &str = "Gateway API";

const INSTALL: &str = "kubectl apply --server-side -f \
     https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.7.0/experimental-install.yaml";

/// What the definitions say about themselves.
const VERSION: &str = "/metadata/annotations/gateway.networking.k8s.io~1bundle-version";
const CHANNEL: &str = "/metadata/annotations/gateway.networking.k8s.io~1channel";

/// The first version with Services as parents in its standard channel (GAMMA).
const OLDEST: (u32, u32) = (1, 1);

/// The definitions, and what sessions can be written as.
pub(super) fn definitions(facts: &Facts, purpose: Purpose) -> Vec<Finding> {
    let Ok(definitions) = &facts.definitions else {
        return unread(WHAT, &facts.definitions).into_iter().collect();
    };
    let find = |wanted: &str| definitions.iter().find(|definition| name(definition) == wanted);
    let http = find("httproutes.gateway.networking.k8s.io");
    let grpc = find("grpcroutes.gateway.networking.k8s.io");
    let Some(http) = http else {
        let detail = "not installed: there can be no routes";
        let finding = match purpose {
            // They may come after us.
            Purpose::Install => {
                Finding::warning(WHAT, detail, format!("install it before or after Gamut: {INSTALL}"))
            }
            _ => Finding::failed(WHAT, detail, INSTALL),
        };
        return vec![finding];
    };
    let (version, channel) = (text(http, VERSION), text(http, CHANNEL));
    let found = format!("{version}, {channel} channel");
    let is_old = number(version).is_some_and(|version| version < OLDEST);
    let first = match (is_old, grpc) {
        (true, _) => Finding::failed(
            WHAT,
            format!("{found}: too old for routes whose parents are Services"),
            format!("1.1 is the oldest: {INSTALL}"),
        ),
        (false, None) => Finding::warning(
            WHAT,
            format!("{found}; GRPCRoute is missing"),
            format!("there can be no GRPCRoutes: {INSTALL}"),
        ),
        (false, Some(_)) => Finding::ok(WHAT, found),
    };
    vec![first, sessions::of_crds(definitions.iter())]
}

fn number(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether our XMesh is there and accepted.
pub(super) fn mesh(facts: &Facts) -> Option<Finding> {
    const WHAT: &str = "XMesh";
    let meshes = match &facts.meshes {
        Err(_) => return unread(WHAT, &facts.meshes),
        Ok(None) => {
            return Some(Finding::ok(WHAT, "not known here (experimental channel); nothing needs it"));
        }
        Ok(Some(meshes)) => meshes,
    };
    let ours: Vec<&Value> =
        meshes.iter().filter(|mesh| text(mesh, "/spec/controllerName") == CONTROLLER).collect();
    let accepted = |mesh: &&&Value| {
        items(mesh, "/status/conditions")
            .any(|condition| (text(condition, "/type"), text(condition, "/status")) == ("Accepted", "True"))
    };
    let refused: Vec<String> =
        ours.iter().filter(|mesh| !accepted(mesh)).map(|mesh| name(mesh).to_owned()).collect();
    Some(match (ours.is_empty(), refused.is_empty()) {
        // Traffic doesn't need it: it tells others what this mesh can do.
        (true, _) => Finding::warning(
            WHAT,
            format!("none with spec.controllerName {CONTROLLER}"),
            "a controller makes one named gamut when it begins to lead, unless another mesh has that name: \
             kubectl -n gamut-system rollout restart deployment/gamut-controller",
        ),
        (false, true) => {
            let features = ours.iter().map(|mesh| items(mesh, "/status/supportedFeatures").count()).max();
            Finding::ok(WHAT, format!("accepted, {} features", features.unwrap_or_default()))
        }
        (false, false) => Finding::failed(
            WHAT,
            format!("not accepted: {}", few(&refused)),
            "the controller that leads accepts it: kubectl -n gamut-system logs deployment/gamut-controller",
        ),
    })
}
