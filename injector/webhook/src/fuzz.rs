//! What fuzzing needs of the private parts: a review in, and the answer to it.

use gamut_injector::{Config, INJECT, NamespaceView};
use serde_json::Value;

use crate::{admit, namespaces::Namespace, review};

/// The review's own uid, its pod, and the answer, as of a namespace that wants sidecars.
///
/// # Errors
/// What isn't a review that we answer, in the words that are sent and logged.
pub fn review(body: &[u8]) -> Result<(String, Value, Value), String> {
    let request = review::read(body).map_err(|error| error.to_string())?;
    let labels = [(INJECT.to_owned(), "enabled".to_owned())].into();
    let view = NamespaceView { name: request.namespace.clone(), labels };
    let (verdict, _) =
        admit::judge(&request, &Namespace { view, ..Namespace::default() }, &Config::default());
    let answer = review::answer(&request.uid, &verdict);
    Ok((request.uid, request.pod, answer))
}
