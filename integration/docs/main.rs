//! The documentation as a whole: every page is in the book, every link leads somewhere. What single pages say is held true
//! beside the code that it is about (`proxy/tests/docs.rs`, `injector/tests/docs.rs`, `controller/tests/`), and what they
//! show on a terminal in `integration/e2e/pages.rs` and `integration/cluster/tests/pages.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod markdown;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Pages outside of `docs/` and of the packages that have a README of their own.
const AT_THE_ROOT: [&str; 4] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"];

#[test]
fn the_book_has_every_page_once_and_no_other() {
    let summary = fs::read_to_string(docs().join("SUMMARY.md")).unwrap();
    let listed: Vec<String> = markdown::links(&summary).into_iter().map(str::to_owned).collect();
    let unique: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), unique.len(), "docs/SUMMARY.md lists a page twice: {listed:?}");

    let pages =
        pages(&docs()).into_iter().map(|page| page.strip_prefix(docs()).unwrap().display().to_string());
    let pages: BTreeSet<String> = pages.filter(|page| page != "SUMMARY.md").collect();
    let missing: Vec<_> = pages.difference(&unique).collect();
    assert!(missing.is_empty(), "add a line for each of these to docs/SUMMARY.md: {missing:?}");
    let gone: Vec<_> = unique.difference(&pages).collect();
    assert!(gone.is_empty(), "docs/SUMMARY.md lists pages that aren't there: {gone:?}");
}

#[test]
fn every_link_leads_to_a_file_and_every_anchor_to_a_heading() {
    let mut broken = Vec::new();
    for page in pages(&docs()).into_iter().chain(AT_THE_ROOT.map(|name| repository().join(name))) {
        let text = fs::read_to_string(&page).unwrap();
        for target in markdown::links(&text).into_iter().filter(|target| !target.contains("://")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let leads_there = file.exists()
                && (anchor.is_empty()
                    || fs::read_to_string(&file).is_ok_and(|text| markdown::anchors(&text).contains(anchor)));
            if !leads_there {
                let page = page.strip_prefix(repository()).unwrap().display();
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn every_command_that_a_page_shows_is_run() {
    let runs = [
        include_str!("../e2e/pages.rs"),
        include_str!("../cluster/tests/pages.rs"),
        include_str!("../cluster/tests/install.rs"),
    ];
    let (mut shown, mut unfollowed) = (0, Vec::new());
    for page in pages(&docs()).into_iter().chain([repository().join("README.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        if text.contains("```console") {
            let name = page.strip_prefix(repository()).unwrap().display().to_string();
            unfollowed.extend(nobody_follows(&name, &text, &runs));
            shown += 1;
        }
    }
    assert!(
        unfollowed.is_empty(),
        "these have `console` blocks; let integration/e2e/pages.rs or integration/cluster/tests/pages.rs follow them: {unfollowed:?}"
    );
    assert!(shown >= 19, "{shown} pages have commands");
}

/// The sections of a page with `console` blocks that none of these files follows: the page as a whole, or each of them.
fn nobody_follows(page: &str, text: &str, runs: &[&str]) -> Vec<String> {
    let is_followed = |section: &str| {
        let call = format!(r#"follow("{page}", "{section}")"#);
        runs.iter().any(|runs| runs.contains(&call))
    };
    if is_followed("") {
        return Vec::new();
    }
    let with_commands = text.split("\n## ").filter(|section| section.contains("```console"));
    let headings = with_commands.map(|section| section.lines().next().unwrap_or_default());
    headings.filter(|heading| !is_followed(heading)).map(|heading| format!("{page}: {heading}")).collect()
}

#[test]
fn a_page_that_is_followed_by_sections_is_followed_in_each_that_has_commands() {
    let section = |heading: &str| format!("\n## {heading}\n```console\n$ gamut status\n```\n");
    let page = format!("# Page\n## Why\nText.{}{}", section("Install"), section("Away"));
    let missing = |run: &str| nobody_follows("docs/a.md", &page, &[run]);
    assert_eq!(missing(r#"follow("docs/a.md", "Install");"#), ["docs/a.md: Away"]);
    assert_eq!(missing(r#"follow("docs/a.md", "");"#), [""; 0]);
    assert_eq!(missing(r#"follow("docs/b.md", "");"#).len(), 2);
}

/// What a script or a person was to put a figure in place of, and didn't.
#[test]
fn no_page_has_a_placeholder() {
    let mut left = Vec::new();
    for page in pages(&docs()).into_iter().chain(AT_THE_ROOT.map(|name| repository().join(name))) {
        let text = fs::read_to_string(&page).unwrap();
        let name = page.strip_prefix(repository()).unwrap().display();
        left.extend(placeholders(&text).into_iter().map(|found| format!("{name}: {found}")));
    }
    assert!(left.is_empty(), "put in what belongs there:\n{}", left.join("\n"));
    assert_eq!(placeholders("`@WORD@`, a @A_B@|@C@ and mail@HOST, @, @@, @low@, A@B"), ["WORD", "A_B", "C"]);
}

/// `@READY@` and the like: capitals and underscores between two `@`.
fn placeholders(text: &str) -> Vec<&str> {
    // What is before the first and behind the last stands between no two.
    let mut between: Vec<&str> = text.split('@').skip(1).collect();
    between.pop();
    between.retain(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    between
}

/// What mdBook takes in from elsewhere.
#[test]
fn every_file_that_a_page_includes_exists() {
    let mut included = 0;
    for page in pages(&docs()) {
        let text = fs::read_to_string(&page).unwrap();
        for rest in text.split("{{#include ").skip(1) {
            let path = page.parent().unwrap().join(rest.split_once("}}").expect("where it ends").0);
            assert!(path.exists(), "{} includes {}", page.display(), path.display());
            included += 1;
        }
    }
    assert_eq!(included, 1, "the changelog");
}

#[test]
fn tutorials_and_tasks_have_no_command_that_nobody_runs() {
    for folder in ["tutorial", "tasks"] {
        for page in pages(&docs().join(folder)) {
            let text = fs::read_to_string(&page).unwrap();
            for block in ["```sh", "```bash", "```shell", "\n    $ ", "\n    gamut ", "\n    # gamut"] {
                assert!(
                    !of_nobody(&text).contains(block),
                    "{} has {block:?}; make it a `console` block",
                    page.display()
                );
            }
        }
    }
}

/// A page without its `console` blocks, whose commands somebody runs.
fn of_nobody(page: &str) -> String {
    let mut parts = page.split("\n```console\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |rest, part| rest + part.split_once("\n```\n").map_or("", |(_, after)| after))
}

/// Pages that name the test that shows what they say.
#[test]
fn every_test_that_a_page_names_exists() {
    let mut sources = String::new();
    for folder in [
        "ca",
        "cli",
        "controller",
        "fuzz",
        "http1",
        "identity",
        "injector",
        "integration",
        "local",
        "metrics",
        "netfilter",
        "proxy",
        "route",
    ] {
        files(&repository().join(folder), "rs")
            .into_iter()
            .for_each(|path| sources += &fs::read_to_string(path).unwrap());
    }
    for page in ["reference/traffic.md", "reference/hardening.md", "security.md"] {
        let text = fs::read_to_string(docs().join(page)).unwrap();
        // Names of tests are sentences; names of anything else on these pages are shorter, or begin otherwise.
        let words =
            text.split('`').skip(1).step_by(2).map(|code| code.rsplit(char::is_whitespace).next().unwrap());
        let names: BTreeSet<&str> = words
            .filter(|name| {
                name.matches('_').count() >= 3 && !name.starts_with("gamut_") && !name.contains('.')
            })
            .collect();
        assert!(names.len() > 20, "{page} has lost its tests");
        let missing: Vec<_> = names.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
        assert!(missing.is_empty(), "docs/{page} names tests that don't exist: {missing:?}");
    }
}

/// Who copies an alert from a page has the chart's.
#[test]
fn alerts_that_a_task_shows_are_those_of_the_chart() {
    let rules = fs::read_to_string(repository().join("charts/gamut/files/rules.yaml")).unwrap();
    let mut shown = 0;
    for page in pages(&docs().join("tasks")) {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("\n```promql\n").skip(1) {
            for line in block.lines().take_while(|line| *line != "```") {
                assert!(rules.contains(&format!(" expr: {line}\n")), "{}: {line}", page.display());
                shown += 1;
            }
        }
    }
    assert!(shown >= 2, "{shown} alerts are shown");
}

/// What is said of other products is only as good as its date and its source.
#[test]
fn every_row_about_another_product_has_a_source() {
    let coming_from =
        ["from-istio.md", "from-linkerd.md", "from-ingress.md"].map(|page| docs().join("migrate").join(page));
    for page in coming_from.into_iter().chain([docs().join("comparison.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        let name = page.strip_prefix(repository()).unwrap().display();
        assert!(text.contains("As of November 2026"), "{name} doesn't say when it was true");
        let sources =
            text.split_once("\n## Sources\n").map(|(_, sources)| sources).expect("a section Sources");
        let numbers: BTreeSet<&str> = markdown::references(&text).into_iter().collect();
        assert!(!numbers.is_empty(), "{name} cites nothing");
        for number in numbers {
            let source = sources.lines().find(|line| line.starts_with(&format!("{number}. ")));
            assert!(source.is_some_and(|line| line.contains("https://")), "{name} has no source {number}");
        }
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn docs() -> PathBuf {
    repository().join("docs")
}

/// Every page below a directory.
fn pages(directory: &Path) -> Vec<PathBuf> {
    files(directory, "md")
}

/// Every file below a directory whose name ends in this.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| if path.is_dir() { files(&path, extension) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}
