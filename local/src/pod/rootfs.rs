//! A container's view of the file system: the host's, with a `/run` of its own, its pod's names, and its volumes.
//!
//! Nothing is created on the host: mount points that don't exist can be made only where the container has a file system
//! of its own, in `/run` and, if it comes to that, in `/tmp`. All of it happens in the container's mount namespace.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{linux::mounts, paths};

/// What to mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RootPlan {
    /// An empty directory of the node's, where the new `/run` is put together.
    pub(crate) stage: PathBuf,
    /// The pod's `/etc/resolv.conf`.
    pub(crate) resolv_conf: PathBuf,
    /// The pod's `/etc/hosts`.
    pub(crate) hosts: PathBuf,
    /// The container's volumes.
    pub(crate) binds: Vec<Bind>,
}

/// A volume in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// A mount that can't be made.
#[derive(Debug, Error)]
pub(crate) enum RootError {
    #[error(
        "mountPath {} doesn't exist on this machine, and nothing is created here; use a path that exists, or one below \
         /run, /var/run or /tmp", .0.display()
    )]
    NoSuchPlace(PathBuf),
    #[error(
        "/etc/resolv.conf doesn't exist on this machine, so pods can't have their own; create an empty one"
    )]
    NoResolvConf,
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Mount(#[from] mounts::MountError),
}

/// Arranges everything in the calling process's mount namespace, which must be its own and private.
pub(crate) fn arrange(plan: &RootPlan) -> Result<(), RootError> {
    let io_at = |path: &Path| {
        let path = path.to_owned();
        move |source| RootError::Io { path, source }
    };
    let stage = &plan.stage;
    mounts::tmpfs(stage, 0o755)?;
    let lock = stage.join("lock");
    fs::create_dir(&lock).map_err(io_at(&lock))?;
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o1777)).map_err(io_at(&lock))?;
    let executable = Path::new(paths::EXECUTABLE);
    let staged = staged(executable, stage).unwrap_or_else(|| stage.join("gamut"));
    mounts::file_to_mount_on(&staged).map_err(io_at(&staged))?;
    mounts::bind(executable, &staged, true)?;

    let mut own_tmp = false;
    for bind in &plan.binds {
        let place = match find_place(&bind.target, stage) {
            Place::Exists(place) => {
                mounts::bind(&bind.source, &place, bind.read_only)?;
                continue;
            }
            Place::InRun(place) => place,
            Place::InTmp(place) => {
                if !own_tmp {
                    mounts::tmpfs(Path::new("/tmp"), 0o1777)?;
                    own_tmp = true;
                }
                place
            }
            Place::Nowhere => return Err(RootError::NoSuchPlace(bind.target.clone())),
        };
        let made = match bind.source.is_dir() {
            true => fs::create_dir_all(&place),
            false => mounts::file_to_mount_on(&place),
        };
        made.map_err(io_at(&place))?;
        mounts::bind(&bind.source, &place, bind.read_only)?;
    }

    cover(&plan.resolv_conf, Path::new("/etc/resolv.conf"), stage)?.ok_or(RootError::NoResolvConf)?;
    // A machine without this file resolves no names by it either.
    let _ = cover(&plan.hosts, Path::new("/etc/hosts"), stage)?;
    mounts::relocate(stage, Path::new("/run"))?;
    Ok(())
}

/// Puts a file in the place of another; `None` if there is no such place.
fn cover(source: &Path, target: &Path, stage: &Path) -> Result<Option<()>, RootError> {
    match find_place(target, stage) {
        Place::Exists(place) => mounts::bind(source, &place, false)?,
        Place::InRun(place) => {
            mounts::file_to_mount_on(&place)
                .map_err(|source| RootError::Io { path: place.clone(), source })?;
            mounts::bind(source, &place, false)?;
        }
        Place::InTmp(_) | Place::Nowhere => return Ok(None),
    }
    Ok(Some(()))
}

/// Where something can be mounted so that it is seen at a path.
#[derive(Debug, PartialEq)]
enum Place {
    Exists(PathBuf),
    /// In the new `/run`, by its present path.
    InRun(PathBuf),
    /// In a `/tmp` that must be the container's own first.
    InTmp(PathBuf),
    Nowhere,
}

fn find_place(target: &Path, stage: &Path) -> Place {
    let real = resolve(target);
    if let Some(staged) = staged(&real, stage) {
        return Place::InRun(staged);
    }
    match real {
        real if real.exists() => Place::Exists(real),
        real if real.starts_with("/tmp") => Place::InTmp(real),
        _ => Place::Nowhere,
    }
}

/// A path below `/run` where it is while the new `/run` is being put together.
fn staged(path: &Path, stage: &Path) -> Option<PathBuf> {
    path.strip_prefix("/run").ok().map(|rest| stage.join(rest))
}

/// Follows symbolic links as far as the path exists, and keeps the rest: `/etc/resolv.conf` often leads to a file in
/// the host's `/run`, which isn't there any more.
fn resolve(path: &Path) -> PathBuf {
    /// As many as the kernel follows.
    const MAX_LINKS: usize = 40;

    let mut real = PathBuf::from("/");
    let mut links = 0;
    let mut rest: VecDeque<OsString> = parts(path).collect();
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            real.pop();
            continue;
        }
        let next = real.join(&part);
        match fs::read_link(&next) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                let mut target: VecDeque<OsString> = parts(&target).collect();
                target.append(&mut rest);
                rest = target;
            }
            _ => real = next,
        }
    }
    real
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_even_where_they_lead_to_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        symlink("../run/systemd/stub.conf", root.join("resolv.conf")).unwrap();
        symlink("/run", root.join("var-run")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let parent = root.parent().unwrap();
        assert_eq!(resolve(&root.join("resolv.conf")), parent.join("run/systemd/stub.conf"));
        assert_eq!(resolve(&root.join("var-run/secrets/x")), Path::new("/run/secrets/x"));
        assert_eq!(resolve(&root.join("loop")), root.join("loop"));
    }

    #[test]
    fn mount_points_are_made_only_where_the_container_has_a_file_system_of_its_own() {
        let stage = Path::new("/stage");
        assert_eq!(find_place(Path::new("/run/a/b"), stage), Place::InRun("/stage/a/b".into()));
        assert_eq!(find_place(Path::new("/etc"), stage), Place::Exists("/etc".into()));
        assert_eq!(
            find_place(Path::new("/tmp/no-such-place"), stage),
            Place::InTmp("/tmp/no-such-place".into())
        );
        assert_eq!(find_place(Path::new("/no-such-place/x"), stage), Place::Nowhere);
    }
}
