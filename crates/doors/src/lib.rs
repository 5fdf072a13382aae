//! Doors for traffic that Serin's routers do not carry. A door reads one wire format that other systems write, and returns predictions.
//!
//! | door | format | one call is |
//! |---|---|---|
//! | [`cloud`] with [`half`] | `KServe`'s payload logger, Seldon's request logger | two `CloudEvents` with the same id |
//! | [`otlp`] | OpenTelemetry spans, as protobuf or JSON | one span |
//! | [`envoy`] | Envoy's gRPC access-log service | one log entry |
//!
//! Invariants:
//! - Pure: bytes, rules and bounds in, predictions and refusals out. No bytes cause a panic.
//! - Every record passes the checks of all other doors ([`Bounds`](serin_schemas::foreign::Bounds)).
//! - A raw payload is dropped once its outputs are read.
//! - What a door does not know stays unknown. It never becomes a good answer or a zero.

pub mod cloud;
pub mod envoy;
pub mod half;
pub mod otlp;
mod payload;
pub mod rules;

pub use rules::{DoorRules, Mapping, Place, Spans};

/// The bytes of a recorded input, from hexadecimal digits.
#[cfg(test)]
fn recorded(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap_or(0) as u8;
    digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, one| byte << 4 | digit(*one))).collect()
}
