//! Default values of the fields of a spec.

use serin_schemas::records::Role;

use super::Policy;
use crate::units::{Duration, Share};

pub(super) fn window() -> Duration {
    Duration::from_secs(10)
}
pub(super) fn control_ratio() -> f64 {
    10.0
}
pub(super) fn min_events() -> u64 {
    1000
}
pub(super) fn bake_min() -> Duration {
    Duration::from_secs(600)
}
pub(super) fn bake_max() -> Duration {
    Duration::from_secs(4 * 3600)
}
pub(super) fn approve_within() -> Duration {
    Duration::from_secs(4 * 3600)
}
pub(super) fn keep_previous() -> Duration {
    Duration::from_secs(24 * 3600)
}
pub(super) fn looks() -> u32 {
    5
}
pub(super) fn top() -> usize {
    10
}
pub(super) fn yes() -> bool {
    true
}
pub(super) fn role() -> Role {
    Role::Gate
}
pub(super) fn one() -> f64 {
    1.0
}
pub(super) fn false_rollback() -> f64 {
    0.01
}
pub(super) fn false_promotion() -> f64 {
    0.05
}
pub(super) fn min_answers() -> u64 {
    30
}
pub(super) fn ceiling_times() -> f64 {
    10.0
}
pub(super) fn ceiling_at_least() -> Share {
    Share(2_000)
}
pub(super) fn promote_score() -> f64 {
    95.0
}
pub(super) fn rollback_score() -> f64 {
    60.0
}
pub(super) fn hold_max() -> Duration {
    Duration::from_secs(24 * 3600)
}
pub(super) fn hold() -> Policy {
    Policy::Hold
}
pub(super) fn warn() -> Policy {
    Policy::Warn
}
pub(super) fn drain() -> Duration {
    Duration::from_secs(30)
}
pub(super) fn mirror_in_flight() -> u32 {
    64
}
pub(super) fn mirror_timeout() -> Duration {
    Duration::from_secs(10)
}
pub(super) fn captures_per_minute() -> u32 {
    60
}
pub(super) fn capture_bytes() -> u32 {
    4096
}
