//! Attribution: which level of a distribution or which class of a mix the evidence is about.

use serin_sketches::upper_edge;

use super::past::Past;
use super::spec::Part;
use super::{Hypothesis, Pair};
use crate::numeric::ln;

/// What one part of a hypothesis is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum About<'a> {
    /// The metric as a whole.
    Whole,
    /// One class of a mix.
    Class(&'a str),
    /// A class that control does not have.
    NewClass(&'a str),
    /// All classes that are not tested by name.
    OtherClasses,
    /// The distribution function at one level.
    Level {
        /// Level of control's quantile, such as 0.95.
        level: f64,
        /// The quantile now, in the metric's unit.
        value: f64,
    },
}

/// The evidence about one part. A hypothesis of many parts averages over them, so a single part can account for all of its evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PartEvidence<'a> {
    /// What the part is about.
    pub about: About<'a>,
    /// +1: tests whether the canary's value (rate, mean, share, distribution function) is too high; -1: too low.
    pub sign: f64,
    /// The part's share of the hypothesis's evidence budget.
    pub weight: f64,
    /// `ln E` against "not worse than the margin" in this part.
    pub ln_e_fail: f64,
    /// `ln E` against "worse by at least the margin"; `None` for a new class, which is counted among the others.
    pub ln_e_pass: Option<f64>,
}

impl Hypothesis {
    /// The evidence of every part.
    pub fn parts(&self) -> Vec<PartEvidence<'_>> {
        let budget = if matches!(self.past, Past::Classes(_)) { 0.5 } else { 1.0 };
        let tested = self.pairs.iter().map(|pair| {
            let (about, sign) = self.about(pair);
            let weight = budget / self.pairs.len() as f64;
            PartEvidence { about, sign, weight, ln_e_fail: pair.fail.ln_e(), ln_e_pass: Some(pair.pass.ln_e()) }
        });
        let new = self.newcomers.parts().map(|(class, weight, ln_e_fail)| {
            let about = About::NewClass(class);
            PartEvidence { about, sign: 1.0, weight: budget * weight, ln_e_fail, ln_e_pass: None }
        });
        tested.chain(new).collect()
    }

    /// The part that adds most to the evidence for FAIL, if any part has evidence. A new class is also counted among the others. If the
    /// others add most because they are too many, and a new class rose most among them, that class is returned.
    pub fn worst_part(&self) -> Option<PartEvidence<'_>> {
        let adds = |part: &PartEvidence<'_>| ln(part.weight) + part.ln_e_fail;
        let parts = self.parts();
        let with_evidence = parts.iter().copied().filter(|part| part.ln_e_fail > 0.0);
        let most = with_evidence.max_by(|one, two| adds(one).total_cmp(&adds(two)))?;
        // The new class may not have any evidence yet: its test starts with the window after the one in which it appeared.
        let risen = || match &self.past {
            Past::Classes(past) => self.totals.most_risen(|class| !past.is_named(class)),
            _ => None,
        };
        let of_others = most.about == About::OtherClasses && most.sign > 0.0;
        let risen = if of_others { risen() } else { None };
        let newcomer = risen.and_then(|class| parts.iter().copied().find(|part| part.about == About::NewClass(class)));
        Some(newcomer.unwrap_or(most))
    }

    /// For a mix of classes: the class that adds most to the evidence for FAIL, if it is a single class.
    pub fn culprit(&self) -> Option<&str> {
        match self.worst_part()?.about {
            About::Class(class) | About::NewClass(class) => Some(class),
            _ => None,
        }
    }

    fn about(&self, pair: &Pair) -> (About<'_>, f64) {
        match (pair.part, &self.past) {
            (Part::Share { class, line }, Past::Classes(past)) => {
                let name = class.and_then(|class| past.named(class));
                (name.map_or(About::OtherClasses, About::Class), line.sign)
            }
            (Part::Level { level, line }, Past::Hist(past)) => {
                let value = past.current(level).key_at(level).map_or(0.0, upper_edge);
                (About::Level { level, value }, line.sign)
            }
            (Part::Line(line) | Part::Exceedance { line, .. }, _) => (About::Whole, line.sign),
            (Part::Limit { sign, .. } | Part::Ratio { sign, .. }, _) => (About::Whole, sign),
            _ => (About::Whole, 1.0),
        }
    }
}
