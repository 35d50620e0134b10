//! Why a message was refused, and the small conversions that every message is made of, each naming its field on failure.

use std::{fmt::Display, str::FromStr, time::Duration};

use gamut_route::Uid;
use thiserror::Error;

use crate::proto;

/// A message that can't be taken: where, and why. The whole resource is refused with it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path}: {problem}")]
pub struct WireError {
    /// The field, from the resource's body down: `http.rules[3].filters[0]`.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// A field that must be set isn't, or holds a variant that this version doesn't know: the two look the same.
    #[error("is missing, or of a kind that this version doesn't know; upgrade the older of the two sides")]
    MissingOrUnknown,
    /// An enum's value that this version doesn't know.
    #[error("value {0} isn't known to this version; upgrade the older of the two sides")]
    UnknownValue(i32),
    /// A value that doesn't parse or is out of its range.
    #[error("{0}")]
    Invalid(String),
    /// The bytes aren't a message at all.
    #[error("can't be decoded: {0}")]
    Garbled(String),
}

impl WireError {
    pub(super) fn new(field: impl Into<String>, problem: Problem) -> Self {
        Self { path: field.into(), problem }
    }

    pub(super) fn invalid(field: impl Into<String>, reason: impl Display) -> Self {
        Self::new(field, Problem::Invalid(reason.to_string()))
    }

    /// A field that must be set and isn't.
    pub fn missing(field: impl Into<String>) -> Self {
        Self::new(field, Problem::MissingOrUnknown)
    }

    /// The same error seen from the message that holds the field.
    fn within(self, field: impl Display) -> Self {
        Self { path: format!("{field}.{}", self.path), problem: self.problem }
    }
}

/// A message that must be there.
pub(super) fn required<P, D>(field: &'static str, message: Option<P>) -> Result<D, WireError>
where
    D: TryFrom<P, Error = WireError>,
{
    optional(field, message)?.ok_or_else(|| WireError::missing(field))
}

/// A message whose absence means something.
pub(super) fn optional<P, D>(field: &'static str, message: Option<P>) -> Result<Option<D>, WireError>
where
    D: TryFrom<P, Error = WireError>,
{
    message.map(D::try_from).transpose().map_err(|error| error.within(field))
}

/// Every message of a repeated field.
pub(super) fn each<P, D>(field: &'static str, messages: Vec<P>) -> Result<Vec<D>, WireError>
where
    D: TryFrom<P, Error = WireError>,
{
    let convert =
        |(i, message)| D::try_from(message).map_err(|error| error.within(format_args!("{field}[{i}]")));
    messages.into_iter().enumerate().map(convert).collect()
}

/// An enum's value.
pub(super) fn enumerated<P, D>(field: &'static str, value: i32) -> Result<D, WireError>
where
    P: TryFrom<i32>,
    D: TryFrom<P>,
{
    let known = P::try_from(value).ok().and_then(|value| D::try_from(value).ok());
    known.ok_or_else(|| WireError::new(field, Problem::UnknownValue(value)))
}

/// A name in its printed form.
pub(super) fn parsed<D>(field: &'static str, text: &str) -> Result<D, WireError>
where
    D: FromStr<Err: Display>,
{
    text.parse().map_err(|error| WireError::invalid(field, error))
}

/// A number in the range of a smaller type.
pub(super) fn narrow<D: TryFrom<u32>>(field: &'static str, value: u32) -> Result<D, WireError> {
    D::try_from(value).map_err(|_| WireError::invalid(field, format_args!("{value} is out of range")))
}

/// Exactly `N` bytes.
pub(super) fn sized<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    bytes
        .try_into()
        .map_err(|_| WireError::invalid(field, format_args!("has {} bytes in place of {N}", bytes.len())))
}

/// An object's UID.
pub(super) fn uid(field: &'static str, bytes: &[u8]) -> Result<Uid, WireError> {
    sized(field, bytes).map(Uid)
}

/// The wire forms of a slice.
pub(super) fn list<'a, D: 'a, P: From<&'a D>>(items: &'a [D]) -> Vec<P> {
    items.iter().map(P::from).collect()
}

/// A number as the wire has it. What doesn't fit becomes a value that every reader refuses.
pub(super) fn wide(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl From<&Duration> for proto::Duration {
    fn from(duration: &Duration) -> Self {
        Self { seconds: duration.as_secs(), nanos: duration.subsec_nanos() }
    }
}

impl TryFrom<proto::Duration> for Duration {
    type Error = WireError;

    fn try_from(duration: proto::Duration) -> Result<Self, WireError> {
        if duration.nanos >= 1_000_000_000 {
            return Err(WireError::invalid("nanos", format_args!("{} is a second or more", duration.nanos)));
        }
        Ok(Self::new(duration.seconds, duration.nanos))
    }
}
