//! What a page holds, and where a table of the documentation says otherwise.

use std::collections::BTreeSet;

/// A family of metrics as a page has it, or a row of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Family {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The names of its labels, without a histogram's `le`; empty if it has no samples.
    pub labels: BTreeSet<String>,
    /// What it means.
    pub help: String,
}

/// The families of a page in Prometheus' text format, in its order.
pub fn families(page: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let (name, help) = (name.to_owned(), help.to_owned());
            families.push(Family { name, help, kind: String::new(), labels: BTreeSet::new() });
        }
        let Some(family) = families.last_mut() else { continue };
        if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kind.clone_into(&mut family.kind);
        } else if !line.starts_with('#') {
            family.labels.extend(label_names(line).filter(|name| *name != "le").map(str::to_owned));
        }
    }
    families
}

/// Where a section of the documentation differs from a page: one line for each metric that is missing on a side, or told
/// otherwise.
///
/// The section's table has the columns name, type, labels, meaning. In place of a label may stand a group in italics, whose
/// labels another table of the document has: `| *group* | labels |`.
pub fn differences(markdown: &str, section: &str, page: &str) -> Vec<String> {
    let documented = rows(markdown, section);
    let served: BTreeSet<Family> = families(page).into_iter().collect();
    let row = |family: &Family| {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |", family.name, family.kind, labels.join(", "), family.help)
    };
    let only_served = served.difference(&documented).map(|family| format!("served: {}", row(family)));
    let only_documented = documented.difference(&served).map(|family| format!("documented: {}", row(family)));
    only_served.chain(only_documented).collect()
}

/// The names before each `="` of a sample: what stands in quotes is passed over.
fn label_names(sample: &str) -> impl Iterator<Item = &str> {
    let mut rest = sample.split_once('{').map_or("", |(_, labels)| labels);
    std::iter::from_fn(move || {
        let (name, after) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = after.find(|c| {
            let is_end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            is_end
        })?;
        rest = after.get(end + 1..)?.trim_start_matches(',');
        Some(name)
    })
}

fn rows(markdown: &str, section: &str) -> BTreeSet<Family> {
    let heading = format!("## {section}");
    let lines = markdown.lines().skip_while(|line| *line != heading).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## "));
    let family = |line: &str| {
        let [name, kind, labels, help] = *cells(line)? else { return None };
        let name = code(name)?.to_owned();
        let labels = labels.split(", ").flat_map(|label| match label.strip_prefix('*') {
            Some(_) => group(markdown, label),
            None => code(label).map(str::to_owned).into_iter().collect(),
        });
        Some(Family { name, kind: kind.to_owned(), labels: labels.collect(), help: help.to_owned() })
    };
    lines.filter_map(family).collect()
}

/// The labels of the group that is written `*name*`.
fn group(markdown: &str, name: &str) -> Vec<String> {
    let labels = |line: &str| match *cells(line)? {
        [first, labels] if first == name => {
            Some(labels.split(", ").filter_map(code).map(str::to_owned).collect())
        }
        _ => None,
    };
    markdown.lines().find_map(labels).unwrap_or_default()
}

fn cells(line: &str) -> Option<Box<[&str]>> {
    let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
    Some(inner.split(" | ").map(str::trim).collect())
}

fn code(text: &str) -> Option<&str> {
    text.strip_prefix('`')?.strip_suffix('`')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Page};

    const DOCUMENT: &str = "\
| *who* | `from`, `to` |

## Thing
| name | type | labels | meaning |
|---|---|---|---|
| `x_total` | counter | *who*, `code` | Things. |
| `age` | gauge |  | Its age. |

## Another
| `y` | gauge | | Not of this section. |
";

    fn page(code: &str, age_help: &str) -> String {
        let mut page = Page::default();
        page.family("x_total", Kind::Counter, "Things.");
        page.sample("x_total", &[("from", "a\",fake=\"\\"), ("to", "b"), (code, "200")], 1);
        page.family("age", Kind::Gauge, age_help);
        page.sample("age", &[], 1);
        page.finish()
    }

    #[test]
    fn a_page_that_is_as_documented_has_no_differences() {
        assert_eq!(differences(DOCUMENT, "Thing", &page("code", "Its age.")), [""; 0]);
    }

    #[test]
    fn what_only_one_side_has_and_what_is_told_otherwise_is_named() {
        let differences = differences(DOCUMENT, "Thing", &page("status", "Age."));
        assert_eq!(
            differences,
            [
                "served: | `age` | gauge |  | Age. |",
                "served: | `x_total` | counter | `from`, `status`, `to` | Things. |",
                "documented: | `age` | gauge |  | Its age. |",
                "documented: | `x_total` | counter | `code`, `from`, `to` | Things. |",
            ]
        );
    }

    /// The metrics that PromQL names, each with the labels that are selected in braces after it.
    fn named(text: &str) -> Vec<(String, Vec<String>)> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let mut named = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(is_name) {
            let word = &rest[start..];
            let end = word.find(|c| !is_name(c)).unwrap_or(word.len());
            let (word, after) = word.split_at(end);
            rest = after;
            let ours = ["gamut_", "istio_", "http_client_", "http_server_"];
            if !ours.iter().any(|prefix| word.starts_with(prefix)) {
                continue;
            }
            let selector = after.strip_prefix('{').and_then(|after| after.split_once('}'));
            let labels = selector.map_or("", |(labels, _)| labels).split(',');
            let label = |matcher: &str| matcher.trim().split(|c| !is_name(c)).next().map(str::to_owned);
            named.push((
                word.to_owned(),
                labels.filter_map(label).filter(|label| !label.is_empty()).collect(),
            ));
        }
        named
    }

    #[test]
    fn alerts_and_dashboard_name_only_metrics_and_labels_that_are_documented() {
        let document = include_str!("../../docs/reference/metrics.md");
        let sections = ["Sidecar", "Controller", "CA", "Injector"];
        let documented: Vec<Family> = sections.iter().flat_map(|section| rows(document, section)).collect();
        for (file, text) in [
            ("rules.yaml", include_str!("../../charts/gamut/files/rules.yaml")),
            ("dashboard.json", include_str!("../../charts/gamut/files/dashboard.json")),
        ] {
            let named = named(text);
            assert!(named.len() > 8, "{file}: {named:?}");
            for (name, labels) in named {
                let histogram = name.trim_end_matches("_bucket").trim_end_matches("_count");
                let family = documented.iter().find(|family| family.name == name || family.name == histogram);
                let family = family.unwrap_or_else(|| panic!("{file} names {name}, which isn't documented"));
                // What Prometheus adds itself.
                let added = ["instance", "job", "pod", "le"];
                let unknown = labels
                    .iter()
                    .find(|label| !family.labels.contains(*label) && !added.contains(&label.as_str()));
                assert_eq!(unknown, None, "{file}: a label of {name}");
            }
        }
    }
}
