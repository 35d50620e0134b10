//! As much of Markdown as the pages use: links, headings and the anchors that GitHub and mdBook make of them, `[3]` for a
//! source.

use std::collections::{BTreeMap, BTreeSet};

/// The targets of a page's links, in their order; none out of code.
pub(crate) fn links(page: &str) -> Vec<&str> {
    let mut links = Vec::new();
    for line in prose(page) {
        for rest in outside_of_code(line).flat_map(|text| text.split("](").skip(1)) {
            links.extend(rest.split_once(')').map(|(target, _)| target));
        }
    }
    links
}

/// The anchors of a page's headings.
pub(crate) fn anchors(page: &str) -> BTreeSet<String> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let headings = prose(page)
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let anchors = headings.map(|heading| {
        let anchor = anchor(heading);
        let count = counts.entry(anchor.clone()).or_default();
        *count += 1;
        if *count == 1 { anchor } else { format!("{anchor}-{}", *count - 1) }
    });
    anchors.collect()
}

/// The numbers in `[1]` and `[1][2]`, which stand for sources at the end of a page.
pub(crate) fn references(page: &str) -> Vec<&str> {
    let brackets = prose(page).flat_map(|line| line.split('[').skip(1));
    let inner = brackets.filter_map(|rest| Some(rest.split_once(']')?.0));
    inner.filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).collect()
}

/// Lower case, spaces as dashes, everything else but letters, digits, `-` and `_` left out; of a link its text.
fn anchor(heading: &str) -> String {
    let mut text = String::new();
    let mut rest = heading.trim();
    while let Some((before, behind)) = rest.split_once("](") {
        text += &before.replacen('[', "", 1);
        rest = behind.split_once(')').map_or("", |(_, behind)| behind);
    }
    text += rest;
    let kept = text.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Lines outside of fenced code.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    page.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// The parts of a line that aren't between back ticks; a link's text may be, its target isn't.
fn outside_of_code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').step_by(2)
}

#[test]
fn links_are_found_in_prose_and_not_in_code() {
    let page = "a [b](c.md) and [`d`](e.md#f)\n```\n[no](no.md)\n```\nand `[no](no.md)` but [g](#h)";
    assert_eq!(links(page), ["c.md", "e.md#f", "#h"]);
}

#[test]
fn anchors_are_those_that_browsers_get() {
    let page = "# `gamut up`: one machine\n## Answers of the sidecar's own\n## Same\n## Same\n```sh\n# no heading\n```";
    let anchors = anchors(page);
    for anchor in ["gamut-up-one-machine", "answers-of-the-sidecars-own", "same", "same-1"] {
        assert!(anchors.contains(anchor), "{anchor} in {anchors:?}");
    }
    assert_eq!(anchors.len(), 4);
}
