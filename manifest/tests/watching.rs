//! Readings that follow real files through real events.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, io::Write as _, path::Path, time::Duration};

use gamut_manifest::{Reading, Watch, watch};
use tempfile::TempDir;
use tokio::time::timeout;

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

fn names(reading: &Reading) -> Vec<String> {
    reading.objects.iter().map(|object| object.name.clone()).collect()
}

/// The first reading that satisfies; how many events a change comes in is the system's business.
async fn until(watch: &mut Watch, wanted: impl Fn(&Reading) -> bool) -> Reading {
    let looking = async {
        loop {
            let reading = watch.next().await.expect("the watch goes on");
            if wanted(&reading) {
                return reading;
            }
        }
    };
    timeout(Duration::from_secs(10), looking).await.expect("the change is seen")
}

async fn holds(watch: &mut Watch, expected: &[&str]) {
    until(watch, |reading| names(reading) == expected && reading.errors.is_empty()).await;
}

fn watched(path: &Path) -> Watch {
    watch(&[path.to_path_buf()]).unwrap()
}

#[tokio::test]
async fn files_written_replaced_and_removed_are_followed() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("a.yaml"), namespace("a")).unwrap();
    let mut watch = watched(directory.path());
    holds(&mut watch, &["a"]).await;

    fs::write(path("b.yaml"), namespace("b")).unwrap();
    holds(&mut watch, &["a", "b"]).await;

    // As editors save: written beside, then put in its place.
    fs::write(path(".a.yaml.swp"), namespace("a2")).unwrap();
    fs::rename(path(".a.yaml.swp"), path("a.yaml")).unwrap();
    holds(&mut watch, &["a2", "b"]).await;

    fs::remove_file(path("a.yaml")).unwrap();
    holds(&mut watch, &["b"]).await;
}

#[tokio::test]
async fn half_a_file_is_not_read_while_it_is_being_written() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("all.yaml");
    fs::write(&path, format!("{}---\n{}", namespace("a"), namespace("b"))).unwrap();
    let mut watch = watched(directory.path());
    holds(&mut watch, &["a", "b"]).await;

    // As a shell's `> all.yaml` does: emptied, then written bit by bit, good YAML all the time.
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(namespace("a").as_bytes()).unwrap();
    let half = timeout(Duration::from_millis(300), watch.next()).await;
    assert!(half.is_err(), "{half:?}");

    file.write_all(format!("---\n{}---\n{}", namespace("b"), namespace("c")).as_bytes()).unwrap();
    drop(file);
    let whole = watch.next().await.unwrap();
    assert_eq!(names(&whole), ["a", "b", "c"]);
}

#[tokio::test]
async fn directories_that_appear_later_are_followed_too() {
    let directory = TempDir::new().unwrap();
    let mut watch = watched(directory.path());
    holds(&mut watch, &[]).await;

    let inner = directory.path().join("Namespace");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("a.yaml"), namespace("a")).unwrap();
    holds(&mut watch, &["a"]).await;

    fs::write(inner.join("a.yaml"), namespace("b")).unwrap();
    holds(&mut watch, &["b"]).await;
}

#[tokio::test]
async fn a_file_named_by_itself_survives_being_replaced() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mesh.yaml");
    fs::write(&path, namespace("a")).unwrap();
    let mut watch = watched(&path);
    holds(&mut watch, &["a"]).await;

    for round in ["b", "c"] {
        fs::write(directory.path().join("new"), namespace(round)).unwrap();
        fs::rename(directory.path().join("new"), &path).unwrap();
        holds(&mut watch, &[round]).await;
    }
}

#[tokio::test]
async fn a_save_that_breaks_a_file_takes_nothing_away() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mesh.yaml");
    fs::write(&path, namespace("a")).unwrap();
    let mut watch = watched(directory.path());
    holds(&mut watch, &["a"]).await;

    fs::write(&path, "apiVersion: [").unwrap();
    let broken = until(&mut watch, |reading| !reading.errors.is_empty()).await;
    assert_eq!(names(&broken), ["a"]);

    fs::write(&path, namespace("b")).unwrap();
    holds(&mut watch, &["b"]).await;
}

#[tokio::test]
async fn a_save_without_a_difference_is_no_reading() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mesh.yaml");
    fs::write(&path, namespace("a")).unwrap();
    let mut watch = watched(directory.path());
    holds(&mut watch, &["a"]).await;

    fs::write(&path, namespace("a")).unwrap();
    fs::write(directory.path().join("notes.txt"), "x").unwrap();
    fs::write(directory.path().join("other.yaml"), namespace("b")).unwrap();
    // The next reading is the one that differs.
    let next = timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap();
    assert_eq!(names(&next), ["a", "b"]);
}

#[test]
fn a_path_that_is_not_there_cannot_be_watched() {
    let error = watch(&["/nowhere/at/all".into()]).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/at/all: can't be watched for changes: "), "{error}");
}
