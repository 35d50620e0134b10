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

/// A gRPC status in one line. Of one that nobody sent, because the connection failed, the message is tonic's "transport error",
/// and what matters are its causes.
pub fn explain_status(status: &tonic::Status) -> String {
    let said = match (status.message(), status.source()) {
        ("", _) => return explain(status),
        (message, None) => message.to_owned(),
        (message, Some(cause)) => format!("{message}: {}", explain(cause)),
    };
    format!("{said} ({:?})", status.code())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_nobody_sent_names_what_broke_the_connection() {
        let reset = io::Error::new(io::ErrorKind::ConnectionReset, "the peer has reset it");
        let status = tonic::Status::from_error(Box::new(reset));
        assert!(explain_status(&status).contains("the peer has reset it"), "{status:?}");
        let mut status = tonic::Status::unavailable("transport error");
        status.set_source(std::sync::Arc::new(io::Error::other("no route to host")));
        assert_eq!(explain_status(&status), "transport error: no route to host (Unavailable)");
        let refused = tonic::Status::permission_denied("not for you");
        assert_eq!(explain_status(&refused), "not for you (PermissionDenied)");
    }
}
