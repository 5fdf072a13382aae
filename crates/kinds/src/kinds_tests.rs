//! What each kind says about values, margins and sources: one line per rule, so that no rule can be removed unseen.

use serin_spec::{Direction, Margin, MetricKind, MetricSource};

use Direction::{HigherIsBetter, LowerIsBetter};

use crate::{Kind as _, MOST_EVENTS, Range, SourceType};

const RATE: MetricKind = MetricKind::Rate;
const MEAN: MetricKind = MetricKind::Mean { min: -5.0, max: 5.0 };
const CAPPED: MetricKind = MetricKind::CappedMean { cap: 40.0 };
const QUANTILE: MetricKind = MetricKind::Quantile { level: 0.99 };

/// All kinds.
const KINDS: [MetricKind; 8] = [
    RATE,
    MEAN,
    CAPPED,
    QUANTILE,
    MetricKind::Distribution,
    MetricKind::Classes,
    MetricKind::Count,
    MetricKind::Disagreement,
];

fn absolute(part: f64) -> Margin {
    Margin { absolute: Some(part), relative: None }
}

fn relative(part: f64) -> Margin {
    Margin { absolute: None, relative: Some(part) }
}

#[test]
fn each_kind_has_its_range() {
    let range = |min, max| Range { min, max };
    let ranges = KINDS.map(|kind| kind.range());
    assert!(ranges[2].min == 0.0 && (38.8..=40.0).contains(&ranges[2].max), "the edge of a bin: {:?}", ranges[2]);
    let others = [ranges[0], ranges[1], ranges[3], ranges[4], ranges[5], ranges[6], ranges[7]];
    let positive = range(0.0, f64::INFINITY);
    let shares = range(0.0, 1.0);
    assert_eq!(others, [shares, range(-5.0, 5.0), positive, shares, shares, range(0.0, MOST_EVENTS), shares]);
    // Whether the metric's value is in the range of the answers' values, values below 0 are left out, and the file sets the range.
    let of = |kind: &MetricKind| (kind.is_of_values(), kind.is_positive(), kind.clamps_to());
    let all: Vec<_> = KINDS.iter().map(of).collect();
    assert_eq!(
        all,
        [
            (false, false, None),
            (true, false, Some(range(-5.0, 5.0))),
            (true, true, None),
            (true, true, None),
            (false, true, None),
            (false, false, None),
            (true, true, None),
            (false, false, None),
        ]
    );
    // A plan does not know the cap of a count, and uses the range of the kind for all others.
    for kind in &KINDS {
        let planned = if *kind == MetricKind::Count { positive } else { kind.range() };
        assert_eq!(kind.planned_range(), planned, "{kind:?}");
    }
}

#[test]
fn each_kind_takes_the_values_that_it_can_hold() {
    for (kind, value, scaled) in [
        (RATE, 0.3, Some(0.3)),
        (MEAN, 0.0, Some(0.5)),
        (MEAN, -9.0, Some(0.0)),
        (MEAN, 9.0, Some(1.0)),
        (MetricKind::Mean { min: 1.0, max: 1.0 }, 1.0, None),
        (CAPPED, 100.0, Some(100.0)),
        (CAPPED, -0.1, None),
        (QUANTILE, 0.0, Some(0.0)),
        (QUANTILE, -0.1, None),
        (MetricKind::Distribution, -0.1, None),
        (MetricKind::Distribution, 7.0, Some(7.0)),
        (MetricKind::Count, 3.0, Some(3.0)),
        (MetricKind::Count, 2.5, None),
        (MetricKind::Count, -1.0, None),
        (MetricKind::Count, 1e9, Some(1e9)),
        (MetricKind::Count, 2e9, None),
        (MetricKind::Classes, 1.0, None),
        (MetricKind::Disagreement, 1.0, None),
    ] {
        assert_eq!(kind.scaled(value), scaled, "{kind:?} {value}");
    }
}

/// Sums per unit use the position of a value. A value above a cap counts as the cap.
#[test]
fn a_value_above_the_cap_has_the_position_of_the_cap() {
    for (kind, value, expected) in [
        (CAPPED, 10.0, 0.25_f64),
        (CAPPED, 40.0, 1.0),
        (CAPPED, 41.0, 1.0),
        (CAPPED, 1e9, 1.0),
        (MetricKind::Count, 3.0, 3.0),
        (MetricKind::Count, MOST_EVENTS, 1e6),
        (MetricKind::Count, 1e9, 1e6),
        (RATE, 0.0, 0.0),
        (RATE, 0.4, 0.0),
        (RATE, 0.5, 1.0),
        (RATE, 1.0, 1.0),
        (MEAN, 0.7, 0.7),
    ] {
        assert_eq!(kind.position(value, true).to_bits(), expected.to_bits(), "{kind:?} {value}");
    }
    // Rules version 1 adds up all events.
    assert_eq!(MetricKind::Count.position(1e9, false).to_bits(), 1e9_f64.to_bits());
    // Ranks and shapes use the logarithm, so one huge value does not hide the rest.
    for kind in [QUANTILE, MetricKind::Distribution] {
        assert!((kind.position(100.0, true) - 101_f64.ln()).abs() < 1e-9, "{kind:?}");
    }
}

#[test]
fn a_margin_must_leave_room_for_harm() {
    let can = |kind: &MetricKind, direction, margin| kind.can_fail(kind.range(), direction, margin);
    for (kind, direction, margin, expected) in [
        (RATE, LowerIsBetter, absolute(0.99), true),
        (RATE, LowerIsBetter, absolute(1.0), false),
        (RATE, HigherIsBetter, relative(0.99), true),
        (RATE, HigherIsBetter, relative(1.0), false),
        (MEAN, LowerIsBetter, absolute(9.9), true),
        (MEAN, LowerIsBetter, absolute(10.0), false),
        (QUANTILE, LowerIsBetter, absolute(1e9), true),
        (QUANTILE, HigherIsBetter, relative(0.5), true),
        (QUANTILE, HigherIsBetter, relative(1.0), false),
        (MetricKind::Count, HigherIsBetter, relative(1.0), false),
        (MetricKind::Distribution, LowerIsBetter, absolute(0.97), true),
        (MetricKind::Distribution, LowerIsBetter, absolute(0.975), false),
        (MetricKind::Classes, LowerIsBetter, absolute(0.999), true),
        (MetricKind::Classes, LowerIsBetter, absolute(1.0), false),
    ] {
        assert_eq!(can(&kind, direction, margin), expected, "{kind:?} {direction:?} {margin:?}");
    }
    // Values that may be negative can fall by more than all of themselves.
    assert!(Range::ALL.can_fail(HigherIsBetter, relative(1.5)) && Range::ALL.can_fail(LowerIsBetter, relative(1.5)));
    let below_zero = Range { min: -1.0, max: f64::INFINITY };
    assert!(below_zero.can_fail(HigherIsBetter, relative(1.0)));
    // Some level or class can fail, whatever control's value is.
    for kind in [MetricKind::Distribution, MetricKind::Classes] {
        assert!(kind.can_fail_at(LowerIsBetter, absolute(0.5), 0.9), "{kind:?}");
        assert!(!kind.can_fail_at(LowerIsBetter, absolute(1.0), 0.0), "{kind:?}");
    }
    // All other kinds depend on it.
    assert!(
        RATE.can_fail_at(LowerIsBetter, absolute(0.5), 0.4) && !RATE.can_fail_at(LowerIsBetter, absolute(0.5), 0.6)
    );
    // Both ranges must have more than one value in common.
    let scores = Range { min: 5.0, max: 10.0 };
    assert_eq!(Range::SHARES.within(scores), None);
    assert_eq!(Range { min: 0.0, max: 5.0 }.within(scores), None);
    assert_eq!(Range { min: 0.0, max: 6.0 }.within(scores), Some(Range { min: 5.0, max: 6.0 }));
}

/// The bins of quantiles are 2 % wide: 1 % up is less than half of a bin, and 1 % down is more.
#[test]
fn a_quantile_refuses_a_margin_below_its_resolution() {
    let fits = |kind: &MetricKind, direction, margin| kind.unsuitable_margin(direction, margin).is_none();
    for (direction, margin, expected) in [
        (LowerIsBetter, relative(0.0), true),
        (LowerIsBetter, relative(0.005), false),
        (LowerIsBetter, relative(0.01), false),
        (LowerIsBetter, relative(0.0101), true),
        (HigherIsBetter, relative(0.005), false),
        (HigherIsBetter, relative(0.0099), false),
        (HigherIsBetter, relative(0.01), true),
        (LowerIsBetter, absolute(0.001), true),
        (LowerIsBetter, Margin { absolute: Some(1.0), relative: Some(0.005) }, false),
    ] {
        assert_eq!(fits(&QUANTILE, direction, margin), expected, "{direction:?} {margin:?}");
    }
    // Counts are compared by ratios, shapes and mixes by shares.
    for (kind, margin, expected) in [
        (MetricKind::Count, relative(0.001), true),
        (MetricKind::Count, absolute(1.0), false),
        (MetricKind::Distribution, absolute(0.001), true),
        (MetricKind::Distribution, relative(0.1), false),
        (MetricKind::Classes, absolute(0.001), true),
        (MetricKind::Classes, relative(0.1), false),
        (RATE, relative(0.001), true),
        (MEAN, relative(0.001), true),
    ] {
        assert_eq!(fits(&kind, LowerIsBetter, margin), expected, "{kind:?} {margin:?}");
    }
}

/// `plan`, `simulate` and lint assume these values where nothing is known.
#[test]
fn the_usual_values_depend_on_kind_and_source() {
    let output = || MetricSource::Output("x".to_owned());
    let delay = || MetricSource::LabelDelay("x".to_owned());
    for (kind, source, expected) in [
        (RATE, MetricSource::Failed, 0.01),
        (RATE, MetricSource::Refused, 0.01),
        (RATE, MetricSource::Cancelled, 0.01),
        (RATE, MetricSource::Unusable, 0.001),
        (RATE, output(), 0.05),
        (MetricKind::Mean { min: 2.0, max: 10.0 }, output(), 6.0),
        (CAPPED, output(), 4.0),
        (QUANTILE, MetricSource::Latency, 100.0),
        (QUANTILE, delay(), 360.0),
        (MetricKind::Distribution, MetricSource::Latency, 100.0),
        (MetricKind::Distribution, delay(), 360.0),
        (MetricKind::Classes, MetricSource::Status, 0.2),
        (MetricKind::Count, output(), 0.1),
        (MetricKind::Disagreement, MetricSource::Status, 0.02),
    ] {
        assert!((kind.default_value(&source, 3600.0) - expected).abs() < 1e-12, "{kind:?} {source:?}");
    }
    let margins = KINDS.map(|kind| kind.default_margin().and_then(|margin| margin.absolute));
    assert_eq!(margins, [None, None, None, None, Some(0.1), Some(0.02), None, None]);
}

#[test]
fn impossible_values_are_refused() {
    let possible = |kind: &MetricKind, value| kind.impossible(value).is_none();
    for (kind, value, expected) in [
        (RATE, 0.0, true),
        (RATE, 1.0, true),
        (RATE, 1.1, false),
        (RATE, -0.1, false),
        (MetricKind::Classes, 1.1, false),
        (MetricKind::Disagreement, 1.1, false),
        (MEAN, 4.9, true),
        (MEAN, 5.0, false),
        (MEAN, -5.0, false),
        (CAPPED, 0.0, false),
        (CAPPED, 100.0, true),
        (QUANTILE, 0.0, false),
        (MetricKind::Distribution, -1.0, false),
        (MetricKind::Count, 0.0, true),
        (MetricKind::Count, 500.0, true),
        (MetricKind::Count, 501.0, false),
    ] {
        assert_eq!(possible(&kind, value), expected, "{kind:?} {value}");
    }
    for kind in [MEAN, CAPPED, QUANTILE, MetricKind::Mean { min: 1.0, max: 1.0 }] {
        let is_invalid = kind == MetricKind::Mean { min: 1.0, max: 1.0 };
        assert_eq!(kind.invalid_parameters().is_some(), is_invalid, "{kind:?}");
    }
    for kind in [
        MetricKind::CappedMean { cap: 0.0 },
        MetricKind::CappedMean { cap: f64::INFINITY },
        MetricKind::Quantile { level: 0.0 },
        MetricKind::Quantile { level: 1.0 },
        MetricKind::Mean { min: -1e308, max: 1e308 },
    ] {
        assert!(kind.invalid_parameters().is_some(), "{kind:?}");
    }
}

/// Each kind with each type of source.
#[test]
fn each_kind_takes_the_sources_that_have_its_values() {
    let types = [SourceType::YesNo, SourceType::Reason, SourceType::Class, SourceType::Quantity, SourceType::Number];
    let sources = [
        MetricSource::Cancelled,
        MetricSource::Failed,
        MetricSource::Status,
        MetricSource::Latency,
        MetricSource::Output("x".to_owned()),
    ];
    assert_eq!(sources.each_ref().map(SourceType::of), types);
    let takes = |kind: &MetricKind| {
        let fits = |source: &MetricSource| kind.unsuitable_source(source, SourceType::of(source)).is_none();
        sources.each_ref().map(fits)
    };
    let all: Vec<[bool; 5]> = KINDS.iter().map(takes).collect();
    assert_eq!(
        all,
        [
            [true, true, false, false, true],
            [true, true, false, true, true],
            [false, false, false, true, true],
            [false, false, false, true, true],
            [false, false, false, true, true],
            [false, true, true, false, false],
            [false, false, false, false, true],
            [true, true, true, true, true],
        ]
    );
    let label = MetricSource::Feedback("x".to_owned());
    assert!(MetricKind::Disagreement.unsuitable_source(&label, SourceType::of(&label)).is_some());
}
