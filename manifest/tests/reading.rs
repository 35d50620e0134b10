//! What is read from files, and what is said about files that aren't as they should be.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::PathBuf, process::Command};

use gamut_manifest::{Object, Reader, Severity, load};
use tempfile::TempDir;

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn names(objects: &[Object]) -> Vec<String> {
    objects.iter().map(|object| object.id().to_string()).collect()
}

/// What is said, with paths as seen from the directory.
fn said(directory: &TempDir) -> Vec<String> {
    let (_, errors) = load(&[directory.path().to_path_buf()]);
    let prefix = format!("{}/", directory.path().display());
    errors.iter().map(|error| error.to_string().replace(&prefix, "")).collect()
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n";

#[test]
fn directories_are_read_whole_and_in_order_of_their_names() {
    let directory = directory(&[
        ("b.yml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n"),
        (
            "a/one.yaml",
            "# first\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: one}\n---\n\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: two}\n",
        ),
        ("c.json", r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c"}}"#),
        ("notes.txt", "not a manifest"),
        (".hidden/x.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: hidden}\n"),
    ]);
    let (objects, errors) = load(&[directory.path().to_path_buf()]);
    assert_eq!(names(&objects), ["Namespace one", "Namespace two", "Namespace b", "Namespace c"]);
    assert_eq!(errors, []);
    let places: Vec<String> = objects.iter().map(|object| object.origin.to_string()).collect();
    assert!(places[0].ends_with("a/one.yaml:3") && places[1].ends_with("a/one.yaml:9"), "{places:?}");
}

#[test]
fn a_file_that_is_named_is_read_whatever_its_name() {
    let directory = directory(&[("manifest", SERVICE)]);
    let (objects, errors) = load(&[directory.path().join("manifest")]);
    assert_eq!((names(&objects), errors), (vec!["Service shop/web".to_owned()], Vec::new()));
}

#[test]
fn lists_are_unfolded() {
    let directory = directory(&[(
        "list.yaml",
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n- {apiVersion: v1, kind: NamespaceList, items: [{apiVersion: v1, kind: Namespace, metadata: {name: b}}]}\n",
    )]);
    let (objects, errors) = load(&[directory.path().to_path_buf()]);
    assert_eq!(
        (names(&objects), errors),
        (vec!["Namespace a".to_owned(), "Namespace b".to_owned()], Vec::new())
    );
}

#[test]
fn what_metadata_lack_is_filled_in() {
    let directory = directory(&[(
        "web.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, namespace: shop}\n",
    )]);
    let (objects, errors) = load(&[directory.path().to_path_buf()]);
    assert_eq!(errors, []);
    assert_eq!(names(&objects), ["Service default/web", "Namespace shop"]);
    let web = &objects[0];
    assert_eq!(web.raw["metadata"]["namespace"], "default");
    assert_eq!(web.raw["metadata"]["uid"], web.uid.as_str());
    assert_eq!(web.raw["metadata"]["generation"], 1);
    assert_eq!(web.raw["metadata"]["creationTimestamp"], web.created.to_string());
    // Derived from kind, namespace and name: the same today and tomorrow, here and there.
    assert_eq!(web.uid, "d1e606e7-e805-8d0b-9406-b08e1e7e9596");
    assert_eq!(objects[1].raw["metadata"].get("namespace"), None);
}

#[test]
fn what_metadata_have_is_kept() {
    let directory = directory(&[(
        "web.yaml",
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  uid: u-1\n  generation: 7\n  creationTimestamp: \"2026-01-31T12:00:00Z\"\n  labels: {app: web}\n  annotations: {note: \"1\"}\n",
    )]);
    let (objects, _) = load(&[directory.path().to_path_buf()]);
    let web = &objects[0];
    assert_eq!((web.uid.as_str(), web.generation), ("u-1", 7));
    assert_eq!(web.created.to_string(), "2026-01-31T12:00:00Z");
    assert_eq!(web.labels["app"], "web");
    assert_eq!(web.annotations["note"], "1");
}

#[test]
fn yaml_is_read_as_kubectl_reads_it() {
    let directory = directory(&[(
        "pod.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: yes, mode: 0644, text: \"0644\", port: 80}\n",
    )]);
    let (objects, _) = load(&[directory.path().to_path_buf()]);
    let spec = &objects[0].raw["spec"];
    assert_eq!(spec.to_string(), r#"{"hostNetwork":true,"mode":420,"text":"0644","port":80}"#);
}

#[test]
fn each_mistake_is_one_line_with_its_place_and_costs_only_its_own_document() {
    for (name, text, expected) in [
        (
            "a tab",
            "apiVersion: v1\nkind: Service\nmetadata:\n\tname: web\n",
            "x.yaml:4:2: not valid YAML: tabs disallowed within this context (block indentation)",
        ),
        (
            "a list",
            "- a\n",
            "x.yaml:1: is not a Kubernetes object: expected a mapping with apiVersion, kind and metadata, found a list",
        ),
        ("no kind", "apiVersion: v1\n", "x.yaml:1: kind is missing; every Kubernetes object needs it"),
        (
            "no version",
            "kind: Service\n",
            "x.yaml:1: apiVersion is missing; every Kubernetes object needs it",
        ),
        (
            "no name",
            "apiVersion: v1\nkind: Service\n",
            "x.yaml:1: a Service without metadata.name; give it a name",
        ),
        (
            "a name that can't be one",
            "apiVersion: v1\nkind: Service\nmetadata: {name: ../Web}\n",
            "x.yaml:1: Service default/../Web: metadata.name \"../Web\" is not a valid name; use lower-case letters, digits and '-' or '.', at most 253 characters",
        ),
        (
            "a namespace that can't be one",
            "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: a.b}\n",
            "x.yaml:1: Service a.b/web: metadata.namespace \"a.b\" is not a valid name; use lower-case letters, digits and '-', at most 63 characters",
        ),
        (
            "a number for a label",
            "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {tier: 1}}\n",
            "x.yaml:1: Service default/web: metadata.labels[\"tier\"] must be a string (put it in quotes), found the number 1",
        ),
        (
            "a time that isn't one",
            "apiVersion: v1\nkind: Service\nmetadata: {name: web, creationTimestamp: soon}\n",
            "x.yaml:1: Service default/web: metadata.creationTimestamp must be a time like 2026-01-31T12:00:00Z, found \"soon\"",
        ),
        (
            "a kind in the plural",
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HttpRoutes\nmetadata: {name: web}\n",
            "x.yaml:1: kind HttpRoutes of gateway.networking.k8s.io/v1 is not known to Gamut; it is left out (did you mean HTTPRoute?)",
        ),
        (
            "a kind of another group",
            "apiVersion: networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web}\n",
            "x.yaml:1: kind HTTPRoute of networking.k8s.io/v1 is not known to Gamut; it is left out (did you mean HTTPRoute of group gateway.networking.k8s.io?)",
        ),
        (
            "a version that there isn't",
            "apiVersion: gateway.networking.k8s.io/v2\nkind: HTTPRoute\nmetadata: {name: web}\n",
            "x.yaml:1: gateway.networking.k8s.io/v2 has no kind HTTPRoute; write apiVersion: gateway.networking.k8s.io/v1",
        ),
        (
            "another's kind",
            "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: web}\n",
            "x.yaml:1: kind Widget of example.com/v1 is not known to Gamut; it is left out",
        ),
        (
            "a key twice",
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {}\nspec: {}\n",
            "x.yaml:5:1: not valid YAML: duplicate mapping key: spec not allowed here",
        ),
    ] {
        let good = "\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: good}\n";
        let directory = directory(&[("x.yaml", &format!("{text}{good}"))]);
        assert_eq!(said(&directory), [expected], "{name}");
        let (objects, _) = load(&[directory.path().to_path_buf()]);
        assert_eq!(names(&objects), ["Namespace good"], "{name}");
    }
}

#[test]
fn lines_are_those_of_the_file_and_not_of_the_document() {
    let directory =
        directory(&[("x.yaml", &format!("{SERVICE}---\n# a comment\napiVersion: v1\nkind: [\n---\n"))]);
    assert!(
        said(&directory)[0].starts_with("x.yaml:7:") || said(&directory)[0].starts_with("x.yaml:8:"),
        "{:?}",
        said(&directory)
    );
}

#[test]
fn a_carriage_return_alone_ends_a_line_as_yaml_has_it() {
    let cut = SERVICE.replace('\n', "\r");
    let directory = directory(&[("x.yaml", &format!("{cut}---\rkind: [\r\r\n"))]);
    assert_eq!(names(&load(&[directory.path().to_path_buf()]).0), ["Service shop/web"]);
    let lines = SERVICE.lines().count() as u64;
    let (_, errors) = load(&[directory.path().to_path_buf()]);
    let (line, _) = errors[0].at.unwrap();
    assert!((lines + 2..=lines + 4).contains(&line), "{}", errors[0]);
}

#[test]
fn broken_json_says_where() {
    let directory = directory(&[("x.json", "{\n  \"kind\": \n}")]);
    assert_eq!(said(&directory), ["x.json:3:1: not valid JSON: expected value"]);
}

#[test]
fn an_object_defined_twice_names_both_places_and_the_first_is_used() {
    let directory = directory(&[
        ("a.yaml", &format!("{SERVICE}spec: {{selector: {{app: a}}}}\n")),
        ("b.yaml", &format!("\n\n{SERVICE}spec: {{selector: {{app: b}}}}\n")),
    ]);
    let prefix = directory.path().display();
    let (objects, errors) = load(&[directory.path().to_path_buf()]);
    assert_eq!(objects[0].raw["spec"]["selector"]["app"], "a");
    assert_eq!(
        errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [format!(
            "{prefix}/b.yaml:3: Service shop/web: is defined twice; it is already in {prefix}/a.yaml:1, which is used; remove or rename one of the two"
        )]
    );
}

#[test]
fn a_path_that_is_not_there_is_an_error() {
    let (objects, errors) = load(&[PathBuf::from("/nowhere/at/all")]);
    assert_eq!(objects, []);
    assert_eq!(
        errors[0].to_string(),
        "/nowhere/at/all: can't be read: No such file or directory (os error 2); check the path and its permissions"
    );
}

#[test]
fn a_generation_counts_contents_and_not_readings() {
    let directory = directory(&[("web.yaml", &format!("{SERVICE}spec: {{selector: {{app: a}}}}\n"))]);
    let mut reader = Reader::new(&[directory.path().to_path_buf()]);
    let first = reader.read().objects.remove(0);
    assert_eq!(first.generation, 1);
    let same = reader.read().objects.remove(0);
    assert_eq!(same, first, "created and generation stay");

    let labelled = SERVICE.replace("namespace: shop", "namespace: shop, labels: {a: b}");
    fs::write(directory.path().join("web.yaml"), format!("{labelled}spec: {{selector: {{app: a}}}}\n"))
        .unwrap();
    assert_eq!(reader.read().objects[0].generation, 1, "metadata aren't content");

    fs::write(directory.path().join("web.yaml"), format!("{SERVICE}spec: {{selector: {{app: b}}}}\n"))
        .unwrap();
    let changed = reader.read().objects.remove(0);
    assert_eq!((changed.generation, changed.created), (2, first.created));
}

#[test]
fn a_file_that_breaks_keeps_what_it_held_and_says_so() {
    let two = format!("{SERVICE}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n");
    let directory = directory(&[("web.yaml", &two)]);
    let mut reader = Reader::new(&[directory.path().to_path_buf()]);
    assert_eq!(names(&reader.read().objects), ["Service shop/web", "Namespace shop"]);

    fs::write(
        directory.path().join("web.yaml"),
        two.replace("metadata: {name: shop}", "metadata: {name: shop"),
    )
    .unwrap();
    let broken = reader.read();
    assert_eq!(names(&broken.objects), ["Service shop/web", "Namespace shop"]);
    let severities: Vec<Severity> =
        broken.errors.iter().map(gamut_manifest::ManifestError::severity).collect();
    assert_eq!(severities, [Severity::Error, Severity::Warning]);
    assert!(
        broken.errors[1].to_string().ends_with(
            "Namespace shop: keeps its last good version until the errors in this file are mended"
        )
    );

    fs::write(directory.path().join("web.yaml"), SERVICE).unwrap();
    let mended = reader.read();
    assert_eq!((names(&mended.objects), mended.errors), (vec!["Service shop/web".to_owned()], Vec::new()));
}

#[test]
fn a_directory_that_is_away_for_a_moment_takes_nothing_away() {
    let directory = directory(&[("web.yaml", SERVICE)]);
    let (here, away) = (directory.path().join("all"), directory.path().join("away"));
    fs::create_dir(&here).unwrap();
    fs::rename(directory.path().join("web.yaml"), here.join("web.yaml")).unwrap();
    let mut reader = Reader::new(std::slice::from_ref(&here));
    reader.read();

    fs::rename(&here, &away).unwrap();
    let meanwhile = reader.read();
    assert_eq!(names(&meanwhile.objects), ["Service shop/web"]);
    assert!(
        meanwhile.errors.iter().any(|error| error.severity() == Severity::Error),
        "{:?}",
        meanwhile.errors
    );
    assert_eq!(names(&reader.read().objects), ["Service shop/web"], "however often it is looked at");

    fs::rename(&away, &here).unwrap();
    assert_eq!(reader.read().errors, []);
    fs::remove_file(here.join("web.yaml")).unwrap();
    assert_eq!(reader.read().objects, [], "a file that is removed from its directory is meant to go");
}

#[test]
fn what_has_no_end_is_named_and_not_read() {
    let directory = directory(&[("web.yaml", SERVICE)]);
    let made = Command::new("mkfifo").arg(directory.path().join("pipe.yaml")).status().unwrap();
    assert!(made.success());
    std::os::unix::fs::symlink("/dev/zero", directory.path().join("zero.yaml")).unwrap();
    fs::File::create(directory.path().join("sparse.yaml")).unwrap().set_len(1 << 40).unwrap();
    let (objects, errors) = load(&[directory.path().to_path_buf()]);
    assert_eq!(names(&objects), ["Service shop/web"]);
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let expected = [
        ("pipe.yaml", "it is no regular file"),
        ("sparse.yaml", "it has 1099511627776 bytes, and at most 67108864 are read"),
        ("zero.yaml", "it is no regular file"),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, (file, problem)) in lines.iter().zip(expected) {
        assert!(line.contains(file) && line.contains(problem), "{line}");
    }
}
