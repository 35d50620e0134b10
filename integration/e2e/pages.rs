//! Pages of the documentation, followed word by word: every command of a page's `console` blocks runs, in a mesh of the
//! page's own, and what it prints must have the shape of what the page shows. Numbers, ages and the random parts of names
//! may differ, words may not.
//!
//! A page's first command is its `gamut up`; the others are typed in a second terminal, in a directory with a copy of
//! `examples/`, so that a page may edit what it likes. `...` stands for whatever there may be: lines where it is a line,
//! text inside one. Commands in other blocks are not for one machine, and nobody runs them here.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{Mesh, gamut};

#[test]
fn the_readmes_walk_through_is_true() {
    // What the README does on a cluster is held true there (integration/cluster/tests/install.rs).
    let said = follow("README.md", "A canary in five minutes");
    for line in ["reloaded: changed HTTPRoute shop/web", "in effect everywhere"] {
        assert!(said.iter().any(|said| said.contains(line)), "{line} in {said:#?}");
    }
}

#[test]
fn a_canary_goes_from_the_first_request_to_the_last_as_the_tutorial_says() {
    follow("docs/tutorial/canary.md", "");
}

#[test]
fn a_canary_is_sticky_as_the_tutorial_says() {
    follow("docs/tutorial/sticky.md", "");
}

#[test]
fn a_namespace_becomes_strict_as_the_tutorial_says() {
    follow("docs/tutorial/strict.md", "");
}

#[test]
fn the_tutorials_look_at_a_mesh_shows_what_is_there() {
    follow("docs/tutorial/observe.md", "");
}

#[test]
fn traffic_is_split_as_the_task_says() {
    follow("docs/tasks/split-traffic.md", "");
}

#[test]
fn requests_are_mirrored_as_the_task_says() {
    follow("docs/tasks/mirror.md", "");
}

#[test]
fn timeouts_retries_and_their_budget_are_as_the_task_says() {
    follow("docs/tasks/timeouts-and-retries.md", "");
}

#[test]
fn ports_are_left_out_as_the_task_says() {
    follow("docs/tasks/ports.md", "");
}

#[test]
fn a_route_that_is_wrong_is_found_out_as_the_task_says() {
    follow("docs/tasks/debug-a-route.md", "");
}

#[test]
fn no_page_has_commands_that_nobody_runs() {
    let here = include_str!("pages.rs");
    let mut followed = BTreeSet::new();
    for page in pages(&repository().join("docs")) {
        if fs::read_to_string(&page).unwrap().contains("```console") {
            let name = page.strip_prefix(repository()).unwrap().display().to_string();
            assert!(here.contains(&format!("follow(\"{name}\"")), "{name} has `console` blocks and no test");
            followed.insert(name);
        }
    }
    assert!(followed.len() >= 9, "{followed:?}");
}

/// A command of a page and what it shows of its output.
#[derive(Debug)]
struct Step {
    command: String,
    output: Vec<String>,
}

/// Does what a page says, or the section of it whose heading begins with `section`, and compares. Gives what `gamut up`
/// said after its start.
fn follow(page: &str, section: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    let text = match section {
        "" => text.as_str(),
        heading => text.split("\n## ").find(|section| section.starts_with(heading)).expect("the section"),
    };
    let steps = steps(text);
    let (up, rest) = steps.split_first().expect("a page has commands");
    assert!(!rest.is_empty(), "{page} has lost its steps: {steps:#?}");

    let (_, arguments) = up.command.split_once(" up ").expect("a page begins with gamut up");
    let mut mesh = Mesh::as_a_reader(&arguments.split(' ').collect::<Vec<_>>());
    mesh.output.until("the end of the hints", |line| line.starts_with("save a manifest"));
    let said = mesh.output.all().join("\n");
    assert_prints(page, up, &of_reader(&mesh, &said));

    for step in rest {
        let printed = run(&mesh, &step.command);
        assert_prints(page, step, &of_reader(&mesh, &printed));
    }
    mesh.output.arrived().into_iter().map(|(_, line)| line).collect()
}

fn assert_prints(page: &str, step: &Step, printed: &str) {
    let expected: Vec<String> = step.output.iter().map(|line| normal(line)).collect();
    let found: Vec<String> = printed.lines().map(normal).collect();
    let shown = step.output.join("\n");
    assert!(contains(&found, &expected), "$ {}\nprints:\n{printed}\n{page} says:\n{shown}", step.command);
}

/// Output as a reader's own instance would print it: of the default name.
fn of_reader(mesh: &Mesh, printed: &str) -> String {
    printed.replace(&format!(" --name {}", mesh.name), "").replace(&mesh.name, "default")
}

/// The `console` blocks: lines with `$` are commands (`\` at the end goes on), what stands below is output.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut inside, mut goes_on) = (false, false);
    for line in page.lines() {
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

/// Runs a command as a reader's second terminal would, on the test's instance and its copy of the examples.
fn run(mesh: &Mesh, command: &str) -> String {
    let bin = gamut().parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-c", &format!("{{ {command}\n}} 2>&1")])
        .current_dir(mesh.directory())
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
/// the two random parts of a pod's name are `*`, ages have one unit, columns are one space apart.
fn normal(line: &str) -> String {
    let words = line.split_whitespace().map(|word| numberless(&podless(word)));
    let line = words.collect::<Vec<_>>().join(" ");
    ["NdNh", "NhNm", "NmNs", "Nms", "Nd", "Nh", "Nm"].iter().fold(line, |line, age| line.replace(age, "Ns"))
}

/// A word whose end is the name of a Deployment's pod, such as `shop/web-v1-7mgmpv4xfk-dlr6b`, with `*` for what is random.
fn podless(word: &str) -> String {
    let end = word.trim_end_matches([':', ',', ';', ')']);
    let mut parts = end.rsplitn(3, '-');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(pod), Some(template), Some(workload)) if (pod.len(), template.len()) == (5, 10) => {
            format!("{workload}-*{}", word.strip_prefix(end).unwrap_or_default())
        }
        _ => word.to_owned(),
    }
}

fn numberless(word: &str) -> String {
    let mut out = String::new();
    let mut rest = word.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            // The dot of `0.9`, and no other.
            '.' if out.ends_with('N') && rest.peek().is_some_and(char::is_ascii_digit) => {}
            '0'..='9' if out.ends_with('N') => {}
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
        let is_there = if skip {
            found.any(|found| is(found, line))
        } else {
            found.next().is_some_and(|found| is(found, line))
        };
        if !is_there {
            return false;
        }
        skip = false;
    }
    skip || found.next().is_none()
}

/// Whether a line is as expected, where `...` stands for any text.
fn is(found: &str, expected: &str) -> bool {
    let mut parts = expected.split("...");
    let Some(mut rest) = found.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(part) = last.replace(part) {
            match rest.split_once(part) {
                Some((_, behind)) => rest = behind,
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every page below a directory.
fn pages(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| if path.is_dir() { pages(&path) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

#[test]
fn shapes_are_compared_and_not_numbers() {
    let pod = |random: &str| format!("shop/web-v1-{random}: 12m old, 23h47m left");
    assert_eq!(normal(&pod("7mgmpv4xfk-dlr6b")), normal(&pod("abcdefghij-klmno")));
    assert_ne!(normal("web-v1-7mgmpv4xfk-dlr6b"), normal("web-v2b-7mgmpv4xfk-dlr6b"));
    assert_eq!(normal("12m old, 23h47m left"), normal("3s old,   23h59m left"));
    assert_eq!(normal("10.3%"), normal("9%"));
    let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert!(contains(&lines("a b c d"), &lines("a ... d")));
    assert!(contains(&lines("a b"), &lines("a ...")));
    assert!(!contains(&lines("a b c"), &lines("a c")));
    assert!(!contains(&lines("a b"), &lines("a")));
    assert!(is("cookie=AQxy; Path=/", "cookie=AQ...; Path=/") && !is("cookie=AQxy", "cookie=AQ...; Path=/"));
    assert!(is("a1b2c", "a...b...c") && !is("a1c", "a...b...c"));
}
