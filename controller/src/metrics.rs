//! The controller's page of metrics: how it stands with its source and with its sidecars.

use gamut_metrics::{Kind, Page};

use crate::engine::{ControllerStatus, SubscriberStatus};

/// Writes what `/status` knows, as numbers.
pub(crate) fn render(page: &mut Page, status: &ControllerStatus) {
    let mut gauge = |name: &str, help: &str, value: usize| {
        page.family(name, Kind::Gauge, help);
        page.sample(name, &[], value);
    };
    gauge(
        "gamut_controller_synced",
        "1 once everything that existed at the start is known.",
        usize::from(status.source.synced),
    );
    gauge(
        "gamut_controller_source_problems",
        "Kinds and objects that can't be read at present.",
        status.source.problems.len(),
    );
    let subscribers = &status.subscribers;
    gauge("gamut_controller_sidecars", "Sidecars that subscribe at this replica.", subscribers.len());
    let behind = subscribers.iter().filter(|sidecar| !sidecar.in_sync).count();
    gauge(
        "gamut_controller_sidecars_behind",
        "Those of them that don't hold the newest of everything.",
        behind,
    );
    let sum = |of: fn(&SubscriberStatus) -> usize| subscribers.iter().map(of).sum();
    gauge("gamut_controller_keys", "What they subscribe to, all together.", sum(|sidecar| sidecar.keys));
    gauge(
        "gamut_controller_refused_tables",
        "What sidecars can't use and so hold an older one of.",
        sum(|sidecar| sidecar.refused.len()),
    );
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use gamut_controller_api::MtlsMode;
    use gamut_identity::metrics::Life;
    use gamut_route::Uid;

    use super::*;
    use crate::engine::{RefusedKey, SettingsStatus, SourceStatus};

    fn sidecar(pod: &str, refused: &[&str]) -> SubscriberStatus {
        let refused =
            refused.iter().map(|key| RefusedKey { key: (*key).to_owned(), reason: "why".to_owned() });
        SubscriberStatus {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            uid: Uid::of(pod),
            proxy_version: "0".to_owned(),
            connected_since: String::new(),
            keys: 3,
            in_sync: refused.len() == 0,
            behind: Vec::new(),
            refused: refused.collect(),
        }
    }

    fn page() -> String {
        let problems = vec!["a file".to_owned()];
        let source = SourceStatus { synced: true, problems, resource_version: None, unwritten: 0 };
        let sidecars = vec![sidecar("web-0", &[]), sidecar("web-1", &["routes of shop/web:80"])];
        let mut page = Page::default();
        page.build(env!("CARGO_PKG_VERSION"));
        let settings = SettingsStatus {
            trust_domain: "cluster.local".to_owned(),
            mtls: MtlsMode::Permissive,
            require_reference_grant: false,
        };
        let version = "0".to_owned();
        render(&mut page, &ControllerStatus { version, settings, source, subscribers: sidecars });
        let life = Life { not_after: UNIX_EPOCH, lifetime: Duration::from_secs(86_400) };
        gamut_identity::metrics::render(&mut page, Some(life), 0);
        page.finish()
    }

    #[test]
    fn sidecars_that_are_behind_or_refuse_a_table_are_counted() {
        let page = page();
        for line in [
            "gamut_controller_sidecars 2",
            "gamut_controller_sidecars_behind 1",
            "gamut_controller_refused_tables 1",
            "gamut_controller_keys 6",
            "gamut_controller_source_problems 1",
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line} in:\n{page}");
        }
    }

    #[test]
    fn every_metric_is_documented_as_it_is_served() {
        let document = include_str!("../../docs/reference/metrics.md");
        let differences = gamut_metrics::differences(document, "Controller", &page());
        assert!(differences.is_empty(), "docs/reference/metrics.md:\n{}", differences.join("\n"));
    }
}
