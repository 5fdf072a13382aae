//! Transactions on a local log: each is a single append.

use std::sync::Arc;

use serin_schemas::ids::NextOffset;

use super::{
    Inner, LocalMembership,
    ledger::{Submission, SubmitError},
    storage::Storage,
    topics::PlaceError,
};
use crate::{
    log::{CommitError, Membership, Transactional, Written},
    record::{Outgoing, TopicPartition},
};

pub(super) struct LocalTransaction<S> {
    log: Arc<Inner<S>>,
    id: String,
    epoch: i64,
}

impl<S: Storage> LocalTransaction<S> {
    pub(crate) fn new(log: Arc<Inner<S>>, id: &str, epoch: i64) -> Self {
        Self { log, id: id.to_owned(), epoch }
    }

    fn submission(
        &self,
        records: &[Outgoing],
        positions: &[(TopicPartition, NextOffset)],
        group: Option<&dyn Membership>,
    ) -> Result<Submission, CommitError> {
        let now_ms = self.log.clock.now_ms();
        let mut resolved = Vec::with_capacity(records.len());
        for record in records {
            let resolved = self.log.topics.resolve(record, now_ms, &mut resolved);
            resolved.map_err(unplaced)?;
        }
        let mut moved = Vec::new();
        if let Some(member) = group.and_then(|group| group.as_any().downcast_ref::<LocalMembership>()) {
            for (at, next) in positions {
                let (place, _) = self.log.topics.tail(at).map_err(|error| CommitError::Aborted(error.to_string()))?;
                moved.push((member.group().to_owned(), place, next.0));
            }
        }
        Ok(Submission { owner: Some((self.id.clone(), self.epoch)), records: resolved, positions: moved })
    }
}

/// Converts the reason why a record of a transaction could not be placed.
pub(crate) fn unplaced(error: PlaceError) -> CommitError {
    match error {
        PlaceError::TooLarge { .. } => CommitError::Unwritable(error.to_string()),
        PlaceError::Unknown(error) => CommitError::Aborted(error.to_string()),
    }
}

impl<S: Storage> Transactional for LocalTransaction<S> {
    fn commit(
        &mut self,
        records: &[Outgoing],
        positions: &[(TopicPartition, NextOffset)],
        group: Option<&dyn Membership>,
    ) -> Result<Written, CommitError> {
        let submission = self.submission(records, positions, group)?;
        let ends = self.log.submit(submission).map_err(|error| match error {
            SubmitError::Fenced => CommitError::Fenced,
            SubmitError::Storage(error) => CommitError::Unknown(error.to_string()),
        })?;
        Ok(Written(self.log.topics.named(&ends)))
    }
}
