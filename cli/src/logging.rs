//! Logs: to standard error, as text or JSON, as the environment says.

use tracing_subscriber::EnvFilter;

/// The variable with a filter such as `info,gamut_proxy=debug`.
const FILTER: &str = "GAMUT_LOG";

/// The variable whose value `json` makes every log line a JSON object.
const FORMAT: &str = "GAMUT_LOG_FORMAT";

/// Starts logging. Components tell what they do; commands for people only what goes wrong, unless asked.
pub(crate) fn start(component: bool) {
    // The client of the API server would repeat as an error what its users report in their own words, once.
    let default = if component { "info,kube_client=off" } else { "warn,kube_client=off" };
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::env::var(FORMAT).is_ok_and(|format| format == "json") {
        subscriber.json().flatten_event(true).init();
    } else {
        subscriber.with_ansi(false).init();
    }
}
