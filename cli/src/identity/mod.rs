//! `gamut identity`: who workloads are, what proves it and until when, and whom they believe.

mod page;

use std::{collections::BTreeMap, process::ExitCode};

use gamut_local::control::PodReport;
use gamut_proxy::admin::{MtlsStatus, ProxyStatus, RootStatus};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    output::{self, Colour, Format},
    status::{self, Certificate},
    world::{self, Place, Selection, Target, World},
};

#[derive(Debug, clap::Args)]
#[command(mut_arg("all_namespaces", world::with_sidecars_only))]
pub(crate) struct Args {
    /// Whose: NAME (a pod), pod/NAME, deploy/NAME, statefulset/NAME, daemonset/NAME, job/NAME or svc/NAME. Without it, all
    /// pods of the namespaces
    #[arg(conflicts_with = "all_namespaces")]
    target: Option<Target>,
    #[command(flatten)]
    selection: Selection,
    /// More columns, or data instead of text
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// All that `gamut identity` tells, as `-o json` prints it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Who answered.
    pub(crate) world: Place,
    /// The pods with sidecars that were asked for.
    pub(crate) identities: Vec<Identity>,
    /// The roots that they trust, each once.
    pub(crate) roots: Vec<Root>,
    /// Sidecars that didn't answer, a line each.
    pub(crate) notes: Vec<String>,
}

/// Who a pod is.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Identity {
    /// The pod's namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) pod: String,
    /// Its SPIFFE id.
    pub(crate) id: String,
    /// Who may call it; `None` before its sidecar has heard.
    pub(crate) mtls: Option<MtlsStatus>,
    /// The certificate that proves it; `None` before the first.
    pub(crate) certificate: Option<Certificate>,
    /// Its serial number, as in the CA's log.
    pub(crate) serial: Option<String>,
    /// Why the newest attempt to renew it failed, if it did.
    pub(crate) renewal_error: Option<String>,
}

/// A root that sidecars trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Root {
    /// Whose it is.
    pub(crate) subject: String,
    /// Its serial number.
    pub(crate) serial: String,
    /// When it ends.
    pub(crate) expires: Timestamp,
    /// How many of the sidecars trust it: while a root is replaced, not all yet, or not all any more.
    pub(crate) trusted_by: usize,
}

pub(crate) fn run(args: &Args, colour: Colour) -> anyhow::Result<ExitCode> {
    let report = world::ask(async { report(&args.selection.world().await?, args).await })?;
    let now = Timestamp::now();
    output::print(&report, args.output, colour, |report, wide| page::page(report, now, wide))?;
    Ok(ExitCode::SUCCESS)
}

async fn report(world: &World, args: &Args) -> anyhow::Result<Report> {
    let named = args.selection.namespace.as_deref();
    let Some(target) = &args.target else {
        let mesh = world.mesh(named).await?;
        let pods = mesh.pods.into_iter().filter(|pod| args.selection.has(&pod.namespace));
        return Ok(of(mesh.world, pods.collect()));
    };
    let namespace = world.namespace(named);
    let wanted = world.pods_of(target, namespace).await?;
    let mesh = world.mesh(Some(namespace)).await?;
    let is_wanted = |pod: &PodReport| wanted.iter().any(|it| it.uid == pod.uid);
    Ok(of(mesh.world, mesh.pods.into_iter().filter(is_wanted).collect()))
}

/// What the sidecars of these pods say of themselves.
fn of(world: Place, pods: Vec<PodReport>) -> Report {
    let (mut identities, mut notes) = (Vec::new(), Vec::new());
    let mut roots: BTreeMap<RootStatus, usize> = BTreeMap::new();
    for pod in pods.into_iter().filter(|pod| pod.meshed) {
        let name = format!("{}/{}", pod.namespace, pod.name);
        let Some(said) = pod.proxy else {
            let reason = pod.proxy_error.unwrap_or_else(|| "its sidecar hasn't started yet".to_owned());
            notes.push(format!("without pod {name}: {reason}"));
            continue;
        };
        let said: ProxyStatus = match serde_json::from_value(said) {
            Ok(said) => said,
            Err(error) => {
                notes.push(format!(
                    "without pod {name}: its sidecar speaks another version of /status: {error}"
                ));
                continue;
            }
        };
        said.roots.into_iter().for_each(|root| *roots.entry(root).or_default() += 1);
        identities.push(Identity {
            namespace: pod.namespace,
            pod: pod.name,
            id: said.identity,
            mtls: said.mtls,
            certificate: said.certificate.as_ref().and_then(status::certificate),
            serial: said.certificate.map(|certificate| certificate.serial),
            renewal_error: said.certificate_problem,
        });
    }
    let root = |(root, trusted_by): (RootStatus, usize)| {
        let expires = Timestamp::from_second(i64::try_from(root.not_after).ok()?).ok()?;
        Some(Root { subject: root.subject, serial: root.serial, expires, trusted_by })
    };
    Report { world, identities, roots: roots.into_iter().filter_map(root).collect(), notes }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, expires: u64, roots: &[&str], problem: Option<&str>) -> PodReport {
        let root =
            |serial: &&str| json!({"subject": "O=Gamut", "serial": serial, "notAfter": 2_000_000_000_u64});
        let roots: Vec<_> = roots.iter().map(root).collect();
        serde_json::from_value(json!({
            "namespace": "shop", "name": name, "uid": name, "workload": "Deployment web", "ips": [], "phase": "Running", "ready": true,
            "terminating": false, "meshed": true, "containers": [], "proxy_error": null,
            "proxy": {
                "identity": "spiffe://cluster.local/ns/shop/sa/web", "ready": {"ready": true}, "tables": [], "backends": [], "sessions": [],
                "mtls": {"mode": "permissive", "except": [8080, 9090]}, "certificate": {"serial": "0a:0b", "notBefore": expires - 90_000, "notAfter": expires},
                "certificateProblem": problem, "roots": roots,
            },
        }))
        .unwrap()
    }

    fn silent() -> PodReport {
        let mut pod = pod("web-3", 90_000, &[], None);
        (pod.proxy, pod.proxy_error) = (None, Some("nothing listens on port 15000 inside of it".to_owned()));
        pod
    }

    #[test]
    fn a_certificate_that_has_ended_and_a_root_that_not_all_trust_are_seen() {
        let pods = vec![
            pod("web-1", 1_790_000_000, &["01", "02"], None),
            pod("web-2", 1_700_000_000, &["01"], Some("no answer from the CA")),
            silent(),
        ];
        let report = of(Place::Machine, pods);
        assert_eq!(report.roots.iter().map(|root| root.trusted_by).collect::<Vec<_>>(), [2, 1]);
        let now = Timestamp::from_second(1_789_990_000).unwrap();
        insta::assert_snapshot!(page::page(&report, now, true).render(false));
        let coloured = page::page(&report, now, false).render(true);
        assert!(coloured.contains("\x1b[31mexpired "), "{coloured}");
    }
}
