//! The start of a real sidecar: from the process's beginning to "ready", its certificate and its tables included.

use std::{process::Command, time::Duration};

use tokio::time::Instant;

use crate::{
    cluster,
    plane::{CA, CONTROLLER, Plane, Process, until_ready},
};

/// Where a sidecar says whether it is ready.
const PROBES: &str = "127.0.0.1:15021";

/// Starts the sidecar of a subscriber's pod and waits until it is ready; how long that took, and its memory then, in MB.
pub(crate) async fn start(plane: &Plane, number: usize, namespace: &str) -> anyhow::Result<(Duration, f64)> {
    let pod = cluster::subscriber(number);
    let token = plane.token(namespace, &pod)?;
    let begin = Instant::now();
    let sidecar = Process::spawn(Command::new(plane.gamut()).args([
        "proxy".to_owned(),
        format!("--pod-name={pod}"),
        format!("--pod-namespace={namespace}"),
        format!("--pod-uid={}", cluster::uid(&pod)),
        "--pod-ips=127.0.0.1".to_owned(),
        "--service-account=default".to_owned(),
        format!("--ca-address={CA}"),
        format!("--controller-address={CONTROLLER}"),
        format!("--token-file={}", token.display()),
        format!("--roots-file={}", plane.roots().display()),
    ]))?;
    until_ready(PROBES).await?;
    let took = begin.elapsed();
    let rss = sidecar.usage()?.rss;
    sidecar.stop()?;
    Ok((took, rss))
}
