//! The table and the results file.

use std::{path::Path, time::Duration};

use serin_bench_router::publish::{Change, quantile};
use serin_tests::figures::{self, Figures, percentile, print};

/// One round of one proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) rps: f64,
    /// Processor time per call in the program itself, in microseconds.
    pub(crate) own_us: f64,
    /// Processor time per call in the kernel, in microseconds.
    pub(crate) kernel_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Median latency at the steady rate, in microseconds.
    pub(crate) paced_p50_us: f64,
    pub(crate) paced_p99_us: f64,
    /// Copies per call.
    pub(crate) mirrored: f64,
    /// Records on the topic `events` per call.
    pub(crate) reported: f64,
}

impl Sample {
    fn cpu_us(&self) -> f64 {
        self.own_us + self.kernel_us
    }
}

/// The samples of all rounds.
pub(crate) struct Report {
    rounds: usize,
    span: Duration,
    rate: u32,
    turns: Vec<(&'static str, Vec<Sample>)>,
    flat: Figures,
}

/// Ratios with a limit: name, value, and the minimum or maximum.
type Promise = (&'static str, Option<f64>, f64, bool);

impl Report {
    pub(crate) fn new(rounds: usize, span: Duration, rate: u32) -> Self {
        Self { rounds, span, rate, turns: Vec::new(), flat: Figures::new() }
    }

    #[expect(clippy::unused_self, reason = "all that is printed goes through the report")]
    pub(crate) fn progress(&self, round: usize, name: &str, sample: &Sample) -> anyhow::Result<()> {
        print(&format!("round {round}  {name:<20} {:>8.0} calls/s  {:>6.1} us CPU", sample.rps, sample.cpu_us()))
    }

    pub(crate) fn add(&mut self, name: &'static str, sample: Sample) {
        match self.turns.iter_mut().find(|(other, _)| *other == name) {
            Some((_, samples)) => samples.push(sample),
            None => self.turns.push((name, vec![sample])),
        }
    }

    /// Adds the times until tables were in use.
    pub(crate) fn published(&mut self, changes: &[Change]) {
        for (name, level) in [("p50", 50), ("p99", 99), ("max", 100)] {
            let ms = quantile(changes, |change| change.to_use, level);
            self.flat.insert(format!("publish_to_first_request_{name}_ms"), ms);
        }
    }

    /// Median of a figure over the rounds.
    fn median(&self, name: &str, figure: fn(&Sample) -> f64) -> Option<f64> {
        let samples = &self.turns.iter().find(|(other, _)| *other == name)?.1;
        Some(percentile(&samples.iter().map(figure).collect::<Vec<_>>(), 0.5))
    }

    /// Prints the table and writes one flat object.
    pub(crate) fn finish(mut self, out: &Path) -> anyhow::Result<()> {
        let (rounds, span, rate) = (self.rounds, self.span.as_secs(), self.rate);
        print(&format!(
            "\nmedians of {rounds} rounds of {span} s, the proxy on one processor, 64 connections; then {rate} calls/s for {span} s\n"
        ))?;
        let columns = [
            "calls/s",
            "CPU us/call",
            "own",
            "kernel",
            "p50 us",
            "p99 us",
            "p50 us paced",
            "p99 us paced",
            "added p50 us",
        ];
        print(&format!("{:<20}{}", "", columns.map(|column| format!("{column:>14}")).concat()))?;
        let direct = self.median("direct", |sample| sample.paced_p50_us);
        for name in self.turns.iter().map(|(name, _)| *name).collect::<Vec<_>>() {
            let get = |figure| self.median(name, figure).unwrap_or(f64::NAN);
            let paced = get(|sample| sample.paced_p50_us);
            let figures = [
                ("rps", get(|sample| sample.rps)),
                ("cpu_us_per_request", get(Sample::cpu_us)),
                ("own_us_per_request", get(|sample| sample.own_us)),
                ("kernel_us_per_request", get(|sample| sample.kernel_us)),
                ("p50_us", get(|sample| sample.p50_us)),
                ("p99_us", get(|sample| sample.p99_us)),
                ("paced_p50_us", paced),
                ("paced_p99_us", get(|sample| sample.paced_p99_us)),
                ("added_p50_us", direct.map_or(f64::NAN, |direct| paced - direct)),
            ];
            let further =
                [("mirrored", get(|sample| sample.mirrored)), ("events_per_call", get(|sample| sample.reported))];
            let further = further.into_iter().filter(|(_, value)| *value > 0.0).chain(figures);
            let further: Vec<_> = further.map(|(key, value)| (format!("{key}_{name}"), value)).collect();
            let row = figures.map(|(key, value)| format!("{value:>14.*}", usize::from(key.ends_with("_per_request"))));
            print(&format!("{name:<20}{}", row.concat()))?;
            self.flat.extend(further);
        }
        self.promises()?;
        figures::write(&self.flat, out)
    }

    fn promises(&mut self) -> anyhow::Result<()> {
        let ratio = |key: &str, a: &str, b: &str| {
            Some(self.flat.get(&format!("{key}_{a}"))? / self.flat.get(&format!("{key}_{b}"))?)
        };
        let promises: [Promise; 6] = [
            ("rps_ratio_nginx_events_off", ratio("rps", "serin_events_off", "nginx"), 0.90, true),
            ("rps_ratio_nginx_events_on", ratio("rps", "serin_events_on", "nginx"), 0.75, true),
            ("rps_ratio_nginx_mirror", ratio("rps", "serin_mirror", "nginx"), 0.0, true),
            ("rps_ratio_nginx_1000_models", ratio("rps", "serin_1000_models", "nginx"), 0.0, true),
            ("added_p50_ratio_haproxy", ratio("added_p50_us", "serin_events_off", "haproxy"), 1.20, false),
            ("publish_to_first_request_p99_ms", self.flat.get("publish_to_first_request_p99_ms").copied(), 10.0, false),
        ];
        print("")?;
        for (name, value, limit, at_least) in promises {
            let Some(value) = value else { continue };
            self.flat.insert(name.to_owned(), value);
            let (sign, met) = if at_least { (">=", value >= limit) } else { ("<=", value <= limit) };
            let verdict = if met { "met" } else { "MISSED" };
            let against = if limit > 0.0 { format!("{sign} {limit:<6.2} {verdict}") } else { String::new() };
            print(format!("{name:<34}{value:>8.2}   {against}").trim_end())?;
        }
        Ok(())
    }
}
