//! Files and directories read as one set of objects, again and again.
//!
//! A [`Reader`] remembers what a single reading can't know: when an object was first seen, how many contents
//! it has had, and what a file held when it was last good, so that a half-typed edit takes nothing away that
//! worked.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    document::{self, Document, SyntaxError},
    error::{ManifestError, Problem, Severity},
    object::{Defaults, Object, ObjectId, Origin},
};

/// How many bytes a file may have.
const LARGEST: u64 = 64 << 20;
/// What `-` stands for.
pub const STANDARD_INPUT: &str = "/dev/stdin";

/// What one reading of all paths gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Every object once, in the order of paths, files (by name) and documents.
    pub objects: Vec<Object>,
    /// What was wrong, in the same order.
    pub errors: Vec<ManifestError>,
}

/// Reads the same paths as often as they change.
#[derive(Debug)]
pub struct Reader {
    paths: Vec<PathBuf>,
    known: HashMap<ObjectId, Known>,
    /// What each file gave at its last reading, kept-back objects included.
    last: BTreeMap<PathBuf, Vec<Object>>,
}

/// What is remembered of an object.
#[derive(Debug)]
struct Known {
    defaults: Defaults,
    /// Its content without metadata and status: another one is another generation.
    content: Value,
}

/// Reads files and directories once.
///
/// Directories are read recursively: `*.yaml`, `*.yml`, `*.json`, in the order of their names, hidden ones
/// left out. A path given explicitly is read whatever its name.
pub fn load(paths: &[PathBuf]) -> (Vec<Object>, Vec<ManifestError>) {
    let reading = Reader::new(paths).read();
    (reading.objects, reading.errors)
}

impl Reader {
    /// A reader of these files and directories.
    pub fn new(paths: &[PathBuf]) -> Self {
        Self { paths: paths.to_vec(), known: HashMap::new(), last: BTreeMap::new() }
    }

    /// Reads all of it now. Objects without a creation time get the time of the reading that saw them first.
    pub fn read(&mut self) -> Reading {
        self.read_at(Timestamp::now())
    }

    fn read_at(&mut self, now: Timestamp) -> Reading {
        // The API server's times have whole seconds, and ages are compared with those of objects from there.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let mut reading = Reading::default();
        let mut places: HashMap<ObjectId, Origin> = HashMap::new();
        let mut last = BTreeMap::new();
        for path in self.paths.clone() {
            let (files, errors) = files_of(&path);
            // What can't be read for a moment (a checkout, a mount) takes nothing away.
            for error in &errors {
                let lost = self.last.keys().filter(|file| file.starts_with(&error.file));
                for file in lost.cloned().collect::<Vec<_>>() {
                    let mut objects = Vec::new();
                    self.keep_last_good(&file, &mut places, &mut objects, &mut reading.errors);
                    reading.objects.extend(objects.iter().cloned());
                    last.insert(file, objects);
                }
            }
            reading.errors.extend(errors);
            for file in files {
                if last.contains_key(&file) {
                    continue;
                }
                let objects = self.read_file(&file, now, &mut places, &mut reading.errors);
                reading.objects.extend(objects.iter().cloned());
                last.insert(file, objects);
            }
        }
        self.last = last;
        self.known.retain(|id, _| places.contains_key(id));
        reading
    }

    fn read_file(
        &mut self,
        file: &Path,
        now: Timestamp,
        places: &mut HashMap<ObjectId, Origin>,
        errors: &mut Vec<ManifestError>,
    ) -> Vec<Object> {
        let mut own_errors = Vec::new();
        let mut objects = Vec::new();
        match read_text(file) {
            Ok(text) => {
                let shared = Arc::new(file.to_path_buf());
                for document in document::parse(file, &text) {
                    match self.read_document(&shared, document, now, places) {
                        Ok(object) => objects.push(object),
                        Err(error) => own_errors.push(*error),
                    }
                }
            }
            // Gone between listing and reading: as good as not listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => own_errors.push(unreadable(file, &error)),
        }
        if own_errors.iter().any(|error| error.severity() == Severity::Error) {
            self.keep_last_good(file, places, &mut objects, &mut own_errors);
        }
        errors.append(&mut own_errors);
        objects
    }

    fn read_document(
        &mut self,
        file: &Arc<PathBuf>,
        document: Document,
        now: Timestamp,
        places: &mut HashMap<ObjectId, Origin>,
    ) -> Result<Object, Box<ManifestError>> {
        let Document { index, line, content } = document;
        let origin = Origin { file: file.clone(), document: index, line };
        let value = content.map_err(|SyntaxError { line, column, problem }| ManifestError {
            file: file.to_path_buf(),
            at: Some((line, column)),
            object: None,
            problem,
        })?;
        let content = content_of(&value);
        let fresh = Defaults { created: now, generation: 1 };
        let object = Object::read(value.clone(), &origin, fresh)?;
        let id = object.id();
        if let Some(first) = places.get(&id) {
            let problem = Problem::Duplicate { first: first.clone() };
            let (file, at) = (file.to_path_buf(), Some((line, None)));
            return Err(Box::new(ManifestError { file, at, object: Some(id), problem }));
        }
        places.insert(id.clone(), origin.clone());

        let known =
            self.known.entry(id).or_insert_with(|| Known { defaults: fresh, content: content.clone() });
        if known.content != content {
            known.defaults.generation += 1;
            known.content = content;
        }
        match known.defaults == fresh {
            true => Ok(object),
            false => Object::read(value, &origin, known.defaults),
        }
    }

    /// A file with errors keeps what it held before, as far as nobody else defines it now.
    fn keep_last_good(
        &self,
        file: &Path,
        places: &mut HashMap<ObjectId, Origin>,
        objects: &mut Vec<Object>,
        errors: &mut Vec<ManifestError>,
    ) {
        for object in self.last.get(file).into_iter().flatten() {
            let id = object.id();
            if places.contains_key(&id) {
                continue;
            }
            places.insert(id.clone(), object.origin.clone());
            errors.push(ManifestError {
                file: file.to_path_buf(),
                at: Some((object.origin.line, None)),
                object: Some(id),
                problem: Problem::KeptLastGood,
            });
            objects.push(object.clone());
        }
    }
}

/// The part of an object whose change makes another generation.
fn content_of(value: &Value) -> Value {
    let mut content = value.clone();
    if let Value::Object(object) = &mut content {
        object.shift_remove("metadata");
        object.shift_remove("status");
    }
    content
}

/// The manifests at and below a path, in the order of their names.
fn files_of(path: &Path) -> (Vec<PathBuf>, Vec<ManifestError>) {
    let mut files = Vec::new();
    let mut errors = Vec::new();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => collect(path, &mut files, &mut errors),
        Ok(_) => files.push(path.to_path_buf()),
        Err(error) => errors.push(unreadable(path, &error)),
    }
    (files, errors)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>, errors: &mut Vec<ManifestError>) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return errors.push(unreadable(directory, &error)),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => collect(&path, files, errors),
            Ok(_) if is_manifest(&path) => files.push(path),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => errors.push(unreadable(&path, &error)),
        }
    }
}

/// The text of a file; of nothing that has no end (a pipe, a device), and of nothing so large that reading it would hurt. Standard
/// input may be a pipe: whoever names it fills it.
fn read_text(file: &Path) -> io::Result<String> {
    if file == Path::new(STANDARD_INPUT) {
        let mut text = String::new();
        io::stdin().lock().take(LARGEST).read_to_string(&mut text)?;
        return Ok(text);
    }
    let metadata = fs::metadata(file)?;
    let problem = if !metadata.is_file() {
        "it is no regular file".to_owned()
    } else if metadata.len() > LARGEST {
        format!("it has {} bytes, and at most {LARGEST} are read", metadata.len())
    } else {
        return fs::read_to_string(file);
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| matches!(extension.to_str(), Some("yaml" | "yml" | "json")))
}

fn unreadable(path: &Path, error: &io::Error) -> ManifestError {
    let problem = Problem::Unreadable(error.to_string());
    ManifestError { file: path.to_path_buf(), at: None, object: None, problem }
}
