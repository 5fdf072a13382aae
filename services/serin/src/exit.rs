//! The exit statuses of all verbs. docs/cli.md documents them for users.

use std::process::ExitCode;

/// The verb has done what was asked.
pub(crate) const DONE: u8 = 0;
/// The result is not the wanted one, or not yet: a file has errors, a rollout still runs, a decision is not applied yet.
pub(crate) const NOT_DONE: u8 = 1;
/// The verb failed. `clap` uses this status too.
pub(crate) const FAILED: u8 = 2;
/// The version is worse: it was rolled back, or is worse beyond the margin.
pub(crate) const WORSE: u8 = 3;
/// The rollout ended without a decision about the version: aborted or superseded.
pub(crate) const ENDED: u8 = 4;
/// The configuration cannot be used (`EX_USAGE` of `sysexits.h`).
pub(crate) const CONFIG: u8 = 64;

/// The exit code of a status.
pub(crate) fn with(status: u8) -> ExitCode {
    ExitCode::from(status)
}

/// [`DONE`] if `done`, else [`NOT_DONE`].
pub(crate) fn done_if(done: bool) -> ExitCode {
    with(if done { DONE } else { NOT_DONE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_list_exactly_these_statuses() {
        let page = include_str!("../../../docs/cli.md");
        let (_, table) = page.split_once("## Exit status\n").unwrap();
        let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
        let listed: Vec<u8> = rows
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.split('|').nth(1).unwrap().trim().parse().unwrap())
            .collect();
        assert_eq!(listed, [DONE, NOT_DONE, FAILED, WORSE, ENDED, CONFIG]);
    }
}
