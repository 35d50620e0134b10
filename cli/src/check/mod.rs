//! `gamut check`: whether `gamut up` can work on this machine, and what to do if not.
//!
//! Each test does what the mesh does, in namespaces that end with the test, and says what it found and the remedy.

mod machine;

use std::process::ExitCode;

use serde::Serialize;

use crate::output::{self, Cell, Colour, Format, Page, Tone};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print data instead of text
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// What one test found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was tested.
    what: &'static str,
    /// How it stands.
    result: Outcome,
    /// The value that was found, or what failed.
    detail: String,
    /// What to do, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// As it should be.
    Ok,
    /// The mesh works, but not all of it, or not well.
    Warning,
    /// The mesh can't work.
    Failed,
}

pub(crate) fn run(args: &Args, colour: Colour) -> anyhow::Result<ExitCode> {
    let findings = machine::examine();
    output::print(&findings, args.output, colour, |findings, _| page(findings))?;
    let failed = findings.iter().any(|finding| finding.result == Outcome::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Finding {
    fn ok(what: &'static str, detail: impl ToString) -> Self {
        Self { what, result: Outcome::Ok, detail: detail.to_string(), remedy: None }
    }

    fn warning(what: &'static str, detail: impl ToString, remedy: &str) -> Self {
        Self { what, result: Outcome::Warning, detail: detail.to_string(), remedy: Some(remedy.to_owned()) }
    }

    fn failed(what: &'static str, detail: impl ToString, remedy: &str) -> Self {
        Self { what, result: Outcome::Failed, detail: detail.to_string(), remedy: Some(remedy.to_owned()) }
    }
}

fn page(findings: &[Finding]) -> Page {
    let mut page = Page::default();
    page.table(
        0,
        &["CHECK", "RESULT", "FOUND"],
        findings.iter().map(|finding| {
            let result = match finding.result {
                Outcome::Ok => Cell::new("ok", Tone::Good),
                Outcome::Warning => Cell::new("warning", Tone::Doubtful),
                Outcome::Failed => Cell::new("failed", Tone::Bad),
            };
            vec![finding.what.into(), result, Cell::from(&finding.detail)]
        }),
    );
    let remedies = findings.iter().filter_map(|finding| Some((finding.what, finding.remedy.as_ref()?)));
    for (i, (what, remedy)) in remedies.enumerate() {
        if i == 0 {
            page.gap();
        }
        page.say(format!("{what}: {remedy}"), Tone::Plain);
    }
    let count = |outcome| findings.iter().filter(|finding| finding.result == outcome).count();
    page.gap();
    match (count(Outcome::Failed), count(Outcome::Warning)) {
        (0, 0) => page.say("gamut up works here", Tone::Good),
        (0, _) => page.say("gamut up works here, with what the warnings say", Tone::Doubtful),
        (_, _) => page.say("gamut up can't work here until that is mended", Tone::Bad),
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_stand_below_the_table_and_the_verdict_last() {
        let findings = [
            Finding::ok("root", "uid 0"),
            Finding::warning("IPv6", "switched off", "pods get IPv4 addresses only"),
            Finding::failed("namespaces", "Operation not permitted", "run the container privileged"),
        ];
        insta::assert_snapshot!(page(&findings).render(false), @r"
        CHECK       RESULT   FOUND
        root        ok       uid 0
        IPv6        warning  switched off
        namespaces  failed   Operation not permitted

        IPv6: pods get IPv4 addresses only
        namespaces: run the container privileged

        gamut up can't work here until that is mended
        ");
    }
}
