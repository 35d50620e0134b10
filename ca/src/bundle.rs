//! Writes the roots where others find them: as PEM, or as the ConfigMap `gamut-system/gamut-trust-bundle`.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use gamut_identity::{Roots, SYSTEM_NAMESPACE};
use serde_json::json;
use thiserror::Error;

/// The ConfigMap that holds the roots.
pub const TRUST_BUNDLE: &str = "gamut-trust-bundle";
/// Its key; the value is PEM.
pub const TRUST_BUNDLE_KEY: &str = "root.pem";

/// Why the roots can't be written.
#[derive(Debug, Error)]
pub enum BundleError {
    /// Neither of the two forms.
    #[error("--bundle-file {}: the name must end in .json (a ConfigMap) or .pem", .0.display())]
    Extension(PathBuf),
    /// The operating system says no.
    #[error("can't write the trust bundle {path}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes the roots to a file in the form that its name asks for. Readers see the old content or the new, never a part. A file that says
/// the same already isn't touched: a CA that starts again needs no room on a disk that is full.
pub(crate) fn write(path: &Path, roots: &Roots) -> Result<(), BundleError> {
    let text = match path.extension().and_then(|extension| extension.to_str()) {
        Some("pem") => roots.to_pem(),
        Some("json") => format!("{:#}\n", config_map(roots)),
        _ => return Err(BundleError::Extension(path.to_owned())),
    };
    if fs::read(path).is_ok_and(|present| present == text.as_bytes()) {
        return Ok(());
    }
    let replace = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        // Not in the way of whoever reads every *.json of the directory.
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        // A rename may outlive a crash that what was written doesn't.
        file.sync_all()?;
        fs::rename(&new, path)
    };
    replace().map_err(|source| BundleError::Io { path: path.to_owned(), source })
}

fn config_map(roots: &Roots) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": SYSTEM_NAMESPACE, "name": TRUST_BUNDLE},
        "data": {TRUST_BUNDLE_KEY: roots.to_pem()},
    })
}
