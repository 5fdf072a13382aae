//! Names in environment variables: the configuration reads variables in lower case, and the names of models, versions and people are
//! part of them. What cannot be meant is refused, with the variable and the way out.

use std::collections::BTreeMap;

use config::{Value, ValueKind};

/// What every variable begins with.
pub(super) const PREFIX: &str = "serin__";
/// Where a name is that people choose; `*` stands for one.
const NAMES: [&[&str]; 5] = [
    &["router", "models", "*"],
    &["router", "models", "*", "versions", "*"],
    &["controller", "policies", "*"],
    &["controller", "tokens", "*"],
    &["writers", "*"],
];

/// A name that somebody chose, in a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The variable.
    pub(crate) variable: String,
    /// The setting up to the name: `router.models.mymodel`.
    setting: String,
    /// The name as it is written there.
    written: String,
}

impl Named {
    /// The name as it is read.
    pub(crate) fn read(&self) -> String {
        self.written.to_lowercase()
    }

    /// Whether it is read in another case.
    pub(crate) fn is_changed(&self) -> bool {
        self.read() != self.written
    }
}

/// The names in these variables.
pub(crate) fn names(variables: impl Iterator<Item = String>) -> Vec<Named> {
    let of = |variable: String| {
        let lower = variable.to_lowercase();
        let parts: Vec<String> = lower.strip_prefix(PREFIX)?.split("__").map(str::to_owned).collect();
        // Lower case may have another length.
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

/// What of the variables cannot be meant. `others`: what the file and `--set` say.
pub(crate) fn problems(variables: impl Iterator<Item = String>, others: &BTreeMap<String, Value>) -> Vec<String> {
    let mut variables: Vec<String> = variables.filter(|variable| variable.to_lowercase().starts_with(PREFIX)).collect();
    variables.sort_unstable();
    let mut problems: Vec<String> = variables
        .iter()
        .enumerate()
        .filter_map(|(place, variable)| {
            let same = variables[..place].iter().find(|other| other.to_lowercase() == variable.to_lowercase())?;
            Some(format!(
                "{same} and {variable} are the same setting: variables are read in lower case; keep one of them"
            ))
        })
        .collect();
    let mut named = names(variables.into_iter());
    named.dedup_by(|one, two| one.setting == two.setting && one.written == two.written);
    for name in named {
        let (read, setting) = (name.read(), &name.setting);
        let way_out = |meant: &str| {
            let place = setting.strip_suffix(read.as_str()).unwrap_or(setting);
            format!("write it in the configuration file, or as --set {place}{meant}...")
        };
        let has = |of: fn(char) -> bool| name.written.contains(of);
        if has(char::is_uppercase) && has(char::is_lowercase) {
            problems.push(format!(
                "{}: variables are read in lower case, so this names {read:?}, not {:?}; {}",
                name.variable,
                name.written,
                way_out(&name.written)
            ));
        } else if let Some(other) = beside(others, setting, &read) {
            problems.push(format!(
                "{}: variables are read in lower case, so this names {read:?}, beside {other:?}; {}",
                name.variable,
                way_out(&other)
            ));
        }
    }
    problems
}

/// A name at the same place that differs by its case only.
fn beside(others: &BTreeMap<String, Value>, setting: &str, read: &str) -> Option<String> {
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

    fn told(variables: &[&str], others: &str) -> Vec<String> {
        let file = config::File::from_str(others, config::FileFormat::Yaml);
        let others = config::Config::builder().add_source(file).build().unwrap().try_deserialize().unwrap();
        problems(variables.iter().map(ToString::to_string), &others)
    }

    #[test]
    fn a_name_in_lower_case_can_be_meant() {
        let variables = [
            "SERIN__ROUTER__MODELS__FRAUD__STABLE",
            "SERIN__ROUTER__MODELS__FRAUD__VERSIONS__V1",
            "serin__controller__policies__fraud__stable",
            "SERIN__WRITERS__APPS__TOKEN",
            "SERIN__LOG__KAFKA__PROPERTIES__SASL.OAUTHBEARER.SCOPE",
            "SERIN_TOKEN",
            "Path",
        ];
        assert_eq!(told(&variables, "router: {models: {fraud: {stable: v1}}}"), Vec::<String>::new());
        let names = names(variables.iter().map(ToString::to_string));
        let read: Vec<(String, bool)> = names.iter().map(|name| (name.read(), name.is_changed())).collect();
        let expected = [("fraud", true), ("fraud", true), ("v1", true), ("fraud", false), ("apps", true)];
        assert_eq!(read, expected.map(|(name, changed)| (name.to_owned(), changed)));
    }

    #[test]
    fn what_cannot_be_meant_is_named_with_the_way_out() {
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
                "so this names \"mymodel\", beside \"MyModel\"; write it in the configuration file, or as --set \
                 router.models.MyModel...",
            ),
            ("SERIN__ROUTER__MODELS__M__VERSIONS__V1", "router: {models: {m: {versions: {V1: a}}}}", "beside \"V1\""),
            ("SERIN__CONTROLLER__POLICIES__Fraud__STABLE", "{}", "--set controller.policies.Fraud..."),
            ("SERIN__CONTROLLER__TOKENS__Ann__ROLE", "{}", "--set controller.tokens.Ann..."),
            ("SERIN__WRITERS__Apps__TOKEN", "{}", "--set writers.Apps..."),
        ] {
            let told = told(&[variable], others);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(variable) && told[0].contains(words), "{told:?}");
        }
        let twice = told(&["SERIN__ROUTER__MODELS__M__STABLE", "SERIN__ROUTER__MODELS__m__STABLE"], "{}");
        assert_eq!(
            twice,
            [
                "SERIN__ROUTER__MODELS__M__STABLE and SERIN__ROUTER__MODELS__m__STABLE are the same setting: variables are read in \
              lower case; keep one of them"
            ]
        );
    }
}
