//! Numbers and times as people write them.
//!
//! A time is seconds since 1970. As a number its size tells its unit: from 10^11 on milliseconds (10^11 seconds are the
//! year 5138, 10^11 milliseconds March 1973), from 10^14 on microseconds, from 10^17 on nanoseconds. As text it is a
//! date, or a date and a time as in RFC 3339; `T` may be a space, and no zone means UTC.

/// Returns the value of `text` with at most surrounding blanks; NaN and infinities are values too.
pub(super) fn parse_value(text: &str) -> Option<f32> {
    short_decimal(text.as_bytes()).or_else(|| text.trim().parse().ok())
}

/// Few digits, as nearly all values are: exact, since both the digits and the power of ten are exact in f32.
fn short_decimal(text: &[u8]) -> Option<f32> {
    const POWERS: [f32; 8] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7];
    if text.is_empty() || text.len() > 8 {
        return None;
    }
    let (mut digits, mut after_point, mut n_digits) = (0u32, None, 0);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                digits = digits * 10 + u32::from(byte - b'0');
                n_digits += 1;
            }
            b'.' if after_point.is_none() => after_point = Some(text.len() - at - 1),
            _ => return None,
        }
    }
    if n_digits == 0 || digits >= 1 << 24 {
        return None;
    }
    Some(digits as f32 / POWERS[after_point.unwrap_or(0)])
}

/// Returns the seconds since 1970 that `text` says.
pub fn parse_time(text: &str) -> Option<i64> {
    let text = text.trim();
    let bytes = text.as_bytes();
    if !bytes.is_empty() && bytes.len() <= 18 && bytes.iter().all(u8::is_ascii_digit) {
        return Some(time_of_integer(bytes.iter().fold(0, |all, &digit| all * 10 + i64::from(digit - b'0'))));
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some(time_of_integer(number));
    }
    date_and_time(bytes).or_else(|| time_of_float(text.parse().ok()?))
}

/// Returns the seconds that an integer in a unit of its own means.
pub(super) fn time_of_integer(number: i64) -> i64 {
    let unit = match number.unsigned_abs() {
        0..100_000_000_000 => 1,
        100_000_000_000..100_000_000_000_000 => 1_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000_000,
        _ => 1_000_000_000,
    };
    number.div_euclid(unit)
}

/// Returns the seconds that a number with a fraction means; nothing where it is none or is beyond 64 bits.
pub(super) fn time_of_float(number: f64) -> Option<i64> {
    (number.abs() < 9e18).then(|| time_of_integer(number.floor() as i64))
}

fn date_and_time(text: &[u8]) -> Option<i64> {
    let mut rest = Cursor(text);
    let year = rest.digits(4)?;
    rest.one_of(b"-")?;
    let month = rest.digits(2)?;
    rest.one_of(b"-")?;
    let day = rest.digits(2)?;
    if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    let midnight = days_since_1970(year, month, day) * 86_400;
    if rest.0.is_empty() {
        return Some(midnight);
    }
    rest.one_of(b"Tt ")?;
    let hour = rest.digits(2)?;
    rest.one_of(b":")?;
    let minute = rest.digits(2)?;
    let mut second = 0;
    if rest.one_of(b":").is_some() {
        second = rest.digits(2)?;
        if rest.one_of(b".,").is_some() {
            rest.digits(1)?;
            while rest.digits(1).is_some() {}
        }
    }
    // 60 is a leap second; it counts as the next minute's first.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let local = midnight + hour * 3_600 + minute * 60 + second;
    let seconds = match rest.0.first() {
        None => local,
        Some(b'Z' | b'z') => {
            rest.0 = &rest.0[1..];
            local
        }
        Some(sign @ (b'+' | b'-')) => {
            rest.0 = &rest.0[1..];
            let hours = rest.digits(2)?;
            rest.one_of(b":");
            let minutes = rest.digits(2)?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3_600 + minutes * 60;
            if *sign == b'+' { local - offset } else { local + offset }
        }
        Some(_) => return None,
    };
    rest.0.is_empty().then_some(seconds)
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn digits(&mut self, n: usize) -> Option<i64> {
        let digits = self.0.get(..n).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        self.0 = &self.0[n..];
        Some(digits.iter().fold(0, |all, &digit| all * 10 + i64::from(digit - b'0')))
    }

    fn one_of(&mut self, accepted: &[u8]) -> Option<()> {
        let first = self.0.first().filter(|first| accepted.contains(first))?;
        let _ = first;
        self.0 = &self.0[1..];
        Some(())
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counts whole years, then the leap days among them; the year begins in March so that a leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_decimals_have_the_bits_of_the_standard_parser() {
        for text in
            ["0", "5", "4.5", ".5", "3.", "0.1", "1234567", "0.333333", "16777215", "99999.99", "0000.001"]
        {
            let expected: f32 = text.parse().unwrap();
            assert_eq!(parse_value(text).unwrap().to_bits(), expected.to_bits(), "{text}");
        }
        assert_eq!(parse_value(" -2e3 "), Some(-2000.0));
        assert!(parse_value("NaN").unwrap().is_nan());
        for text in ["", " ", ".", "-", "1,5", "five", "0x10", "1.2.3"] {
            assert_eq!(parse_value(text), None, "{text}");
        }
    }

    #[test]
    fn times_in_every_spelling_are_the_same_second() {
        for text in [
            "881250949",
            "881250949000",
            "881250949123456",
            "881250949123456789",
            "881250949.9",
            "8.81250949e8",
            "1997-12-04T15:55:49Z",
            "1997-12-04 15:55:49",
            "1997-12-04T17:55:49.25+02:00",
            "1997-12-04t10:25:49-0530",
        ] {
            assert_eq!(parse_time(text), Some(881_250_949), "{text}");
        }
        assert_eq!(parse_time("2000-02-29"), Some(951_782_400));
        assert_eq!(parse_time("1969-12-31T23:59:59Z"), Some(-1));
        assert_eq!(parse_time("0001-01-01"), Some(-62_135_596_800));
        assert_eq!(parse_time("-5"), Some(-5));
    }

    #[test]
    fn times_that_are_none_are_refused() {
        for text in [
            "",
            "yesterday",
            "2001-02-29",
            "2000-13-01",
            "2000-1-1",
            "2000-01-01T25:00",
            "2000-01-01T10:00X",
            "nan",
            "inf",
            "1e300",
            "2000-01-01T10:00:00+9",
            "2000-01-01T10:00:00.",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
