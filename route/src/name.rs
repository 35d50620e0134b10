//! Names: how tables, resources, metrics and messages refer to objects of a cluster.
//!
//! Each type prints in the one form that people see in messages and parses back from it.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A namespace and a name, printed `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

/// A Service and one of its ports, printed `namespace/name:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// The Service.
    pub service: NamespacedName,
    /// The Service's port (not the target port).
    pub port: u16,
}

/// What an endpoint set belongs to: printed `service/namespace/name:port` or `xbackend/namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackendId {
    /// A port of a Service.
    Service(ServicePort),
    /// An `XBackend` (GEP-4894), whose port is its own.
    XBackend(NamespacedName),
}

/// The route kinds of the Gateway API that can have a Service as parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RouteKind {
    /// `GRPCRoute`; wins over all others on the same Service and port.
    #[serde(rename = "GRPCRoute")]
    Grpc,
    /// `HTTPRoute`.
    #[serde(rename = "HTTPRoute")]
    Http,
    /// `TLSRoute`.
    #[serde(rename = "TLSRoute")]
    Tls,
    /// `TCPRoute`.
    #[serde(rename = "TCPRoute")]
    Tcp,
}

/// A route object, printed `kind/namespace/name` with the kind in lower case, as kubectl takes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteRef {
    /// Which kind of route.
    pub kind: RouteKind,
    /// Its namespace and name.
    pub name: NamespacedName,
}

/// An object's UID as 16 bytes.
///
/// Kubernetes UIDs are opaque strings that in practice are UUIDs. Those keep their bytes; any other string is hashed
/// (SHA-256, first 16 bytes), so that tokens and certificates have one fixed size and every component derives the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uid(pub [u8; 16]);

/// A name that isn't in its printed form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not of the form {expected}")]
pub struct NameError {
    text: String,
    expected: &'static str,
}

impl NamespacedName {
    /// A name from its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl ServicePort {
    /// A Service's port from its three parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, port: u16) -> Self {
        Self { service: NamespacedName::new(namespace, name), port }
    }
}

impl Uid {
    /// Reads an object's UID as the API server gives it.
    pub fn of(text: &str) -> Self {
        Self::parse_uuid(text).unwrap_or_else(|| {
            let hash = digest::digest(&digest::SHA256, text.as_bytes());
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&hash.as_ref()[..16]);
            Self(bytes)
        })
    }

    fn parse_uuid(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 36 {
            return None;
        }
        let mut bytes = [0; 16];
        let mut digits = 0;
        for (i, &c) in text.iter().enumerate() {
            if matches!(i, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return None;
                }
                continue;
            }
            // Upper-case digits aren't canonical: as another spelling they'd be another opaque string.
            let value = match c {
                b'0'..=b'9' => c - b'0',
                b'a'..=b'f' => c - b'a' + 10,
                _ => return None,
            };
            bytes[digits / 2] = bytes[digits / 2] << 4 | value;
            digits += 1;
        }
        Some(Self(bytes))
    }
}

impl RouteKind {
    /// The kind as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
        }
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(port) => write!(f, "service/{port}"),
            Self::XBackend(name) => write!(f, "xbackend/{name}"),
        }
    }
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for RouteRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str().to_ascii_lowercase(), self.name)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NamespacedName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(NameError { text: text.to_owned(), expected: "namespace/name" }),
        }
    }
}

impl FromStr for ServicePort {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parsed = text.rsplit_once(':').and_then(|(service, port)| {
            Some(Self { service: service.parse().ok()?, port: port.parse().ok()? })
        });
        parsed.ok_or_else(|| NameError { text: text.to_owned(), expected: "namespace/name:port" })
    }
}

impl FromStr for BackendId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parsed = match text.split_once('/') {
            Some(("service", rest)) => rest.parse().ok().map(Self::Service),
            Some(("xbackend", rest)) => rest.parse().ok().map(Self::XBackend),
            _ => None,
        };
        parsed.ok_or_else(|| NameError {
            text: text.to_owned(),
            expected: "service/namespace/name:port or xbackend/namespace/name",
        })
    }
}

impl FromStr for Uid {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::of(text))
    }
}

/// Serializes a type in its printed form, so that `-o json` and golden files show what messages show.
macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(NamespacedName, ServicePort, BackendId, Uid);

impl Serialize for RouteRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for RouteRef {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parsed = text.split_once('/').and_then(|(kind, name)| {
            let kind = match kind {
                "grpcroute" => RouteKind::Grpc,
                "httproute" => RouteKind::Http,
                "tlsroute" => RouteKind::Tls,
                "tcproute" => RouteKind::Tcp,
                _ => return None,
            };
            Some(Self { kind, name: name.parse().ok()? })
        });
        parsed.ok_or_else(|| NameError { text: text.to_owned(), expected: "kind/namespace/name" })
    }
}

impl<'de> Deserialize<'de> for RouteRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_keeps_its_bytes_and_prints_back() {
        let text = "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10";
        assert_eq!(Uid::of(text).to_string(), text);
    }

    #[test]
    fn any_other_uid_is_hashed_and_stays_distinct() {
        assert_ne!(Uid::of("a"), Uid::of("b"));
        assert_ne!(
            Uid::of("0B8F6F3E-2D5C-4A57-9D0C-5B7D2F1E9A10"),
            Uid::of("0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10")
        );
        assert_eq!(Uid::of("x"), Uid::of("x"));
    }

    #[test]
    fn names_parse_back_from_what_they_print() {
        for text in ["service/shop/web:80", "xbackend/shop/canary"] {
            assert_eq!(text.parse::<BackendId>().unwrap().to_string(), text);
        }
        assert_eq!("httproute/shop/web".parse::<RouteRef>().unwrap().to_string(), "httproute/shop/web");
        assert!("shop".parse::<NamespacedName>().is_err());
        assert!("a/b/c".parse::<NamespacedName>().is_err());
        assert!("shop/web:0x50".parse::<ServicePort>().is_err());
    }
}
