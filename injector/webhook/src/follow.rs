//! A watch, followed for ever, whose failures are in the log once each.

use std::convert::Infallible;

use gamut_kubernetes::{Event, Watch};
use tracing::warn;

/// Hands on what a watch tells. `meanwhile` says what happens while it fails.
pub(crate) async fn follow(
    mut watch: Watch,
    meanwhile: &str,
    mut hear: impl FnMut(Vec<Event>),
) -> Infallible {
    let mut told = String::new();
    loop {
        match watch.next().await {
            Ok(events) => {
                told.clear();
                hear(events);
            }
            Err(error) => {
                let error = error.to_string();
                if error != told {
                    warn!("{error}; {meanwhile}");
                    told = error;
                }
            }
        }
    }
}
