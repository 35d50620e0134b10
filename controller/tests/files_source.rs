//! Objects from real files, and writes as real files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use gamut_controller::source::{Source, SourceEvent, Write, WriteTo};
use gamut_manifest::ObjectId;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

fn namespace(name: &str, note: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, annotations: {{note: \"{note}\"}}}}\n"
    )
}

/// Events as a reader tells them.
fn told(events: &[SourceEvent]) -> Vec<String> {
    let tell = |event: &SourceEvent| match event {
        SourceEvent::Applied(object) => format!("applied {}", object.id()),
        SourceEvent::Deleted(id) => format!("deleted {id}"),
        SourceEvent::Synced => "synced".to_owned(),
        SourceEvent::Leads(_) => panic!("files have one reader"),
    };
    events.iter().map(tell).collect()
}

async fn next(source: &mut Source) -> Vec<String> {
    let batch = timeout(Duration::from_secs(10), source.next()).await.expect("a batch in time");
    told(&batch.expect("the source goes on"))
}

fn source(path: &Path) -> Source {
    Source::files(&[path.to_path_buf()], WriteTo::default()).unwrap()
}

#[tokio::test]
async fn a_change_is_told_once_and_synced_comes_once() {
    let directory = TempDir::new().unwrap();
    let file = |name: &str| directory.path().join(name);
    fs::write(file("a.yaml"), namespace("a", "1")).unwrap();
    fs::write(file("b.yaml"), namespace("b", "1")).unwrap();
    let mut source = source(directory.path());
    assert_eq!(next(&mut source).await, ["applied Namespace a", "applied Namespace b", "synced"]);

    fs::write(file("b.yaml"), namespace("b", "2")).unwrap();
    assert_eq!(next(&mut source).await, ["applied Namespace b"]);

    // An object that moves to another file is the same object; what is gone comes last.
    fs::write(file(".c.yaml"), format!("{}---\n{}", namespace("b", "2"), namespace("c", "1"))).unwrap();
    fs::remove_file(file("b.yaml")).unwrap();
    fs::remove_file(file("a.yaml")).unwrap();
    fs::rename(file(".c.yaml"), file("c.yaml")).unwrap();
    let mut seen = Vec::new();
    while !seen.contains(&"applied Namespace c".to_owned()) {
        seen.extend(next(&mut source).await);
    }
    assert_eq!(seen.iter().filter(|event| *event == "deleted Namespace a").count(), 1);
    assert!(!seen.contains(&"synced".to_owned()));
}

#[tokio::test]
async fn an_empty_directory_is_synced_too() {
    let directory = TempDir::new().unwrap();
    assert_eq!(next(&mut source(directory.path())).await, ["synced"]);
}

#[tokio::test]
async fn what_cannot_be_read_is_a_problem_and_not_a_deletion() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("a.yaml");
    fs::write(&file, namespace("a", "1")).unwrap();
    let mut source = source(directory.path());
    next(&mut source).await;
    assert!(source.problems().is_empty());

    fs::write(&file, "apiVersion: [").unwrap();
    fs::write(directory.path().join("b.yaml"), namespace("b", "1")).unwrap();
    assert_eq!(next(&mut source).await, ["applied Namespace b"]);
    assert!(
        source
            .problems()
            .iter()
            .any(|problem| problem.contains("a.yaml:1:") && problem.contains("not valid YAML")),
        "{:?}",
        source.problems()
    );
}

#[tokio::test]
async fn statuses_are_files_beside_the_objects_and_go_with_them() {
    let directory = TempDir::new().unwrap();
    let statuses = directory.path().join("status");
    let source = Source::files(
        &[directory.path().to_path_buf()],
        WriteTo { statuses: Some(statuses.clone()), objects: None },
    )
    .unwrap();
    let writer = source.writer();
    let id =
        ObjectId { kind: "HTTPRoute".to_owned(), namespace: Some("shop".to_owned()), name: "web".to_owned() };
    let status = json!({"parents": []});
    writer.write(&Write::Status { id: id.clone(), status: Some(status.clone()), said: None }).await.unwrap();
    let path = statuses.join("HTTPRoute/shop.web.json");
    assert_eq!(serde_json::from_str::<Value>(&fs::read_to_string(&path).unwrap()).unwrap(), status);

    for _ in 0..2 {
        writer.write(&Write::Status { id: id.clone(), status: None, said: None }).await.unwrap();
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn an_object_is_created_once_readable_by_its_owner_and_read_back() {
    let directory = TempDir::new().unwrap();
    let objects = directory.path().join("cluster");
    let mut source = Source::files(
        std::slice::from_ref(&objects),
        WriteTo { statuses: None, objects: Some(objects.clone()) },
    )
    .unwrap();
    assert_eq!(next(&mut source).await, ["synced"], "the directory is made");

    let secret = |value: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "gamut-system"}, "data": {"a": value}});
    source.writer().write(&Write::Create(secret("MQ=="))).await.unwrap();
    source.writer().write(&Write::Create(secret("Mg=="))).await.unwrap();
    let path = objects.join("Secret/gamut-system.keys.json");
    let content: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(content["data"]["a"], "MQ==", "the second one comes too late");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(next(&mut source).await, ["applied Secret gamut-system/keys"]);
    let names: Vec<_> =
        fs::read_dir(objects.join("Secret")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["gamut-system.keys.json"], "nothing is left beside it");
}

#[tokio::test]
async fn without_a_place_to_write_to_writes_are_left_out() {
    let directory = TempDir::new().unwrap();
    let writer = source(directory.path()).writer();
    writer.write(&Write::Create(json!({"kind": "Secret", "metadata": {"name": "a"}}))).await.unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_place_that_cannot_be_written_to_is_named() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let source = Source::files(
        &[directory.path().to_path_buf()],
        WriteTo { statuses: Some(file.clone()), objects: None },
    )
    .unwrap();
    let id =
        ObjectId { kind: "HTTPRoute".to_owned(), namespace: Some("shop".to_owned()), name: "web".to_owned() };
    let error = source
        .writer()
        .write(&Write::Status { id, status: Some(json!({})), said: None })
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!(
            "HTTPRoute shop/web can't be written to {}/HTTPRoute/shop.web.json: ",
            file.display()
        )),
        "{error}"
    );
}
