//! What comes after an error: another attempt, or a person.

use std::time::Duration;

use super::{
    State, TaskError, TaskOptions,
    care::{Care, Handled},
};
use crate::log::{CommitError, LogError};

/// What to do after an error.
#[derive(Debug)]
pub(crate) enum Next {
    /// Open again after this pause, with what is known of the store.
    Open(Duration, State),
    /// Stop: a repetition cannot heal this.
    Fail(TaskError),
}

/// Counts the errors in a row: pauses double up to a bound, and a topic that stays away is gone.
#[derive(Debug)]
pub(crate) struct Retry {
    options: TaskOptions,
    pause: Duration,
    missing_since: Option<Duration>,
    care: Care,
    /// Errors since all was well.
    in_a_row: u32,
}

impl Retry {
    pub(crate) fn new(options: &TaskOptions) -> Self {
        let care = Care::default();
        Self { pause: options.min_backoff, options: options.clone(), missing_since: None, care, in_a_row: 0 }
    }

    /// What is known of records that cannot be worked off.
    pub(crate) fn care(&self) -> &Care {
        &self.care
    }

    /// Errors since all was well.
    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// All is well again.
    pub(crate) fn reset(&mut self) {
        self.pause = self.options.min_backoff;
        self.missing_since = None;
        self.in_a_row = 0;
    }

    /// An error at `now`.
    pub(crate) fn after(&mut self, error: TaskError, now: Duration) -> Next {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if error.is_final() {
            return Next::Fail(error);
        }
        if let TaskError::Unfit { alone, records, poison, .. } = &error {
            return match self.care.failed(alone.as_ref(), *records, poison) {
                Handled::OpenAgain => Next::Open(self.options.min_backoff, State::Kept),
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
            TaskError::Store(_) => Next::Open(self.next_pause(), State::Distrusted),
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
    fn a_missing_topic_is_waited_for_and_then_gone() {
        let mut retry = retry();
        let mut missing = |second| {
            let error = LogError::UnknownTopic { topic: "x.counter-changelog".into() };
            retry.after(error.into(), Duration::from_secs(second))
        };
        assert!(matches!(missing(10), Next::Open(..)));
        assert!(matches!(missing(69), Next::Open(..)));
        let Next::Fail(error) = missing(70) else { panic!("it goes on") };
        assert!(error.to_string().contains("counter-changelog"), "{error}");
        retry.reset();
        let error = LogError::UnknownTopic { topic: "t".into() };
        assert!(matches!(retry.after(error.into(), Duration::from_secs(80)), Next::Open(..)), "it had been back");
    }

    #[test]
    fn a_store_that_failed_is_not_built_upon() {
        let broken = StoreError { doing: "writing rows", cause: "no space".into() };
        assert!(matches!(retry().after(broken.into(), Duration::ZERO), Next::Open(_, State::Distrusted)));
        let away = LogError::Failed { doing: "reading".into(), cause: "away".into() };
        assert!(matches!(retry().after(away.into(), Duration::ZERO), Next::Open(_, State::Kept)));
    }
}
