//! What can go wrong with a request, told apart by what to do about it.

use kube::core::{Status, request};
use thiserror::Error;

/// A request that failed: which, and why.
#[derive(Debug, Error)]
#[error("{verb} {path}: {problem}")]
pub struct ApiError {
    pub(crate) verb: &'static str,
    pub(crate) path: String,
    /// Why.
    pub problem: Problem,
}

/// Why a request failed.
#[derive(Debug, Error)]
pub enum Problem {
    /// No such object, or no such resource.
    #[error("there is no such thing")]
    NotFound,
    /// An object of that name exists already.
    #[error("it exists already")]
    Exists,
    /// Somebody else wrote in between: read again.
    #[error("it was changed at the same time")]
    Conflict,
    /// The version isn't kept any more: list again.
    #[error("that version isn't kept any more")]
    Expired,
    /// Roles don't allow it.
    #[error("{0} (roles: docs/reference/kubernetes.md, cli.md)")]
    Forbidden(String),
    /// The API server understood and refuses.
    #[error("refused: {0}")]
    Refused(String),
    /// No answer that can be understood. Trying again may help.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

impl ApiError {
    /// Whether there is no such object or resource.
    pub fn is_not_found(&self) -> bool {
        matches!(self.problem, Problem::NotFound)
    }
}

impl Problem {
    pub(crate) fn late(within: std::time::Duration) -> Self {
        Self::NoAnswer(format!("none within {} s", within.as_secs()))
    }

    pub(crate) fn of_status(status: &Status) -> Self {
        match (status.code, status.reason.as_str()) {
            (404, _) => Self::NotFound,
            (409, "AlreadyExists") => Self::Exists,
            (409, _) => Self::Conflict,
            (410, _) => Self::Expired,
            (401 | 403, _) => Self::Forbidden(status.message.clone()),
            // Overload, start-up, an aggregated API that is away: not the request's fault.
            (429 | 500..=599, _) => Self::NoAnswer(status.message.clone()),
            _ => Self::Refused(status.message.clone()),
        }
    }
}

impl From<kube::Error> for Problem {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(&status),
            other => Self::NoAnswer(with_causes(&other)),
        }
    }
}

impl From<request::Error> for Problem {
    fn from(error: request::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

/// An error with what led to it, because "client error (Connect)" alone helps nobody. Causes that are part of what was said
/// already are left out.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_what_to_do_about_them() {
        let problem =
            |code, reason: &str| Problem::of_status(&Status::failure("why", reason).with_code(code));
        assert!(matches!(problem(404, "NotFound"), Problem::NotFound));
        assert!(matches!(problem(409, "AlreadyExists"), Problem::Exists));
        assert!(matches!(problem(409, "Conflict"), Problem::Conflict));
        assert!(matches!(problem(410, "Expired"), Problem::Expired));
        assert!(matches!(problem(403, "Forbidden"), Problem::Forbidden(why) if why == "why"));
        assert!(matches!(problem(503, "ServiceUnavailable"), Problem::NoAnswer(_)));
        assert!(matches!(problem(422, "Invalid"), Problem::Refused(_)));
    }
}
