//! Dates as people write their day of birth, found only where a word before speaks of birth; and days inside of numbers.
//!
//! A cell and an offset enter, the end of the date leaves.

/// Whether two digits each of year, month and day make a day.
pub fn is_day(month: u64, day: u64) -> bool {
    (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && !(month == 2 && day > 29)
        && !(matches!(month, 4 | 6 | 9 | 11) && day > 30)
}

/// Longest date: `31. September 1999`, with room for other languages.
const LONGEST: usize = 40;

/// The end of the date that starts at `start`, with a plausible year.
pub fn date_at(cell: &[u8], start: usize) -> Option<usize> {
    let text = &cell[start..cell.len().min(start + LONGEST)];
    let mut numbers = [(0u32, 0usize); 3];
    let mut found = 0;
    let mut letters = 0;
    let mut at = 0;
    while found < 3 && at < text.len() {
        let digits = text[at..].iter().take(9).take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 {
            let value =
                text[at..at + digits].iter().fold(0, |value, byte| value * 10 + u32::from(byte - b'0'));
            at += digits;
            if digits == 8 && found == 0 {
                let iso = plausible_year(value / 10_000)
                    && is_day((value / 100 % 100).into(), (value % 100).into());
                let german = plausible_year(value % 10_000)
                    && is_day((value / 10_000 % 100).into(), (value / 1_000_000).into());
                return (iso || german).then_some(start + at);
            }
            if digits > 4 {
                return None;
            }
            numbers[found] = (value, digits);
            found += 1;
            // A month in letters stands for one of the three.
            if letters >= 3 && found == 2 {
                let [(a, _), (b, _), _] = numbers;
                let day_and_year = |day, year| (1..=31).contains(&day) && plausible_year(year);
                return (day_and_year(a, b) || day_and_year(b, a)).then_some(start + at);
            }
        } else if matches!(text[at], b' ' | b'.' | b'-' | b'/' | b',' | b'\\') {
            at += 1;
        } else if text[at].is_ascii_alphabetic() || text[at] >= 0x80 {
            // Characters, not bytes: the signs for year and month are one each.
            letters += usize::from(!(0x80..0xC0).contains(&text[at]));
            at += 1;
        } else {
            break;
        }
    }
    if found < 3 {
        return None;
    }
    let [(a, long_a), (b, _), (c, long_c)] = numbers;
    let fits = if long_a == 4 {
        plausible_year(a) && is_day(b.into(), c.into())
    } else if long_c == 4 || long_c == 2 {
        (long_c == 2 || plausible_year(c)) && (is_day(b.into(), a.into()) || is_day(a.into(), b.into()))
    } else {
        false
    };
    // 1980年5月12日
    let day_sign =
        text.get(at..at + 3) == Some("日".as_bytes()) || text.get(at..at + 3) == Some("일".as_bytes());
    fits.then_some(start + at + if day_sign { 3 } else { 0 })
}

fn plausible_year(year: u32) -> bool {
    (1880..=2100).contains(&year)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_many_countries_are_read() {
        for date in [
            "1980-05-12",
            "12.05.1980",
            "5/12/1980",
            "12/05/80",
            "19800512",
            "12 May 1980",
            "May 12, 1980",
            "12. März 1980",
            "12 de mayo de 1980",
            "1980年5月12日",
            "1980. 5. 12",
        ] {
            let text = format!("{date}, 99");
            assert_eq!(date_at(text.as_bytes(), 0), Some(date.len()), "{date}");
        }
        for other in ["1980-15-12", "123456789", "12", "4711.3.2", "12:30"] {
            assert_eq!(date_at(other.as_bytes(), 0), None, "{other}");
        }
    }
}
