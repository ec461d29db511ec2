//! Dates as days since 1970-01-01, in the Gregorian calendar (Hinnant, "chrono-compatible
//! low-level date algorithms", 2013). A few nanoseconds each.

/// The day number of a date, if there is such a date.
pub fn from_civil(year: i32, month: u32, day: u32) -> Option<i32> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) || !(1..=9999).contains(&year) {
        return None;
    }
    // Years from March, so that the leap day is the last.
    let year = year - i32::from(month <= 2);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year as i32;
    Some(year.div_euclid(400) * 146_097 + of_era - 719_468)
}

/// Year, month and day of a day number.
pub fn to_civil(date: i32) -> (i32, u32, u32) {
    let shifted = i64::from(date) + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * month + 2) / 5 + 1) as u32;
    let month = if month < 10 { month + 3 } else { month - 9 };
    ((year + era * 400) as i32 + i32::from(month <= 2), month as u32, day)
}

/// `YYYY-MM-DD`.
pub fn format(date: i32) -> String {
    let (year, month, day) = to_civil(date);
    format!("{year:04}-{month:02}-{day:02}")
}

/// From `YYYY-MM-DD`, `YYYY/MM/DD` or `YYYYMMDD`; a time may follow after a space or a `T`.
pub fn parse(text: &[u8]) -> Option<i32> {
    let text = text.trim_ascii();
    let end = text.iter().position(|&b| b == b' ' || b == b'T').unwrap_or(text.len());
    let number = |digits: &[u8]| {
        let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        all.then(|| digits.iter().fold(0u32, |n, b| n * 10 + u32::from(b - b'0')))
    };
    let [y1, y2, y3, y4, rest @ ..] = &text[..end] else { return None };
    let year = number(&[*y1, *y2, *y3, *y4])? as i32;
    let (month, day) = match rest {
        [s1 @ (b'-' | b'/'), m1, m2, s2, d1, d2] if s1 == s2 => ([*m1, *m2], [*d1, *d2]),
        [m1, m2, d1, d2] => ([*m1, *m2], [*d1, *d2]),
        _ => return None,
    };
    from_civil(year, number(&month)?, number(&day)?)
}

/// From a whole number `yyyymmdd`.
pub fn from_number(number: i64) -> Option<i32> {
    let part = |n: i64| u32::try_from(n).ok();
    from_civil(i32::try_from(number / 10_000).ok()?, part(number / 100 % 100)?, part(number % 100)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_two_centuries_goes_there_and_back() {
        assert_eq!(format(0), "1970-01-01");
        assert_eq!(from_civil(2000, 3, 1), Some(11017));
        let mut last = (1899, 12, 31);
        for date in from_civil(1900, 1, 1).unwrap()..from_civil(2101, 1, 1).unwrap() {
            let (y, m, d) = to_civil(date);
            assert!((y, m, d) > last);
            assert_eq!(from_civil(y, m, d), Some(date));
            let text = format(date);
            assert_eq!(parse(text.as_bytes()), Some(date));
            assert_eq!(parse(text.replace('-', "/").as_bytes()), Some(date));
            let compact = text.replace('-', "");
            assert_eq!(parse(compact.as_bytes()), Some(date));
            assert_eq!(from_number(compact.parse().unwrap()), Some(date));
            last = (y, m, d);
        }
        assert_eq!(parse(b" 2020-02-29T15:00:00 "), from_civil(2020, 2, 29));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in ["", "2020", "2021-02-29", "2020-13-01", "2020-1-1", "20200100", "2020-01/02"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse("２020-01-01".as_bytes()), None);
        for number in [0, -20200101, 20201301, 202001, i64::MAX, i64::MIN] {
            assert_eq!(from_number(number), None);
        }
    }
}
