//! `gamut completions`: what a shell needs to complete a command line, made from what the command line itself knows.

use std::process::ExitCode;

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate};

use crate::{Cli, output};

/// The shells.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Of {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell: source <(gamut completions bash), and the same for zsh; gamut completions fish | source
    shell: Of,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    output::write(&script(args.shell)?)?;
    Ok(ExitCode::SUCCESS)
}

fn script(shell: Of) -> anyhow::Result<String> {
    let shell = match shell {
        Of::Bash => Shell::Bash,
        Of::Zsh => Shell::Zsh,
        Of::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut of_people(), "gamut", &mut script);
    Ok(String::from_utf8(script)?)
}

/// The commands that people use: components are started by manifests.
fn of_people() -> Command {
    let whole = Cli::command();
    let people = Command::new("gamut").disable_help_subcommand(true).args(whole.get_arguments().cloned());
    people.subcommands(whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    /// What bash offers for the last word of a line.
    fn offered(words: &[&str]) -> Vec<String> {
        let line = words.join(" ");
        let script = format!(
            "{}\nCOMP_WORDS=({line}{}); COMP_CWORD={}; _gamut gamut \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script(Of::Bash).unwrap(),
            if line.ends_with(' ') { "''" } else { "" },
            words.len() - 1,
        );
        let bash = process::Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(bash.status.success(), "{bash:?}");
        String::from_utf8(bash.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn bash_completes_commands_and_flags_and_none_that_are_nobodys_to_call() {
        assert_eq!(offered(&["gamut", "ta"]), ["tap"]);
        assert_eq!(offered(&["gamut", "routes", "--wat"]), ["--watch"]);
        assert!(offered(&["gamut", "inter"]).iter().all(|word| word != "internal"));
    }

    #[test]
    fn every_shell_gets_a_script_with_every_command() {
        for shell in [Of::Bash, Of::Zsh, Of::Fish] {
            let script = script(shell).unwrap();
            for command in ["status", "identity", "tap"] {
                assert!(script.contains(command), "{shell:?} {command}");
            }
            assert!(!script.contains("controller-address"), "{shell:?}");
        }
    }
}
