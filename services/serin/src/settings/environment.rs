//! Names of models, versions, writers and people in environment variables. The configuration reads variables in lower case, so
//! a name with upper-case letters is refused, with the variable and the fix.

use std::collections::BTreeMap;

use config::{Value, ValueKind};

/// The prefix of every variable.
pub(super) const PREFIX: &str = "serin__";
/// Where settings contain a user-chosen name, written as `*`.
const NAMES: [&[&str]; 8] = [
    &["router", "models", "*"],
    &["router", "models", "*", "versions", "*"],
    &["controller", "policies", "*"],
    &["controller", "tokens", "*"],
    &["writers", "*"],
    &["doors", "*", "segments", "*"],
    &["doors", "*", "outputs", "*"],
    &["doors", "*", "classes", "*"],
];

/// A user-chosen name in a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// Name of the environment variable.
    pub(crate) variable: String,
    /// The setting up to the name: `router.models.mymodel`.
    setting: String,
    /// The name as it is written in the variable.
    written: String,
}

impl Named {
    /// The name as it is read.
    pub(crate) fn read(&self) -> String {
        self.written.to_lowercase()
    }

    /// Whether the name is read in a different case than it is written.
    pub(crate) fn is_changed(&self) -> bool {
        self.read() != self.written
    }
}

/// The names in these variables.
pub(crate) fn names(variables: impl Iterator<Item = String>) -> Vec<Named> {
    let of = |variable: String| {
        let lower = variable.to_lowercase();
        let parts: Vec<String> = lower.strip_prefix(PREFIX)?.split("__").map(str::to_owned).collect();
        // Lower case may change the length of a string.
        let written: Vec<&str> = variable.split("__").skip(1).collect();
        let fits = |pattern: &&&[&str]| {
            parts.len() >= pattern.len()
                && pattern.iter().zip(&parts).all(|(wanted, part)| *wanted == "*" || wanted == part)
        };
        let named = NAMES.iter().filter(fits).filter_map(|pattern| {
            let written = (*written.get(pattern.len() - 1)?).to_owned();
            Some(Named { variable: variable.clone(), setting: parts[..pattern.len()].join("."), written })
        });
        Some(named.collect::<Vec<_>>())
    };
    variables.filter_map(of).flatten().collect()
}

/// A variable that is meant as a setting and lacks an underscore after `SERIN`, so that it would be ignored. Other variables that begin
/// with `SERIN_` are not settings: flags of the command line, and those that Kubernetes sets for a service named `serin`.
fn misnamed(variable: &str) -> Option<String> {
    let (start, rest) = variable.split_at_checked("serin_".len())?;
    let is_meant = start.eq_ignore_ascii_case("serin_") && !rest.starts_with('_') && rest.contains("__");
    is_meant.then(|| format!("{variable}: a setting has two underscores after SERIN; write SERIN__{rest}"))
}

/// The problems of these variables. `others`: the settings of the file and of `--set`.
pub(super) fn problems(variables: impl Iterator<Item = String>, others: &BTreeMap<String, Value>) -> Vec<String> {
    let mut variables: Vec<String> = variables.collect();
    variables.sort_unstable();
    let mut problems: Vec<String> = variables.iter().filter_map(|variable| misnamed(variable)).collect();
    variables.retain(|variable| variable.to_lowercase().starts_with(PREFIX));
    problems.extend(variables.iter().enumerate().filter_map(|(place, variable)| {
        let same = variables[..place].iter().find(|other| other.to_lowercase() == variable.to_lowercase())?;
        Some(format!("{same} and {variable} are the same setting: variables are read in lower case; keep one of them"))
    }));
    let mut named = names(variables.into_iter());
    named.dedup_by(|one, two| one.setting == two.setting && one.written == two.written);
    for name in named {
        let (read, setting) = (name.read(), &name.setting);
        let fix = |meant: &str| {
            let place = setting.strip_suffix(read.as_str()).unwrap_or(setting);
            format!("write it in the configuration file, or as --set {place}{meant}...")
        };
        let has = |of: fn(char) -> bool| name.written.contains(of);
        if has(char::is_uppercase) && has(char::is_lowercase) {
            problems.push(format!(
                "{}: variables are read in lower case, so this names {read:?}, not {:?}; {}",
                name.variable,
                name.written,
                fix(&name.written)
            ));
        } else if let Some(other) = similar_name(others, setting, &read) {
            problems.push(format!(
                "{}: variables are read in lower case, so this names {read:?}, but there is also {other:?}; {}",
                name.variable,
                fix(&other)
            ));
        }
    }
    problems
}

/// A name in the same section that differs only in case.
fn similar_name(others: &BTreeMap<String, Value>, setting: &str, read: &str) -> Option<String> {
    let mut parts = setting.split('.');
    let mut value = others.get(parts.next()?)?;
    let path: Vec<&str> = parts.collect();
    let (_, path) = path.split_last()?;
    for part in path {
        let ValueKind::Table(table) = &value.kind else { return None };
        value = table.get(*part)?;
    }
    let ValueKind::Table(table) = &value.kind else { return None };
    table.keys().find(|name| name.as_str() != read && name.to_lowercase() == read).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[&str], others: &str) -> Vec<String> {
        let file = config::File::from_str(others, config::FileFormat::Yaml);
        let others = config::Config::builder().add_source(file).build().unwrap().try_deserialize().unwrap();
        problems(variables.iter().map(ToString::to_string), &others)
    }

    #[test]
    fn a_setting_with_one_underscore_too_few_is_reported() {
        let found = found(&["SERIN_ROUTER__LISTEN", "serin_log__kafka__brokers"], "{}");
        assert_eq!(
            found,
            [
                "SERIN_ROUTER__LISTEN: a setting has two underscores after SERIN; write SERIN__ROUTER__LISTEN",
                "serin_log__kafka__brokers: a setting has two underscores after SERIN; write SERIN__log__kafka__brokers",
            ]
        );
    }

    #[test]
    fn variables_that_are_not_settings_are_ignored() {
        let others = [
            "SERIN_TOKEN",
            "SERIN_API",
            "SERIN_ROUTER_PORT_8000_TCP",
            "SERIN_SERVICE_HOST",
            "SERIN",
            "SERI",
            "PATH__X",
        ];
        assert_eq!(found(&others, "{}"), [""; 0]);
    }

    #[test]
    fn a_name_in_lower_case_is_accepted() {
        let variables = [
            "SERIN__ROUTER__MODELS__FRAUD__STABLE",
            "SERIN__ROUTER__MODELS__FRAUD__VERSIONS__V1",
            "serin__controller__policies__fraud__stable",
            "SERIN__WRITERS__APPS__TOKEN",
            "SERIN__LOG__KAFKA__PROPERTIES__SASL.OAUTHBEARER.SCOPE",
            "SERIN_TOKEN",
            "Path",
        ];
        assert_eq!(found(&variables, "router: {models: {fraud: {stable: v1}}}"), Vec::<String>::new());
        let names = names(variables.iter().map(ToString::to_string));
        let read: Vec<(String, bool)> = names.iter().map(|name| (name.read(), name.is_changed())).collect();
        let expected = [("fraud", true), ("fraud", true), ("v1", true), ("fraud", false), ("apps", true)];
        assert_eq!(read, expected.map(|(name, changed)| (name.to_owned(), changed)));
    }

    #[test]
    fn a_name_that_differs_only_in_case_is_refused_with_the_fix() {
        for (variable, others, words) in [
            (
                "SERIN__ROUTER__MODELS__MyModel__STABLE",
                "{}",
                "so this names \"mymodel\", not \"MyModel\"; write it in the configuration file, or as --set \
                 router.models.MyModel...",
            ),
            (
                "SERIN__ROUTER__MODELS__MYMODEL__STABLE",
                "router: {models: {MyModel: {stable: v1}}}",
                "so this names \"mymodel\", but there is also \"MyModel\"; write it in the configuration file, or as --set \
                 router.models.MyModel...",
            ),
            (
                "SERIN__ROUTER__MODELS__M__VERSIONS__V1",
                "router: {models: {m: {versions: {V1: a}}}}",
                "but there is also \"V1\"",
            ),
            ("SERIN__CONTROLLER__POLICIES__Fraud__STABLE", "{}", "--set controller.policies.Fraud..."),
            ("SERIN__CONTROLLER__TOKENS__Ann__ROLE", "{}", "--set controller.tokens.Ann..."),
            ("SERIN__WRITERS__Apps__TOKEN", "{}", "--set writers.Apps..."),
        ] {
            let problems = found(&[variable], others);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with(variable) && problems[0].contains(words), "{problems:?}");
        }
        let twice = found(&["SERIN__ROUTER__MODELS__M__STABLE", "SERIN__ROUTER__MODELS__m__STABLE"], "{}");
        assert_eq!(
            twice,
            [
                "SERIN__ROUTER__MODELS__M__STABLE and SERIN__ROUTER__MODELS__m__STABLE are the same setting: variables are read in \
              lower case; keep one of them"
            ]
        );
    }
}
