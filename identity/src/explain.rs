//! Errors of connections in words: every cause, and our own reason where rustls would print its debug form.

use std::{error::Error, io};

use rustls::{CertificateError, OtherError};

/// An error and all its causes in one line, outermost first. For failed handshakes and failed gRPC connections: rustls's and
/// tonic's own texts leave out what matters.
pub fn explain(error: &(dyn Error + 'static)) -> String {
    let mut line = text(error);
    let mut next = error.source();
    while let Some(cause) = next {
        let text = text(cause);
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

fn text(error: &(dyn Error + 'static)) -> String {
    // An I/O error prints what it wraps, but doesn't count it among its causes.
    let wrapped = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
    let tls =
        wrapped.and_then(|error| error.downcast_ref()).or_else(|| error.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))) => {
            reason.to_string()
        }
        _ => error.to_string(),
    }
}
