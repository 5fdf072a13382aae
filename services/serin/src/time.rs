//! Event times and spans as text.

use jiff::Timestamp;
use serin_schemas::ids::EventTime;

/// `2013-06-12 18:00:05`, UTC; `?` outside of the calendar.
pub(crate) fn to_the_second(at: EventTime) -> String {
    Timestamp::from_microsecond(at.0)
        .map_or_else(|_| "?".to_owned(), |timestamp| timestamp.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A span in its two largest units: `3d 6h`, `4m 10s`.
pub(crate) fn span(secs: f64) -> String {
    let secs = secs.max(0.0) as i64;
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    if days > 0 {
        format!("{days}d {hours}h")
    } else if hours > 0 {
        format!("{hours}h {minutes}m")
    } else if minutes > 0 {
        format!("{minutes}m {}s", secs % 60)
    } else {
        format!("{secs}s")
    }
}

/// The time that a user names with `option`: RFC 3339, or a span before `now`.
pub(crate) fn named(option: &str, text: &str, now: Timestamp) -> anyhow::Result<EventTime> {
    if let Some(at) = EventTime::from_rfc3339(text) {
        return Ok(at);
    }
    let ago = serin_spec::units::Duration::parse(text).map_err(|_| {
        anyhow::anyhow!("{option} {text}: write a time such as 2026-11-30T14:00:00Z, or a span before now such as 2h")
    })?;
    Ok(EventTime(now.as_microsecond()).minus(ago.0))
}

/// The range of time that a user names with `--from` (included) and `--to` (excluded).
///
/// # Errors
/// Returns an error if a string is not a time, or if the range is empty.
pub(crate) fn range(
    from: Option<&str>,
    to: Option<&str>,
    now: Timestamp,
) -> anyhow::Result<(Option<EventTime>, Option<EventTime>)> {
    let start = from.map(|text| named("--from", text, now)).transpose()?;
    let end = to.map(|text| named("--to", text, now)).transpose()?;
    let shown = |time: EventTime| format!("{} UTC", to_the_second(time));
    if let Some(end) = end
        && let start = start.unwrap_or(EventTime(0))
        && start >= end
    {
        anyhow::bail!(
            "--to is {}, which is not after {}; there is nothing in this range of time",
            shown(end),
            if from.is_some() { format!("--from ({})", shown(start)) } else { "1970".to_owned() }
        );
    }
    Ok((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_utc() {
        assert_eq!(to_the_second(EventTime::from_secs(0)), "1970-01-01 00:00:00");
        assert_eq!(to_the_second(EventTime::from_secs(1_357_035_421)), "2013-01-01 10:17:01");
        assert_eq!(to_the_second(EventTime(i64::MAX)), "?");
    }

    #[test]
    fn a_time_is_absolute_or_a_span_before_now() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let named = |text| named("--from", text, now);
        assert_eq!(named("1970-01-01T00:00:01Z").unwrap(), EventTime::from_secs(1));
        assert_eq!(named("2h").unwrap(), EventTime::from_secs(1_000_000 - 7200));
        let error = named("yesterday").unwrap_err().to_string();
        assert!(error.starts_with("--from yesterday: write a time such as"), "{error}");
    }

    #[test]
    fn a_range_is_not_empty() {
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        for (from, to) in [(None, None), (Some("2h"), None), (None, Some("2h")), (Some("2h"), Some("1h"))] {
            assert!(range(from, to, now).is_ok(), "{from:?} {to:?}");
        }
        for (from, to) in [
            (Some("1h"), "2h"),
            (Some("1h"), "1h"),
            (Some("2026-12-01T00:00:00Z"), "2026-11-01T00:00:00Z"),
            (None, "99999999d"),
            (Some("99999999d"), "99999999d"),
        ] {
            let error = range(from, Some(to), now).unwrap_err().to_string();
            assert!(error.starts_with("--to is ") && error.contains("not after"), "{error}");
        }
    }

    #[test]
    fn spans_have_two_units() {
        assert_eq!(span(3.9), "3s");
        assert_eq!(span(250.0), "4m 10s");
        assert_eq!(span(3600.0 * 30.0), "1d 6h");
    }
}
