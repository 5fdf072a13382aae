//! The live answer and the mirror's answer to one call, and whether both are kept as an example.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serin_schemas::{
    ids::RequestId,
    records::{Arm, Capture},
};
use serin_sketches::hash::{Salt, bucket};

use crate::{
    content::examples::{Answered, differences, keep},
    report::called::Called,
    state::Shared,
    tables::table::Table,
};

/// A pending example: the answers to one call until both have arrived.
pub(crate) struct Example {
    shared: Arc<Shared>,
    table: Arc<Table>,
    request_id: RequestId,
    request: Bytes,
    /// The live answer and the mirror's answer.
    answers: Mutex<(Option<Answered>, Option<Answered>)>,
}

impl Example {
    /// A pending example for a call that is about to be mirrored.
    pub(crate) fn new(shared: &Arc<Shared>, table: &Arc<Table>, called: &Called, request: &Bytes) -> Self {
        Self {
            shared: Arc::clone(shared),
            table: Arc::clone(table),
            request_id: called.request_id.clone(),
            request: request.clone(),
            answers: Mutex::default(),
        }
    }

    /// Takes one answer. After the second one, the example is kept if the policy selects it.
    pub(super) fn put(&self, answer: Answered) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answer.prediction.arm == Arm::Shadow {
            answers.1 = Some(answer);
        } else {
            answers.0 = Some(answer);
        }
        if let (Some(live), Some(shadow)) = (&answers.0, &answers.1) {
            self.consider(live, shadow);
            *answers = (None, None);
        }
    }

    fn consider(&self, live: &Answered, shadow: &Answered) {
        let Some(spec) = &self.table.policy.capture else { return };
        let differences = differences(&live.prediction, &shadow.prediction, spec.tolerance);
        let differ = spec.disagreements && !differences.is_empty();
        let drawn = || {
            let salt = Salt::new(format!("examples\0{}", self.table.record.salt).as_bytes());
            i32::from(bucket(salt.hash(self.request_id.as_str().as_bytes()))) < spec.share.0
        };
        if !differ && !drawn() {
            return;
        }
        let model = self.table.record.model.as_str();
        let minute = self.shared.clock.source().steady().as_secs() / 60;
        let mut examples = self.shared.examples.lock().unwrap_or_else(PoisonError::into_inner);
        if !examples.entry(model.to_owned()).or_default().take(minute, spec.per_minute) {
            self.shared.metrics.example(model, "over_budget");
            return;
        }
        drop(examples);
        let most = spec.max_bytes as usize;
        let reason = if differ { "disagreement" } else { "sample" };
        let capture = Capture {
            request_id: self.request_id.clone(),
            model: self.table.record.model.clone(),
            rollout: self.table.record.rollout.clone(),
            generation: self.table.record.generation,
            at: self.shared.clock.now().unwrap_or_default(),
            reason: reason.to_owned(),
            differences,
            request: keep(&self.request, &spec.redact, most),
            request_bytes: self.request.len() as i64,
            live: live.captured(&spec.redact, most),
            shadow: shadow.captured(&spec.redact, most),
        };
        let kept = match self.shared.events.capture(&capture) {
            Ok(()) => reason,
            Err(error) => {
                tracing::debug!(%error, %model, "an example could not be written");
                "lost"
            }
        };
        self.shared.metrics.example(model, kept);
    }
}
