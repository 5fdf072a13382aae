//! `serin plan --cheapest`: the same gates on other ramps.
//!
//! A ramp is as good as the file's own if each regression is rolled back at least as often, and a canary equal to stable is promoted
//! at least as often, both up to [`TOLERANCE`]. Of these, the cheapest needs the fewest replica hours of the second version. A ramp that
//! mostly ends without a decision is never recommended, although a ramp that is held early is cheap.

use serde::Serialize;
use serin_kinds::count;
use serin_spec::{RolloutSpec, Schedule};

use super::{course::Forecast, forecast::forecast, request::Request, text::percent};
use crate::{
    output,
    terminal::{Column, Table, Terminal},
    time::span,
};

/// By how much a share may be smaller than that of the file's own ramp and still count as equal.
const TOLERANCE: f64 = 0.02;
/// A ramp decides if at least this share of each regression is rolled back, and of the canaries equal to stable promoted.
const DECIDES: f64 = 0.5;

/// The table's columns. On a narrow terminal, columns with a large rank are removed first.
static COLUMNS: [Column; 8] = [
    Column::text("ramp", 0),
    Column::text("as good", 1),
    Column::number("takes", 2),
    Column::number("regressions rolled back", 3),
    Column::number("equal promoted", 4),
    Column::number("replica hours", 1),
    Column::number("GPU hours", 5),
    Column::number("canary answers", 6),
];

/// A ramp in the comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Ramp {
    /// `as in the file`, or the name of the schedule.
    pub(crate) name: String,
    /// The steps, in words.
    pub(crate) steps: Vec<String>,
    /// Whether it detects and promotes as often as the file's own ramp.
    pub(crate) as_good: bool,
    /// Whether most regressions are rolled back, and most canaries equal to stable promoted. Only such a ramp is recommended.
    pub(crate) decides: bool,
    /// Seconds until a canary equal to stable is promoted or held.
    pub(crate) seconds: f64,
    /// `promoted` or `held`: how it ends for a canary equal to stable.
    pub(crate) end: &'static str,
    /// The smallest share of canaries with a regression that are rolled back, over all regressions.
    pub(crate) rolled_back: f64,
    /// Share of canaries equal to stable that are promoted without an operator.
    pub(crate) promoted: f64,
    /// Replicas of the second version times hours. Without `canary.replica`: hours of one replica.
    pub(crate) replica_hours: f64,
    pub(crate) gpu_hours: f64,
    /// Requests that a canary equal to stable answers.
    pub(crate) canary_requests: f64,
}

impl Ramp {
    fn new(name: String, spec: &RolloutSpec, forecast: &Forecast) -> Self {
        let healthy = &forecast.healthy;
        let costs = forecast.cost.steps.as_deref();
        let hours = healthy.seconds / 3600.0;
        let regressions = forecast.regressions.iter().map(|regressed| regressed.course.share);
        let rolled_back = regressions.fold(1.0, f64::min);
        Self {
            name,
            steps: spec.steps.iter().map(|step| format!("{step} for {}", step.bake.min)).collect(),
            as_good: true,
            decides: rolled_back >= DECIDES && healthy.share >= DECIDES,
            seconds: healthy.seconds,
            end: healthy.end,
            rolled_back,
            promoted: healthy.share,
            replica_hours: costs.map_or(hours, |costs| costs.iter().map(|one| one.replicas as f64 * one.hours).sum()),
            gpu_hours: costs.map_or(0.0, |costs| costs.iter().map(|one| one.gpus as f64 * one.hours).sum()),
            canary_requests: healthy.canary_requests,
        }
    }
}

/// The file's own ramp and all named schedules. Those that are as good as the file's own come first, of these the ones that decide, and
/// of these the cheapest.
pub(crate) fn cheapest(request: &Request) -> anyhow::Result<Vec<Ramp>> {
    let own = forecast(request)?;
    let mut ramps = vec![Ramp::new("as in the file".to_owned(), &request.spec, &own)];
    for schedule in Schedule::NAMED {
        let mut other = request.clone();
        other.spec.steps = schedule.steps();
        let forecast = forecast(&other)?;
        let mut ramp = Ramp::new(schedule.to_string(), &other.spec, &forecast);
        ramp.as_good = is_as_good(&own, &forecast);
        ramps.push(ramp);
    }
    // The sort is stable: of equal ramps, the file's own comes first.
    let rank = |ramp: &Ramp| (ramp.as_good, ramp.as_good && ramp.decides);
    ramps.sort_by(|a, b| rank(b).cmp(&rank(a)).then(a.replica_hours.total_cmp(&b.replica_hours)));
    Ok(ramps)
}

/// Whether a ramp detects every regression, and promotes, as often as another.
fn is_as_good(own: &Forecast, other: &Forecast) -> bool {
    let at_least = |other: f64, own: f64| other >= own - TOLERANCE;
    let mut pairs = own.regressions.iter().zip(&other.regressions);
    at_least(other.healthy.share, own.healthy.share)
        && pairs.all(|(own, other)| at_least(other.course.share, own.course.share))
}

/// Prints the comparison.
pub(crate) fn print_cheapest(ramps: &[Ramp]) {
    let terminal = Terminal::stdout();
    for line in lines(ramps, terminal) {
        output::line(terminal.wrap(&line, 2));
    }
}

fn lines(ramps: &[Ramp], terminal: Terminal) -> Vec<String> {
    let mut table = Table::new(&COLUMNS);
    for ramp in ramps {
        let takes = if ramp.end == "held" { "held" } else { &span(ramp.seconds) };
        let row = [
            ramp.name.clone(),
            (if ramp.as_good { "yes" } else { "no" }).to_owned(),
            takes.to_owned(),
            percent(ramp.rolled_back),
            percent(ramp.promoted),
            format!("{:.1}", ramp.replica_hours),
            format!("{:.1}", ramp.gpu_hours),
            count(ramp.canary_requests),
        ];
        table.row(row.map(Into::into).into());
    }
    let mut lines = table.lines(terminal);
    lines.push(String::new());
    lines.extend(ramps.first().map(recommended));
    lines
}

/// What follows from the best ramp.
fn recommended(best: &Ramp) -> String {
    let Ramp { name, steps, rolled_back, promoted, .. } = best;
    if best.decides {
        let steps = steps.join(", ");
        return format!("the cheapest ramp that detects and promotes as often as the file's own: {name} ({steps})");
    }
    format!(
        "no ramp that is as good as the file's own both detects and promotes with this traffic: {name} rolls back {} of the regressions and \
         promotes {} of the canaries equal to stable; `serin plan` without --cheapest shows what is missing",
        percent(*rolled_back),
        percent(*promoted)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn request(steps: &str, per_second: f64) -> Request {
        let text = format!(
            "apiVersion: serin.dev/v1\nkind: Rollout\nmodel: flights\nstable: {{version: v1}}\n\
             canary: {{version: v2, replica: {{requestsPerSecond: 20, gpus: 1}}}}\n{steps}\n\
             metrics: [{{name: latency_p99, kind: {{quantile: {{level: 0.99}}}}, source: latency, margin: {{relative: 0.2}}}}]\n"
        );
        Request {
            spec: serin_rollout::parse_yaml(&text).unwrap().normalized(),
            per_second,
            base: BTreeMap::new(),
            counted: BTreeMap::new(),
            regressions: Vec::new(),
            react_seconds: 2.0,
        }
    }

    fn names(ramps: &[Ramp]) -> Vec<(&str, bool)> {
        ramps.iter().map(|ramp| (ramp.name.as_str(), ramp.as_good)).collect()
    }

    #[test]
    fn with_much_traffic_the_short_schedule_is_as_good_and_cheapest() {
        let ramps = cheapest(&request("schedule: conservative", 2_000.0)).unwrap();
        assert_eq!(ramps[0].name, "aggressive", "{ramps:?}");
        assert!(ramps[0].as_good && ramps[0].replica_hours < ramps[1].replica_hours);
    }

    #[test]
    fn a_ramp_that_detects_less_is_not_the_cheapest() {
        let own = cheapest(&request("steps: [{weight: 50%, bake: {min: 1d, max: 3d}, require: pass}]", 0.1)).unwrap();
        assert_eq!(own[0].name, "as in the file", "{own:?}");
        assert!(names(&own)[1..].iter().all(|(_, as_good)| !as_good), "{own:?}");
    }

    #[test]
    fn where_no_ramp_decides_none_is_recommended() {
        let ramps = cheapest(&request("schedule: aggressive", 0.001)).unwrap();
        assert!(ramps.iter().all(|ramp| !ramp.decides), "{ramps:?}");
        let text = lines(&ramps, crate::terminal::of_width(None)).join("\n");
        assert!(text.contains("no ramp that is as good") && !text.contains("the cheapest ramp"), "{text}");
    }

    #[test]
    fn a_ramp_is_recommended_only_if_it_decides() {
        let mut ramp = cheapest(&request("", 200.0)).unwrap().swap_remove(0);
        assert!(ramp.decides && recommended(&ramp).starts_with("the cheapest ramp"));
        (ramp.decides, ramp.rolled_back) = (false, 0.004);
        let text = recommended(&ramp);
        assert!(text.contains("no ramp") && text.contains("rolls back < 1 % of the regressions"), "{text}");
    }

    #[test]
    fn the_text_names_the_cheapest_ramp() {
        let ramps = cheapest(&request("", 200.0)).unwrap();
        insta::assert_snapshot!(lines(&ramps, crate::terminal::of_width(Some(80))).join("\n"));
    }
}
