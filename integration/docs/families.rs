//! The table of metrics that a page in Prometheus' text format makes: name, type, labels, meaning.

use std::collections::BTreeMap;

/// A family as the reference shows it.
#[derive(Default)]
struct Family<'a> {
    kind: &'a str,
    help: &'a str,
    labels: Vec<&'a str>,
}

/// The families of a scrape, as a table. A family's labels are those of its samples, so there must be one of each family.
pub(crate) fn table(scrape: &str) -> String {
    let families = families(scrape);
    let common = common_labels(&families);
    let mut table = String::new();
    if !common.is_empty() {
        table += &format!("Labels that all `istio_*` have: {}.\n\n", quoted(&common));
    }
    table += "| metric | type | labels | |\n|---|---|---|---|\n";
    for (name, Family { kind, help, labels }) in &families {
        let is_istios = name.starts_with("istio_");
        let own: Vec<&str> =
            labels.iter().copied().filter(|label| !is_istios || !common.contains(label)).collect();
        let labels = match (is_istios, own.is_empty()) {
            (true, true) => "those".to_owned(),
            (true, false) => format!("those, {}", quoted(&own)),
            (false, _) => quoted(&own),
        };
        table += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
    }
    table
}

fn families(scrape: &str) -> BTreeMap<&str, Family<'_>> {
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for line in scrape.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name).or_default().help = help;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            families.entry(name).or_default().kind = kind;
        } else if let Some((sample, labels)) = line.split_once('{') {
            let of_histogram =
                ["_bucket", "_sum", "_count"].iter().find_map(|part| sample.strip_suffix(part));
            let name = if families.contains_key(sample) { sample } else { of_histogram.unwrap_or(sample) };
            let family = families.entry(name).or_default();
            for label in label_names(labels).filter(|label| *label != "le") {
                if !family.labels.contains(&label) {
                    family.labels.push(label);
                }
            }
        }
    }
    families
}

/// The names in `a="x",b="y"} 3`. No value of ours holds `="`.
fn label_names(labels: &str) -> impl Iterator<Item = &str> {
    let names = labels.split("=\"").filter_map(|text| text.rsplit(['"', ',']).next());
    names.filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

fn common_labels<'a>(families: &BTreeMap<&str, Family<'a>>) -> Vec<&'a str> {
    let mut istios =
        families.iter().filter(|(name, _)| name.starts_with("istio_")).map(|(_, family)| &family.labels);
    let mut common = istios.next().cloned().unwrap_or_default();
    istios.for_each(|labels| common.retain(|label| labels.contains(label)));
    common
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
