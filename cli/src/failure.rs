//! How a command says that it failed.

use std::process::ExitCode;

use crate::printable::printable;

/// One line on standard error.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("gamut: {}", printable(&one_line(error)));
    ExitCode::FAILURE
}

/// An error and its causes on one line, each said once: many errors repeat their cause in their own text.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(|cause| cause.to_string()) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn errors_are_one_line_and_say_things_once() {
        let error =
            anyhow::anyhow!("no such file").context("reading a: no such file").context("loading\nmanifests");
        assert_eq!(one_line(&error), "loading; manifests: reading a: no such file");
        let same = Err::<(), _>(anyhow::anyhow!("x")).context("y").unwrap_err();
        assert_eq!(one_line(&same), "y: x");
    }
}
