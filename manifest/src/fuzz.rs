//! What fuzzing needs of the private parts: a file's text in, and what it holds.

use std::{path::Path, sync::Arc};

use jiff::Timestamp;

use crate::{
    ManifestError, Object, Origin,
    document::{self, SyntaxError},
    object::Defaults,
};

/// The objects of a text and what is wrong with the others, document by document.
#[must_use]
pub fn objects(text: &str, is_json: bool) -> Vec<Result<Object, Box<ManifestError>>> {
    let file = Path::new(if is_json { "input.json" } else { "input.yaml" });
    let defaults = Defaults { created: Timestamp::UNIX_EPOCH, generation: 1 };
    let read = |document: document::Document| {
        let origin =
            Origin { file: Arc::new(file.to_path_buf()), document: document.index, line: document.line };
        let value = document.content.map_err(|SyntaxError { line, column, problem }| ManifestError {
            file: file.to_path_buf(),
            at: Some((line, column)),
            object: None,
            problem,
        })?;
        Object::read(value, &origin, defaults)
    };
    document::parse(file, text).into_iter().map(read).collect()
}
