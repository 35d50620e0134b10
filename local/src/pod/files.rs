//! A pod's generated files, in the node's memory: volumes, `/etc/hosts`, `/etc/resolv.conf`, and where each of them is.
//!
//! Every file is replaced whole (write and rename), so that who reads a token or a configuration while it is renewed sees
//! the old one or the new one.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::core::v1::VolumeMount;

use super::{
    plan::PodPlan,
    rootfs::{Bind, RootPlan},
    volumes::VolumePlan,
};
use crate::{
    net::{
        addresses::DNS_V4,
        dns::{DOMAIN, resolv_conf},
    },
    paths,
};

/// Where one pod's files are.
#[derive(Clone, Debug)]
pub(crate) struct PodFiles {
    directory: PathBuf,
}

impl PodFiles {
    pub(crate) fn new(uid: &str) -> Self {
        Self { directory: Path::new(paths::PODS).join(uid) }
    }

    /// Makes the directories and what is written only once.
    pub(crate) fn lay_out(&self, plan: &PodPlan, addresses: &[IpAddr]) -> io::Result<()> {
        fs::create_dir_all(self.stage())?;
        for (name, volume) in &plan.volumes {
            let directory = self.volume(name);
            fs::create_dir_all(&directory)?;
            if *volume == VolumePlan::Empty {
                fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
            }
        }
        fs::write(self.directory.join("resolv.conf"), resolv_conf(DNS_V4.into(), &plan.namespace))?;
        fs::write(self.directory.join("hosts"), hosts(plan, addresses))
    }

    /// The file system of a container with these mounts, or of the sandbox with none.
    pub(crate) fn root(&self, plan: &PodPlan, mounts: &[VolumeMount]) -> RootPlan {
        let binds = mounts.iter().filter_map(|mount| {
            let source = match plan.volumes.get(&mount.name)? {
                VolumePlan::Host(path) => path.clone(),
                VolumePlan::Empty | VolumePlan::Files { .. } => self.volume(&mount.name),
            };
            let source = match mount.sub_path.as_deref() {
                Some(below) if !below.is_empty() => source.join(below),
                _ => source,
            };
            let target = PathBuf::from(&mount.mount_path);
            // Files that are kept up to date are the node's to write.
            let generated = matches!(plan.volumes.get(&mount.name), Some(VolumePlan::Files { .. }));
            Some(Bind { source, target, read_only: generated || mount.read_only == Some(true) })
        });
        RootPlan {
            stage: self.stage(),
            resolv_conf: self.directory.join("resolv.conf"),
            hosts: self.directory.join("hosts"),
            binds: binds.collect(),
        }
    }

    /// Makes a volume hold exactly these files. What is the same already isn't touched.
    pub(crate) fn write_volume<'a>(
        &self,
        name: &str,
        files: impl Iterator<Item = (&'a Path, &'a [u8], u32)>,
    ) -> io::Result<()> {
        let root = self.volume(name);
        let mut wanted = BTreeSet::new();
        for (path, bytes, mode) in files {
            // Manifests were asked for such names before; this is what keeps a mistake there from writing to the host.
            if !path.components().all(|part| matches!(part, Component::Normal(_))) {
                let problem = format!("{} would lead out of volume {name}", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
            let path = root.join(path);
            if fs::read(&path).ok().as_deref() != Some(bytes) {
                replace(&path, bytes, mode)?;
            }
            wanted.insert(path);
        }
        for path in files_below(&root)? {
            if !wanted.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Forgets it all.
    pub(crate) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::debug!(directory = %self.directory.display(), %error, "a pod's files are left");
        }
    }

    fn stage(&self) -> PathBuf {
        self.directory.join("stage")
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.directory.join("volumes").join(name)
    }
}

/// As kubelet writes it: a pod with a subdomain has its whole name before the short one.
fn hosts(plan: &PodPlan, addresses: &[IpAddr]) -> String {
    let host_name = &plan.host_name;
    let subdomain = plan.pod.spec.as_ref().and_then(|spec| spec.subdomain.as_deref()).unwrap_or_default();
    let names = match subdomain {
        "" => host_name.clone(),
        subdomain => {
            format!("{host_name}.{subdomain}.{}.svc.{DOMAIN}\t{host_name}", plan.namespace)
        }
    };
    let own: String = addresses.iter().map(|address| format!("{address}\t{names}\n")).collect();
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}")
}

/// Writes a file whole, so that readers see the old content or the new.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Hidden, and without the suffix that readers of directories look for.
    let new = parent.join(format!(".{name}.new"));
    fs::write(&new, bytes)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
    fs::rename(&new, path)
}

/// All files at any depth below a directory.
fn files_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => files.extend(files_below(&entry.path())?),
            false => files.push(entry.path()),
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::plan;

    #[test]
    fn a_volume_holds_exactly_what_was_written_last() {
        let directory = tempfile::tempdir().unwrap();
        let files = PodFiles { directory: directory.path().to_owned() };
        let write = |list: &[(&str, &str)]| {
            fs::create_dir_all(files.volume("v")).unwrap();
            let list = list.iter().map(|(path, text)| (Path::new(*path), text.as_bytes(), 0o640));
            files.write_volume("v", list).unwrap();
        };
        write(&[("a", "1"), ("deep/b", "2")]);
        write(&[("a", "3")]);
        assert_eq!(files_below(&files.volume("v")).unwrap(), [files.volume("v").join("a")]);
        let metadata = fs::metadata(files.volume("v").join("a")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_to_string(files.volume("v").join("a")).unwrap(), "3");
    }

    #[test]
    fn a_pods_hosts_file_knows_its_own_name() {
        let hosts_of = |spec: serde_json::Value| {
            let pod = json!({"metadata": {"name": "db-0", "namespace": "shop", "uid": "u"}, "spec": spec});
            hosts(&plan::plan(&pod).unwrap(), &[IpAddr::from([10, 244, 0, 20])])
        };
        let containers = json!([{"name": "app", "image": "gamut.mesh/echo"}]);
        let text = hosts_of(json!({"containers": containers}));
        assert!(text.ends_with("10.244.0.20\tdb-0\n"), "{text}");
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
        let text = hosts_of(json!({"containers": containers, "hostname": "db-0", "subdomain": "db"}));
        assert!(text.ends_with("10.244.0.20\tdb-0.db.shop.svc.cluster.local\tdb-0\n"), "{text}");
    }
}
