//! Cookies (RFC 6265): found in requests, written into responses.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use http::{HeaderMap, HeaderValue, header};
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};

use super::{SessionError, token::Token, token::seconds};

/// Writes one session's `Set-Cookie`.
#[derive(Clone, Debug)]
pub struct CookieWriter {
    name: Box<str>,
    /// From behind the token to before what depends on the request.
    attributes: Box<str>,
    /// The name promises it.
    always_secure: bool,
    lifetime: Option<Duration>,
}

/// A name for a cookie whose route names none: the same for equal scopes, and for no other.
pub fn generated_name(scope: &str) -> String {
    let hash = digest::digest(&digest::SHA256, scope.as_bytes());
    let digits: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("gamut-session-{digits}")
}

/// Names that begin so, in whatever case, are promises about the cookie, which browsers drop if it doesn't keep them (RFC
/// 6265bis, section 4.1.3): `Secure` both, and the path `/` the first.
const HOST_PREFIX: &str = "__Host-";
const SECURE_PREFIX: &str = "__Secure-";

/// The promise that a cookie's name makes, if it makes one.
pub fn promise(name: &str) -> Option<&'static str> {
    let begins =
        |prefix: &&str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    [HOST_PREFIX, SECURE_PREFIX].into_iter().find(begins)
}

/// The values of all cookies of a name, over all `Cookie` headers, without the quotes that some clients put
/// around them. Never longer than what the request's head may be; whether they are tokens is for the
/// [`super::token::Keyring`] to say.
pub fn values<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let pairs = lines.flat_map(|line| line.split(|&c| c == b';')).map(<[u8]>::trim_ascii);
    pairs.filter_map(move |pair| {
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    })
}

impl CookieWriter {
    /// A cookie with this name and `Path`. With a lifetime it is permanent and says so in `Max-Age` and
    /// `Expires`; without, it ends with the client.
    pub fn new(name: &str, path: &str, lifetime: Option<Duration>) -> Result<Self, SessionError> {
        // A token of RFC 9110 §5.6.2, which is also what header names are made of.
        if header::HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(SessionError::CookieName { name: name.to_owned() });
        }
        if !path.starts_with('/') || !path.bytes().all(|c| matches!(c, b' '..=b'~') && c != b';') {
            return Err(SessionError::CookiePath { path: path.to_owned() });
        }
        let promise = promise(name);
        if promise == Some(HOST_PREFIX) && path != "/" {
            return Err(SessionError::HostPath { name: name.to_owned(), path: path.to_owned() });
        }
        Ok(Self {
            name: name.into(),
            attributes: format!("; Path={path}; HttpOnly; SameSite=Strict").into(),
            always_secure: promise.is_some(),
            lifetime,
        })
    }

    /// The cookie's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of `Set-Cookie`.
    pub fn set(&self, token: &Token, now: SystemTime, secure: bool) -> Result<HeaderValue, SessionError> {
        let secure = if secure || self.always_secure { "; Secure" } else { "" };
        let mut cookie = [&*self.name, "=", token.as_str(), &self.attributes, secure].concat();
        if let Some(lifetime) = self.lifetime {
            cookie.push_str(&format!("; Max-Age={}", lifetime.as_secs()));
            if let Some(expires) = http_date(now, lifetime) {
                cookie.push_str("; Expires=");
                cookie.push_str(&expires);
            }
        }
        // Everything in it was checked to be printable ASCII.
        HeaderValue::try_from(cookie).map_err(|_| SessionError::CookieName { name: self.name.to_string() })
    }
}

/// RFC 9110 §5.6.7. `None` beyond the year 9999, where `Max-Age` has to do.
fn http_date(now: SystemTime, lifetime: Duration) -> Option<String> {
    let at = seconds(now).checked_add(lifetime.as_secs())?;
    let at = Timestamp::from_second(i64::try_from(at).ok()?).ok()?;
    DateTimePrinter::new().timestamp_to_rfc9110_string(&at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Uid,
        session::token::{Keyring, Placement},
    };

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (header::COOKIE, HeaderValue::from_str(line).unwrap())).collect()
    }

    fn found(lines: &[&str], name: &str) -> Vec<String> {
        values(&headers(lines), name).map(|value| String::from_utf8(value.to_vec()).unwrap()).collect()
    }

    #[test]
    fn every_cookie_of_the_name_is_found_and_no_other() {
        assert_eq!(found(&["a=1; b=2"], "b"), ["2"]);
        assert_eq!(found(&["b=1", "a=1; b=2", "b=3;b=4"], "b"), ["1", "2", "3", "4"]);
        assert_eq!(found(&["b=\"1\"; b=\"2; b=\""], "b"), ["1", "\"2", "\""]);
        assert_eq!(found(&["bb=1; ab=2; B=3; b; b =4; xb=b=5"], "b"), Vec::<String>::new());
        assert_eq!(found(&["b=", ";;  ;b=x=y"], "b"), ["", "x=y"]);
        assert_eq!(found(&[], "b"), Vec::<String>::new());
    }

    #[test]
    fn names_and_paths_that_would_break_the_header_are_refused() {
        for name in ["", "a b", "a=b", "a;b", "a\r\n", "\u{e9}"] {
            assert!(
                matches!(CookieWriter::new(name, "/", None), Err(SessionError::CookieName { .. })),
                "{name:?}"
            );
        }
        for path in ["", "a", "/a; Domain=evil.example", "/a\r\nb: c", "/\u{e9}"] {
            assert!(
                matches!(CookieWriter::new("a", path, None), Err(SessionError::CookiePath { .. })),
                "{path:?}"
            );
        }
    }

    #[test]
    fn a_name_that_promises_something_to_browsers_is_held_to_it() {
        let placement = Placement { backend: Uid([1; 16]), pod: Uid([2; 16]) };
        let token =
            Keyring::new("scope", &[(0, [0; 32])]).unwrap().seal(&placement, SystemTime::UNIX_EPOCH).unwrap();
        for (name, secure) in
            [("__Secure-a", true), ("__host-a", true), ("__Secure", false), ("a__Host-", false)]
        {
            let cookie = CookieWriter::new(name, "/", None).unwrap();
            let set = cookie.set(&token, SystemTime::UNIX_EPOCH, false).unwrap();
            assert_eq!(set.to_str().unwrap().ends_with("; Secure"), secure, "{set:?}");
        }
        assert!(CookieWriter::new("__Secure-a", "/shop", None).is_ok());
        assert_eq!(
            CookieWriter::new("__Host-a", "/shop", None).unwrap_err().to_string(),
            "\"__Host-a\" with the path \"/shop\" is a cookie that browsers drop (RFC 6265bis); use the path / or another name"
        );
    }

    #[test]
    fn a_generated_name_is_unique_to_its_scope_and_stays() {
        assert_eq!(generated_name("route/1/a"), generated_name("route/1/a"));
        assert_ne!(generated_name("route/1/a"), generated_name("route/1/b"));
        assert!(CookieWriter::new(&generated_name("route/1/a"), "/", None).is_ok());
    }
}
