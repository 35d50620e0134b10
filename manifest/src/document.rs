//! A file's text cut into documents and parsed, each with the line it starts at.
//!
//! YAML is cut at its document markers before it is parsed: no scalar can contain one (YAML 1.2, section
//! 9.1.2), so the cut is exact, and a syntax error in one document costs only that one. Lines are what YAML calls lines,
//! here and in the parser: a carriage return alone ends one too (section 5.4).

use std::{borrow::Cow, path::Path};

use serde_json::Value;

use crate::error::Problem;

/// One document: an object, or why there is none. Empty documents don't appear.
#[derive(Debug, PartialEq)]
pub(crate) struct Document {
    /// Which document of the file, from 0.
    pub(crate) index: usize,
    /// Its first line that isn't blank or a comment, from 1.
    pub(crate) line: u64,
    /// What it holds.
    pub(crate) content: Result<Value, SyntaxError>,
}

/// Where and why a document can't be parsed.
#[derive(Debug, PartialEq)]
pub(crate) struct SyntaxError {
    pub(crate) line: u64,
    pub(crate) column: Option<u64>,
    pub(crate) problem: Problem,
}

/// Parses a file's text: JSON by its file name, else YAML. `List` kinds are unfolded into their items.
pub(crate) fn parse(file: &Path, text: &str) -> Vec<Document> {
    let documents = match file.extension() {
        Some(extension) if extension == "json" => parse_json(text),
        _ => parse_yaml(text),
    };
    documents.into_iter().flat_map(unfold_list).collect()
}

fn parse_json(text: &str) -> Vec<Document> {
    let first_line = 1 + text.chars().take_while(|c| c.is_whitespace()).filter(|c| *c == '\n').count() as u64;
    let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let documents = stream.enumerate().map(|(index, value)| Document {
        index,
        line: first_line,
        content: value.map_err(|error| SyntaxError {
            line: error.line() as u64,
            column: Some(error.column() as u64),
            problem: Problem::Syntax(format!("not valid JSON: {}", without_position(&error.to_string()))),
        }),
    });
    documents.filter(|document| document.content != Ok(Value::Null)).collect()
}

fn parse_yaml(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    for (index, (offset, text)) in yaml_documents(&with_line_feeds(text)).into_iter().enumerate() {
        let blank = |line: &&str| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#') || line.starts_with('%') || line == "---"
        };
        let skipped = text.lines().take_while(blank).count() as u64;
        if skipped == text.lines().count() as u64 {
            continue;
        }
        let content = parse_yaml_document(&text).map_err(|error| yaml_error(&error, offset));
        if content != Ok(Value::Null) {
            documents.push(Document { index, line: offset + skipped + 1, content });
        }
    }
    documents
}

/// Each line break as a line feed, which is what the parser makes of it in a scalar.
fn with_line_feeds(text: &str) -> Cow<'_, str> {
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n").into() } else { text.into() }
}

/// Cuts at lines that are `---` or begin with `--- `; gives each document with the number of lines before it. The
/// marker's line stays with its document, because content may follow on it.
fn yaml_documents(text: &str) -> Vec<(u64, String)> {
    let mut documents = vec![(0, String::new())];
    for (number, line) in text.trim_start_matches('\u{feff}').split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n']));
        let in_directives = documents.last().is_some_and(|(_, text)| {
            text.lines().all(|line| line.is_empty() || line.starts_with(['#', '%']))
        });
        if marker && !in_directives {
            documents.push((number as u64, String::new()));
        }
        if let Some((_, document)) = documents.last_mut() {
            document.push_str(line);
        }
    }
    documents
}

/// As `kubectl` reads YAML: booleans and octal numbers of YAML 1.1, duplicate keys refused.
fn parse_yaml_document(text: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options)
}

fn yaml_error(error: &serde_saphyr::Error, offset: u64) -> SyntaxError {
    let at = error.location();
    let message = error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter);
    SyntaxError {
        line: offset + at.map_or(1, |at| at.line().max(1)),
        column: at.map(|at| at.column()),
        problem: Problem::Syntax(format!("not valid YAML: {}", without_position(&message))),
    }
}

/// Parsers end their messages with a position of their own, which would be the second one on the line, and
/// for YAML the wrong one.
fn without_position(message: &str) -> &str {
    let message = message.lines().next().unwrap_or_default();
    message.find(" at line ").map_or(message, |end| &message[..end])
}

fn unfold_list(document: Document) -> Vec<Document> {
    let Document { index, line, content } = document;
    match content {
        Ok(Value::Object(mut object)) if is_list(&object) => match object.shift_remove("items") {
            Some(Value::Array(items)) => items
                .into_iter()
                .flat_map(|item| unfold_list(Document { index, line, content: Ok(item) }))
                .collect(),
            _ => Vec::new(),
        },
        content => vec![Document { index, line, content }],
    }
}

/// `kind: List`, or a typed list as the API server gives it (`kind: HTTPRouteList`).
fn is_list(object: &serde_json::Map<String, Value>) -> bool {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    kind == "List" || (kind.ends_with("List") && object.get("items").is_some_and(Value::is_array))
}
