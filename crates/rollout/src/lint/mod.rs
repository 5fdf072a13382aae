//! Checks the meaning of a spec: checks that can never fail, ramps that go down, undefined names. [`crate::yaml`] checks its form
//! (types, keys, units).

mod addresses;
mod bounds;
mod decision;
mod doors;
mod filters;
mod groups;
mod headers;
mod left;
mod looks;
mod measure;
mod metrics;
mod named;
mod power;
mod ramp;
pub(crate) mod servers;
mod size;
mod sources;
mod traffic;
mod values;

#[cfg(test)]
mod kinds_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub use power::Traffic;
use serin_kinds::Refusal;
pub use size::{MAX_CONTROL_BYTES, MAX_SPEC_BYTES};

use serin_spec::{Mode, Problem, RolloutSpec, Severity, TrafficSource};

/// Returns all problems of a spec, in the order of its parts. With `traffic`, they include the margins that this traffic cannot resolve.
pub fn lint(spec: &RolloutSpec, traffic: Option<&Traffic>) -> Vec<Problem> {
    findings(spec, traffic).into_iter().map(|finding| finding.problem).collect()
}

/// A problem, and the other parts of the spec that it depends on: paths, or `list[].field` for one field of all entries of a list.
pub(crate) struct Finding {
    pub(crate) problem: Problem,
    pub(crate) depends_on: &'static [&'static str],
}

pub(crate) fn findings(spec: &RolloutSpec, traffic: Option<&Traffic>) -> Vec<Finding> {
    let mut found = Found::default();
    whole(spec, &mut found);
    addresses::lint(spec, &mut found);
    servers::lint(spec, &mut found);
    ramp::lint(spec, &mut found);
    looks::lint(spec, &mut found);
    sources::lint(spec, &mut found);
    traffic::lint(spec, &mut found);
    metrics::lint(spec, &mut found);
    doors::lint(spec, &mut found);
    groups::lint(spec, &mut found);
    decision::lint(spec, &mut found);
    size::lint(spec, &mut found);
    if let Some(traffic) = traffic {
        power::lint(spec, traffic, &mut found);
    }
    found.0
}

/// Collects findings.
#[derive(Default)]
struct Found(Vec<Finding>);

impl Found {
    fn add(
        &mut self,
        severity: Severity,
        path: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
        depends_on: &'static [&'static str],
    ) {
        let (path, message, fix) = (path.into(), message.into(), fix.into());
        let problem = Problem { severity, path, line: None, column: None, message, fix };
        self.0.push(Finding { problem, depends_on });
    }

    fn error(&mut self, path: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Error, path, message, fix, &[]);
    }

    /// Whether an error was reported at `path` or within it.
    fn has_error_in(&self, parent: &str) -> bool {
        let within =
            |path: &str| path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.0.iter().any(|Finding { problem, .. }| problem.severity == Severity::Error && within(&problem.path))
    }

    /// Reports the refusal of a kind.
    fn refuse(&mut self, path: impl Into<String>, Refusal { message, fix }: Refusal) {
        self.error(path, message, fix);
    }

    fn warn(&mut self, path: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Warning, path, message, fix, &[]);
    }

    /// Reports names that are empty or used twice.
    fn names<'a>(&mut self, list: &str, names: impl Iterator<Item = &'a str>) {
        let mut seen = BTreeSet::new();
        for (index, name) in names.enumerate() {
            let path = format!("{list}[{index}].name");
            if name.trim().is_empty() {
                self.error(path, "the name is empty", "give it a name");
            } else if !seen.insert(name) {
                self.error(path, format!("another entry is also named {name:?}"), "rename one of them");
            }
        }
    }

    /// Reports text that is not a JSON pointer.
    fn pointer(&mut self, path: &str, pointer: &str) {
        if !pointer.starts_with('/') {
            let message = format!("{pointer:?} is not a JSON pointer (RFC 6901)");
            self.error(path, message, format!("start it with a slash: \"/{pointer}\""));
        }
    }

    /// Reports an empty name of a header, tensor or the like.
    fn not_empty(&mut self, path: &str, text: &str) {
        if text.trim().is_empty() {
            self.error(path, "the name is empty", "write where the value is found");
        }
    }
}

fn whole(spec: &RolloutSpec, found: &mut Found) {
    if spec.api_version != "serin.dev/v1" {
        let message = format!("this version of Serin does not support {:?}", spec.api_version);
        found.error("apiVersion", message, "write serin.dev/v1");
    }
    if spec.kind != "Rollout" {
        found.error("kind", format!("this version of Serin does not know the kind {:?}", spec.kind), "write Rollout");
    }
    let versions = [("stable", &spec.stable), ("canary", &spec.canary)];
    let names = [("model".to_owned(), spec.model.as_str())].into_iter();
    let names = names.chain(versions.map(|(path, version)| (format!("{path}.version"), version.version.as_str())));
    for (path, name) in names {
        if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            found.error(path, format!("{name:?} is not a valid name"), "use one word without spaces");
        }
    }
    if spec.stable.version == spec.canary.version {
        let message = format!("both arms are {}: an A/A test", spec.stable.version.in_words());
        found.add(
            Severity::Warning,
            "canary.version",
            message,
            "name the new version, unless an A/A test is intended",
            &["stable"],
        );
    }
    if spec.traffic == TrafficSource::External && spec.mode == Mode::Act {
        found.add(
            Severity::Warning,
            "mode",
            "a foreign router splits the traffic: weights change only if an actuator applies the routing topic",
            "set `mode: observe` unless there is an actuator",
            &["traffic"],
        );
    }
}
