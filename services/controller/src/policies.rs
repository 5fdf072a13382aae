//! Policies: which rollout a new version of a model starts.

use std::{collections::BTreeMap, sync::Arc};

use serin_spec::{Concurrency, RolloutSpec};

use crate::config::{Policy, Trigger};

/// Policies with specs that were read and checked.
#[derive(Clone, Debug, Default)]
pub struct Policies(BTreeMap<String, Arc<Loaded>>);

/// One loaded policy.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) template: String,
    pub(crate) trigger: Trigger,
    pub(crate) stable: Option<String>,
    pub(crate) concurrency: Concurrency,
}

impl Policies {
    /// Reads the specs of all policies.
    ///
    /// # Errors
    /// All problems, one sentence each.
    pub fn load(policies: &BTreeMap<String, Policy>) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut loaded = BTreeMap::new();
        for (model, policy) in policies {
            match load(model, policy) {
                Ok(policy) => drop(loaded.insert(model.clone(), Arc::new(policy))),
                Err(more) => problems.extend(more.into_iter().map(|problem| format!("policies.{model}: {problem}"))),
            }
        }
        if problems.is_empty() { Ok(Self(loaded)) } else { Err(problems) }
    }

    /// The policy of a model.
    pub(crate) fn of(&self, model: &str) -> Option<&Loaded> {
        self.0.get(model).map(Arc::as_ref)
    }
}

fn load(model: &str, policy: &Policy) -> Result<Loaded, Vec<String>> {
    let template = match (policy.spec.is_empty(), policy.spec_file.as_os_str().is_empty()) {
        (false, true) => policy.spec.clone(),
        (true, false) => std::fs::read_to_string(&policy.spec_file)
            .map_err(|error| vec![format!("spec_file: {} cannot be read: {error}", policy.spec_file.display())])?,
        _ => return Err(vec!["give either spec or spec_file".to_owned()]),
    };
    if !template.contains("${version}") {
        return Err(vec!["the spec has no place for the new version; write ${version}".to_owned()]);
    }
    // The spec must be valid with any version names.
    let spec = fill(&template, "2", "1").map_err(|problem| vec![problem])?;
    if spec.model.as_str() != model {
        return Err(vec![format!("the spec is for model {}", spec.model)]);
    }
    let (trigger, stable) = (policy.trigger.clone(), policy.stable.clone());
    Ok(Loaded { template, trigger, stable, concurrency: spec.concurrency })
}

/// A spec with the version names filled in.
pub(crate) fn fill(template: &str, version: &str, stable: &str) -> Result<RolloutSpec, String> {
    let checked = serin_rollout::check(&template.replace("${version}", version).replace("${stable}", stable), None);
    checked.spec.map(|spec| spec.normalized()).ok_or_else(|| {
        let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
        format!("the spec has problems: {}", problems.join("; "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_checked_when_they_are_loaded() {
        let policy = |spec: &str| Policy { spec: spec.to_owned(), ..Policy::default() };
        let policies = [
            ("empty".to_owned(), Policy::default()),
            ("fixed".to_owned(), policy("model: fixed")),
            ("broken".to_owned(), policy("model: broken\ncanary: {version: '${version}'}")),
            ("missing".to_owned(), Policy { spec_file: "does-not-exist.yaml".into(), ..Policy::default() }),
        ];
        let problems = Policies::load(&policies.into()).unwrap_err();
        assert_eq!(problems.len(), 4);
        assert!(problems.iter().any(|problem| problem.starts_with("policies.broken: the spec has problems")));
    }
}
