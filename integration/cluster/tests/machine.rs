//! The test cluster itself: what its parts write without being asked is in its state directory, and goes with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::harness::Cluster;

#[test]
fn nothing_that_the_clusters_parts_write_is_on_the_machine() {
    let Some(cluster) = Cluster::take_empty() else { return };
    let written = cluster.state().join("written");
    let began = fs::metadata(cluster.state().join("init.pid")).unwrap().modified().unwrap();
    let mut seen = Vec::new();
    for directory in ["/opt", "/usr/libexec", "/var/lib", "/var/log"] {
        let layer = written.join(&directory[1..]).join("upper");
        for file in files(&layer) {
            let path = Path::new(directory).join(file.strip_prefix(&layer).unwrap());
            // Something of that name may be there from before.
            let there = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified());
            assert!(there.is_err() || there.unwrap() < began, "{} is on the machine, too", path.display());
            seen.push(path.display().to_string());
        }
    }
    // Without these, this would be a test of nothing.
    for known in ["/var/lib/cni/results/bridge-", "/var/log/pods/kube-system_coredns"] {
        assert!(seen.iter().any(|path| path.starts_with(known)), "{known} of {seen:#?}");
    }
}

/// Everything below a directory that isn't one.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() && !path.is_symlink() { files(&path) } else { vec![path] })
        .collect()
}
