//! A watch, followed for ever, whose failures are in the log once each, and in `/status` for as long as they last.

use std::{collections::BTreeMap, convert::Infallible};

use gamut_kubernetes::{Event, Watch};
use tokio::sync::watch;
use tracing::warn;

/// What can't be watched at the moment: what happens meanwhile, and why.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problems(watch::Sender<BTreeMap<&'static str, String>>);

impl Problems {
    /// A line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.borrow().iter().map(|(meanwhile, reason)| format!("{reason}; {meanwhile}")).collect()
    }

    fn note(&self, meanwhile: &'static str, reason: Option<String>) {
        self.0.send_if_modified(|problems| match reason {
            Some(reason) => problems.insert(meanwhile, reason.clone()) != Some(reason),
            None => problems.remove(meanwhile).is_some(),
        });
    }
}

/// Hands on what a watch tells. `meanwhile` says what happens while it fails.
pub(crate) async fn follow(
    mut watch: Watch,
    meanwhile: &'static str,
    problems: &Problems,
    mut hear: impl FnMut(Vec<Event>),
) -> Infallible {
    let mut told = String::new();
    loop {
        match watch.next().await {
            Ok(events) => {
                told.clear();
                problems.note(meanwhile, None);
                hear(events);
            }
            Err(error) => {
                let error = error.to_string();
                problems.note(meanwhile, Some(error.clone()));
                if error != told {
                    warn!("{error}; {meanwhile}");
                    told = error;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_until_it_is_over() {
        let problems = Problems::default();
        problems.note("nothing is looked for meanwhile", Some("no answer".to_owned()));
        problems.note("what is known stays", Some("not allowed".to_owned()));
        assert_eq!(
            problems.lines(),
            ["no answer; nothing is looked for meanwhile", "not allowed; what is known stays"]
        );
        problems.note("nothing is looked for meanwhile", None);
        assert_eq!(problems.lines(), ["not allowed; what is known stays"]);
    }
}
