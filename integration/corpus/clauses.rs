//! The clause matrix and the cases know each other: `CLAUSES.md` has no clause that nothing stands for without saying why,
//! and no case is about nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::case;

const MATRIX: &str = include_str!("CLAUSES.md");

/// A row: the clause's id, and what stands for it.
struct Clause {
    id: &'static str,
    /// Ids of cases.
    cases: BTreeSet<&'static str>,
    /// Tests elsewhere, as `path/of/file.rs::name_of_test`.
    tests: BTreeSet<&'static str>,
    /// Why nothing stands for it.
    reason: &'static str,
}

/// Rows are `| id | level | text | what stands for it |`, with ids in backticks.
fn clauses() -> Vec<Clause> {
    let rows = MATRIX.lines().filter(|line| line.starts_with("| `"));
    let clause = |row: &'static str| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 6, "a row has four cells: {row}");
        assert!(["MUST", "SHOULD"].contains(&cells[2]), "MUST or SHOULD: {row}");
        let named: Vec<&str> = cells[4].split('`').skip(1).step_by(2).collect();
        let (tests, cases) = named.into_iter().partition(|name| name.contains("::"));
        let reason = cells[4].strip_prefix("none: ").unwrap_or_default();
        Clause { id: cells[1].trim_matches('`'), cases, tests, reason }
    };
    rows.map(clause).collect()
}

#[test]
fn every_clause_has_cases_or_tests_or_says_why_not() {
    let clauses = clauses();
    let ids: BTreeSet<&str> = clauses.iter().map(|clause| clause.id).collect();
    assert_eq!(ids.len(), clauses.len(), "an id is there twice");
    for clause in &clauses {
        let shown = !clause.cases.is_empty() || !clause.tests.is_empty();
        assert!(shown == clause.reason.is_empty(), "{}: cases, tests, or why there are none", clause.id);
    }
}

#[test]
fn the_matrix_and_the_cases_name_each_other() {
    let clauses: BTreeMap<&str, BTreeSet<&str>> =
        clauses().into_iter().map(|clause| (clause.id, clause.cases)).collect();
    let cases: BTreeMap<&str, BTreeSet<&str>> = case::all()
        .iter()
        .map(|case| (case.id.as_str(), case.clauses.iter().map(String::as_str).collect()))
        .collect();
    let pairs_of_matrix: BTreeSet<(&str, &str)> =
        clauses.iter().flat_map(|(clause, cases)| cases.iter().map(move |case| (*clause, *case))).collect();
    let pairs_of_cases: BTreeSet<(&str, &str)> =
        cases.iter().flat_map(|(case, clauses)| clauses.iter().map(move |clause| (*clause, *case))).collect();
    let only_in_matrix: Vec<_> = pairs_of_matrix.difference(&pairs_of_cases).collect();
    let only_in_cases: Vec<_> = pairs_of_cases.difference(&pairs_of_matrix).collect();
    assert!(
        only_in_matrix.is_empty() && only_in_cases.is_empty(),
        "only in CLAUSES.md: {only_in_matrix:?}; only in cases: {only_in_cases:?}"
    );
    for (case, clauses) in cases {
        assert!(!clauses.is_empty(), "{case} stands for nothing");
    }
}

#[test]
fn tests_that_the_matrix_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
    for clause in clauses() {
        for (file, test) in clause.tests.iter().filter_map(|name| name.split_once("::")) {
            let path = root.join(file);
            let text = files.entry(path.clone()).or_insert_with(|| {
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {file}: {error}", clause.id))
            });
            assert!(text.contains(&format!("fn {test}(")), "{}: {file} has no test {test}", clause.id);
        }
    }
}
