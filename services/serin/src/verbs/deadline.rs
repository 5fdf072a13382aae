//! Requests with retries until `--timeout`, so that a long wait for a rollout survives a restart of its controller.

use std::time::{Duration, Instant};

use http::StatusCode;
use serin_spec::units;

use crate::{client::ApiError, http::NoAnswer, output};

/// The first pause between two attempts. It doubles with each attempt.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// A deadline with the state of the retries.
pub(super) struct Deadline {
    deadline: Instant,
    /// The next pause; `None` while the controller answers.
    pause: Option<Duration>,
}

impl Deadline {
    /// The deadline of `--timeout`.
    pub(crate) fn of(timeout: &str) -> anyhow::Result<Self> {
        let timeout = units::Duration::parse(timeout).map_err(|error| anyhow::anyhow!("--timeout: {error}"))?;
        let timeout = Duration::from_micros(timeout.0.0.unsigned_abs());
        // A timeout beyond the range of the clock is limited to a year.
        let now = Instant::now();
        let deadline = now.checked_add(timeout).unwrap_or(now + Duration::from_hours(24 * 365));
        Ok(Self { deadline, pause: None })
    }

    /// Whether the deadline has passed.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// The remaining time, at most `most`.
    pub(super) fn left(&self, most: Duration) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).min(most)
    }

    /// Repeats a request until there is an answer or the deadline passes. The request must be idempotent.
    pub(super) async fn ask<T, F>(&mut self, ask: impl Fn() -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        self.ask_while(is_away, ask).await
    }

    /// Repeats a request that must not be sent twice: only while connections are refused.
    pub(crate) async fn send<T, F>(&mut self, send: impl Fn() -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        self.ask_while(|error| matches!(error, ApiError::Away { cause: NoAnswer::Refused(_), .. }), send).await
    }

    async fn ask_while<T, F>(&mut self, again: impl Fn(&ApiError) -> bool, ask: impl Fn() -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        loop {
            let error = match ask().await {
                Err(error) if again(&error) && !self.is_over() => error,
                answer => {
                    // An error response is an answer too.
                    let is_there = answer.as_ref().err().is_none_or(|error| !again(error));
                    if self.pause.take().is_some() && is_there {
                        output::aside("the controller answers again");
                    }
                    return answer;
                }
            };
            let pause = self.pause.unwrap_or(PAUSE);
            if self.pause.is_none() {
                let first = error.to_string();
                let first = first.lines().next().unwrap_or_default();
                output::aside(format!("{first}; retrying until --timeout"));
            }
            self.pause = Some((pause * 2).min(LONGEST));
            tokio::time::sleep(self.left(pause)).await;
        }
    }
}

/// Whether the cause may be a controller that is starting, or a proxy in front of one that is down.
fn is_away(error: &ApiError) -> bool {
    match error {
        ApiError::Away { cause, .. } => {
            matches!(cause, NoAnswer::Refused(_) | NoAnswer::Failed(_) | NoAnswer::Late(_))
        }
        ApiError::Other { status, .. } => {
            matches!(*status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
        }
        _ => false,
    }
}
