//! Files of other tools: they get one problem that names the tool, instead of one problem per key.

use super::{
    problem,
    tree::{Node, Value},
};
use serin_spec::Problem;

/// What to do with a file of another tool.
const FIX: &str = "write a rollout file; see docs/rollout-spec.md";

/// The problem of a file that another tool reads.
pub(super) fn problem_of(root: &Node) -> Option<Problem> {
    let Value::Map(entries) = &root.value else { return None };
    let find = |name: &str| entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node);
    let text = |name: &str| match &find(name)?.value {
        Value::Scalar { text, .. } => Some(text.as_str()),
        _ => None,
    };
    let api = text("apiVersion").unwrap_or_default();
    let kind = text("kind").unwrap_or_default();
    let group = api.split('/').next().unwrap_or_default();
    let tool = match (group, kind) {
        ("argoproj.io", "AnalysisTemplate" | "ClusterAnalysisTemplate" | "AnalysisRun") => {
            "an analysis of Argo Rollouts"
        }
        ("argoproj.io", _) => "a rollout of Argo Rollouts",
        ("flagger.app", "MetricTemplate") => "a metric of Flagger",
        ("flagger.app", _) => "a canary of Flagger",
        ("serving.kserve.io", _) => "an inference service of KServe",
        ("machinelearning.seldon.io" | "mlops.seldon.io", _) => "a deployment of Seldon",
        ("gateway.networking.k8s.io", _) => "a route of the Gateway API",
        ("networking.istio.io", _) => "a route of Istio",
        // Kayenta's canary configurations have no `apiVersion`.
        ("", _) if find("judge").is_some() && find("classifier").is_some() => "a canary configuration of Kayenta",
        _ => return None,
    };
    let at = find("apiVersion").or_else(|| find("judge")).map_or(root.at, |node| node.at);
    let path = if api.is_empty() { "judge" } else { "apiVersion" };
    Some(problem(path, at, format!("this is {tool}, not a rollout of Serin"), FIX))
}

#[cfg(test)]
mod tests {
    use crate::check;

    fn problems(text: &str) -> Vec<String> {
        check(text, None).problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn files_of_other_tools_are_named() {
        let cases = [
            ("apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nspec: {replicas: 5}", "a rollout of Argo Rollouts"),
            ("kind: AnalysisTemplate\napiVersion: argoproj.io/v1alpha1", "an analysis of Argo Rollouts"),
            ("apiVersion: flagger.app/v1beta1\nkind: Canary\nspec: {}", "a canary of Flagger"),
            ("apiVersion: flagger.app/v1beta1\nkind: MetricTemplate", "a metric of Flagger"),
            ("apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService", "an inference service of KServe"),
            ("apiVersion: machinelearning.seldon.io/v1\nkind: SeldonDeployment", "a deployment of Seldon"),
            (
                "{\"name\": \"c\", \"judge\": {\"name\": \"NetflixACAJudge-v1.0\"}, \"metrics\": [], \"classifier\": {}}",
                "Kayenta",
            ),
        ];
        for (text, tool) in cases {
            let found = problems(text);
            assert!(found.len() == 1 && found[0].contains(tool), "{text}: {found:?}");
        }
    }

    #[test]
    fn other_texts_are_checked_as_rollouts() {
        for text in
            ["apiVersion: serin.dev/v2\nkind: Rollout", "apiVersion: apps/v1\nkind: Deployment", "judge: {}", "[]"]
        {
            assert!(!problems(text)[0].contains("not a rollout of Serin"), "{text}");
        }
    }
}
