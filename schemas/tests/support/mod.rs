//! Draws arbitrary records from bytes that proptest generates and can shrink.
//!
//! The macros list every field and every variant, so a new one does not compile until it is added here.

use std::collections::BTreeMap;

use serin_schemas::{
    ids::{EventTime, Generation, ModelName, RequestId, RolloutId, Span, Version},
    records::*,
};

/// Bytes to draw from, followed by zeros.
pub(crate) struct Source<'a>(pub(crate) &'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn length(&mut self) -> usize {
        usize::from(self.byte() % 4)
    }
}

/// A type whose values can be drawn from a [`Source`].
pub(crate) trait Draw {
    fn draw(from: &mut Source<'_>) -> Self;
}

impl Draw for bool {
    fn draw(from: &mut Source<'_>) -> Self {
        from.byte() % 2 == 1
    }
}

impl Draw for u8 {
    fn draw(from: &mut Source<'_>) -> Self {
        from.byte()
    }
}

impl Draw for i64 {
    fn draw(from: &mut Source<'_>) -> Self {
        match from.byte() % 4 {
            0 => i64::from(from.byte()) - 128,
            1 => i64::MIN,
            2 => i64::MAX,
            _ => i64::from_le_bytes(std::array::from_fn(|_| from.byte())),
        }
    }
}

impl Draw for i32 {
    fn draw(from: &mut Source<'_>) -> Self {
        i64::draw(from) as Self
    }
}

/// Never NaN, because NaN is not equal to itself. It has its own test.
impl Draw for f64 {
    fn draw(from: &mut Source<'_>) -> Self {
        match from.byte() % 5 {
            0 => f64::from(from.byte()) / 8.0,
            1 => Self::INFINITY,
            2 => Self::NEG_INFINITY,
            3 => Self::MIN_POSITIVE,
            _ => -0.0,
        }
    }
}

impl Draw for String {
    fn draw(from: &mut Source<'_>) -> Self {
        const LETTERS: [char; 8] = ['a', 'Z', '0', '=', '\n', '\u{0}', 'ü', '🐦'];
        (0..from.length()).map(|_| LETTERS[usize::from(from.byte() % 8)]).collect()
    }
}

impl<T: Draw> Draw for Option<T> {
    fn draw(from: &mut Source<'_>) -> Self {
        bool::draw(from).then(|| T::draw(from))
    }
}

impl<T: Draw> Draw for Vec<T> {
    fn draw(from: &mut Source<'_>) -> Self {
        (0..from.length()).map(|_| T::draw(from)).collect()
    }
}

impl<T: Draw> Draw for BTreeMap<String, T> {
    fn draw(from: &mut Source<'_>) -> Self {
        (0..from.length()).map(|_| (String::draw(from), T::draw(from))).collect()
    }
}

macro_rules! draw_newtypes {
    ($($name:ident)+) => {
        $(impl Draw for $name {
            fn draw(from: &mut Source<'_>) -> Self {
                Self(Draw::draw(from))
            }
        })+
    };
}

macro_rules! draw_structs {
    ($($name:ident { $($field:ident),+ $(,)? })+) => {
        $(impl Draw for $name {
            fn draw(from: &mut Source<'_>) -> Self {
                Self { $($field: Draw::draw(from)),+ }
            }
        })+
    };
}

macro_rules! draw_enums {
    ($($name:ident { $($variant:ident),+ $(,)? })+) => {
        $(impl Draw for $name {
            fn draw(from: &mut Source<'_>) -> Self {
                let all = [$(Self::$variant),+];
                let drawn = all[usize::from(from.byte()) % all.len()];
                match drawn {
                    $(Self::$variant)|+ => drawn,
                }
            }
        })+
    };
}

draw_newtypes! { EventTime Generation ModelName RequestId RolloutId Span Version }

draw_enums! {
    Action {
        Apply, Promote, PromoteFull, Pause, Resume, Abort, StopAll, SetWeight, Approve, Reject, Freeze, Unfreeze, Undo, Retry,
        Mark,
    }
    Arm { Stable, Control, Canary, Shadow }
    Assignment { Random, Sticky, Pinned, Targeted, Fallback, LeaseExpired, SwitchedOff, External, Unreadable }
    Correction { WeightedHolm, None }
    Decision { Promote, Rollback, Continue, Hold }
    EventKind {
        Started, Refused, Advanced, Held, Resumed, Paused, Promoted, Completed, RolledBack, Aborted, Superseded, Warned,
        Confirmed, Frozen, Unfrozen, Marked,
    }
    MetricResult { Pass, Fail, Undecided, NoData }
    NoDataReason {
        NoCanaryTraffic, NoControlTraffic, LabelsPending, LabelsMissing, ValueMissing, EventsLost, LateShareDiffers,
        SampleRatio, SegmentMix, NoShadowTraffic, UnreadShareDiffers, ValueShareDiffers, CancelledShareDiffers,
        FewUnits, NotHeard, FewAnswers, NoBaseline, Outage, LabelDelay, ForeignVersion, CannotFail,
        LabelContradictions,
    }
    Origin { Router, Intake }
    Outcome { Ok, Refused, Redirected, Failed, Unusable, Unread, Cancelled }
    Phase {
        Pending, Warming, Shadowing, Baking, Held, Paused, Promoted, Completed, RolledBack, Aborted, Superseded,
    }
    Role { Gate, Score, Watch }
}

draw_structs! {
    ArmCounts {
        arm, predictions, excluded, errors, invalid, late, lost, labelled, refused, redirected, unread, cancelled, left,
        contradicting,
    }
    ArmDrops { model, arm, dropped }
    Batch { rows, row, means }
    ArmSummary {
        arm, version, predictions, excluded, errors, invalid, late, lost, refused, redirected, unread, cancelled, left,
    }
    Capture {
        request_id, model, rollout, generation, at, reason, differences, request, request_bytes, live, shadow,
    }
    CapturedAnswer { version, arm, status, error, latency_us, body, bytes }
    Cell { arm, segment, metric, summary }
    ClockOffset { writer, offset }
    ClosedThrough { partition, partitions, through, relayed_through, heard_through, silent, skewed }
    Command { id, action, model, rollout, spec, actor, reason, at, weight, force, until, retries, from_step, was_good }
    Configured { model, version, stable, url, grpc_url, path_version }
    Control {
        model, rollout, generation, phase, step, stable, canary, canary_share, control_share, decided_at, spec, frozen,
        rules, acknowledged,
    }
    Credential { writer, models }
    DeadLetter { stage, topic, partition, offset, code, message, key, value }
    Estimate { n, value }
    Feedback { request_id, observed_at, revision, values, classes, writer, credential }
    GroupVerdict { group, result, score_weight, weight, ln_e_fail, failed_at }
    Harm { from, through, since, canary, control, difference }
    HealthIssue { reason, policy, sentence }
    Heartbeat { writer, low_watermark, drops, leaving, sent_at, relay }
    MetricVerdict {
        metric, segment, role, result, no_data, canary, control, effect, effect_low, effect_high, margin, limit_pass,
        limit_fail, better, at_cap, culprit, culprit_is_new, design_effect, units, ln_e_fail, ln_e_pass, p_anytime, correction,
        p_fail, weight, failed_at, evidence_through, harm, sentence,
    }
    Population { arm, segment, predictions }
    Prediction {
        request_id, model, version, arm, assignment, origin, rollout, generation, completed_at, latency_us, status, error,
        invalid_output, unit, outputs, classes, segments, writer, outcome, unread,
        batch,
    }
    Reason { metric, segment, sentence }
    RolloutEvent {
        id, model, rollout, kind, phase, step, canary_share, generation, at, recorded_at, actor, sentence, cause, state,
        was_good,
    }
    Route { version, arm, share, url }
    RouterStatus {
        router, incarnation, at, applied, shed, undecided, refused, configured, leaving, seen_outputs, seen_labels,
    }
    SeenOutputs { model, names }
    RoutingTable {
        model, generation, lease_seq, lease_ms, rollout, salt, sticky, routes, segments, outputs, fallback, policy,
        reason, decided_at,
    }
    Seen { metric, answers, values }
    Segment { dimension, value }
    Shed { model, version, since, cause }
    TableApplied { model, generation, lease_seq, apply_us }
    TableRefused { model, generation, reason }
    Undecided { model, needed, reason, calls, of }
    UnitCounts { bucket, counts }
    Verdict {
        id, model, rollout, generation, step, as_of, decision, reasons, score_low, score_high, ln_e_rollback, metrics, groups,
        stable_is_out_of_date, arms, health, warmup_events, frozen, sentence, build, seen, rules,
    }
    WindowClosed { model, rollout, generation, partition, end, length, maturity, cells, arms, population, rules, units }
    Writer { name, incarnation, seq }
}
