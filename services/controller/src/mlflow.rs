//! The webhook of the MLflow registry: a new version starts a rollout by policy.
//!
//! A delivery is signed: `X-MLflow-Signature: v1,<base64 of HMAC-SHA256(secret, "<delivery id>.<timestamp>.<raw body>")>` (the
//! scheme of Standard Webhooks with other names). After a 5xx, MLflow repeats a delivery with the same id. The id becomes that of
//! the command, so the command is done once. A delivery is an untrusted hint until its signature is checked. A delivery without an
//! id is refused, because it could not be distinguished from others without one.
//!
//! The webhook waits for the result of the command: a rollout that the planner refuses is answered with 409 and the planner's sentence.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use serde_json::{Value, json};
use serin_access::Secret;
use serin_schemas::{
    ids::{RolloutId, Version},
    records::{Action, Command, EventKind},
};
use serin_spec::{RolloutSpec, units::Duration};
use serin_stream::log_limit::LogLimit;
use sha2::{Digest as _, Sha256};
use uuid::Builder;

use crate::{
    api::state::{ApiState, Failure},
    config::Trigger,
    metrics,
    policies::fill,
    view::View,
};

/// How long a delivery waits for the result of its command, in milliseconds.
const ANSWER_MS: u64 = 3_000;
/// Longest id of a delivery. The command's id is made from it, and is bounded.
const DELIVERY_ID_MAX: usize = 100;
/// Longest version name that is put into a spec.
const VERSION_MAX: usize = 100;

/// A delivery. Fields that are not used are not read.
#[derive(Debug, Deserialize)]
struct Delivery {
    entity: String,
    action: String,
    data: Data,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    name: String,
    version: String,
    alias: String,
    key: String,
    value: String,
}

static REFUSED: LogLimit = LogLimit::new();

/// `POST /hooks/mlflow`. The result of a delivery is logged and counted, because the registry does not show it.
pub(crate) async fn receive(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let answer = take(&state, &headers, &body).await;
    let outcome = match &answer {
        Ok(Taken::Started(..)) => "started",
        Ok(Taken::Ignored(_)) => "ignored",
        Err(failure) if failure.is_of_server() => "failed",
        Err(_) => "refused",
    };
    metrics::delivered(outcome, 1);
    match answer {
        Ok(Taken::Started(rollout, sentence)) => {
            tracing::info!(%rollout, "a delivery of the MLflow webhook requested a rollout: {sentence}");
            Ok((StatusCode::ACCEPTED, Json(json!({"rollout": rollout, "sentence": sentence}))))
        }
        Ok(Taken::Ignored(why)) => {
            tracing::info!("a delivery of the MLflow webhook was ignored: {why}");
            Ok((StatusCode::ACCEPTED, Json(json!({"ignored": why}))))
        }
        Err(failure) => {
            if let Some(count) = REFUSED.happened(1) {
                tracing::warn!(count, "a delivery of the MLflow webhook was not accepted: {}", failure.message());
            }
            Err(failure)
        }
    }
}

/// The result of a delivery that was understood.
enum Taken {
    /// The rollout, and the result of the command.
    Started(RolloutId, String),
    Ignored(String),
}

async fn take(state: &ApiState, headers: &HeaderMap, body: &Bytes) -> Result<Taken, Failure> {
    let config = &state.config().mlflow;
    if config.secret.expose().is_empty() {
        let error = "the MLflow webhook is off; set controller.mlflow.secret";
        return Err(Failure::new(StatusCode::NOT_FOUND, error));
    }
    let refuse = |refusal: Refusal| Failure::new(StatusCode::UNAUTHORIZED, refusal.to_string());
    let signed = Signed::read(headers).map_err(refuse)?;
    signed.check(&config.secret, config.tolerance, body, state.now_ms()).map_err(refuse)?;
    let delivery: Delivery = serde_json::from_slice(body)
        .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, format!("the body is not an MLflow event: {error}")))?;

    match decide(state, &delivery) {
        Decided::Ignore(why) => Ok(Taken::Ignored(why)),
        Decided::Fail(error) => Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error)),
        Decided::Start(spec) => {
            let id = format!("mlflow-{}", signed.id);
            // A repeated delivery is signed again, with another time, so its rollout would have another id.
            if let Some(event) = state.view().started(&id) {
                return match (&event.rollout, event.kind) {
                    (Some(rollout), kind) if kind != EventKind::Refused => {
                        Ok(Taken::Started(rollout.clone(), event.sentence.clone()))
                    }
                    _ => Err(Failure::new(StatusCode::CONFLICT, event.sentence.as_str())),
                };
            }
            let rollout = RolloutId(rollout_id(signed.timestamp, signed.id));
            let command = Command {
                rollout: Some(rollout.clone()),
                spec: Some(
                    serde_json::to_string(&spec)
                        .map_err(|error| Failure::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?,
                ),
                reason: format!(
                    "{}.{} of {}",
                    delivery.entity,
                    delivery.action,
                    Version::from(delivery.data.version.as_str()).in_words()
                ),
                ..Command::new(id, Action::Apply, spec.model.clone(), "mlflow".to_owned(), state.wall_clock())
            };
            let answer = state.ask(command, ANSWER_MS).await?;
            let Some(sentence) = answer.sentence else {
                let error = "the command is on the log, but has no answer yet; deliver again";
                return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error));
            };
            if answer.refused {
                return Err(Failure::new(StatusCode::CONFLICT, sentence));
            }
            Ok(Taken::Started(rollout, sentence))
        }
    }
}

enum Decided {
    Start(Box<RolloutSpec>),
    Ignore(String),
    Fail(String),
}

fn decide(state: &ApiState, delivery: &Delivery) -> Decided {
    let Data { name, version, alias, key, value } = &delivery.data;
    let Some(policy) = state.policies().of(name) else {
        return Decided::Ignore(format!("model {name:?} has no policy"));
    };
    let event = (delivery.entity.as_str(), delivery.action.as_str());
    let starts = match &policy.trigger {
        Trigger::Alias(wanted) => event == ("model_version_alias", "created") && alias == wanted,
        Trigger::Tag { key: wanted, value: set } => {
            event == ("model_version_tag", "set") && key == wanted && value == set
        }
        Trigger::VersionCreated => event == ("model_version", "created"),
    };
    if !starts {
        return Decided::Ignore(format!("{}.{} does not trigger the policy of {name}", event.0, event.1));
    }
    if !is_version(version) {
        return Decided::Ignore(format!("{version:?} is not a valid version name"));
    }
    let view: Arc<View> = state.view();
    if !view.caught_up() {
        return Decided::Fail("the controller has not read its topics yet; deliver again".to_owned());
    }
    let Some(stable) = view.stable_version(name, policy.concurrency).or(policy.stable.as_deref()) else {
        return Decided::Ignore(format!(
            "the stable version of {name} is unknown; set controller.policies.{name}.stable"
        ));
    };
    if stable == version {
        return Decided::Ignore(format!("{} of {name} is already stable", Version::from(version.as_str()).in_words()));
    }
    match fill(&policy.template, version, stable) {
        Ok(spec) => Decided::Start(Box::new(spec)),
        Err(problem) => Decided::Fail(problem),
    }
}

/// Whether a name can be put into a spec without changing the meaning of the spec.
fn is_version(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && text.len() <= VERSION_MAX && text.chars().all(plain)
}

/// A `UUIDv7` that is the same for repetitions of a delivery.
fn rollout_id(timestamp: i64, delivery: &str) -> String {
    let mut random = [0; 10];
    random.copy_from_slice(&Sha256::digest(delivery.as_bytes())[..10]);
    Builder::from_unix_timestamp_millis(timestamp.max(0) as u64 * 1000, &random).into_uuid().to_string()
}

/// Why a delivery is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("the header {0} must occur exactly once and must not be empty")]
    Header(&'static str),
    #[error("X-MLflow-Delivery-Id must have 1 to {DELIVERY_ID_MAX} visible ASCII characters")]
    Id,
    #[error("the signature does not match this body and the configured secret")]
    Signature,
    #[error("the delivery's timestamp is {0} s away from the controller's clock")]
    Time(i64),
}

/// The signature headers of a delivery.
struct Signed<'a> {
    id: &'a str,
    timestamp: i64,
    timestamp_text: &'a str,
    signatures: &'a str,
}

impl<'a> Signed<'a> {
    fn read(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let text = |name: &'static str| {
            let mut values = headers.get_all(name).iter();
            let (first, second) = (values.next(), values.next());
            let text = first.filter(|_| second.is_none()).and_then(|value| value.to_str().ok());
            text.filter(|text| text.len() <= 1000 && !text.trim().is_empty()).ok_or(Refusal::Header(name))
        };
        let timestamp_text = text("X-MLflow-Timestamp")?;
        let id = text("X-MLflow-Delivery-Id")?;
        if id.len() > DELIVERY_ID_MAX || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Refusal::Id);
        }
        Ok(Self {
            id,
            timestamp: timestamp_text.parse().map_err(|_| Refusal::Header("X-MLflow-Timestamp"))?,
            timestamp_text,
            signatures: text("X-MLflow-Signature")?,
        })
    }

    fn check(&self, secret: &Secret, tolerance: Duration, body: &[u8], now_ms: i64) -> Result<(), Refusal> {
        let genuine = self
            .signatures
            .split_ascii_whitespace()
            .filter_map(|signature| signature.strip_prefix("v1,"))
            .filter_map(|signature| STANDARD.decode(signature).ok())
            .any(|signature| self.is_signed_with(secret, body, &signature));
        if !genuine {
            return Err(Refusal::Signature);
        }
        let away = (now_ms / 1000).saturating_sub(self.timestamp);
        if away.unsigned_abs() > (tolerance.0.0 / 1_000_000).unsigned_abs() { Err(Refusal::Time(away)) } else { Ok(()) }
    }

    /// Returns whether the signature matches. Compares in constant time.
    fn is_signed_with(&self, secret: &Secret, body: &[u8], signature: &[u8]) -> bool {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else { return false };
        for part in [self.id.as_bytes(), b".", self.timestamp_text.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac.verify_slice(signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A delivery of MLflow 3.17.2 as it was received, with the secret `s3cret`.
    const BODY: &str = r#"{"entity": "model_version", "action": "created", "timestamp": "2026-11-21T07:17:19.131017+00:00", "data": {"name": "fraud", "version": "1", "source": "s3://bucket/fraud/1", "run_id": null, "tags": {"canary": "true"}, "description": "v1 \u00e9\u00fc"}}"#;
    const SIGNED: Signed<'_> = Signed {
        id: "0a5a93cb-d6a0-4120-9cde-a34481903726",
        timestamp: 1_795_245_439,
        timestamp_text: "1795245439",
        signatures: "v1,3F8kehZZTw/HYNu4Np2NYAqheP95njrGRdGhSzB4dAE=",
    };
    const NOW_MS: i64 = 1_795_245_449_000;

    fn check(secret: &str, body: &str, now_ms: i64) -> Result<(), Refusal> {
        SIGNED.check(&Secret::new(secret), Duration::from_secs(300), body.as_bytes(), now_ms)
    }

    #[test]
    fn a_real_delivery_verifies() {
        assert_eq!(check("s3cret", BODY, NOW_MS), Ok(()));
    }

    #[test]
    fn a_wrong_secret_another_body_or_a_stale_delivery_is_refused() {
        assert_eq!(check("secret", BODY, NOW_MS), Err(Refusal::Signature));
        let again = serde_json::to_string(&serde_json::from_str::<Value>(BODY).unwrap()).unwrap();
        assert_eq!(check("s3cret", &again, NOW_MS), Err(Refusal::Signature));
        assert_eq!(check("s3cret", BODY, NOW_MS + 291_000), Err(Refusal::Time(301)));
        assert_eq!(check("s3cret", BODY, NOW_MS - 311_000), Err(Refusal::Time(-301)));
        let two = Signed { signatures: "v2,zzz v1,AAAA v1,3F8kehZZTw/HYNu4Np2NYAqheP95njrGRdGhSzB4dAE=", ..SIGNED };
        assert_eq!(two.check(&Secret::new("s3cret"), Duration::from_secs(300), BODY.as_bytes(), NOW_MS), Ok(()));
    }

    #[test]
    fn a_delivery_needs_exactly_one_id() {
        let read = |ids: &[&str]| {
            let mut headers = HeaderMap::new();
            for (name, value) in [("X-MLflow-Timestamp", "1"), ("X-MLflow-Signature", "v1,AAAA")] {
                headers.insert(name, value.parse().unwrap());
            }
            for id in ids {
                headers.append("X-MLflow-Delivery-Id", id.parse().unwrap());
            }
            Signed::read(&headers).map(|signed| signed.id.to_owned())
        };
        assert_eq!(read(&["0a5a93cb"]), Ok("0a5a93cb".to_owned()));
        let long = "x".repeat(DELIVERY_ID_MAX + 1);
        for bad in [&[][..], &[""], &["  "], &["\t"], &["a", "b"], &["a", "a"], &["", "a"], &["a b"], &[long.as_str()]]
        {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_same_delivery_gives_the_same_rollout() {
        let id = rollout_id(1_795_245_439, "a");
        assert_eq!(id, rollout_id(1_795_245_439, "a"));
        assert_ne!(id, rollout_id(1_795_245_439, "b"));
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
    }
}
