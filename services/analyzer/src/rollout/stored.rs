//! A rollout's rows: what is written when it changes, and how it is restored from them.

use serin_schemas::ids::RolloutId;
use serin_sketches::Summary;
use serin_statistics::StratumPasts;
use serin_stream::fold::{FoldError, Rows};

use super::Rollout;
use crate::{
    clusters::Cluster,
    evidence::{Evidence, Looks},
    latest,
    rows::{self, Kind},
    units::Units,
    warmup::WarmRow,
};

impl Rollout {
    /// Takes back the contents of a row that is not its head. Rows come in the order of their keys.
    pub(crate) fn restore_row(&mut self, kind: Kind, value: &[u8]) -> Result<(), FoldError> {
        let id = self.head.rollout.clone();
        let orphan = || FoldError::State(format!("the analyzer has rows of rollout {id} without its head"));
        match kind {
            // Keys end in the index and rows come in key order, so hypotheses arrive in order.
            Kind::Guards => {
                self.guards = rows::decode("guards", value)?;
                if rows::counts_zeros_as_values(value) {
                    self.guards.baseline.forget_zeros(&self.plan);
                }
            }
            // The row of the guards has a smaller key, so it was read before.
            Kind::CallUnits => {
                let (outage, shares) = rows::decode("units of calls", value)?;
                self.guards.outage.units = outage;
                self.head.coverage.restore_units(shares);
            }
            Kind::Latest => {
                let (index, row): (u32, latest::Row) = rows::decode("latest windows", value)?;
                let evidence = self.evidence.get_mut(index as usize).ok_or_else(orphan)?;
                evidence.latest.restore(row).map_err(|error| FoldError::State(error.to_string()))?;
            }
            Kind::Hypothesis => {
                let evidence: Evidence = rows::decode("a hypothesis", value)?;
                self.evidence.push(evidence.under(self.plan.rules));
            }
            Kind::Looks => {
                let (index, looks): (u32, Looks) = rows::decode("planned looks", value)?;
                self.evidence.get_mut(index as usize).ok_or_else(orphan)?.restore_looks(looks);
            }
            Kind::Strata => {
                let (index, pasts): (u32, StratumPasts) = rows::decode("strata", value)?;
                self.evidence.get_mut(index as usize).ok_or_else(orphan)?.pasts = pasts;
            }
            Kind::Units => {
                let (index, units): (u32, Units) = rows::decode("units", value)?;
                self.evidence.get_mut(index as usize).ok_or_else(orphan)?.units = units;
            }
            Kind::Cluster => {
                let (metric, cluster): (u32, Cluster) = rows::decode("clusters", value)?;
                self.clusters.restore(metric as usize, cluster);
            }
            Kind::WarmUp => {
                let row: WarmRow = rows::decode("warm-up", value)?;
                let summary = Summary::decode(&row.summary).map_err(|error| FoldError::State(error.to_string()))?;
                self.warm.restore((row.metric, row.segment), summary);
            }
            Kind::Partial | Kind::Head => {
                let taken = self.take(rows::partial_of(value)?);
                let taken = taken.map_err(|poison| {
                    FoldError::State(format!("the analyzer's rows of a rollout: {}", poison.message))
                })?;
                taken.map_err(|refusal| {
                    let id = &self.head.rollout;
                    FoldError::State(format!("rollout {id} has a stored window that it refuses: {refusal:?}"))
                })?;
            }
        }
        Ok(())
    }

    /// Writes what changed since the last commit.
    pub(crate) fn write(&mut self, id: &RolloutId, rows: &mut dyn Rows) -> Result<(), FoldError> {
        if std::mem::take(&mut self.changed) {
            rows.put(&rows::head(id), rows::encode(&self.head)?);
            if self.plan.rules.need_data() {
                rows.put(&rows::guards(id), rows::encode(&self.guards)?);
            }
            if self.plan.guarded {
                let row = (&self.guards.outage.units, self.head.coverage.units());
                rows.put(&rows::call_units(id), rows::encode(&row)?);
            }
        }
        for index in std::mem::take(&mut self.dirty) {
            rows.put(&rows::hypothesis(id, index), rows::encode(&self.evidence[index])?);
            if !self.plan.strata(index).is_empty() {
                let row = rows::encode(&(index as u32, &self.evidence[index].pasts))?;
                rows.put(&rows::strata(id, index), row);
            }
            if self.plan.guarded {
                rows.put(&rows::units(id, index), rows::encode(&(index as u32, &self.evidence[index].units))?);
            }
            for (place, row) in self.evidence[index].latest.unsaved() {
                rows.put(&rows::latest(id, index, place), rows::encode(&(index as u32, row))?);
            }
            let key = rows::looks(id, index);
            match &self.evidence[index].looks {
                Some(looks) => rows.put(&key, rows::encode(&(index as u32, looks))?),
                None if self.plan.looks_of(index).is_some() => rows.delete(&key),
                None => {}
            }
        }
        for metric in std::mem::take(&mut self.clusters.dirty) {
            let key = rows::cluster(id, metric);
            match self.clusters.get(metric) {
                Some(cluster) => rows.put(&key, rows::encode(&(metric as u32, cluster))?),
                None => rows.delete(&key),
            }
        }
        for (metric, segment) in std::mem::take(&mut self.warm.dirty) {
            let key = rows::warm_up(id, metric, &segment);
            let warm = (metric, segment);
            match self.warm.get(&warm) {
                Some(summary) => {
                    let row = WarmRow { metric: warm.0, segment: warm.1, summary: summary.encode() };
                    rows.put(&key, rows::encode(&row)?);
                }
                None => rows.delete(&key),
            }
        }
        Ok(())
    }
}
