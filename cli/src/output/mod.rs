//! What commands print: tables and lines for people, JSON and YAML for programs.
//!
//! A command makes plain data and renders it with [`Page`]; colour is decided once, here, and never changes the text.

mod age;
mod page;
mod reader;
mod words;

use std::{
    fmt,
    io::{self, IsTerminal, Write},
};

use clap::ValueEnum;
use serde::Serialize;

pub(crate) use age::Age;
pub(crate) use page::{Cell, Page, Tone};
pub(crate) use reader::gone;
pub(crate) use words::{count, few, few_lines};

use crate::printable::{is_obeyed, printable};

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// As the default, with more columns
    Wide,
    /// The same data as JSON
    Json,
    /// The same data as YAML
    Yaml,
}

/// `--color`, on every command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Colour {
    /// Whether to colour what goes to a stream (<https://no-color.org>).
    pub(crate) fn wanted(self, stream: &impl IsTerminal) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                stream.is_terminal() && !refused
            }
        }
    }
}

/// Prints data for programs, or the page made of it for people.
///
/// # Errors
/// Standard output can't be written to. A reader that has seen enough (`| head`) is no error.
pub(crate) fn print<T: Serialize>(
    data: &T,
    format: Option<Format>,
    colour: Colour,
    page: impl FnOnce(&T, bool) -> Page,
) -> anyhow::Result<()> {
    let text = match format {
        Some(Format::Json) => printable_json(&serde_json::to_string_pretty(data)?) + "\n",
        Some(Format::Yaml) => serde_saphyr::to_string(data)?,
        None | Some(Format::Wide) => {
            page(data, format == Some(Format::Wide)).render(colour.wanted(&io::stdout()))
        }
    };
    write(&text)
}

/// Data as one line of JSON.
///
/// # Errors
/// It can't be written as JSON.
pub(crate) fn json_line<T: Serialize>(data: &T) -> anyhow::Result<String> {
    Ok(printable_json(&serde_json::to_string(data)?) + "\n")
}

/// Writes to standard output as it comes. `false`: nobody reads it any more (`| head`).
///
/// # Errors
/// Standard output can't be written to.
pub(crate) fn stream(part: &[u8]) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(part).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}

/// Tells something on standard error, on a line of its own.
pub(crate) fn tell(what: impl fmt::Display) {
    eprintln!("gamut: {}", printable(&what.to_string()));
}

/// Writes text to standard output.
///
/// # Errors
/// As [`print`].
pub(crate) fn write(text: &str) -> anyhow::Result<()> {
    stream(text.as_bytes()).map(|_| ())
}

/// JSON as serde_json writes it, but for what it leaves in strings and a terminal would obey: DEL, the C1 controls (ECMA-48),
/// changes of direction. Line breaks outside of strings are the writer's.
fn printable_json(text: &str) -> String {
    let escaped = |c: char| match c != '\n' && is_obeyed(c) {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_same_data_without_what_a_terminal_obeys() {
        let data = serde_json::json!({"message": "a\x1b\u{9b}\u{202e}\x7f\n"});
        let shown = printable_json(&serde_json::to_string_pretty(&data).unwrap());
        assert!(!shown.contains(|c| c != '\n' && is_obeyed(c)), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), data);
    }
}
