//! `serin replay`: judges a recorded log again.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use serde_json::json;
use serin_analyzer::AnalyzerFactory;
use serin_schemas::{codec, envelope, ids::RolloutId, records::Verdict};
use serin_spec::{RolloutSpec, Rules};
use serin_stream::{
    fold::{Fold, FoldFactory as _},
    log::{Log, Start},
    record::TopicPartition,
};
use serin_topology::{EVENTS, VERDICTS, WINDOWS};

use super::local::read;
use crate::{
    cli::{Output, Replay},
    exit, output,
    replay::{
        Controls, Difference, Judge, Policy, Recomputed, StepEnd, Story, Verified, Verifier, difference, each,
        needs_events, recompute, stories,
    },
    serve,
    settings::{self, Settings},
    time::{span, to_the_second},
};

/// Judges a recorded log again.
pub(crate) fn replay(args: &Replay) -> anyhow::Result<ExitCode> {
    let mut settings = settings::load(&args.serve)?;
    let from_events = args.from.as_deref() == Some(EVENTS);
    match args.from.as_deref() {
        None | Some(EVENTS | WINDOWS) => {}
        Some(folder) => {
            settings.log.kind = settings::LogKind::Embedded;
            settings.data_dir = settings::DataDir(PathBuf::from(folder));
        }
    }
    let look = serve::open_log_read_only(&settings)?;
    let Some(file) = &args.file else {
        if from_events || args.events {
            bail!("`events` can only be folded again for another policy: pass its file with -f");
        }
        return verify(look.log.as_ref(), &settings, args.output);
    };
    let checked = serin_rollout::check(&read(file)?, None);
    let name = file.file_name().map_or_else(|| file.display().to_string(), |name| name.to_string_lossy().into_owned());
    let Some(spec) = checked.spec.as_ref().filter(|_| !checked.has_errors()) else {
        super::print_problems(&name, &checked, args.output)?;
        return Ok(exit::with(exit::NOT_DONE));
    };
    let what_if = WhatIf { log: look.log.as_ref(), settings: &settings, from_events: from_events || args.events };
    let stories = what_if.stories(spec, args.rollout.as_deref())?;
    match args.output {
        Output::Json => output::json(&json!({"policy": name, "rollouts": stories}))?,
        Output::Text => stories.iter().flat_map(|story| lines(story, &name)).for_each(output::text),
    }
    Ok(ExitCode::SUCCESS)
}

fn fold(settings: &Settings, partition: i32, partitions: i32) -> Box<dyn Fold> {
    AnalyzerFactory::new(settings.analyzer.clone(), partitions).fold(partition)
}

/// Recomputes every verdict and compares it with the recorded one.
fn verify(log: &dyn Log, settings: &Settings, format: Output) -> anyhow::Result<ExitCode> {
    let (found, field) = recomputed(log, settings)?;
    match format {
        Output::Json => output::json(&json!({"holds": found.holds(), "verified": found, "first_field": field}))?,
        Output::Text => summary(&found, field.as_ref()).into_iter().for_each(output::text),
    }
    Ok(exit::done_if(found.holds()))
}

/// The result of all partitions, and the first field that differs.
fn recomputed(log: &dyn Log, settings: &Settings) -> anyhow::Result<(Verified, Option<Difference>)> {
    let partitions = log.partitions(WINDOWS)?;
    let mut found = Verified::default();
    for partition in 0..partitions {
        let mut verifier = Verifier::new(partition, fold(settings, partition, partitions))?;
        each(log, VERDICTS, partition, |record| verifier.recorded(record))?;
        each(log, WINDOWS, partition, |record| verifier.window(record))?;
        found.add(verifier.finish());
    }
    let Some(place) = &found.first_different else { return Ok((found, None)) };
    let (recorded, version) = verdict_at(log, place.partition, place.offset)?;
    let computed: Verdict = codec::decode(<Verdict as codec::Record>::VERSION, &place.computed)?;
    let field = difference(&recorded, version, &computed)?;
    Ok((found, field))
}

fn summary(found: &Verified, field: Option<&Difference>) -> Vec<String> {
    let all = found.equal + found.different;
    let mut lines = vec![match found.different {
        0 => format!("{all} verdicts, all equal; recomputed from {} records of `windows`", found.windows),
        different => format!("{all} verdicts, {different} differ"),
    }];
    if found.without_sentences > 0 {
        lines.push(format!(
            "{} of them were written by another build or under older rules: compared without their sentences",
            found.without_sentences
        ));
    }
    if let Some(place) = &found.first_different {
        lines.push(format!("first difference: partition {}, offset {} of `verdicts`", place.partition, place.offset));
    }
    if let Some(field) = field {
        lines.push(format!("  {}: recorded {}, recomputed {}", field.field, field.recorded, field.recomputed));
    }
    if found.not_recorded > 0 {
        lines.push(format!("{} recomputed verdicts are not on the log", found.not_recorded));
    }
    if found.not_recomputed > 0 {
        lines.push(format!(
            "{} recorded verdicts were not compared: their windows are no longer on the log",
            found.not_recomputed
        ));
    }
    let ids = |rollouts: &BTreeSet<RolloutId>| rollouts.iter().map(RolloutId::as_str).collect::<Vec<_>>().join(", ");
    if !found.cut_off.is_empty() {
        lines.push(format!("not recomputed, because their start is no longer on the log: {}", ids(&found.cut_off)));
    }
    if !found.other_rules.is_empty() {
        let (oldest, newest) = (Rules::OLDEST, Rules::CURRENT);
        lines.push(format!(
            "not recomputed, because this build knows rules {oldest} to {newest} only: {}",
            ids(&found.other_rules)
        ));
    }
    lines
}

/// A recorded verdict and the version of its schema.
fn verdict_at(log: &dyn Log, partition: i32, offset: i64) -> anyhow::Result<(Verdict, u32)> {
    let at = TopicPartition::new(&log.full_name(VERDICTS), partition);
    let start = Start::At(serin_schemas::ids::NextOffset(offset));
    let mut records = Vec::new();
    log.reader(&[(at, start)])?.poll(1, std::time::Duration::from_secs(5), &mut records)?;
    let record = records.first().context("the recorded verdict is no longer on the log")?;
    let (_, version) = envelope::record_type(&record.headers)?;
    Ok((codec::decode(version, record.value.as_deref().unwrap_or_default())?, version))
}

/// Another policy on a recorded log.
struct WhatIf<'a> {
    log: &'a dyn Log,
    settings: &'a Settings,
    from_events: bool,
}

impl WhatIf<'_> {
    fn stories(&self, spec: &RolloutSpec, rollout: Option<&str>) -> anyhow::Result<Vec<Story>> {
        let policy = Policy::new(spec)?;
        let partitions = self.log.partitions(WINDOWS)?;
        let partition = serin_stream::partition_of(spec.model.as_str().as_bytes(), partitions);
        let mut controls = Controls::default();
        each(self.log, WINDOWS, partition, |record| {
            controls.take(record);
            Ok(())
        })?;
        let mut recorded = controls.specs(&spec.model)?;
        if let Some(text) = rollout {
            let matching: Vec<_> =
                recorded.keys().filter(|id| id.as_str().starts_with(text)).map(|id| id.0.clone()).collect();
            let exact = matching.iter().any(|id| id == text);
            if matching.len() > 1 && !exact {
                bail!(
                    "{text:?} matches the ids of {} rollouts; write more of one: {}",
                    matching.len(),
                    matching.join(", ")
                );
            }
            recorded.retain(|id, _| if exact { id.as_str() == text } else { id.as_str().starts_with(text) });
        }
        if recorded.is_empty() {
            bail!("the log does not contain the start of any rollout of model {}", spec.model);
        }
        let mut recomputed = self.recomputed(&policy, &mut recorded)?;
        let new = || Judge::new(fold(self.settings, partition, partitions));
        let (mut base, mut other) = (new()?, new()?);
        each(self.log, WINDOWS, partition, |record| {
            base.take(record)?;
            for record in policy.translate(record, recomputed.as_mut())? {
                other.take(&record)?;
            }
            Ok(())
        })?;
        if let Some(refused) = other.refused.difference(&base.refused).next() {
            bail!("the policy cannot be judged on this record: {refused}");
        }
        Ok(stories(&controls, &recorded, &base, policy.spec(), &other))
    }

    /// Windows folded again from `events`, if requested. Otherwise checks that the recorded windows are sufficient.
    fn recomputed(
        &self,
        policy: &Policy,
        recorded: &mut std::collections::BTreeMap<serin_schemas::ids::RolloutId, RolloutSpec>,
    ) -> anyhow::Result<Option<Recomputed>> {
        if self.from_events {
            let found = recompute(self.log, &self.settings.aggregator.fold, policy)?;
            recorded.retain(|id, _| found.whole.contains(id));
            if recorded.is_empty() {
                bail!("the first events of these rollouts are no longer on the log");
            }
            return Ok(Some(found));
        }
        for (id, spec) in recorded.iter() {
            let reasons = needs_events(spec, policy.spec());
            if !reasons.is_empty() {
                bail!(
                    "the recorded windows of rollout {id} are not sufficient for this policy:\n  - {}\n\
                     fold the events again with --events, while they are still on the log",
                    reasons.join("\n  - ")
                );
            }
        }
        Ok(None)
    }
}

/// A story as text: how each step ended, and how it would have ended under the policy.
fn lines(story: &Story, policy: &str) -> Vec<String> {
    let (stable, canary) = (story.stable.in_words(), story.canary.in_words());
    let mut lines = vec![format!("rollout {} of {}: {stable} -> {canary}", story.rollout, story.model)];
    for step in &story.steps {
        let since = |end: &StepEnd| {
            let after = span(end.at.since(step.began).as_secs_f64());
            format!("{} after {after}: {}", end.how.word(), end.sentence)
        };
        lines.push(format!("  step {} ({}), from {}", step.step + 1, step.weight(), to_the_second(step.began)));
        lines.push(format!("    recorded: {}", since(&step.recorded)));
        let other = match &step.other {
            None => "would not have been reached".to_owned(),
            Some(other) if *other == step.recorded => "the same".to_owned(),
            Some(other) => since(other),
        };
        lines.push(format!("    {policy}: {other}"));
    }
    lines
}

#[cfg(test)]
mod tests;
