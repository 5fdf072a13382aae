//! The client side of a transaction: S1 to S4 of a commit. The network may lose, repeat or delay each request.

use std::sync::Arc;

use serin_schemas::ids::NextOffset;

use super::{
    Cluster,
    broker::{Denied, Owner, Request},
    network::{Fate, Process, Step},
};
use crate::{
    local::{
        Local as _, LocalMembership,
        storage::{Place, Stored},
        transaction::unplaced,
    },
    log::{CommitError, Membership, Transactional, Written},
    record::{Outgoing, TopicPartition},
};

pub(super) struct SimTransaction {
    cluster: Arc<Cluster>,
    process: Process,
    owner: Owner,
    /// The number of the next batch.
    batch: u64,
    /// Set after an error. The client's view may then differ from the broker's, so the transaction cannot be used
    /// again.
    broken: bool,
}

/// Records by partition, in the order in which the partitions first occur.
type Batches = Vec<(Place, Vec<Stored>)>;

impl SimTransaction {
    pub(super) fn new(cluster: Arc<Cluster>, process: Process, owner: Owner) -> Self {
        Self { cluster, process, owner, batch: 0, broken: false }
    }

    fn batches(&self, records: &[Outgoing]) -> Result<Batches, CommitError> {
        let mut placed = Vec::with_capacity(records.len());
        for record in records {
            let resolved = self.cluster.topics.resolve(record, self.cluster.now_ms(), &mut placed);
            resolved.map_err(unplaced)?;
        }
        let mut batches: Batches = Vec::new();
        for (place, record) in placed {
            match batches.iter_mut().find(|(known, _)| *known == place) {
                Some((_, batch)) => batch.push(record),
                None => batches.push((place, vec![record])),
            }
        }
        Ok(batches)
    }

    /// Sends a request and returns the response or the failure.
    fn send(&self, step: Step, request: &Request) -> Result<Option<i64>, Failure> {
        let fate = self.process.at(step);
        let serve = || self.cluster.change(|broker, now_ms| broker.serve(&self.owner, request, now_ms));
        if fate == Fate::Doubled {
            // The first of the two responses counts.
            let first = serve();
            let _ = serve();
            return first.map_err(Failure::Denied);
        }
        if let Fate::Late(after) = fate {
            self.cluster.change(|broker, _| broker.delay(after, &self.owner, request));
        }
        let answer = if fate.is_done() { serve() } else { Ok(None) };
        if fate.is_heard() { answer.map_err(Failure::Denied) } else { Err(Failure::Unheard(fate)) }
    }

    /// Performs all steps before the commit. If a step fails, no record becomes visible.
    fn write(
        &mut self,
        batches: Batches,
        positions: Vec<(Place, i64)>,
        group: Option<&LocalMembership>,
    ) -> Result<Vec<(Place, i64)>, Failure> {
        self.send(Step::Begin, &Request::Begin)?;
        let mut ends = Vec::with_capacity(batches.len());
        for (place, records) in batches {
            let request = Request::Produce { batch: self.batch, place, records };
            self.batch += 1;
            let answer = match self.send(Step::Produce, &request) {
                // An idempotent producer retries until it knows the result.
                Err(Failure::Unheard(Fate::ReplyLost)) => self.send(Step::Produce, &request),
                other => other,
            };
            ends.push((place, answer?.ok_or(Failure::Denied(Denied::NotOpen))?));
        }
        if let Some(member) = group.filter(|_| !positions.is_empty()) {
            let request = Request::Positions { group: member.group().to_owned(), positions };
            if !member.is_known() {
                return Err(Failure::Stale);
            }
            self.send(Step::Positions, &request)?;
        }
        Ok(ends)
    }

    /// Classifies a failure before the commit, and aborts the transaction if the broker can be reached.
    fn give_up(&self, failure: &Failure) -> CommitError {
        if matches!(failure, Failure::Denied(Denied::Fenced)) {
            return CommitError::Fenced;
        }
        // Without a response, the next owner aborts the transaction, or the broker after a timeout.
        let _ = self.send(Step::Abort, &Request::End { commit: false });
        CommitError::Aborted(failure.to_string())
    }

    fn commit_written(&self) -> Result<(), CommitError> {
        match self.send(Step::Commit, &Request::End { commit: true }) {
            Ok(_) => Ok(()),
            Err(Failure::Denied(Denied::Fenced)) => Err(CommitError::Fenced),
            Err(failure @ Failure::Unheard(Fate::Refused)) => Err(self.give_up(&failure)),
            Err(failure) => Err(CommitError::Unknown(failure.to_string())),
        }
    }
}

/// The reason why a request failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("denied: {0:?}")]
    Denied(Denied),
    #[error("{}", .0.reason())]
    Unheard(Fate),
    #[error("the group does not know this member: its generation is stale")]
    Stale,
}

impl Transactional for SimTransaction {
    fn commit(
        &mut self,
        records: &[Outgoing],
        positions: &[(TopicPartition, NextOffset)],
        group: Option<&dyn Membership>,
    ) -> Result<Written, CommitError> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(CommitError::Unknown("a failed transaction was used again".into()));
        }
        let batches = self.batches(records)?;
        let group = group.and_then(|group| group.as_any().downcast_ref::<LocalMembership>());
        let place = |(at, next): &(TopicPartition, NextOffset)| Ok((self.cluster.topics.tail(at)?.0, next.0));
        let positions: Result<Vec<_>, crate::log::LogError> = positions.iter().map(place).collect();
        let positions = positions.map_err(|error| CommitError::Aborted(error.to_string()))?;
        let ends = self.write(batches, positions, group).map_err(|failure| self.give_up(&failure))?;
        self.commit_written()?;
        self.broken = false;
        Ok(Written(self.cluster.topics.named(&ends.into_iter().collect())))
    }
}
