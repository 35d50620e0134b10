//! The page of metrics: the counters, and what only a look at the others tells, which is certificates and tables.

use gamut_metrics::{Kind, Page};

use super::Shown;
use crate::tables::{SubscriptionState, TableState, TablesStatus};

/// The most tables that are shown one by one; all of them are counted.
const MAX_TABLES: usize = 512;

/// What a scraper gets.
pub(super) async fn metrics(shown: &Shown) -> String {
    let mut page = Page::default();
    page.build(env!("CARGO_PKG_VERSION"));
    shown.telemetry.render(&mut page);
    shown.identity.render_metrics(&mut page);
    if let Some(status) = shown.tables.status().await {
        render_tables(&mut page, &status);
    }
    page.finish()
}

fn render_tables(page: &mut Page, status: &TablesStatus) {
    const CONNECTED: &str = "gamut_controller_connected";
    page.family(CONNECTED, Kind::Gauge, "1 while subscribed to the controller, 0 while it is away.");
    let connected = matches!(status.controller, SubscriptionState::Connected { .. });
    page.sample(CONNECTED, &[], u8::from(connected));
    const TABLES: &str = "gamut_tables";
    page.family(TABLES, Kind::Gauge, "Subscribed resources by state.");
    let count = |is: fn(&TableState) -> bool| status.tables.iter().filter(|table| is(&table.state)).count();
    page.sample(TABLES, &[("state", "active")], count(|state| matches!(state, TableState::Active)));
    page.sample(TABLES, &[("state", "pending")], count(|state| matches!(state, TableState::Pending { .. })));
    page.sample(TABLES, &[("state", "refused")], count(|state| matches!(state, TableState::Refused { .. })));

    let shown = || status.tables.iter().take(MAX_TABLES);
    const INFO: &str = "gamut_table_info";
    page.family(INFO, Kind::Gauge, "Always 1; the label version is the hash of the content that is held.");
    for (table, version) in shown().filter_map(|table| Some((table, table.version.as_ref()?))) {
        page.sample(INFO, &[("table", &table.key), ("version", version)], 1);
    }
    const AGE: &str = "gamut_table_age_seconds";
    page.family(AGE, Kind::Gauge, "For how long a resource's content has been held, in seconds.");
    for table in shown().filter(|table| table.version.is_some()) {
        page.sample(AGE, &[("table", &table.key)], table.age_seconds);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use gamut_identity::metrics::Life;
    use gamut_metrics::differences;

    use super::*;
    use crate::{tables::TableStatus, telemetry::exercised};

    fn table(key: String) -> TableStatus {
        TableStatus { key, version: Some("0a0b".to_owned()), age_seconds: 7, state: TableState::Active }
    }

    fn status(tables: Vec<TableStatus>) -> TablesStatus {
        let controller = SubscriptionState::Connected { address: "controller:15012".to_owned(), seconds: 3 };
        TablesStatus { controller, tables }
    }

    #[test]
    fn every_metric_is_documented_as_it_is_served() {
        let mut page = Page::default();
        page.build(env!("CARGO_PKG_VERSION"));
        exercised().render(&mut page);
        let life = Life { not_after: UNIX_EPOCH, lifetime: Duration::from_secs(86_400) };
        gamut_identity::metrics::render(&mut page, Some(life), 0);
        render_tables(&mut page, &status(vec![table("routes of shop/web:80".to_owned())]));
        let document = include_str!("../../../docs/reference/metrics.md");
        let differences = differences(document, "Sidecar", &page.finish());
        assert!(differences.is_empty(), "docs/reference/metrics.md:\n{}", differences.join("\n"));
    }

    #[test]
    fn each_table_has_its_hash_and_its_age_and_those_in_each_state_are_counted() {
        let in_state = |key: &str, version: Option<&str>, age_seconds, state| TableStatus {
            key: key.to_owned(),
            version: version.map(str::to_owned),
            age_seconds,
            state,
        };
        let pending = || TableState::Pending { missing: vec!["endpoints of shop/web-v2:80".to_owned()] };
        let refused = TableState::Refused { reason: "too large".to_owned() };
        let mut page = Page::default();
        render_tables(
            &mut page,
            &status(vec![
                in_state("a", Some("0a0b"), 7, TableState::Active),
                in_state("b", Some("0c0d"), 90, TableState::Active),
                in_state("c", Some("0e0f"), 3600, refused),
                in_state("d", None, 0, pending()),
                in_state("e", None, 0, pending()),
                in_state("f", None, 0, pending()),
            ]),
        );
        let page = page.finish();
        let of = |name: &str| page.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
        assert_eq!(
            of("gamut_tables{"),
            [
                r#"gamut_tables{state="active"} 2"#,
                r#"gamut_tables{state="pending"} 3"#,
                r#"gamut_tables{state="refused"} 1"#,
            ]
        );
        assert_eq!(
            of("gamut_table_info{"),
            [
                r#"gamut_table_info{table="a",version="0a0b"} 1"#,
                r#"gamut_table_info{table="b",version="0c0d"} 1"#,
                r#"gamut_table_info{table="c",version="0e0f"} 1"#,
            ],
            "of what hasn't come there is no hash"
        );
        assert_eq!(
            of("gamut_table_age_seconds{"),
            [
                r#"gamut_table_age_seconds{table="a"} 7"#,
                r#"gamut_table_age_seconds{table="b"} 90"#,
                r#"gamut_table_age_seconds{table="c"} 3600"#,
            ]
        );
    }

    #[test]
    fn a_sidecar_with_thousands_of_tables_shows_a_bounded_page_and_counts_all() {
        let mut page = Page::default();
        render_tables(&mut page, &status((0..10_000).map(|n| table(format!("table {n}"))).collect()));
        let page = page.finish();
        assert_eq!(page.matches("gamut_table_age_seconds{").count(), MAX_TABLES);
        assert!(page.contains("gamut_tables{state=\"active\"} 10000\n"), "{page}");
    }
}
