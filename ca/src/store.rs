//! Where the signing key and the roots are kept: three PEM files in a directory that only the CA can read.
//!
//! The names and the content are those of a TLS Secret as cert-manager writes it, so that a user's own root, or an
//! intermediate of it, is put there as it is, and the same [`Stored`] can come from a Secret.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// The signing key, PKCS #8 (or SEC 1, PKCS #1).
pub const KEY: &str = "tls.key";
/// The signing certificate first, then, unless that is a root itself, the certificates between it and the root.
pub const CHAIN: &str = "tls.crt";
/// Every root that is trusted now: more than one while a root is being replaced. Optional if `tls.crt` is a root.
pub const ROOTS: &str = "ca.crt";

/// What a store holds, PEM.
#[derive(Clone)]
pub struct Stored {
    /// As [`KEY`]. Secret: no `Debug`.
    pub key: String,
    /// As [`CHAIN`].
    pub chain: String,
    /// As [`ROOTS`].
    pub roots: Option<String>,
}

/// A directory that holds a [`Stored`].
#[derive(Clone, Debug)]
pub struct FileStore {
    directory: PathBuf,
}

/// Why a store can't be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// One of the two files without the other: not a first start, and not usable.
    #[error("{directory} has {present} but no {missing}; put the missing file there, or remove the other to start anew", directory = directory.display())]
    Incomplete {
        /// The store.
        directory: PathBuf,
        /// What is there.
        present: &'static str,
        /// What isn't.
        missing: &'static str,
    },
    /// The operating system says no.
    #[error("can't {action} {path}: {source}", path = path.display())]
    Io {
        /// Read, write...
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl FileStore {
    /// The store in this directory, which need not exist yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// What is stored; `None` before the first start.
    ///
    /// # Errors
    /// If files can't be read, or only a part of them is there.
    pub fn load(&self) -> Result<Option<Stored>, StoreError> {
        let incomplete =
            |present, missing| StoreError::Incomplete { directory: self.directory.clone(), present, missing };
        match (self.read(KEY)?, self.read(CHAIN)?) {
            (Some(key), Some(chain)) => Ok(Some(Stored { key, chain, roots: self.read(ROOTS)? })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(incomplete(KEY, CHAIN)),
            (None, Some(_)) => Err(incomplete(CHAIN, KEY)),
        }
    }

    /// Stores for the first time. The directory is made with mode 0700, the files with 0600.
    ///
    /// # Errors
    /// If something is stored already, or files can't be written.
    pub fn create(&self, stored: &Stored) -> Result<(), StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(|source| self.error("make", "", source))?;
        self.write(KEY, &stored.key)?;
        if let Some(roots) = &stored.roots {
            self.write(ROOTS, roots)?;
        }
        self.write(CHAIN, &stored.chain)
    }

    fn read(&self, name: &str) -> Result<Option<String>, StoreError> {
        match fs::read_to_string(self.directory.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.error("read", name, source)),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let write = |path: &Path| {
            // `create_new` also means that nobody else's file or link is written through.
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write(&self.directory.join(name)).map_err(|source| self.error("write", name, source))
    }

    fn error(&self, action: &'static str, name: &str, source: io::Error) -> StoreError {
        StoreError::Io { action, path: self.directory.join(name), source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn stored() -> Stored {
        Stored { key: "key".into(), chain: "chain".into(), roots: Some("roots".into()) }
    }

    #[test]
    fn what_is_stored_is_loaded_and_only_the_owner_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::new(directory.path().join("ca"));
        assert!(store.load().unwrap().is_none());
        store.create(&stored()).unwrap();

        let loaded = store.load().unwrap().unwrap();
        assert_eq!((loaded.key.as_str(), loaded.chain.as_str()), ("key", "chain"));
        assert_eq!(loaded.roots.as_deref(), Some("roots"));
        for (name, mode) in [("", 0o700), (KEY, 0o600), (CHAIN, 0o600), (ROOTS, 0o600)] {
            let path = directory.path().join("ca").join(name);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{path:?}");
        }
    }

    #[test]
    fn a_stored_key_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::new(directory.path());
        store.create(&stored()).unwrap();
        let other = Stored { key: "other".into(), ..stored() };
        assert!(store.create(&other).is_err());
        assert_eq!(store.load().unwrap().unwrap().key, "key");
    }

    #[test]
    fn half_a_store_is_an_error_that_names_both_files() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(KEY), "key").unwrap();
        let message = FileStore::new(directory.path()).load().err().unwrap().to_string();
        assert!(message.contains("has tls.key but no tls.crt"), "{message}");
    }
}
