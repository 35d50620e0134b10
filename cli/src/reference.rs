//! The pages of all commands and flags, made from what the command line itself knows, so that they can't say anything else.

use clap::{Arg, ArgAction, Command, CommandFactory};

#[path = "../../integration/docs/generated.rs"]
mod generated;

/// What the page of all commands is about: commands of people, then components. `internal` is nobody's to call, and the echo app
/// has its own page.
fn is_documented(command: &Command) -> bool {
    !matches!(command.get_name(), "internal" | "echo")
}

/// A section for each subcommand of `of`.
fn page<'a>(of: &str, commands: impl Iterator<Item = &'a Command>) -> String {
    commands.map(|command| section(of, command)).collect()
}

fn section(of: &str, command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut text = format!("### `{of} {}`\n\n{about}.\n\n", command.get_name());
    let shown: Vec<&Arg> = command.get_arguments().filter(|arg| is_shown(arg)).collect();
    if !shown.is_empty() {
        text += "| flag | variable | default | |\n|---|---|---|---|\n";
        shown.into_iter().for_each(|arg| text += &row(arg));
        text.push('\n');
    }
    text
}

/// `--help` is everywhere, and says so itself.
fn is_shown(arg: &Arg) -> bool {
    !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version" | "color")
}

fn row(arg: &Arg) -> String {
    let mut help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let values: Vec<_> = arg.get_possible_values().into_iter().filter(|value| !value.is_hide_set()).collect();
    if takes_a_value(arg) && !values.is_empty() {
        let names: Vec<String> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
        help += &format!(": {}", names.join(", "));
    }
    let cells = [name(arg), variable(arg), default(arg), in_one_line(&help)];
    format!("| {} |\n", cells.join(" | "))
}

fn takes_a_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// `-n`, `--namespace NAMESPACE`, or a positional argument's name.
fn name(arg: &Arg) -> String {
    let value = match arg.get_value_names() {
        Some([value, ..]) if takes_a_value(arg) => format!(" {value}"),
        _ => String::new(),
    };
    match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("`-{short}`, `--{long}{value}`"),
        (Some(short), None) => format!("`-{short}{value}`"),
        (None, Some(long)) => format!("`--{long}{value}`"),
        (None, None) => format!("`{}`", value.trim_start()),
    }
    .replace('|', "\\|")
}

fn variable(arg: &Arg) -> String {
    arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default()
}

fn default(arg: &Arg) -> String {
    let values = arg.get_default_values().iter().filter(|_| takes_a_value(arg));
    values.map(|value| format!("`{}`", value.to_string_lossy())).collect::<Vec<_>>().join(", ")
}

fn in_one_line(help: &str) -> String {
    help.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[test]
fn the_reference_has_every_flag_of_every_command() {
    // Arguments know their defaults and actions only when the command is built.
    let mut cli = super::Cli::command();
    cli.build();
    let commands = || cli.get_subcommands().filter(|command| is_documented(command));
    let people = page("gamut", commands().filter(|command| !command.is_hide_set()));
    let components = page("gamut", commands().filter(|command| command.is_hide_set()));
    generated::holds("docs/reference/flags.md", "commands", &people);
    generated::holds("docs/reference/flags.md", "components", &components);
}

#[test]
fn the_reference_of_the_echo_app_has_every_flag() {
    let mut cli = super::Cli::command();
    cli.build();
    let echo = cli.find_subcommand("echo").unwrap();
    generated::holds("docs/reference/echo.md", "commands", &page("gamut echo", echo.get_subcommands()));
}
