//! What a matched request gets, on the wire: splits, time limits, retries, sessions.

use gamut_route::table::{Backend, BackendTarget, Carrier, Outcome, Retry, Session, Split, Timeouts};

use super::error::{WireError, each, list, narrow, optional, parsed, required, uid};
use crate::proto;

/// The Gateway API's upper bound of a weight.
const MAX_WEIGHT: u32 = 1_000_000;

impl From<&Outcome> for proto::Outcome {
    fn from(outcome: &Outcome) -> Self {
        use proto::outcome::Outcome as Wire;
        let outcome = match outcome {
            Outcome::Forward(split) => Wire::Forward(split.into()),
            Outcome::Fail(reason) => Wire::Fail(reason.clone()),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<proto::Outcome> for Outcome {
    type Error = WireError;

    fn try_from(outcome: proto::Outcome) -> Result<Self, WireError> {
        use proto::outcome::Outcome as Wire;
        Ok(match outcome.outcome.ok_or_else(|| WireError::missing("outcome"))? {
            Wire::Forward(split) => Self::Forward(required("forward", Some(split))?),
            Wire::Fail(reason) => Self::Fail(reason),
        })
    }
}

impl From<&Split> for proto::Split {
    fn from(split: &Split) -> Self {
        Self { backends: list(&split.backends) }
    }
}

impl TryFrom<proto::Split> for Split {
    type Error = WireError;

    fn try_from(split: proto::Split) -> Result<Self, WireError> {
        Ok(Self { backends: each("backends", split.backends)? })
    }
}

impl From<&Backend> for proto::Backend {
    fn from(backend: &Backend) -> Self {
        Self {
            target: Some((&backend.target).into()),
            weight: backend.weight,
            filters: list(&backend.filters),
            session: backend.session.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::Backend> for Backend {
    type Error = WireError;

    fn try_from(backend: proto::Backend) -> Result<Self, WireError> {
        if backend.weight > MAX_WEIGHT {
            return Err(WireError::invalid(
                "weight",
                format_args!("{} is above {MAX_WEIGHT}", backend.weight),
            ));
        }
        Ok(Self {
            target: required("target", backend.target)?,
            weight: backend.weight,
            filters: each("filters", backend.filters)?,
            session: optional("session", backend.session)?,
        })
    }
}

impl From<&BackendTarget> for proto::BackendTarget {
    fn from(target: &BackendTarget) -> Self {
        use proto::backend_target::Target as Wire;
        let target = match target {
            BackendTarget::Endpoints { id, uid } => {
                Wire::Endpoints(proto::EndpointsTarget { id: id.to_string(), uid: uid.0.to_vec() })
            }
            BackendTarget::Invalid(reason) => Wire::Invalid(reason.clone()),
        };
        Self { target: Some(target) }
    }
}

impl TryFrom<proto::BackendTarget> for BackendTarget {
    type Error = WireError;

    fn try_from(target: proto::BackendTarget) -> Result<Self, WireError> {
        use proto::backend_target::Target as Wire;
        Ok(match target.target.ok_or_else(|| WireError::missing("target"))? {
            Wire::Endpoints(endpoints) => Self::Endpoints {
                id: parsed("endpoints.id", &endpoints.id)?,
                uid: uid("endpoints.uid", &endpoints.uid)?,
            },
            Wire::Invalid(reason) => Self::Invalid(reason),
        })
    }
}

impl From<&Timeouts> for proto::Timeouts {
    fn from(timeouts: &Timeouts) -> Self {
        Self {
            request: timeouts.request.as_ref().map(Into::into),
            backend_request: timeouts.backend_request.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::Timeouts> for Timeouts {
    type Error = WireError;

    fn try_from(timeouts: proto::Timeouts) -> Result<Self, WireError> {
        Ok(Self {
            request: optional("request", timeouts.request)?,
            backend_request: optional("backend_request", timeouts.backend_request)?,
        })
    }
}

impl From<&Retry> for proto::Retry {
    fn from(retry: &Retry) -> Self {
        Self {
            codes: retry.codes.iter().copied().map(u32::from).collect(),
            attempts: retry.attempts,
            backoff: Some((&retry.backoff).into()),
        }
    }
}

impl TryFrom<proto::Retry> for Retry {
    type Error = WireError;

    fn try_from(retry: proto::Retry) -> Result<Self, WireError> {
        Ok(Self {
            codes: retry.codes.into_iter().map(|code| narrow("codes", code)).collect::<Result<_, _>>()?,
            attempts: retry.attempts,
            backoff: required("backoff", retry.backoff)?,
        })
    }
}

impl From<&Session> for proto::Session {
    fn from(session: &Session) -> Self {
        Self {
            scope: session.scope.clone(),
            carrier: Some((&session.carrier).into()),
            absolute_timeout: session.absolute_timeout.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::Session> for Session {
    type Error = WireError;

    fn try_from(session: proto::Session) -> Result<Self, WireError> {
        Ok(Self {
            scope: session.scope,
            carrier: required("carrier", session.carrier)?,
            absolute_timeout: optional("absolute_timeout", session.absolute_timeout)?,
        })
    }
}

impl From<&Carrier> for proto::Carrier {
    fn from(carrier: &Carrier) -> Self {
        use proto::carrier::Carrier as Wire;
        let carrier = match carrier {
            Carrier::Cookie { name, path, permanent } => Wire::Cookie(proto::CookieCarrier {
                name: name.clone(),
                path: path.clone(),
                permanent: *permanent,
            }),
            Carrier::Header { name } => Wire::Header(proto::HeaderCarrier { name: name.clone() }),
        };
        Self { carrier: Some(carrier) }
    }
}

impl TryFrom<proto::Carrier> for Carrier {
    type Error = WireError;

    fn try_from(carrier: proto::Carrier) -> Result<Self, WireError> {
        use proto::carrier::Carrier as Wire;
        Ok(match carrier.carrier.ok_or_else(|| WireError::missing("carrier"))? {
            Wire::Cookie(cookie) => {
                Self::Cookie { name: cookie.name, path: cookie.path, permanent: cookie.permanent }
            }
            Wire::Header(header) => Self::Header { name: header.name },
        })
    }
}
