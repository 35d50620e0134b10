//! `gamut version`: of this program, as `--version`; of what a cluster runs, `gamut check` tells.

use std::process::ExitCode;

use serde::Serialize;

use crate::output::{self, Colour, Format, Page, Tone};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Data instead of text
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// As `-o json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
}

pub(crate) fn run(args: &Args, colour: Colour) -> anyhow::Result<ExitCode> {
    let report = Report { version: env!("CARGO_PKG_VERSION") };
    output::print(&report, args.output, colour, |report, _| {
        let mut page = Page::default();
        page.say(format!("gamut {}", report.version), Tone::Plain);
        page
    })?;
    Ok(ExitCode::SUCCESS)
}
