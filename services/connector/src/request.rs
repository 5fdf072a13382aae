//! The HTTP call of a delivery.
//!
//! A webhook is signed as Standard Webhooks 1.0 specifies: `webhook-signature: v1,<base64 of HMAC-SHA256(key, "<id>.<timestamp>.<body>")>`,
//! where the timestamp is that of the attempt. `PagerDuty`'s integration key is added to the body here, so that it is not on the log.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Method, Request, Response, header};
use serde_json::Value;
use serin_schemas::records::Delivery;
use sha2::Sha256;

use crate::{
    config::{Kind, Loaded, signing_key},
    courier::Answer,
};

/// The user agent.
const AGENT: &str = concat!("serin/", env!("CARGO_PKG_VERSION"));

/// The call of a delivery at `now_ms`, or why there can be none.
pub(crate) fn request(destination: &Loaded, delivery: &Delivery, now_ms: i64) -> Result<Request<Bytes>, String> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(destination.url.expose())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, AGENT);
    let body = match destination.kind {
        Kind::Webhook => {
            let seconds = (now_ms / 1_000).to_string();
            let signature = signature(destination.secret.expose(), &delivery.id, &seconds, &delivery.body)
                .ok_or("the signing secret cannot be used")?;
            request = request
                .header("webhook-id", &delivery.id)
                .header("webhook-timestamp", seconds)
                .header("webhook-signature", signature);
            delivery.body.clone()
        }
        Kind::Pagerduty => {
            let mut body: Value = serde_json::from_str(&delivery.body).map_err(|error| error.to_string())?;
            body["routing_key"] = destination.secret.expose().into();
            body.to_string()
        }
        Kind::Slack | Kind::Teams => delivery.body.clone(),
    };
    // An error could quote the address.
    request.body(Bytes::from(body)).map_err(|_| "the call cannot be made with this address and id".to_owned())
}

fn signature(secret: &str, id: &str, seconds: &str, body: &str) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&signing_key(secret)?).ok()?;
    for part in [id, ".", seconds, ".", body] {
        mac.update(part.as_bytes());
    }
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

/// What the destination answered. A wait is read in seconds; as a date it is ignored.
pub(crate) fn answer(response: Result<Response<()>, String>) -> Answer {
    match response {
        Err(why) => Answer::NoAnswer(why),
        Ok(response) => {
            let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let seconds: Option<i64> = seconds.and_then(|text| text.trim().parse().ok());
            let retry_after_ms = seconds.map(|seconds| seconds.saturating_mul(1_000));
            Answer::Status { status: response.status().as_u16(), retry_after_ms }
        }
    }
}

#[cfg(test)]
mod tests {
    use serin_schemas::ids::EventTime;

    use super::*;
    use crate::config::tests::loaded;

    fn delivery(body: &str) -> Delivery {
        Delivery {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            destination: "own".to_owned(),
            model: "fraud".into(),
            rollout: None,
            on: "held".to_owned(),
            event: "e".to_owned(),
            at: EventTime(0),
            due_at: EventTime(0),
            body: body.to_owned(),
        }
    }

    /// The example of the reference libraries of Standard Webhooks.
    #[test]
    fn the_signature_is_that_of_the_reference_libraries() {
        let destination = loaded("own", Kind::Webhook, &[]);
        let call = request(&destination, &delivery(r#"{"test": 2432232314}"#), 1_614_265_330_000).unwrap();
        let header = |name: &str| call.headers()[name].to_str().unwrap();
        assert_eq!(header("webhook-id"), "msg_p5jXN8AQM9LWM0D4loKWxJek");
        assert_eq!(header("webhook-timestamp"), "1614265330");
        assert_eq!(header("webhook-signature"), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(call.body(), r#"{"test": 2432232314}"#);
    }

    #[test]
    fn the_integration_key_is_added_when_a_call_is_made() {
        let destination = loaded("on-call", Kind::Pagerduty, &[]);
        let call = request(&destination, &delivery(r#"{"event_action":"resolve"}"#), 0).unwrap();
        let body: Value = serde_json::from_slice(call.body()).unwrap();
        assert_eq!(body, serde_json::json!({"event_action": "resolve", "routing_key": "key"}));
    }

    #[test]
    fn a_wait_is_read_in_seconds() {
        let with = |value: &str| {
            let response = Response::builder().status(429).header("retry-after", value);
            answer(Ok(response.body(()).unwrap()))
        };
        assert_eq!(with("7"), Answer::Status { status: 429, retry_after_ms: Some(7_000) });
        assert_eq!(with("Wed, 21 Oct 2026 07:28:00 GMT"), Answer::Status { status: 429, retry_after_ms: None });
        assert_eq!(answer(Err("late".to_owned())), Answer::NoAnswer("late".to_owned()));
    }
}
