//! What went wrong on a connection, in either version of HTTP.

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
