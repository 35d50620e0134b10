//! Logs: to standard error, as text or JSON, as the environment says.

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    prelude::*,
};

/// The variable with a filter such as `info,gamut_proxy=debug`.
const FILTER: &str = "GAMUT_LOG";

/// The variable whose value `json` makes every log line a JSON object.
const FORMAT: &str = "GAMUT_LOG_FORMAT";

/// Starts logging. Components tell what they do; commands for people only what goes wrong, unless asked.
pub(crate) fn start(component: bool) {
    // The client of the API server would repeat as an error what its users report in their own words, once.
    let default = if component { "info,kube_client=off" } else { "warn,kube_client=off" };
    let said = std::env::var(FILTER).ok().filter(|said| !said.is_empty());
    let wanted = said.as_deref().and_then(read);
    let refused = said.filter(|_| wanted.is_none());
    let filter = wanted.or_else(|| read(default));
    let filtered = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    if std::env::var(FORMAT).is_ok_and(|format| format == "json") {
        filtered.with(lines.json().flatten_event(true)).init();
    } else {
        filtered.with(lines.with_ansi(false)).init();
    }
    if let Some(said) = refused {
        tracing::error!(
            "{FILTER}={said:?} is no filter: a level (error, warn, info, debug, trace, off) or a list of TARGET=LEVEL is; it is {default} now"
        );
    }
}

/// A filter, unless it is none. A word that is no level would be taken for a target, and everybody else be silent; so would an empty
/// part for a level, and a blank for a part of a target.
fn read(said: &str) -> Option<Targets> {
    let parts: Vec<&str> = said.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let is_word = |part: &&str| !part.contains('=') && part.parse::<LevelFilter>().is_err();
    if parts.is_empty() || parts.iter().any(is_word) { None } else { parts.join(",").parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_make_everybody_silent_is_no_filter() {
        for filter in ["info", "warn,gamut_proxy=debug", "OFF", "gamut_ca=trace,gamut=info"] {
            assert!(read(filter).is_some(), "{filter}");
        }
        for (filter, same) in [("info,", "info"), ("info, gamut_ca=debug", "info,gamut_ca=debug")] {
            assert_eq!(read(filter), read(same), "{filter}");
        }
        for none in ["", ",", "verbose", "info,loud", "gamut_ca=loud", "gamut_ca"] {
            assert!(read(none).is_none(), "{none}");
        }
    }
}
