//! Words of other tools: an unknown verb that another tool has is answered with the verb of Serin.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::exit;

/// Verbs of kubectl, Argo Rollouts, Flagger, Kayenta and `LaunchDarkly`, and what to write instead.
const OTHERS: [(&str, &str); 18] = [
    ("canary", "serin apply -f FILE"),
    ("cancel", "serin abort ROLLOUT"),
    ("create", "serin apply -f FILE"),
    ("dashboard", "serin get ROLLOUT --watch"),
    ("delete", "serin abort ROLLOUT"),
    ("deploy", "serin apply -f FILE"),
    ("describe", "serin get ROLLOUT, or serin explain ROLLOUT for the evidence"),
    ("health", "serin doctor"),
    ("logs", "serin events ROLLOUT, or serin tail TOPIC"),
    ("ls", "serin list"),
    ("rollouts", "serin list"),
    ("run", "serin up"),
    ("scale", "serin set-weight ROLLOUT PERCENT --reason TEXT"),
    ("set", "serin set-weight ROLLOUT PERCENT --reason TEXT"),
    ("start", "serin apply -f FILE, or serin up for the services"),
    ("terminate", "serin abort ROLLOUT"),
    ("validate", "serin lint -f FILE"),
    ("watch", "serin get ROLLOUT --watch"),
];

/// Prints an error of the command line, or the help that was asked for, and returns the exit status. A verb of another tool is
/// answered with the verb of Serin.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    if let Some(hint) = hint(error) {
        crate::output::aside(format!("{}\n  in Serin: {hint}", error.render().to_string().trim_end()));
    } else {
        // The output may be closed.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::FAILED))
}

fn hint(error: &clap::Error) -> Option<&'static str> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let known = |(other, _): &&(&str, &str)| *other == word;
    (error.kind() == ErrorKind::InvalidSubcommand).then(|| OTHERS.iter().find(known).map(|(_, hint)| *hint)).flatten()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn words_of_other_tools_are_answered_with_a_verb_of_serin() {
        for (word, expected) in OTHERS {
            let error = Cli::try_parse_from(["serin", word]).unwrap_err();
            assert_eq!(hint(&error), Some(expected), "{word}");
            let verb = expected.split_whitespace().nth(1).unwrap();
            assert!(Cli::command().find_subcommand(verb).is_some(), "{word}: there is no verb {verb}");
        }
        let error = Cli::try_parse_from(["serin", "frobnicate"]).unwrap_err();
        assert_eq!(hint(&error), None);
        assert!(OTHERS.is_sorted());
    }
}
