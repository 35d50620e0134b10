//! Pages of the documentation, followed word by word: every command of a page's `console` blocks runs, in a mesh of the
//! page's own, and what it prints must have the shape of what the page shows ([`console`]).
//!
//! A page's first command is its `gamut up`; the others are typed in a second terminal, in a directory with a copy of
//! `examples/`, so that a page may edit what it likes. Commands in other blocks are not for one machine, and nobody runs
//! them here.

#[path = "../docs/console.rs"]
mod console;

use std::{fs, path::Path, process::Command};

use self::console::{Step, steps};
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
fn requests_are_watched_as_the_task_says() {
    follow("docs/tasks/tap.md", "");
}

#[test]
fn an_expired_certificate_is_found_as_the_task_says() {
    follow("docs/tasks/certificates.md", "");
}

#[test]
fn a_route_that_is_wrong_is_found_out_as_the_task_says() {
    follow("docs/tasks/debug-a-route.md", "");
}

#[test]
fn a_header_that_never_arrives_is_found_as_the_task_says() {
    follow("docs/tasks/follow-a-header.md", "");
}

#[test]
fn sessions_are_as_the_task_says() {
    follow("docs/tasks/sessions.md", "");
}

#[test]
fn the_live_page_is_where_the_task_says() {
    follow("docs/tasks/live-page.md", "");
}

/// Does what a page says, or the section of it whose heading begins with `section`, and compares. Gives what `gamut up`
/// said after its start.
fn follow(page: &str, section: &str) -> Vec<String> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(repository.join(page)).unwrap();
    let text = match section {
        "" => text.as_str(),
        heading => text.split("\n## ").find(|section| section.starts_with(heading)).expect("the section"),
    };
    let steps = steps(text);
    let (up, rest) = steps.split_first().expect("a page has commands");
    assert!(!rest.is_empty(), "{page} has lost its steps: {steps:#?}");

    let (before, arguments) = up.command.split_once(" up ").expect("a page begins with gamut up");
    let variables: Vec<_> = before.split(' ').filter_map(|word| word.split_once('=')).collect();
    let mut mesh = Mesh::as_a_reader(&variables, &arguments.split(' ').collect::<Vec<_>>());
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
    let shown = step.output.join("\n");
    assert!(step.is_printed(printed), "$ {}\nprints:\n{printed}\n{page} says:\n{shown}", step.command);
}

/// Output as a reader's own instance would print it: of the default name.
fn of_reader(mesh: &Mesh, printed: &str) -> String {
    printed.replace(&format!(" --name {}", mesh.name), "").replace(&mesh.name, "default")
}

/// Runs a command as a reader's second terminal would, on the test's instance and its copy of the examples.
fn run(mesh: &Mesh, command: &str) -> String {
    let bin = gamut().parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    // Pages wait, and some of what they wait for may never come.
    let output = Command::new("timeout")
        .args(["240", "bash", "-c", &format!("{{ {command}\n}} 2>&1")])
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
