//! The README's walk-through, followed word by word: every command of its `console` blocks runs, and what it prints must
//! have the shape of what the README shows. Numbers, ages and the random parts of names may differ, words may not.

use std::{fs, path::Path, process::Command};

use crate::harness::{Mesh, gamut};

/// A command of the README and what it shows of its output.
#[derive(Debug)]
struct Step {
    command: String,
    output: Vec<String>,
}

#[test]
fn the_readmes_walk_through_is_true() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = fs::read_to_string(repository.join("README.md")).unwrap();
    // What the README does on a cluster is held true there (integration/cluster/tests/install.rs).
    let walk_through = readme.split("\n## ").find(|section| section.starts_with("A canary in five minutes"));
    let steps = steps(walk_through.expect("the README has a walk-through"));
    assert!(steps.len() >= 8, "the walk-through has lost its steps: {steps:#?}");

    let (first, rest) = steps.split_first().unwrap();
    assert_eq!(first.command, "cargo run --release -p gamut -- up -f examples/canary");
    let mut mesh = Mesh::example("canary");
    mesh.output.until("the end of the hints", |line| line.starts_with("save a manifest"));
    let said = mesh.output.all().join("\n");
    assert_prints(first, &of_reader(&mesh, &said));

    for step in rest {
        let printed = run(&mesh, &step.command);
        assert_prints(step, &of_reader(&mesh, &printed));
    }
    // What `gamut up` said meanwhile in its own terminal.
    let said = mesh.output.arrived();
    for line in ["reloaded: changed HTTPRoute shop/web", "in effect everywhere"] {
        assert!(said.iter().any(|(_, said)| said.contains(line)), "{line} in {said:#?}");
    }
}

fn assert_prints(step: &Step, printed: &str) {
    let expected: Vec<String> = step.output.iter().map(|line| normal(line)).collect();
    let found: Vec<String> = printed.lines().map(normal).collect();
    let shown = step.output.join("\n");
    assert!(contains(&found, &expected), "$ {}\nprints:\n{printed}\nthe README says:\n{shown}", step.command);
}

/// Output as a reader's own instance would print it: of the default name, from the example's directory.
fn of_reader(mesh: &Mesh, printed: &str) -> String {
    let printed = printed.replace(&format!(" --name {}", mesh.name), "").replace(&mesh.name, "default");
    printed.replace(&mesh.directory().display().to_string(), "examples/canary")
}

/// The `console` blocks: lines with `$` are commands (`\` at the end goes on), what stands below is output.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut inside, mut goes_on) = (false, false);
    for line in readme.lines() {
        match (line, inside) {
            ("```console", false) => inside = true,
            ("```", true) => inside = false,
            (line, true) => match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => {
                    goes_on = command.ends_with('\\');
                    steps.push(Step {
                        command: command.trim_end_matches('\\').to_owned(),
                        output: Vec::new(),
                    });
                }
                (None, Some(step)) if goes_on => {
                    goes_on = line.ends_with('\\');
                    step.command += line.trim_end_matches('\\').trim_start();
                }
                (None, Some(step)) => step.output.push(line.to_owned()),
                (None, None) => panic!("output before any command: {line}"),
            },
            _ => {}
        }
    }
    steps
}

/// Runs a command as a reader's second terminal would, on the test's instance and its copy of the example.
fn run(mesh: &Mesh, command: &str) -> String {
    let bin = gamut().parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    let command = command.replace("examples/canary", &mesh.directory().display().to_string());
    let output = Command::new("bash")
        .args(["-c", &format!("{command} 2>&1")])
        .env("PATH", path)
        .env("GAMUT_INSTANCE", &mesh.name)
        .output()
        .unwrap();
    if command.starts_with("sed ") {
        mesh.settle();
    }
    String::from_utf8(output.stdout).unwrap()
}

/// A line without what differs from run to run: every number is `N` (a version too: whom the split chooses is chance),
/// every pod's random ending `*`, ages have one unit, columns are one space apart.
fn normal(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let pod = ["client-", "web-v1-", "web-v2-"].into_iter().find_map(|workload| {
            let (before, _) = word.split_once(workload)?;
            Some(format!("{before}{workload}*"))
        });
        numberless(&pod.unwrap_or_else(|| word.to_owned()))
    });
    let line = words.collect::<Vec<_>>().join(" ");
    ["NdNh", "NhNm", "NmNs", "Nms", "Nd", "Nh", "Nm"].iter().fold(line, |line, age| line.replace(age, "Ns"))
}

fn numberless(word: &str) -> String {
    let mut out = String::new();
    for c in word.chars() {
        match c {
            '0'..='9' | '.' if out.ends_with('N') => {}
            '0'..='9' => out.push('N'),
            c => out.push(c),
        }
    }
    out
}

/// Whether the lines stand there one below the other, where `...` stands for any others.
fn contains(found: &[String], expected: &[String]) -> bool {
    let mut found = found.iter();
    let mut skip = false;
    for line in expected {
        if line == "..." {
            skip = true;
            continue;
        }
        let is_there = if skip { found.any(|found| found == line) } else { found.next() == Some(line) };
        if !is_there {
            return false;
        }
        skip = false;
    }
    skip || found.next().is_none()
}

#[test]
fn links_between_documents_and_into_the_code_lead_somewhere() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut folders, mut documents) = (vec![repository.join("docs")], Vec::new());
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        documents.push(repository.join(name));
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let list = if entry.is_dir() { &mut folders } else { &mut documents };
            list.push(entry);
        }
    }
    for document in documents.iter().filter(|path| path.extension().is_some_and(|kind| kind == "md")) {
        let text = fs::read_to_string(document).unwrap();
        let targets =
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let path = target.split('#').next().unwrap();
            let exists = document.parent().unwrap().join(path).exists();
            assert!(exists, "{} links to {target}, which isn't there", document.display());
        }
    }
}

#[test]
fn shapes_are_compared_and_not_numbers() {
    assert_eq!(normal("web-v1-6d8f-x2  12m old, 23h47m left"), normal("web-v1-77-aa 3s old,   23h59m left"));
    assert_eq!(normal("10.3%"), normal("9%"));
    let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert!(contains(&lines("a b c d"), &lines("a ... d")));
    assert!(contains(&lines("a b"), &lines("a ...")));
    assert!(!contains(&lines("a b c"), &lines("a c")));
    assert!(!contains(&lines("a b"), &lines("a")));
}
