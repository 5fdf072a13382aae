//! What the connector tells its destinations, and what became of it (topic `deliveries`, key = model).

use serde::{Deserialize, Serialize};

use crate::ids::{EventTime, ModelName, RolloutId};

/// A message to one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The idempotency key: the same for every attempt, another one for every delivery.
    pub id: String,
    /// The destination's name in the connector's configuration.
    pub destination: String,
    /// The model. For a freeze, the [pattern](crate::pattern) of models.
    pub model: ModelName,
    /// The rollout; `None` for a freeze, and for a refused command without one.
    pub rollout: Option<RolloutId>,
    /// What it is about, in the words of the setting `connector.destinations[].on`: `rolled_back`, `held`.
    pub on: String,
    /// Id of the audit event behind it.
    pub event: String,
    /// Event time of the audit event.
    pub at: EventTime,
    /// When it became due, by the log's clock.
    pub due_at: EventTime,
    /// The body of the call as JSON, without secrets. Every attempt sends the same body.
    pub body: String,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryOutcome {
    /// The destination accepted it.
    Delivered,
    /// The destination cannot use its content, so it is not repeated.
    Refused,
    /// The destination did not accept it in time.
    Expired,
    /// Its destination is no longer configured, or too many deliveries wait.
    Dropped,
}

impl DeliveryOutcome {
    /// All outcomes, in the order of the schema.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Refused, Self::Expired, Self::Dropped];

    /// Name of the outcome on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Dropped => "dropped",
        }
    }
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryResult {
    /// Id of the delivery.
    pub delivery: String,
    /// The destination's name.
    pub destination: String,
    /// The model of the delivery.
    pub model: ModelName,
    /// The rollout of the delivery.
    pub rollout: Option<RolloutId>,
    /// How the delivery ended.
    pub result: DeliveryOutcome,
    /// Calls since the connector's last start.
    pub attempts: i32,
    /// HTTP status of the last answer; `None` without an answer.
    pub status: Option<i32>,
    /// What went wrong, for display. Empty if it was delivered.
    pub message: String,
    /// When the delivery ended, wall clock.
    pub at: EventTime,
}
