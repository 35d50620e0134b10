//! `gamut-echo`: the echo app alone, for its image. Called as `server` or `client`, the names that the conformance suite uses, it is that.

mod failure;
mod logging;
mod printable;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::Parser;

/// Answers requests with what was seen of them, and sends some
#[derive(Debug, Parser)]
#[command(name = "echo", disable_version_flag = true)]
struct Echo {
    #[command(flatten)]
    args: gamut_echo::Args,
}

fn main() -> ExitCode {
    let Echo { args } = Echo::parse_from(by_name(std::env::args_os().collect()));
    logging::start(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|it| Ok(it.block_on(gamut_echo::run(args))?));
    done.unwrap_or_else(|error| failure::report(&error))
}

/// The command line with the name that the executable was called by as its subcommand, if it is one.
fn by_name(mut line: Vec<OsString>) -> Vec<OsString> {
    let name = line.first().and_then(|path| Path::new(path).file_name()).map(OsString::from);
    if let Some(name) = name.filter(|name| name == "server" || name == "client") {
        line.insert(1, name);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(line: &[&str]) -> Vec<OsString> {
        line.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_name_it_is_called_by_says_what_it_does() {
        assert_eq!(
            by_name(lines(&["/usr/local/bin/client", "http://a/"])),
            lines(&["/usr/local/bin/client", "client", "http://a/"])
        );
        assert_eq!(by_name(lines(&["server"])), lines(&["server", "server"]));
        assert_eq!(by_name(lines(&["gamut-echo", "--port=1"])), lines(&["gamut-echo", "--port=1"]));
    }
}
