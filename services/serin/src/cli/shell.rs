//! Completion scripts and manual pages, generated from the command line itself.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use crate::output;

/// A shell.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

/// Where to write manual pages.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The directory. It is created if it does not exist
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// Prints the completion script of a shell.
pub(crate) fn completion(args: Completion) {
    output::part(script(args.shell));
}

fn script(shell: Shell) -> String {
    // Writing to standard output directly would panic when it is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "serin", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes `serin.1`, and `serin-VERB.1` for each verb.
pub(crate) fn man(args: &Man) -> anyhow::Result<ExitCode> {
    let failed = || format!("manual pages cannot be written to {}", args.to.display());
    std::fs::create_dir_all(&args.to).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.to).with_context(failed)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_has_a_script_with_the_verbs() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            assert!(script.contains("serin") && script.contains("doctor"), "{shell}");
        }
    }
}
