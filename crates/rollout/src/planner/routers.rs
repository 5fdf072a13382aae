//! What routers report: the tables that they use or cannot use, and what their own configurations contain.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serin_schemas::{
    ids::{EventTime, Generation, ModelName},
    records::{Configured, RouterStatus, Shed, TableRefused},
};

use super::WallMs;

/// A router as of its last status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouterSeen {
    /// The router's clock at that time.
    pub at: EventTime,
    /// When the status arrived, wall clock.
    pub seen_ms: WallMs,
    /// The generation that it uses, per model.
    pub applied: BTreeMap<ModelName, Generation>,
    /// Versions that it has stopped calling for a while, because they failed.
    #[serde(default)]
    pub shed: BTreeMap<ModelName, Shed>,
    /// Tables that it cannot use.
    #[serde(default)]
    pub refused: BTreeMap<ModelName, TableRefused>,
    /// What answers carry when an output rule finds nothing, per model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<ModelName, Vec<String>>,
    /// Names of labels in the feedback that it received.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The versions in its own configuration. `None` if the router is too old to report them, or reports more than is kept.
    /// Kept in a separate row, because it hardly ever changes.
    #[serde(skip)]
    pub configured: Option<Vec<Configured>>,
}

/// Prefix of the names of reporters that set the weights of an external router.
pub const ACTUATOR: &str = "actuator/";

/// Routers that are kept. The bound is needed because any client that can write to `router-status` can invent names.
pub(super) const MOST: usize = 1000;
/// Maximum number of models of one router that are kept in each list.
const MODELS: usize = 10_000;
/// Versions of a router's own configuration that are kept.
const VERSIONS: usize = 1000;
/// Bytes of a router's own configuration that are kept.
const BYTES: usize = 256 << 10;
/// Maximum number of names that are kept of a list.
const NAMES: usize = 32;
/// Bytes of a name that are kept.
const NAME: usize = 128;
/// Longest reason that is kept.
const REASON: usize = 500;

impl RouterSeen {
    /// What a status contains, within bounds. `seen_ms` is when it arrived, wall clock.
    pub fn of(status: &RouterStatus, seen_ms: WallMs) -> Self {
        let shed = |shed: &Shed| Shed { cause: cut(&shed.cause), ..shed.clone() };
        let refused = |table: &TableRefused| TableRefused { reason: cut(&table.reason), ..table.clone() };
        Self {
            at: status.at,
            seen_ms,
            applied: status.applied.iter().take(MODELS).map(|table| (table.model.clone(), table.generation)).collect(),
            shed: status.shed.iter().take(MODELS).map(|one| (one.model.clone(), shed(one))).collect(),
            refused: status.refused.iter().take(MODELS).map(|one| (one.model.clone(), refused(one))).collect(),
            outputs: status.seen_outputs.iter().take(MODELS).map(|one| (one.model.clone(), kept(&one.names))).collect(),
            labels: kept(&status.seen_labels),
            configured: status.configured.clone().filter(|configured| is_within_bounds(configured)),
        }
    }

    /// The versions of a model in the router's own configuration.
    pub fn configured(&self, model: &ModelName) -> impl Iterator<Item = &Configured> {
        self.configured.iter().flatten().filter(move |known| known.model == *model)
    }

    /// The table that a router refuses, if it has this generation or a newer one, or an unknown one.
    fn refuses(&self, model: &ModelName, generation: Generation) -> Option<&TableRefused> {
        let refused = self.refused.get(model)?;
        (refused.generation >= generation || refused.generation == Generation(0)).then_some(refused)
    }

    /// Whether the router sends the model's calls elsewhere than this generation requires.
    fn is_behind(&self, model: &ModelName, generation: Generation) -> bool {
        match self.applied.get(model) {
            Some(applied) => *applied < generation,
            None => self.configured(model).any(|known| known.stable),
        }
    }
}

/// Whether a router's own configuration is small enough to be kept. A part of it would be mistaken for all of it.
fn is_within_bounds(configured: &[Configured]) -> bool {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let bytes = |one: &Configured| {
        let names = one.model.as_str().len() + one.version.as_str().len();
        names + one.url.len() + text(&one.grpc_url) + text(&one.path_version)
    };
    configured.len() <= VERSIONS && configured.iter().map(bytes).sum::<usize>() <= BYTES
}

fn kept(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| name.len() <= NAME).take(NAMES).cloned().collect()
}

fn cut(reason: &str) -> String {
    reason.chars().take(REASON).collect()
}

/// The routers that use a table, and those that are waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Applied {
    /// The generation of the table.
    pub generation: Generation,
    /// Whether calls follow the table: some router uses it, and no router that serves the model uses an older one.
    pub done: bool,
    /// The routers that use the table or a newer one.
    pub routers: Vec<String>,
    /// What is waited for, in one sentence; empty if `done`.
    pub waits_for: String,
    /// Whether the action may be done soon without intervention, because a router has not reported yet.
    pub soon: bool,
    /// Whether a router cannot use the table.
    pub refused: bool,
}

/// Which routers use a generation of a model's table. `live` are the routers that have reported recently.
pub fn applied<'a>(
    model: &ModelName,
    generation: Generation,
    live: impl Iterator<Item = (&'a str, &'a RouterSeen)>,
) -> Applied {
    let live: Vec<_> = live.collect();
    let uses = |seen: &RouterSeen| seen.applied.get(model).is_some_and(|applied| *applied >= generation);
    let routers = live.iter().filter(|(_, seen)| uses(seen)).map(|(name, _)| (*name).to_owned());
    let routers: Vec<String> = routers.collect();
    let behind = |name: &str, seen: &RouterSeen| {
        let in_use = match seen.applied.get(model) {
            Some(older) => format!("the router keeps using generation {older}"),
            None => "the router keeps following its own configuration".to_owned(),
        };
        match seen.refuses(model, generation) {
            Some(refused) => format!("router {name} cannot use generation {generation}: {}; {in_use}", refused.reason),
            None => format!("router {name} has not applied generation {generation}"),
        }
    };
    let refuses = |seen: &RouterSeen| seen.refuses(model, generation).is_some();
    // A router that cannot use the table is reported before one that does not use it yet.
    let late: Vec<_> = live.iter().filter(|(_, seen)| seen.is_behind(model, generation)).collect();
    let late = late.iter().find(|(_, seen)| refuses(seen)).or_else(|| late.first());
    let (waits_for, soon, refused) = if let Some((name, seen)) = late {
        (behind(name, seen), !refuses(seen), refuses(seen))
    } else if !routers.is_empty() {
        (String::new(), false, false)
    } else if let Some((name, seen)) = live.iter().find(|(_, seen)| refuses(seen)) {
        let reason = seen.refuses(model, generation).map_or("", |refused| refused.reason.as_str());
        (format!("router {name} cannot use generation {generation}: {reason}"), false, true)
    } else if !live.is_empty() {
        (format!("no router has applied generation {generation}"), true, false)
    } else {
        (format!("no router reports, so none is known to have applied generation {generation}"), false, false)
    };
    Applied { generation, done: waits_for.is_empty(), routers, waits_for, soon, refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(applied: Option<i64>, refused: Option<i64>, configured: bool) -> RouterSeen {
        let model = ModelName::from("m");
        let table = |generation| TableRefused {
            model: "m".into(),
            generation: Generation(generation),
            reason: "no URL".into(),
        };
        let known = Configured {
            model: "m".into(),
            version: "v1".into(),
            stable: true,
            url: "http://a".into(),
            grpc_url: None,
            path_version: None,
        };
        RouterSeen {
            applied: applied.map(|generation| (model.clone(), Generation(generation))).into_iter().collect(),
            refused: refused.map(|generation| (model, table(generation))).into_iter().collect(),
            configured: Some(configured.then_some(known).into_iter().collect()),
            ..RouterSeen::default()
        }
    }

    fn of(routers: &[RouterSeen]) -> Applied {
        let names = ["r0", "r1", "r2"];
        applied(&"m".into(), Generation(4), names.into_iter().zip(routers))
    }

    #[test]
    fn what_a_router_reports_is_kept_within_bounds() {
        let known = |url: &str| Configured {
            model: "m".into(),
            version: "v1".into(),
            stable: true,
            url: url.to_owned(),
            grpc_url: None,
            path_version: None,
        };
        let refused = |model: usize| TableRefused {
            model: model.to_string().into(),
            generation: Generation(1),
            reason: "ä".repeat(10_000),
        };
        let status = |configured: Vec<Configured>| RouterStatus {
            router: "r".into(),
            incarnation: 1,
            at: EventTime(0),
            applied: Vec::new(),
            shed: Vec::new(),
            undecided: Vec::new(),
            refused: (0..MODELS + 5).map(refused).collect(),
            configured: Some(configured),
            leaving: false,
            seen_outputs: Vec::new(),
            seen_labels: Vec::new(),
        };
        let kept = |configured| RouterSeen::of(&status(configured), WallMs(0));
        assert_eq!(kept(vec![known("u"); VERSIONS]).configured.map(|known| known.len()), Some(VERSIONS));
        // A part of it would be mistaken for all of it.
        assert_eq!(kept(vec![known("u"); VERSIONS + 1]).configured, None);
        assert_eq!(kept(vec![known(&"u".repeat(BYTES))]).configured, None);
        let seen = kept(Vec::new());
        assert_eq!(seen.refused.len(), MODELS);
        assert!(seen.refused.values().all(|table| table.reason.chars().count() == REASON));
    }

    #[test]
    fn a_table_is_applied_when_some_router_uses_it_and_none_uses_an_older_one() {
        for done in [
            &[router(Some(4), None, false)][..],
            &[router(Some(9), None, true)],
            // The router refuses only a newer table.
            &[router(Some(4), Some(5), false)],
            // The second router does not serve the model at all, and refuses the table for that reason.
            &[router(Some(4), None, false), router(None, Some(4), false)],
            &[router(Some(4), None, false), router(None, None, false)],
        ] {
            assert!(of(done).done, "{:?}", of(done));
        }
        for (waits_for, soon, routers) in [
            ("no router reports", false, &[][..]),
            ("no router has applied generation 4", true, &[router(None, None, false)]),
            ("router r0 has not applied generation 4", true, &[router(Some(3), None, false)]),
            ("router r0 has not applied generation 4", true, &[router(None, None, true)]),
            ("router r1 has not applied", true, &[router(Some(4), None, false), router(Some(3), None, false)]),
            (
                "router r0 cannot use generation 4: no URL; the router keeps using generation 3",
                false,
                &[router(Some(3), Some(4), true)],
            ),
            ("no URL; the router keeps following its own configuration", false, &[router(None, Some(4), true)]),
            ("router r0 cannot use generation 4: no URL", false, &[router(None, Some(4), false)]),
            ("no URL", false, &[router(Some(3), Some(0), false)]),
            ("router r1 cannot", false, &[router(Some(3), None, false), router(Some(3), Some(4), false)]),
        ] {
            let applied = of(routers);
            assert!(!applied.done && applied.waits_for.contains(waits_for), "{applied:?}");
            assert_eq!(applied.soon, soon, "{applied:?}");
        }
    }
}
