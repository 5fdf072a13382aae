//! Decides what to do after an error: retry, or wait for an operator.

use std::time::Duration;

use super::{
    State, TaskError, TaskOptions,
    failures::{Handled, RecordFailures},
};
use crate::log::{CommitError, LogError};

/// What to do after an error.
#[derive(Debug)]
pub(crate) enum Next {
    /// Reopen after this pause, with the given use of the store.
    Open(Duration, State),
    /// Stop, because a retry cannot fix this error.
    Fail(TaskError),
}

/// Counts consecutive errors. Pauses double up to a limit, and a topic that stays missing counts as deleted.
#[derive(Debug)]
pub(crate) struct Retry {
    options: TaskOptions,
    pause: Duration,
    missing_since: Option<Duration>,
    failures: RecordFailures,
    /// Number of errors since the last success.
    in_a_row: u32,
}

impl Retry {
    pub(crate) fn new(options: &TaskOptions) -> Self {
        let failures = RecordFailures::default();
        Self { pause: options.min_backoff, options: options.clone(), missing_since: None, failures, in_a_row: 0 }
    }

    /// The records that failed.
    pub(crate) fn failures(&self) -> &RecordFailures {
        &self.failures
    }

    /// Number of errors since the last success.
    pub(super) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// Resets the counters after a success.
    pub(crate) fn reset(&mut self) {
        self.pause = self.options.min_backoff;
        self.missing_since = None;
        self.in_a_row = 0;
    }

    /// Handles an error at the time `now`.
    pub(crate) fn after(&mut self, error: TaskError, now: Duration) -> Next {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if error.is_final() {
            return Next::Fail(error);
        }
        if let TaskError::Unfit { alone, records, poison, .. } = &error {
            return match self.failures.failed(alone.as_ref(), *records, poison) {
                Handled::Reopen => Next::Open(self.options.min_backoff, State::Kept),
                Handled::GiveUp => Next::Fail(error),
            };
        }
        match error {
            TaskError::Log(cause @ LogError::UnknownTopic { .. }) => {
                let since = *self.missing_since.get_or_insert(now);
                if now.saturating_sub(since) >= self.options.missing_topic {
                    return Next::Fail(TaskError::TopicGone { cause });
                }
                Next::Open(self.next_pause(), State::Kept)
            }
            TaskError::Commit(CommitError::Fenced) => Next::Open(self.options.fenced_backoff, State::Kept),
            TaskError::Store(_) => Next::Open(self.next_pause(), State::Discarded),
            _ => Next::Open(self.next_pause(), State::Kept),
        }
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(self.options.max_backoff);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    fn retry() -> Retry {
        Retry::new(&TaskOptions {
            min_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_millis(350),
            missing_topic: Duration::from_mins(1),
            ..TaskOptions::default()
        })
    }

    fn pause(next: &Next) -> Duration {
        let Next::Open(pause, _) = next else { panic!("{next:?}") };
        *pause
    }

    #[test]
    fn pauses_double_up_to_the_bound() {
        let mut retry = retry();
        let mut lost = || pause(&retry.after(CommitError::Unknown("gone".into()).into(), Duration::ZERO)).as_millis();
        assert_eq!([lost(), lost(), lost(), lost()], [100, 200, 350, 350]);
        retry.reset();
        let fenced = retry.after(CommitError::Fenced.into(), Duration::ZERO);
        assert_eq!(pause(&fenced), TaskOptions::default().fenced_backoff);
        assert_eq!(pause(&retry.after(CommitError::Unknown("gone".into()).into(), Duration::ZERO)).as_millis(), 100);
    }

    #[test]
    fn a_missing_topic_is_waited_for_and_then_counts_as_deleted() {
        let mut retry = retry();
        let mut missing = |second| {
            let error = LogError::UnknownTopic { topic: "x.counter-changelog".into() };
            retry.after(error.into(), Duration::from_secs(second))
        };
        assert!(matches!(missing(10), Next::Open(..)));
        assert!(matches!(missing(69), Next::Open(..)));
        let Next::Fail(error) = missing(70) else { panic!("the task retries") };
        assert!(error.to_string().contains("counter-changelog"), "{error}");
        retry.reset();
        let error = LogError::UnknownTopic { topic: "t".into() };
        assert!(
            matches!(retry.after(error.into(), Duration::from_secs(80)), Next::Open(..)),
            "the topic was available in between"
        );
    }

    #[test]
    fn a_store_that_failed_is_discarded() {
        let broken = StoreError { doing: "writing rows", cause: "no space".into() };
        assert!(matches!(retry().after(broken.into(), Duration::ZERO), Next::Open(_, State::Discarded)));
        let away = LogError::Failed { doing: "reading".into(), cause: "away".into() };
        assert!(matches!(retry().after(away.into(), Duration::ZERO), Next::Open(_, State::Kept)));
    }
}
