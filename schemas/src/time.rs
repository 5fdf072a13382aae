//! Event time as RFC 3339 text, as used by `CloudEvents`: proleptic Gregorian calendar, without leap seconds.

use crate::ids::EventTime;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

impl EventTime {
    /// Formats the time as `2013-01-31T23:59:59.000001Z`, without the fraction if it is 0. Returns `None` outside the years 0 to 9999.
    pub fn to_rfc3339(self) -> Option<String> {
        let seconds = self.0.div_euclid(MICROS_PER_SECOND);
        let micros = self.0.rem_euclid(MICROS_PER_SECOND);
        let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
        if !(0..=9999).contains(&year) {
            return None;
        }
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let mut text = String::with_capacity("2013-01-31T23:59:59.000001Z".len());
        // Every event needs this text, and `format!` takes three times as long.
        for (before, number, width) in
            [("", year, 4), ("-", month, 2), ("-", day, 2), ("T", hour, 2), (":", minute, 2), (":", second, 2)]
        {
            text.push_str(before);
            push_digits(&mut text, number, width);
        }
        if micros != 0 {
            text.push('.');
            push_digits(&mut text, micros, 6);
        }
        text.push('Z');
        Some(text)
    }

    /// Parses an RFC 3339 time with any offset. Digits after the sixth digit of the fraction are dropped.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() < 20 || !text.is_ascii() {
            return None;
        }
        let separators = [(4, b"-"), (7, b"-"), (13, b":"), (16, b":")];
        if separators.iter().any(|(at, want)| bytes[*at] != want[0]) || !matches!(bytes[10], b'T' | b't' | b' ') {
            return None;
        }
        let (year, month, day) = (digits(&text[..4])?, digits(&text[5..7])?, digits(&text[8..10])?);
        let (hour, minute, second) = (digits(&text[11..13])?, digits(&text[14..16])?, digits(&text[17..19])?);
        if !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let days = days_from_civil(year, month, day);
        if civil_from_days(days) != (year, month, day) {
            return None;
        }
        let (micros, zone) = fraction(&text[19..])?;
        let of_day = hour * 3600 + minute * 60 + second - offset_seconds(zone)?;
        Some(Self((days * SECONDS_PER_DAY + of_day) * MICROS_PER_SECOND + micros))
    }
}

/// Appends the last `width` digits of a non-negative number.
fn push_digits(text: &mut String, number: i64, width: u32) {
    for place in (0..width).rev() {
        text.push(char::from(b'0' + (number / 10_i64.pow(place) % 10) as u8));
    }
}

fn digits(text: &str) -> Option<i64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Parses the microseconds of a fraction such as `.25`, and returns the rest of the text.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    if end == 0 {
        return None;
    }
    let kept = &rest[..end.min(6)];
    let scale = 10_i64.pow(6 - kept.len() as u32);
    Some((digits(kept)? * scale, &rest[end..]))
}

/// Seconds east of UTC of `Z` or `+hh:mm`.
fn offset_seconds(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Year, month and day of a day counted from 1970-01-01. Algorithm: Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`. Years start in March, and eras have 400 years.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`], from the same source.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let shifted_year = year - i64::from(month <= 2);
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_formatted_and_parsed() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00Z"),
            (1_357_034_399_000_001, "2013-01-01T09:59:59.000001Z"),
            (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
        ];
        for (micros, text) in cases {
            assert_eq!(EventTime(micros).to_rfc3339().as_deref(), Some(text));
            assert_eq!(EventTime::from_rfc3339(text), Some(EventTime(micros)));
        }
        for out_of_range in [i64::MIN, i64::MAX, 253_402_300_800_000_000] {
            assert_eq!(EventTime(out_of_range).to_rfc3339(), None);
        }
    }

    #[test]
    fn offsets_and_long_fractions_are_parsed() {
        let noon = EventTime::from_rfc3339("2013-06-01T12:00:00Z").unwrap();
        assert_eq!(EventTime::from_rfc3339("2013-06-01T14:00:00+02:00"), Some(noon));
        assert_eq!(EventTime::from_rfc3339("2013-06-01T05:30:00.000000999-06:30"), Some(noon));
        assert_eq!(EventTime::from_rfc3339("2013-06-01t12:00:00.5z").unwrap().0, noon.0 + 500_000);
    }

    #[test]
    fn invalid_times_are_refused() {
        for text in [
            "",
            "2013",
            "2013-06-01T12:00:00",
            "2013-02-29T00:00:00Z",
            "2013-13-01T00:00:00Z",
            "2013-06-01T24:00:00Z",
            "2013-06-01T12:00:00.Z",
            "2013-06-01T12:00:00+2:00",
            "2013-06-01T12:00:00Zzz",
            "+013-06-01T12:00:00Z",
            "2013-06-01T12:00:00\u{fc}",
        ] {
            assert_eq!(EventTime::from_rfc3339(text), None, "{text:?}");
        }
    }
}
