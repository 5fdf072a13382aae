//! Waiting for a rollout while its controller restarts: who waits for hours asks again, and says so.

use std::time::{Duration, Instant};

use http::StatusCode;
use serin_spec::units;

use crate::{client::ApiError, http::NoAnswer, output};

/// The first pause before asking again; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// How long somebody waits.
pub(crate) struct Patience {
    deadline: Instant,
    /// The next pause, while no answer comes.
    pause: Option<Duration>,
}

impl Patience {
    /// Waits as long as `--timeout` says.
    pub(crate) fn of(timeout: &str) -> anyhow::Result<Self> {
        let timeout = units::Duration::parse(timeout).map_err(|error| anyhow::anyhow!("--timeout: {error}"))?;
        let timeout = Duration::from_micros(timeout.0.0.unsigned_abs());
        // A time that no clock of this machine reaches is as good as this one.
        let now = Instant::now();
        let deadline = now.checked_add(timeout).unwrap_or(now + Duration::from_hours(24 * 365));
        Ok(Self { deadline, pause: None })
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Time that is left, at most `most`.
    pub(crate) fn left(&self, most: Duration) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).min(most)
    }

    /// Asks until an answer comes, or until it is over.
    pub(crate) async fn ask<T, F>(&mut self, ask: impl Fn() -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        self.ask_while(is_away, ask).await
    }

    /// Sends something until it is known to have been sent once.
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
                    // A refusal is an answer too.
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
                output::aside(format!("{first}; asking again until --timeout"));
            }
            self.pause = Some((pause * 2).min(LONGEST));
            tokio::time::sleep(self.left(pause)).await;
        }
    }
}

/// Whether a controller that is starting, or a proxy before one that is not there, explains it.
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
