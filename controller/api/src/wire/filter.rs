//! Filters on the wire.

use gamut_route::filter::{Cors, Filter, HeaderEdits, Mirror, PathRewrite, Redirect, Rewrite};

use super::error::{WireError, narrow, optional, parsed, required};
use crate::proto;

impl From<&Filter> for proto::Filter {
    fn from(filter: &Filter) -> Self {
        use proto::filter::Filter as Wire;
        let filter = match filter {
            Filter::RequestHeaders(edits) => Wire::RequestHeaders(edits.into()),
            Filter::ResponseHeaders(edits) => Wire::ResponseHeaders(edits.into()),
            Filter::Redirect(redirect) => Wire::Redirect(redirect.into()),
            Filter::Rewrite(rewrite) => Wire::Rewrite(rewrite.into()),
            Filter::Mirror(mirror) => Wire::Mirror(mirror.into()),
            Filter::Cors(cors) => Wire::Cors(cors.into()),
        };
        Self { filter: Some(filter) }
    }
}

impl TryFrom<proto::Filter> for Filter {
    type Error = WireError;

    fn try_from(filter: proto::Filter) -> Result<Self, WireError> {
        use proto::filter::Filter as Wire;
        Ok(match filter.filter.ok_or_else(|| WireError::missing("filter"))? {
            Wire::RequestHeaders(edits) => Self::RequestHeaders(edits.into()),
            Wire::ResponseHeaders(edits) => Self::ResponseHeaders(edits.into()),
            Wire::Redirect(redirect) => Self::Redirect(required("redirect", Some(redirect))?),
            Wire::Rewrite(rewrite) => Self::Rewrite(required("rewrite", Some(rewrite))?),
            Wire::Mirror(mirror) => Self::Mirror(required("mirror", Some(mirror))?),
            Wire::Cors(cors) => Self::Cors(required("cors", Some(cors))?),
        })
    }
}

impl From<&HeaderEdits> for proto::HeaderEdits {
    fn from(edits: &HeaderEdits) -> Self {
        let headers = |pairs: &[(String, String)]| -> Vec<proto::Header> {
            pairs
                .iter()
                .map(|(name, value)| proto::Header { name: name.clone(), value: value.clone() })
                .collect()
        };
        Self { set: headers(&edits.set), add: headers(&edits.add), remove: edits.remove.clone() }
    }
}

impl From<proto::HeaderEdits> for HeaderEdits {
    fn from(edits: proto::HeaderEdits) -> Self {
        let pairs = |headers: Vec<proto::Header>| -> Vec<(String, String)> {
            headers.into_iter().map(|header| (header.name, header.value)).collect()
        };
        Self { set: pairs(edits.set), add: pairs(edits.add), remove: edits.remove }
    }
}

impl From<&Redirect> for proto::Redirect {
    fn from(redirect: &Redirect) -> Self {
        Self {
            scheme: redirect.scheme.clone(),
            hostname: redirect.hostname.clone(),
            path: redirect.path.as_ref().map(Into::into),
            port: redirect.port.map(u32::from),
            status: u32::from(redirect.status),
        }
    }
}

impl TryFrom<proto::Redirect> for Redirect {
    type Error = WireError;

    fn try_from(redirect: proto::Redirect) -> Result<Self, WireError> {
        let status = match redirect.status {
            status @ (301 | 302 | 303 | 307 | 308) => narrow("status", status)?,
            other => return Err(WireError::invalid("status", format_args!("{other} isn't a redirect's"))),
        };
        Ok(Self {
            scheme: redirect.scheme,
            hostname: redirect.hostname,
            path: optional("path", redirect.path)?,
            port: redirect.port.map(|port| narrow("port", port)).transpose()?,
            status,
        })
    }
}

impl From<&Rewrite> for proto::Rewrite {
    fn from(rewrite: &Rewrite) -> Self {
        Self { hostname: rewrite.hostname.clone(), path: rewrite.path.as_ref().map(Into::into) }
    }
}

impl TryFrom<proto::Rewrite> for Rewrite {
    type Error = WireError;

    fn try_from(rewrite: proto::Rewrite) -> Result<Self, WireError> {
        Ok(Self { hostname: rewrite.hostname, path: optional("path", rewrite.path)? })
    }
}

impl From<&PathRewrite> for proto::PathRewrite {
    fn from(path: &PathRewrite) -> Self {
        use proto::path_rewrite::Path as Wire;
        let path = match path {
            PathRewrite::Full(path) => Wire::Full(path.clone()),
            PathRewrite::Prefix(prefix) => Wire::Prefix(prefix.clone()),
        };
        Self { path: Some(path) }
    }
}

impl TryFrom<proto::PathRewrite> for PathRewrite {
    type Error = WireError;

    fn try_from(path: proto::PathRewrite) -> Result<Self, WireError> {
        use proto::path_rewrite::Path as Wire;
        Ok(match path.path.ok_or_else(|| WireError::missing("path"))? {
            Wire::Full(path) => Self::Full(path),
            Wire::Prefix(prefix) => Self::Prefix(prefix),
        })
    }
}

impl From<&Mirror> for proto::Mirror {
    fn from(mirror: &Mirror) -> Self {
        Self {
            backend: mirror.backend.to_string(),
            numerator: mirror.numerator,
            denominator: mirror.denominator,
        }
    }
}

impl TryFrom<proto::Mirror> for Mirror {
    type Error = WireError;

    fn try_from(mirror: proto::Mirror) -> Result<Self, WireError> {
        if mirror.denominator == 0 {
            return Err(WireError::invalid("denominator", "is 0"));
        }
        Ok(Self {
            backend: parsed("backend", &mirror.backend)?,
            numerator: mirror.numerator,
            denominator: mirror.denominator,
        })
    }
}

impl From<&Cors> for proto::Cors {
    fn from(cors: &Cors) -> Self {
        Self {
            allow_origins: cors.allow_origins.clone(),
            allow_credentials: cors.allow_credentials,
            allow_methods: cors.allow_methods.clone(),
            allow_headers: cors.allow_headers.clone(),
            expose_headers: cors.expose_headers.clone(),
            max_age: Some((&cors.max_age).into()),
        }
    }
}

impl TryFrom<proto::Cors> for Cors {
    type Error = WireError;

    fn try_from(cors: proto::Cors) -> Result<Self, WireError> {
        Ok(Self {
            allow_origins: cors.allow_origins,
            allow_credentials: cors.allow_credentials,
            allow_methods: cors.allow_methods,
            allow_headers: cors.allow_headers,
            expose_headers: cors.expose_headers,
            max_age: required("max_age", cors.max_age)?,
        })
    }
}
