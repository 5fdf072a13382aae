//! The exit statuses of every verb, and what each one means. docs/cli.md lists them for users.

use std::process::ExitCode;

/// Done: what was asked for is so.
pub(crate) const DONE: u8 = 0;
/// Not (yet) so, or not as asked: a file has errors, a rollout still runs, a decision is not applied yet.
pub(crate) const NOT_SO: u8 = 1;
/// What was asked for could not be done. `clap` exits with it too.
pub(crate) const FAILED: u8 = 2;
/// The version is worse: rolled back, or beyond the margin.
pub(crate) const WORSE: u8 = 3;
/// The rollout ended without a decision about the version: aborted or superseded.
pub(crate) const ENDED: u8 = 4;
/// The configuration cannot be used (`EX_USAGE` of `sysexits.h`).
pub(crate) const CONFIG: u8 = 64;

/// An exit status as the system takes it.
pub(crate) fn with(status: u8) -> ExitCode {
    ExitCode::from(status)
}

/// Done if it is `so`.
pub(crate) fn if_so(so: bool) -> ExitCode {
    with(if so { DONE } else { NOT_SO })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_exactly_these() {
        let page = include_str!("../../../docs/cli.md");
        let (_, table) = page.split_once("## Exit status\n").unwrap();
        let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
        let listed: Vec<u8> = rows
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.split('|').nth(1).unwrap().trim().parse().unwrap())
            .collect();
        assert_eq!(listed, [DONE, NOT_SO, FAILED, WORSE, ENDED, CONFIG]);
    }
}
