//! `serin diff`: what differs between a rollout file and the rollout of its model.

use std::process::ExitCode;

use serde_json::{Value, json};
use serin_spec::RolloutSpec;

use super::local::{print_problems, read};
use crate::{
    cli::{Diff, Output},
    client::Api,
    exit, headline, output,
};

/// Parts of a spec that change no verdict and no weight.
const NOTES: [&str; 1] = ["plan"];

/// A part of a spec that differs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Difference {
    /// Where it is, such as `steps[0].bake.min`.
    path: String,
    /// The value in the rollout; `None`: it has none.
    rollout: Option<Value>,
    /// The value in the file; `None`: it has none.
    file: Option<Value>,
}

/// Prints the differences between a file and the current rollout of its model, or the rollout that is named.
pub(crate) async fn diff(args: &Diff) -> anyhow::Result<ExitCode> {
    let checked = serin_rollout::check(&read(&args.file)?, None);
    let Some(file) = &checked.spec else {
        print_problems(&args.file.display().to_string(), &checked, args.remote.output)?;
        return Ok(exit::with(exit::FAILED));
    };
    let rollout = args.rollout.as_deref().unwrap_or(file.model.as_str());
    let state = Api::new(&args.remote)?.state(rollout).await?;
    let found = differences(&state.file(), file);
    match args.remote.output {
        Output::Json => {
            let each = |one: &Difference| json!({"path": one.path, "rollout": one.rollout, "file": one.file});
            let all: Vec<Value> = found.iter().map(each).collect();
            output::json(
                &json!({"rollout": state.id, "phase": state.phase, "equal": found.is_empty(), "differences": all}),
            )?;
        }
        Output::Text => {
            let name = args.file.display();
            output::line(format!("rollout {} ({}) and {name}: {}", state.id, headline::phase(&state), count(&found)));
            found.iter().flat_map(lines).for_each(output::line);
            if let Some(meaning) = meaning(&found, state.phase.is_final()) {
                output::text(meaning);
            }
        }
    }
    Ok(exit::done_if(found.is_empty()))
}

/// The parts in which the rollout of a file would differ from a rollout. An address of stable that the file leaves out is that of the
/// serving version.
pub(super) fn differences(rollout: &RolloutSpec, file: &RolloutSpec) -> Vec<Difference> {
    let mut file = file.normalized();
    let (own, serving) = (&mut file.stable, &rollout.stable);
    if own.version == serving.version {
        own.url = own.url.take().or_else(|| serving.url.clone());
        own.grpc_url = own.grpc_url.take().or_else(|| serving.grpc_url.clone());
        own.path_version = own.path_version.take().or_else(|| serving.path_version.clone());
    }
    let json = |spec: &RolloutSpec| serde_json::to_value(spec).unwrap_or_default();
    let mut found = Vec::new();
    compare("", Some(&json(rollout)), Some(&json(&file)), &mut found);
    found
}

fn compare(path: &str, rollout: Option<&Value>, file: Option<&Value>, found: &mut Vec<Difference>) {
    match (rollout, file) {
        (Some(Value::Object(one)), Some(Value::Object(two))) => {
            let dot = if path.is_empty() { "" } else { "." };
            let only_two = two.keys().filter(|key| !one.contains_key(*key));
            for key in one.keys().chain(only_two) {
                compare(&format!("{path}{dot}{key}"), one.get(key), two.get(key), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(two))) => {
            // Entries with names are the same entry wherever they are.
            let named = one.iter().chain(two).all(|entry| entry["name"].is_string());
            if named {
                let of = |all: &[Value], name: &Value| all.iter().find(|entry| entry["name"] == *name).cloned();
                let only_two = two.iter().filter(|entry| of(one, &entry["name"]).is_none());
                for entry in one.iter().chain(only_two) {
                    let name = &entry["name"];
                    let place = format!("{path}[{}]", name.as_str().unwrap_or_default());
                    compare(&place, of(one, name).as_ref(), of(two, name).as_ref(), found);
                }
            } else {
                for place in 0..one.len().max(two.len()) {
                    compare(&format!("{path}[{place}]"), one.get(place), two.get(place), found);
                }
            }
        }
        (one, two) if one == two => {}
        (one, two) => found.push(Difference { path: path.to_owned(), rollout: one.cloned(), file: two.cloned() }),
    }
}

fn count(found: &[Difference]) -> String {
    match found.len() {
        0 => "no difference".to_owned(),
        1 => "1 difference".to_owned(),
        more => format!("{more} differences"),
    }
}

fn lines(one: &Difference) -> Vec<String> {
    let side = |mark: char, value: &Option<Value>| {
        let value = value.as_ref()?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some(format!("  {mark} {}: {text}", one.path))
    };
    [side('-', &one.rollout), side('+', &one.file)].into_iter().flatten().collect()
}

/// What the differences mean for a rollout that runs.
fn meaning(found: &[Difference], has_ended: bool) -> Option<&'static str> {
    if found.is_empty() {
        return None;
    }
    let notes = |one: &Difference| NOTES.iter().any(|part| one.path.starts_with(part));
    Some(if has_ended {
        "the rollout has ended; `serin apply` starts a new one with the file"
    } else if found.iter().all(notes) {
        "these parts change no verdict and no weight"
    } else {
        "a rollout never changes while it runs, because its evidence belongs to its rules: with the file it would start again, and \
         lose its evidence (`concurrency: supersede`, or `serin abort` first)"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "apiVersion: serin.dev/v1\nkind: Rollout\nmodel: fraud\nstable: {version: v1}\ncanary: {version: v2}\n\
        steps: [{weight: 5%}]\nmetrics: [{name: slow, kind: {quantile: {level: 0.99}}, source: latency, margin: {relative: 0.2}}]\n";

    fn spec(text: &str) -> RolloutSpec {
        serin_rollout::parse_yaml(text).unwrap()
    }

    fn found(file: &str) -> Vec<String> {
        let mut running = spec(FILE).normalized();
        running.stable.url = Some("http://models:8080".into());
        differences(&running, &spec(file)).iter().flat_map(lines).collect()
    }

    #[test]
    fn a_file_equals_the_rollout_that_it_started() {
        assert_eq!(found(FILE), [""; 0]);
        // Other forms of the same file.
        assert_eq!(
            found(&FILE.replace("{weight: 5%}", "{weight: 5%, bake: {min: 600s, max: 240m}, require: pass}")),
            [""; 0]
        );
    }

    #[test]
    fn each_difference_has_both_values_and_its_place() {
        let file = FILE.replace("5%", "10%").replace("0.2}", "0.3}").replace("version: v2", "version: v3");
        assert_eq!(
            found(&file),
            [
                "  - canary.version: v2",
                "  + canary.version: v3",
                "  - metrics[slow].margin.relative: 0.2",
                "  + metrics[slow].margin.relative: 0.3",
                "  - steps[0].weight: 5%",
                "  + steps[0].weight: 10%",
            ]
        );
    }

    #[test]
    fn entries_that_only_one_side_has_are_whole() {
        let file =
            FILE.replace("steps: [{weight: 5%}]", "window: 5s\nsteps: [{weight: 5%, require: no_fail}, {weight: 20%}]");
        let found = found(&file);
        assert_eq!(found[..2], ["  - steps[0].require: pass", "  + steps[0].require: no_fail"]);
        assert!(found[2].starts_with("  + steps[1]: {"), "{found:?}");
        assert_eq!(found[3..], ["  - window: 10s", "  + window: 5s"]);
    }

    #[test]
    fn the_meaning_depends_on_what_differs() {
        let of = |path: &str| Difference { path: path.into(), rollout: None, file: None };
        assert_eq!(meaning(&[], false), None);
        assert!(meaning(&[of("plan.currency")], false).unwrap().contains("no verdict"));
        assert!(meaning(&[of("plan.currency"), of("window")], false).unwrap().contains("start again"));
        assert!(meaning(&[of("window")], true).unwrap().contains("has ended"));
    }
}
