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
    fn spans_have_two_units() {
        assert_eq!(span(3.9), "3s");
        assert_eq!(span(250.0), "4m 10s");
        assert_eq!(span(3600.0 * 30.0), "1d 6h");
    }
}
