//! What a compilation found out about a route beside its tables: the material of conditions.

use gamut_route::table::RuleOrigin;

/// Why a condition has its status, in the words of the Gateway API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// `Accepted` is true.
    Accepted,
    /// `ResolvedRefs` is true.
    ResolvedRefs,
    /// The parent isn't there, or isn't one that routes can be attached to.
    NoMatchingParent,
    /// The route says something that this mesh doesn't do.
    UnsupportedValue,
    /// Filters of a rule exclude each other.
    IncompatibleFilters,
    /// A route of another kind wins on the Service's ports (GEP-1294).
    Conflicted,
    /// A backend isn't there.
    BackendNotFound,
    /// A reference into another namespace isn't allowed.
    RefNotPermitted,
    /// A backend of a kind that this mesh doesn't know.
    InvalidKind,
    /// A backend's port speaks something that the route can't be carried over.
    UnsupportedProtocol,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Accepted,
        Self::ResolvedRefs,
        Self::NoMatchingParent,
        Self::UnsupportedValue,
        Self::IncompatibleFilters,
        Self::Conflicted,
        Self::BackendNotFound,
        Self::RefNotPermitted,
        Self::InvalidKind,
        Self::UnsupportedProtocol,
    ];

    /// The reason as it stands in conditions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::NoMatchingParent => "NoMatchingParent",
            Self::UnsupportedValue => "UnsupportedValue",
            Self::IncompatibleFilters => "IncompatibleFilters",
            // GEP-1294 names it so; upstream has no constant, and Linkerd writes this literal.
            Self::Conflicted => "RouteReasonConflicted",
            Self::BackendNotFound => "BackendNotFound",
            Self::RefNotPermitted => "RefNotPermitted",
            Self::InvalidKind => "InvalidKind",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
        }
    }
}

/// Something that is wrong, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The reason that it gives a condition.
    pub reason: Reason,
    /// Field, what is wrong, what to do.
    pub message: String,
}

/// A rule that isn't carried out as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRule {
    /// Which rule.
    pub origin: RuleOrigin,
    /// Why.
    pub problems: Vec<Problem>,
    /// True: requests that it matches are answered 500, because a filter of it must not be skipped. False: it
    /// isn't in the table.
    pub fails: bool,
}

/// Everything found out about one route, whatever its parents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Why the route as a whole can't be carried out.
    pub refusals: Vec<Problem>,
    /// Rules that can't be carried out.
    pub invalid_rules: Vec<InvalidRule>,
    /// How many rules can.
    pub valid_rules: usize,
    /// References that can't be resolved; their share of requests is answered 500.
    pub unresolved: Vec<Problem>,
    /// Worth saying where the route is accepted.
    pub notes: Vec<String>,
}

impl Report {
    /// Why the route can't be accepted by any parent, if so.
    pub fn refusal(&self) -> Option<Problem> {
        if !self.refusals.is_empty() {
            return Some(joined(self.refusals.iter()));
        }
        let all_invalid = self.valid_rules == 0 && !self.invalid_rules.is_empty();
        all_invalid.then(|| joined(self.invalid_rules.iter().flat_map(|rule| &rule.problems)))
    }

    /// The message of `PartiallyInvalid`, where some rules are valid and some aren't.
    pub fn partially_invalid(&self) -> Option<String> {
        if self.refusal().is_some() || self.invalid_rules.is_empty() {
            return None;
        }
        let rule = |rule: &InvalidRule| {
            let fate = match rule.fails {
                true => "requests that match it are answered 500",
                false => "it matches nothing",
            };
            format!("{} ({}; {fate})", label(&rule.origin), messages(rule.problems.iter()))
        };
        let rules: Vec<String> = self.invalid_rules.iter().map(rule).collect();
        Some(format!("Dropped Rule {}", rules.join(", ")))
    }

    /// `ResolvedRefs` where it is false.
    pub fn unresolved(&self) -> Option<Problem> {
        (!self.unresolved.is_empty()).then(|| joined(self.unresolved.iter()))
    }
}

/// A rule as messages name it: `rules[1]`, `rules[1] "canary"`.
pub(crate) fn label(origin: &RuleOrigin) -> String {
    match &origin.name {
        Some(name) => format!("rules[{}] {name:?}", origin.index),
        None => format!("rules[{}]", origin.index),
    }
}

/// Several problems as one: the reason of the first, unless another one says more than `IncompatibleFilters`.
fn joined<'a>(problems: impl Iterator<Item = &'a Problem> + Clone) -> Problem {
    let first = problems.clone().next().map_or(Reason::UnsupportedValue, |problem| problem.reason);
    let same = problems.clone().all(|problem| problem.reason == first);
    let reason = match first {
        Reason::IncompatibleFilters if !same => Reason::UnsupportedValue,
        first => first,
    };
    Problem { reason, message: messages(problems) }
}

fn messages<'a>(problems: impl Iterator<Item = &'a Problem>) -> String {
    problems.map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAGE: &str = include_str!("../../../docs/reference/conditions.md");

    /// What stands in a row behind its status.
    fn reason_of(row: &str) -> Option<&str> {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let status = cells.iter().position(|cell| matches!(*cell, "True" | "False"))?;
        cells.get(status + 1)?.strip_prefix('`')?.strip_suffix('`')
    }

    #[test]
    fn the_reference_has_every_reason_of_a_condition_and_no_other() {
        let documented: BTreeSet<&str> = PAGE.lines().filter_map(reason_of).collect();
        let known: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(documented, known, "docs/reference/conditions.md and the code differ");
    }
}
