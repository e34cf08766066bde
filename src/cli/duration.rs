//! Durations as people write them.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Reads `500ms`, `5s`, `1m30s`, `2h`, `0`; a bare number is seconds. Nothing else, and nothing over a year.
pub fn parse(text: &str) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_hours(365 * 24);
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs).filter(|whole| *whole <= LONGEST);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    // Units come once each, the largest first.
    let mut largest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match rest.get(..letters)? {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        if unit >= largest {
            return None;
        }
        largest = unit;
        rest = rest.get(letters..)?;
        total = total.checked_add(Duration::from_millis(number.checked_mul(unit)?))?;
    }
    Some(total).filter(|whole| *whole <= LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t6_what_is_a_duration() {
        for (text, ms) in
            [("500ms", 500), ("5s", 5000), ("1m30s", 90_000), ("0", 0), ("7", 7000), ("1h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn t6_everything_else_is_none() {
        for text in ["", "-1", "1.5s", "5 s", "s", "5x", "1s1m", "1s1s", "5S", "99999999999999999999", "1m30", "99999h"]
        {
            assert!(text.is_empty() || parse(text).is_none(), "{text}");
        }
        assert_eq!(parse(""), None);
    }
}
