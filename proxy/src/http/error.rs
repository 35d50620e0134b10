//! What went wrong on a connection, in either version of HTTP.

use h2::Reason;
use thiserror::Error;

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
}

impl HttpError {
    /// The error code with which we closed an HTTP/2 connection for what came over it; `None` if it ended otherwise.
    pub fn closed_for(&self) -> Option<Reason> {
        match self {
            Self::H1(_) => None,
            Self::H2(error) => error.reason().filter(|_| error.is_go_away() && error.is_library()),
        }
    }
}
