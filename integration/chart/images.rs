//! The images that the chart names: those that `integration/cluster/images` writes without a container engine, and those that the
//! `Dockerfile` would make with one, which nobody does here, hold the same files, for the same user.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::{objects, template};

/// What is in an image, and how it is run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Image {
    user: String,
    entrypoint: String,
    /// By path: of what executable, or file, that is made beside them.
    files: BTreeMap<String, String>,
}

/// A file of the repository.
fn repository(path: &str) -> String {
    fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).expect(path)
}

/// Commands of a shell or a Dockerfile, each on one line.
fn commands(text: &str) -> Vec<String> {
    text.replace("\\\n", " ").lines().map(str::to_owned).collect()
}

/// The last stages of the Dockerfile, by their names.
fn of_the_dockerfile() -> BTreeMap<String, Image> {
    let mut images: BTreeMap<String, Image> = BTreeMap::new();
    let mut stage = String::new();
    for line in commands(&repository("Dockerfile")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["FROM", "scratch", "AS", name] => {
                stage = (*name).to_owned();
                images.insert(stage.clone(), Image::default());
            }
            [first, rest @ ..] => {
                let Some(image) = images.get_mut(&stage) else { continue };
                match (*first, rest) {
                    ("COPY", ["--from=build", sources @ .., to]) => {
                        for source in sources.iter().map(|source| source.trim_start_matches('/')) {
                            let path =
                                if to.ends_with('/') { format!("{to}{source}") } else { (*to).to_owned() };
                            image.files.insert(path, source.to_owned());
                        }
                    }
                    ("USER", [user]) => image.user = (*user).to_owned(),
                    ("ENTRYPOINT", [list]) => {
                        image.entrypoint = list.trim_matches(['[', ']', '"']).to_owned()
                    }
                    ("ENV", [path]) => assert_eq!(*path, "PATH=/usr/local/bin", "{stage}"),
                    ("#", _) => {}
                    _ => panic!("what does this to image {stage}? {line}"),
                }
            }
            [] => {}
        }
    }
    images
}

/// What the script writes, by name.
fn of_the_script() -> BTreeMap<String, Image> {
    let script = repository("integration/cluster/images");
    let lines = commands(&script)
        .into_iter()
        .filter(|line| line.starts_with("image gamut.mesh/") || line.starts_with("image \"gamut.mesh/"));
    let images = lines.map(|line| {
        let mut words = line.split_whitespace().map(|word| word.trim_matches('"')).skip(1);
        let name =
            words.next().and_then(|name| name.strip_prefix("gamut.mesh/")?.split_once(':')).expect("a name");
        let mut image = Image::default();
        // The archive that is written.
        words.next();
        while let Some(word) = words.next() {
            match word {
                "--user" => image.user = words.next().expect("a user").to_owned(),
                "--entrypoint" => image.entrypoint = words.next().expect("an entrypoint").to_owned(),
                // Another name in a registry.
                "--also" => drop(words.next()),
                "--link" => {
                    let (path, to) = words.next().and_then(|link| link.split_once(':')).expect("a link");
                    image.files.insert(path.to_owned(), to.to_owned());
                }
                file => {
                    let mut parts = file.split(':');
                    let (Some(source), Some(path)) = (parts.next(), parts.next()) else { panic!("{file}") };
                    image.files.insert(path.to_owned(), source.trim_start_matches("$images/").to_owned());
                }
            }
        }
        (name.0.to_owned(), image)
    });
    images.collect()
}

#[test]
fn with_and_without_an_engine_the_images_are_the_same() {
    let (with, without) = (of_the_dockerfile(), of_the_script());
    assert_eq!(with, without);
    assert_eq!(with.keys().collect::<Vec<_>>(), ["echo", "gamut", "gamut-proxy"]);
    for (name, image) in &with {
        let path = format!("/usr/local/bin/{}", image.entrypoint);
        assert!(image.files.contains_key(&path), "{name} has no {path}");
    }

    // And so is what makes them.
    let (dockerfile, script) = (repository("Dockerfile"), repository("integration/cluster/images"));
    for made in [
        ". .ci/static",
        "cargo build --locked --profile image -p gamut --bins",
        "for name in gamut gamut-proxy gamut-echo; do",
        "strip --strip-all -o",
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=echo",
    ] {
        assert!(dockerfile.contains(made) && script.contains(made), "{made}");
    }
    assert!(repository(".ci/static").contains(r#""${profile:-}" = image"#));
    assert!(repository("Cargo.toml").contains("\n[profile.image]\n"));
    let bins = repository("cli/Cargo.toml");
    for image in with.values() {
        for made in image.files.values().filter(|made| !made.starts_with("cert.")) {
            assert!(
                bins.contains(&format!("[[bin]]\nname = \"{made}\"\n")),
                "no executable is called {made}"
            );
        }
    }
    // Neither is sent what it would build from scratch, nor kept from what it needs.
    assert_eq!(repository(".dockerignore"), "/target\n/.git\n");
}

#[test]
fn the_chart_runs_images_of_this_version_as_their_own_user_on_a_root_that_nobody_writes_to() {
    let images = of_the_dockerfile();
    let version = env!("CARGO_PKG_VERSION");
    for name in ["gamut", "gamut-proxy"] {
        assert!(repository("Dockerfile").contains(&format!("-t gamut.mesh/{name}:{version} ")), "{name}");
    }
    assert_eq!(images["gamut-proxy"].user, gamut_injector::PROXY_UID.to_string());

    let Some(rendered) = template(&[]) else { return };
    let mut seen = 0;
    for object in objects(&rendered.unwrap()) {
        let Some(pod) = object.pointer("/spec/template/spec") else { continue };
        for container in pod["containers"].as_array().unwrap() {
            let wanted = format!("gamut.mesh/gamut:{version}");
            assert_eq!(container["image"], Value::from(wanted));
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
            assert_eq!(pod["securityContext"]["runAsUser"].to_string(), images["gamut"].user);
            // The entrypoint is the image's: what follows are its arguments.
            assert_eq!(container.get("command"), None);
            seen += 1;
        }
    }
    // Three components, and the Job after an uninstallation.
    assert_eq!(seen, 4);
}
