//! GRPCRoute matches, and the HTTP matches that they are: what gRPC sends is `POST /service/method` (the gRPC
//! protocol over HTTP/2), so one matcher does for both kinds of route.

use crate::{
    matcher::{MatcherError, pattern},
    table::{Match, NamedMatch, PathMatch, ValueMatch},
};

/// A match of a GRPCRoute. The default matches every gRPC request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcMatch {
    /// The service, fully qualified as on the wire; `None` for any.
    pub service: Option<ValueMatch>,
    /// The method; `None` for any.
    pub method: Option<ValueMatch>,
    /// Metadata tests; names in lower case.
    pub headers: Vec<NamedMatch>,
}

impl GrpcMatch {
    /// The same test as an HTTP match.
    ///
    /// A service or method that isn't a valid regular expression is an error here and not only in the table:
    /// put together, two broken halves could be valid and mean something else.
    pub fn to_http(&self) -> Result<Match, MatcherError> {
        for part in [&self.service, &self.method].into_iter().flatten() {
            if let ValueMatch::Regex(regex) = part {
                pattern::compile(regex)?;
            }
        }
        let path = match (&self.service, &self.method) {
            (None, None) => PathMatch::default(),
            (Some(ValueMatch::Exact(service)), None) => PathMatch::Prefix(format!("/{service}")),
            (Some(ValueMatch::Exact(service)), Some(ValueMatch::Exact(method))) => {
                PathMatch::Exact(format!("/{service}/{method}"))
            }
            (service, method) => PathMatch::Regex(format!("/{}/{}", element(service), element(method))),
        };
        Ok(Match { path, method: Some("POST".to_owned()), headers: self.headers.clone(), query: Vec::new() })
    }
}

/// A regular expression for one element of the path.
fn element(part: &Option<ValueMatch>) -> String {
    match part {
        None => "[^/]+".to_owned(),
        Some(ValueMatch::Exact(name)) => regex_syntax::escape(name),
        Some(ValueMatch::Regex(regex)) => format!("(?:{regex})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Option<ValueMatch> {
        Some(ValueMatch::Exact(text.to_owned()))
    }

    fn regex(text: &str) -> Option<ValueMatch> {
        Some(ValueMatch::Regex(text.to_owned()))
    }

    fn path(service: Option<ValueMatch>, method: Option<ValueMatch>) -> PathMatch {
        GrpcMatch { service, method, headers: Vec::new() }.to_http().unwrap().path
    }

    #[test]
    fn service_and_method_become_a_path() {
        assert_eq!(path(exact("shop.Cart"), exact("Add")), PathMatch::Exact("/shop.Cart/Add".to_owned()));
        assert_eq!(path(exact("shop.Cart"), None), PathMatch::Prefix("/shop.Cart".to_owned()));
        assert_eq!(path(None, None), PathMatch::Prefix("/".to_owned()));
        assert_eq!(path(None, exact("Add")), PathMatch::Regex("/[^/]+/Add".to_owned()));
        assert_eq!(
            path(exact("shop.Cart"), regex("Add|Drop")),
            PathMatch::Regex("/shop\\.Cart/(?:Add|Drop)".to_owned())
        );
    }

    #[test]
    fn two_broken_halves_do_not_make_a_whole() {
        let broken = GrpcMatch { service: regex("a)|(?:b"), method: exact("Add"), headers: Vec::new() };
        assert!(matches!(broken.to_http(), Err(MatcherError::Regex { .. })));
    }
}
