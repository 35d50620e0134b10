//! What went wrong on a connection, in either version of HTTP.

use h2::Reason;
use thiserror::Error;

use super::mux::MuxError;

/// How HTTP on a connection failed. Whoever decides by it asks [`super::SendError`] and [`super::BodyError`] what it
/// means; this is for people.
#[derive(Debug, Error)]
pub enum HttpError {
    /// HTTP/1.1.
    #[error(transparent)]
    H1(#[from] gamut_http1::Error),
    /// HTTP/2.
    #[error(transparent)]
    H2(#[from] h2::Error),
    /// What sidecars speak with each other.
    #[error(transparent)]
    Mux(#[from] MuxError),
}

impl HttpError {
    /// The error code with which we closed a connection of many requests for what came over it; `None` if it ended
    /// otherwise. Between sidecars there is one.
    pub fn closed_for(&self) -> Option<Reason> {
        match self {
            Self::Mux(MuxError::Violation(_)) => Some(Reason::PROTOCOL_ERROR),
            Self::H1(_) | Self::Mux(_) => None,
            Self::H2(error) => error.reason().filter(|_| error.is_go_away() && error.is_library()),
        }
    }
}
