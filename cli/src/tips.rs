//! What to write instead, for who types as with kubectl: said with the error that the parser makes of it.

use std::ffi::OsString;

use clap::{
    Command, Error,
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// The error with our tip in place of the parser's own, where we know better.
pub(crate) fn added(mut error: Error, command: &Command, line: impl Iterator<Item = OsString>) -> Error {
    if error.kind() == ErrorKind::InvalidSubcommand {
        return of_command(error, command);
    }
    let Some(ContextValue::String(unexpected)) = error.get(ContextKind::InvalidArg) else { return error };
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let words: Vec<String> = line.skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let is_command = |word: &&String| command.find_subcommand(word).is_some();
    let of = words.iter().find(is_command).map(String::as_str).unwrap_or_default();
    if let Some(tip) = tip(of, unexpected, &words) {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    }
    error
}

/// A command that there isn't: what it is here, or those alone that are for people. `init` and `cleanup` are for pods.
fn of_command(mut error: Error, command: &Command) -> Error {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let tip = match typed.as_str() {
        "install" => {
            Some("on a cluster: helm install gamut charts/gamut --namespace gamut-system --create-namespace")
        }
        "uninstall" => Some("on a cluster: helm uninstall gamut --namespace gamut-system"),
        "get" | "describe" | "list" => {
            Some("gamut status shows pods, gamut routes routes, gamut explain one request")
        }
        "help" => Some("gamut --help, gamut COMMAND --help"),
        _ => None,
    };
    let similar = match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::Strings(similar)) => similar.clone(),
        Some(ContextValue::String(similar)) => vec![similar.clone()],
        _ => Vec::new(),
    };
    let is_shown =
        |name: &String| command.find_subcommand(name).is_some_and(|command| !command.is_hide_set());
    let similar: Vec<String> = similar.into_iter().filter(is_shown).collect();
    let similar = match tip.is_some() || similar.is_empty() {
        true => ContextValue::None,
        false => ContextValue::Strings(similar),
    };
    error.insert(ContextKind::SuggestedSubcommand, similar);
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    }
    error
}

/// For a word that a command doesn't expect there, on this line.
fn tip(of: &str, unexpected: &str, words: &[String]) -> Option<String> {
    let is_flag = unexpected.starts_with('-');
    match of {
        "up" if !is_flag => Some(format!("name manifests with -f: gamut up -f {unexpected}")),
        "exec" if matches!(unexpected, "-i" | "-t" | "--stdin" | "--tty") => {
            Some(format!("leave {unexpected} out: the program has this terminal, or this input, anyway"))
        }
        "logs" if matches!(unexpected, "-l" | "--selector") => Some(
            "name who has the label: gamut logs deploy/NAME, or svc/NAME; it takes one pod of them"
                .to_owned(),
        ),
        "logs" if matches!(unexpected, "--since" | "--since-time" | "--timestamps") => Some(
            "use --tail LINES: gamut logs has no times (on a cluster kubectl logs --since has)".to_owned(),
        ),
        "logs" if matches!(unexpected, "--all-containers" | "--prefix") => {
            Some("name one with -c: the sidecar is -c gamut-proxy".to_owned())
        }
        "logs" if !is_flag => Some(format!("name a container with -c: gamut logs TARGET -c {unexpected}")),
        "exec" if !is_flag => {
            let program = words.iter().position(|word| word == unexpected)?;
            let program = words.get(program..)?.iter().filter(|word| *word != "--");
            let program: Vec<&str> = program.map(String::as_str).collect();
            Some(format!("put -- before the program: gamut exec TARGET -- {}", program.join(" ")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::Cli;

    /// What is said about a line that can't be understood.
    fn said(line: &str) -> String {
        let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
        added(error, &Cli::command(), line.split(' ').map(OsString::from)).to_string()
    }

    #[test]
    fn what_is_typed_as_with_kubectl_is_answered_with_what_to_type() {
        for (line, tip) in [
            ("gamut up examples/canary", "tip: name manifests with -f: gamut up -f examples/canary\n"),
            ("gamut exec -it deploy/client -- sh", "tip: leave -i out: "),
            ("gamut exec deploy/client -t -- sh", "tip: leave -t out: "),
            ("gamut logs -l app=web", "tip: name who has the label: gamut logs deploy/NAME"),
            ("gamut logs deploy/web --since 5m", "tip: use --tail LINES"),
            (
                "gamut logs deploy/web gamut-proxy",
                "tip: name a container with -c: gamut logs TARGET -c gamut-proxy\n",
            ),
            (
                "gamut --color never exec -n shop deploy/client curl -s http://web/",
                "tip: put -- before the program: gamut exec TARGET -- curl -s http://web/\n",
            ),
        ] {
            let said = said(line);
            assert!(said.contains(tip), "{line}: {said}");
            assert_eq!(said.matches("tip:").count(), 1, "{said}");
        }
    }

    #[test]
    fn what_is_for_pods_alone_is_no_tip_for_people() {
        for line in ["gamut install", "gamut clean", "gamut initt"] {
            let said = said(line);
            assert!(
                !["'init'", "'internal'", "'cleanup'"].iter().any(|hidden| said.contains(hidden)),
                "{said}"
            );
        }
        assert!(said("gamut install").contains("tip: on a cluster: helm install gamut"));
        assert!(said("gamut get routes").contains("gamut routes"));
        assert!(said("gamut statu").contains("'status'"));
    }

    #[test]
    fn other_mistakes_keep_the_answers_that_they_have() {
        assert!(said("gamut exec --nmespace shop deploy/client -- sh").contains("similar argument exists"));
        assert!(!said("gamut status shop").contains("-f"));
    }
}
