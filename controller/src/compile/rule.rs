//! The state of one rule's compilation: what it may ask, and what it found wrong.

use gamut_route::{
    BackendId,
    precedence::Specificity,
    table::{Backend, BackendTarget, Match, Outcome, Rule, RuleOrigin, Session, Split, Timeouts},
};

use super::{
    backends::{self, Resolved},
    filters,
    report::{InvalidRule, Problem, Reason},
    world::Lookup,
};
use crate::gateway::{BackendRef, HttpFilter, Route};

/// A rule that is in tables, with its matches ready to be ranked.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledRule {
    /// Each match, and how specific it is among matches of its kind of route.
    pub matches: Vec<(Specificity, Match)>,
    /// What is done with requests that one of them wins.
    pub rule: Rule,
    /// True where the rule only answers 500, because a filter of it can't be carried out and must not be skipped.
    pub closed: bool,
}

impl CompiledRule {
    /// Its session and those of its backends.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        let backends = match &self.rule.outcome {
            Outcome::Forward(split) => split.backends.as_slice(),
            Outcome::Fail(_) => &[],
        };
        self.rule.session.iter().chain(backends.iter().filter_map(|backend| backend.session.as_ref()))
    }
}

/// One rule while it is compiled. Problems are collected, not returned at the first one: users mend all of
/// them at once.
#[derive(Debug)]
pub(super) struct RuleScope<'a, 'w> {
    pub(super) lookup: &'a Lookup<'w>,
    pub(super) route: &'a Route,
    pub(super) origin: RuleOrigin,
    /// What makes the rule invalid.
    pub(super) problems: Vec<Problem>,
    /// A filter is among the problems: the rule's requests must be answered 500 rather than pass without it.
    pub(super) fails: bool,
    /// References that don't resolve: the rule works except for their share.
    pub(super) unresolved: Vec<Problem>,
    /// Worth saying.
    pub(super) notes: Vec<String>,
    /// The matches with regular expressions: the field, and the memory that they take, in bytes.
    pub(super) expressions: Vec<(String, usize)>,
}

/// A backendRef and what it came to.
#[derive(Debug)]
pub(super) struct RuleBackend<'w> {
    pub(super) backend: Backend,
    pub(super) resolved: Option<Resolved<'w>>,
}

/// The greatest weight of a backendRef.
const MAX_WEIGHT: i64 = 1_000_000;

impl<'a, 'w> RuleScope<'a, 'w> {
    pub(super) fn new(lookup: &'a Lookup<'w>, route: &'a Route, index: usize, name: Option<String>) -> Self {
        let origin = RuleOrigin { route: route.reference.clone(), name, index };
        Self {
            lookup,
            route,
            origin,
            problems: Vec::new(),
            fails: false,
            unresolved: Vec::new(),
            notes: Vec::new(),
            expressions: Vec::new(),
        }
    }

    /// The rule says something that isn't done.
    pub(super) fn unsupported(&mut self, field: &str, what: impl std::fmt::Display) {
        self.problem(Reason::UnsupportedValue, field, what);
    }

    pub(super) fn problem(&mut self, reason: Reason, field: &str, what: impl std::fmt::Display) {
        let message = format!("{}: {what}", self.field(field));
        self.problems.push(Problem { reason, message });
    }

    /// A reference doesn't resolve.
    pub(super) fn unresolved(&mut self, field: &str, problem: Problem) {
        let message = format!("{}: {}", self.field(field), problem.message);
        self.unresolved.push(Problem { reason: problem.reason, message });
    }

    /// A field of the rule as messages name it.
    pub(super) fn field(&self, field: &str) -> String {
        match field {
            "" => format!("rules[{}]", self.origin.index),
            field => format!("rules[{}].{field}", self.origin.index),
        }
    }

    /// Resolves the rule's backendRefs, in their order; those that don't resolve keep their weight. For
    /// `one_prefix` see [`filters::of_rule`].
    pub(super) fn backends<F>(
        &mut self,
        references: &[BackendRef<F>],
        one_prefix: bool,
    ) -> Vec<RuleBackend<'w>>
    where
        F: Clone + Into<HttpFilter>,
    {
        let backends = references.iter().enumerate().map(|(index, reference)| {
            let field = format!("backendRefs[{index}]");
            let (target, resolved) = match self.resolve(reference) {
                Ok(resolved) => {
                    self.note_external(&field, &resolved);
                    (resolved.target(), Some(resolved))
                }
                Err(problem) => {
                    let invalid = BackendTarget::Invalid(problem.message.clone());
                    self.unresolved(&field, problem);
                    (invalid, None)
                }
            };
            let weight = reference.weight.unwrap_or(1);
            let weight = u32::try_from(weight).ok().filter(|_| weight <= MAX_WEIGHT).unwrap_or_else(|| {
                self.unsupported(
                    &format!("{field}.weight"),
                    format!("{weight} is out of range; use 0 to {MAX_WEIGHT}"),
                );
                0
            });
            let list: Vec<HttpFilter> = reference.filters.iter().cloned().map(Into::into).collect();
            let filters = filters::of_backend(self, &field, &list, one_prefix);
            RuleBackend { backend: Backend { target, weight, filters, session: None }, resolved }
        });
        backends.collect()
    }

    /// The backend that a mirror's reference names.
    pub(super) fn mirror_target(
        &mut self,
        field: &str,
        reference: &BackendRef<HttpFilter>,
    ) -> Option<BackendId> {
        match self.resolve(reference) {
            Ok(resolved) => {
                self.note_external(field, &resolved);
                Some(resolved.id())
            }
            Err(problem) => {
                self.unresolved(field, problem);
                None
            }
        }
    }

    fn note_external(&mut self, field: &str, resolved: &Resolved<'_>) {
        if let Some(host) = resolved.external() {
            self.notes.push(format!("{} leads to {host}, outside the mesh: no mTLS", self.field(field)));
        }
    }

    fn resolve<F>(&self, reference: &BackendRef<F>) -> Result<Resolved<'w>, Problem> {
        let route = &self.route.reference;
        backends::resolve(self.lookup, route.kind, &route.name.namespace, reference)
    }

    /// The end: the rule as it is in tables, if it is, and what is to be said about it.
    pub(super) fn finish(
        self,
        matches: Vec<(Specificity, Match)>,
        rule: Rule,
    ) -> (Option<CompiledRule>, RuleVerdict) {
        let verdict = |invalid| RuleVerdict {
            invalid,
            unresolved: self.unresolved,
            notes: self.notes,
            expressions: self.expressions,
        };
        if self.problems.is_empty() {
            return (Some(CompiledRule { matches, rule, closed: false }), verdict(None));
        }
        // Without its matches nobody knows which requests the filter was for.
        let fails = self.fails && !matches.is_empty();
        let why = self.problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ");
        let failing = Rule {
            origin: Some(self.origin.clone()),
            filters: Vec::new(),
            outcome: Outcome::Fail(why),
            timeouts: Timeouts::default(),
            retry: None,
            session: None,
        };
        let invalid = InvalidRule { origin: self.origin, problems: self.problems, fails };
        (fails.then_some(CompiledRule { matches, rule: failing, closed: true }), verdict(Some(invalid)))
    }
}

/// What is to be said about a rule.
#[derive(Debug)]
pub(super) struct RuleVerdict {
    pub(super) invalid: Option<InvalidRule>,
    pub(super) unresolved: Vec<Problem>,
    pub(super) notes: Vec<String>,
    pub(super) expressions: Vec<(String, usize)>,
}

/// The split of a rule's backends.
pub(super) fn split(backends: Vec<RuleBackend<'_>>) -> Split {
    Split { backends: backends.into_iter().map(|backend| backend.backend).collect() }
}
