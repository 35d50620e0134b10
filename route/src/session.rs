//! Sessions: how a client is kept where it was, without any state in the proxy.
//!
//! The client brings a token in a cookie or header. [`Affinity::read`] opens what it brought: each
//! [`Placement`] names a Service or XBackend and a pod that an earlier answer was given by. The proxy goes to
//! the first that is still there, or routes the request as new; and if it ended up anywhere else than the
//! client thinks, [`Affinity::write`] tells it with a fresh token. A token that doesn't open is no session,
//! and only counted.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use thiserror::Error;

use crate::table::{Carrier, Session};

pub mod cookie;
pub mod token;

use self::{
    cookie::CookieWriter,
    token::{Keyring, Opened, Placement, Unusable},
};

/// How many tokens of one request are opened at most. Honest clients have one, or a few from overlapping
/// paths and domains; the rest would be somebody making us compute.
const MOST_TOKENS: usize = 16;

/// One scope's session, ready for requests.
#[derive(Debug)]
pub struct Affinity {
    carrier: Carriage,
    keyring: Keyring,
    absolute_timeout: Option<Duration>,
}

#[derive(Debug)]
enum Carriage {
    Cookie(CookieWriter),
    Header(HeaderName),
}

/// What a request brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Tokens that opened, in the order of the request. More than one only if a client mixes up its cookies.
    pub placements: SmallVec<[Placement; 2]>,
    /// Tokens that are malformed.
    pub malformed: u8,
    /// Tokens of another scope or key, forged ones included: they can't be told apart.
    pub foreign: u8,
    /// Tokens older than the absolute timeout.
    pub expired: u8,
}

/// Why a session can't be had. The rule works without one meanwhile, if its caller so decides.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// There is no key to seal tokens with.
    #[error("session scope {scope} has no keys")]
    NoKeys {
        /// The scope.
        scope: String,
    },
    /// A cookie's name that RFC 6265 §4.1.1 doesn't allow.
    #[error("{name:?} can't be the name of a cookie; use letters, digits, '-' and '_'")]
    CookieName {
        /// As written.
        name: String,
    },
    /// A cookie's path that RFC 6265 §4.1.1 doesn't allow.
    #[error(
        "{path:?} can't be the path of a cookie; it begins with '/' and has neither ';' nor control characters"
    )]
    CookiePath {
        /// As written.
        path: String,
    },
    /// A cookie whose name promises the path `/`, and whose path is another.
    #[error(
        "{name:?} with the path {path:?} is a cookie that browsers drop (RFC 6265bis); use the path / or another name"
    )]
    HostPath {
        /// As written.
        name: String,
        /// As written.
        path: String,
    },
    /// A header's name that isn't one.
    #[error("{name:?} is not the name of an HTTP header")]
    HeaderName {
        /// As written.
        name: String,
    },
    /// The cryptographic library refuses a key or has no randomness.
    #[error("a session token can't be sealed: the cryptographic library failed")]
    Cryptography,
}

impl Affinity {
    /// Prepares a rule's or backend's session with the keys of its scope: ids and keys, the first of which
    /// seals.
    pub fn new(session: &Session, keys: &[(u8, [u8; 32])]) -> Result<Self, SessionError> {
        let carrier = match &session.carrier {
            Carrier::Cookie { name, path, permanent } => {
                let lifetime = session.absolute_timeout.filter(|_| *permanent);
                Carriage::Cookie(CookieWriter::new(name, path, lifetime)?)
            }
            Carrier::Header { name } => Carriage::Header(
                HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| SessionError::HeaderName { name: name.clone() })?,
            ),
        };
        let keyring = Keyring::new(&session.scope, keys)?;
        Ok(Self { carrier, keyring, absolute_timeout: session.absolute_timeout })
    }

    /// Opens what a request brought.
    pub fn read(&self, request: &HeaderMap, now: SystemTime) -> Brought {
        let mut brought = Brought::default();
        self.each(request, now, |opened| match opened {
            Ok(opened) => brought.placements.push(opened.placement),
            Err(Unusable::Malformed) => brought.malformed += 1,
            Err(Unusable::Foreign) => brought.foreign += 1,
            Err(Unusable::Expired) => brought.expired += 1,
        });
        brought
    }

    /// What each token of a request says, in their order, for people who ask.
    pub fn examine(&self, request: &HeaderMap, now: SystemTime) -> Vec<Result<Opened, Unusable>> {
        let mut opened = Vec::new();
        self.each(request, now, |token| opened.push(token));
        opened
    }

    fn each(&self, request: &HeaderMap, now: SystemTime, mut take: impl FnMut(Result<Opened, Unusable>)) {
        let open = |text: &[u8]| take(self.keyring.open(text, now, self.absolute_timeout));
        match &self.carrier {
            Carriage::Cookie(cookie) => {
                cookie::values(request, cookie.name()).take(MOST_TOKENS).for_each(open)
            }
            Carriage::Header(name) => {
                // Several lines may have been joined into one on the way (RFC 9110 §5.3).
                let lines = request.get_all(name).iter();
                let values =
                    lines.flat_map(|line| line.as_bytes().split(|&c| c == b',')).map(<[u8]>::trim_ascii);
                values.take(MOST_TOKENS).for_each(open);
            }
        }
    }

    /// Tells the client where it is now. `secure` is whether its connection to us, as it sees it, is TLS.
    pub fn write(
        &self,
        placement: &Placement,
        now: SystemTime,
        secure: bool,
        response: &mut HeaderMap,
    ) -> Result<(), SessionError> {
        let token = self.keyring.seal(placement, now)?;
        match &self.carrier {
            Carriage::Cookie(cookie) => {
                response.append(http::header::SET_COOKIE, cookie.set(&token, now, secure)?);
            }
            Carriage::Header(name) => {
                let value = HeaderValue::from_str(token.as_str()).map_err(|_| SessionError::Cryptography)?;
                response.insert(name, value);
            }
        }
        Ok(())
    }
}
