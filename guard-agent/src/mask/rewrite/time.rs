//! Dates, times and intervals in both formats. Texts are those of every DateStyle and IntervalStyle.
//!
//! `partial` leaves the year of a date and the hour of a time. Masked dates are the first of January wherever they can
//! be, so that it does not matter whether days stand before months.

use super::{
    Base, Detector, Format, Rule,
    calendar::{Date, YEARS},
    engine::{Engine, Job, Outcome},
};

/// The year of a date of which nothing is left.
const FULL_YEAR: i32 = 1970;

/// Days over which hashes of dates are spread: from 1900 to 2099.
const HASH_DAYS: u64 = 73_049;
/// 1900-01-01.
const HASH_FROM: i64 = -36_524;

/// The last year of a timestamp.
const LAST_YEAR: i32 = 294_276;

const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;
const MICROSECONDS_PER_HOUR: i64 = 3_600_000_000;

/// In which order a date stands in its text, and what separates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// `2024-05-01`.
    Iso,
    /// `05/01/2024` or `01/05/2024`; `05-01-2024` or `01-05-2024`.
    YearLast { separator: u8, day_first: bool },
    /// `Wed May 01 12:00:00 2024`.
    Words,
}

impl<'a, D: Detector> Engine<'a, D> {
    pub(super) fn time(
        &mut self,
        base: &Base,
        format: Format,
        job: Job<'a>,
        value: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Outcome> {
        // What is found by its content is found in texts; a date alone tells nothing.
        let Job::Mask(kind, rule) = job else {
            return Some(Outcome::Same);
        };
        self.count(kind);
        match (base, format) {
            (Base::Interval, _) => interval(format, value, out)?,
            (Base::Time | Base::Timetz, _) => time_of_day(base, format, rule, value, out)?,
            (_, Format::Text) => self.date_text(base, rule, value, out)?,
            (_, Format::Binary) => date_binary(base, rule, value, out)?,
        }
        Some(Outcome::Written)
    }

    fn date_text(&mut self, base: &Base, rule: &Rule, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let text = std::str::from_utf8(value).ok()?;
        let (layout, date) = read(text, self.settings.day_first)?;
        let time_of_day = matches!(base, Base::Timestamp | Base::Timestamptz);
        let masked = masked_date(rule, date, || {
            let mut canonical = date.map_or_else(String::new, canonical);
            if time_of_day {
                canonical.push_str(text);
            }
            canonical
        });
        write(masked, layout, time_of_day, matches!(base, Base::Timestamptz), out);
        Some(())
    }
}

/// What a date becomes. `date` is `None` for infinity.
fn masked_date(rule: &Rule, date: Option<Date>, canonical: impl FnOnce() -> String) -> Date {
    let full = Date::year(FULL_YEAR);
    match rule {
        Rule::Partial => date.map_or(full, |date| Date::year(date.year)),
        Rule::Hash(key) => {
            let hash = key.number(canonical().as_bytes()) % HASH_DAYS;
            i64::try_from(hash).ok().and_then(|hash| Date::of_days(HASH_FROM + hash)).unwrap_or(full)
        }
        Rule::Fixed(text) => match read(text, false) {
            Some((Layout::Iso, Some(date))) => date,
            _ => full,
        },
        Rule::Full | Rule::Null => full,
    }
}

/// The form in which dates are hashed, in whatever form they came.
fn canonical(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year, date.month, date.day)
}

/// Reads the date at the beginning of a text; infinity is none.
fn read(text: &str, day_first: bool) -> Option<(Layout, Option<Date>)> {
    if matches!(text, "infinity" | "-infinity") {
        return Some((Layout::Iso, None));
    }
    if text.as_bytes().first()?.is_ascii_alphabetic() {
        return words(text, day_first);
    }
    let day = text.split(' ').next()?;
    let separator = day.bytes().find(|byte| !byte.is_ascii_digit())?;
    if !b"-/.".contains(&separator) {
        return None;
    }
    let mut parts = day.split(char::from(separator));
    let (a, b, c) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (layout, year, first, second) = if a.len() >= 4 {
        (Layout::Iso, a, b, c)
    } else {
        // German texts have their own separator, and days first in every order.
        let day_first = day_first || separator == b'.';
        let (month, day) = if day_first { (b, a) } else { (a, b) };
        (Layout::YearLast { separator, day_first }, c, month, day)
    };
    Some((layout, Some(date(year, first, second, text.ends_with(" BC"))?)))
}

/// `Wed May 01 12:00:00 2024 CEST`, or with `01 May`.
fn words(text: &str, day_first: bool) -> Option<(Layout, Option<Date>)> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split(' ').skip(1);
    let (a, b, _time, year) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let (month, day) = if day_first || a.as_bytes().first()?.is_ascii_digit() { (b, a) } else { (a, b) };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    Some((Layout::Words, Some(date(year, &month.to_string(), day, text.ends_with(" BC"))?)))
}

fn date(year: &str, month: &str, day: &str, before_christ: bool) -> Option<Date> {
    let year: i32 = year.parse().ok()?;
    let (month, day) = (month.parse().ok()?, day.parse().ok()?);
    let year = if before_christ { 1_i32.checked_sub(year)? } else { year };
    let fits = YEARS.contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    fits.then_some(Date { year, month, day })
}

fn write(date: Date, layout: Layout, time_of_day: bool, zone: bool, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let (year, before_christ) = date.written_year();
    let Date { month, day, .. } = date;
    // Writing to a Vec never fails.
    let _ = match layout {
        Layout::Iso => write!(out, "{year:04}-{month:02}-{day:02}"),
        Layout::YearLast { separator, day_first } => {
            let (a, b) = if day_first { (day, month) } else { (month, day) };
            let separator = char::from(separator);
            write!(out, "{a:02}{separator}{b:02}{separator}{year:04}")
        }
        Layout::Words => {
            let names = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let at = usize::from(month.clamp(1, 12) - 1) * 3;
            write!(out, "{} {} {day:02} 00:00:00 {year:04}", date.weekday(), &names[at..at + 3])
        }
    };
    if time_of_day && layout != Layout::Words {
        out.extend_from_slice(b" 00:00:00");
    }
    if zone {
        out.extend_from_slice(if layout == Layout::Iso { b"+00" } else { b" UTC" });
    }
    if before_christ {
        out.extend_from_slice(b" BC");
    }
}

/// Days in four bytes, or microseconds in eight, from 2000-01-01.
fn date_binary(base: &Base, rule: &Rule, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (date, rest) = if matches!(base, Base::Date) {
        let days = i32::from_be_bytes(value.try_into().ok()?);
        (Date::of_days(days.into()), 0)
    } else {
        let microseconds = i64::from_be_bytes(value.try_into().ok()?);
        let date = Date::of_days(microseconds.div_euclid(MICROSECONDS_PER_DAY));
        (date.filter(|date| date.year <= LAST_YEAR), microseconds)
    };
    let masked = masked_date(rule, date, || {
        let mut canonical = date.map_or_else(String::new, canonical);
        if !matches!(base, Base::Date) {
            canonical.push_str(&rest.to_string());
        }
        canonical
    });
    if matches!(base, Base::Date) {
        out.extend_from_slice(&i32::try_from(masked.days()).ok()?.to_be_bytes());
    } else {
        out.extend_from_slice(&masked.days().checked_mul(MICROSECONDS_PER_DAY)?.to_be_bytes());
    }
    Some(())
}

/// `HH:MM:SS.ffffff+00`; microseconds in eight bytes, with a zone of four where there is one.
fn time_of_day(base: &Base, format: Format, rule: &Rule, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    use std::io::Write as _;
    let zone = matches!(base, Base::Timetz);
    let hour = match format {
        Format::Text => std::str::from_utf8(value.get(..2)?).ok()?.parse().ok()?,
        Format::Binary => {
            let (microseconds, zone_bytes) = value.split_first_chunk()?;
            if zone_bytes.len() != if zone { 4 } else { 0 } {
                return None;
            }
            i64::from_be_bytes(*microseconds).div_euclid(MICROSECONDS_PER_HOUR)
        }
    };
    let hour = match rule {
        Rule::Partial => hour.clamp(0, 23),
        Rule::Hash(key) => i64::try_from(key.number(value) % 24).unwrap_or(0),
        Rule::Full | Rule::Null | Rule::Fixed(_) => 0,
    };
    match format {
        Format::Text => {
            write!(out, "{hour:02}:00:00").ok()?;
            if zone {
                out.extend_from_slice(b"+00");
            }
        }
        Format::Binary => {
            out.extend_from_slice(&(hour * MICROSECONDS_PER_HOUR).to_be_bytes());
            if zone {
                out.extend_from_slice(&[0; 4]);
            }
        }
    }
    Some(())
}

/// Nothing of an interval is left, whatever the rule: in the style of the text that came.
fn interval(format: Format, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let zero: &[u8] = match (format, value.first()) {
        (Format::Binary, _) if value.len() == 16 => &[0; 16],
        (Format::Binary, _) => return None,
        (Format::Text, Some(b'P')) => b"PT0S",
        (Format::Text, Some(b'@')) => b"@ 0",
        (Format::Text, _) => b"00:00:00",
    };
    out.extend_from_slice(zero);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(rule: &Rule, text: &str, day_first: bool, zone: bool) -> Option<String> {
        let (layout, date) = read(text, day_first)?;
        let mut out = Vec::new();
        write(
            masked_date(rule, date, || date.map_or_else(String::new, canonical)),
            layout,
            text.contains(':'),
            zone,
            &mut out,
        );
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn dates_keep_their_style() {
        for (text, day_first, zone, expected) in [
            ("2024-05-17", false, false, "2024-01-01"),
            ("0044-03-15 BC", false, false, "0044-01-01 BC"),
            ("05/17/2024", false, false, "01/01/2024"),
            ("17.05.2024", false, false, "01.01.2024"),
            ("17-05-2024", true, false, "01-01-2024"),
            ("2024-05-17 12:34:56.789+02", false, true, "2024-01-01 00:00:00+00"),
            ("05/17/2024 12:34:56 CEST", false, true, "01/01/2024 00:00:00 UTC"),
            ("Fri May 17 12:34:56 2024 CEST", false, true, "Mon Jan 01 00:00:00 2024 UTC"),
            ("Fri 17 May 12:34:56 2024", true, false, "Mon Jan 01 00:00:00 2024"),
            ("infinity", false, false, "1970-01-01"),
        ] {
            assert_eq!(masked(&Rule::Partial, text, day_first, zone).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "2024", "2024-05", "2024-13-01", "2024-05-17-3", "soon", "ab cd ef gh ij"] {
            assert_eq!(masked(&Rule::Full, text, false, false), None, "{text}");
        }
        assert_eq!(
            masked(&Rule::Fixed("1999-12-31".into()), "05/17/2024", false, false).unwrap(),
            "12/31/1999"
        );
    }

    #[test]
    fn a_date_hashes_alike_in_every_style() {
        let rule = Rule::Hash(super::super::HashKey::new(b"key"));
        let iso = masked(&rule, "2024-05-17", false, false).unwrap();
        let german = masked(&rule, "17.05.2024", false, false).unwrap();
        let us = masked(&rule, "05/17/2024", false, false).unwrap();
        let (year, rest) = iso.split_once('-').unwrap();
        let (month, day) = rest.split_once('-').unwrap();
        assert_eq!(german, format!("{day}.{month}.{year}"));
        assert_eq!(us, format!("{month}/{day}/{year}"));
        let mut binary = Vec::new();
        date_binary(&Base::Date, &rule, &8_903_i32.to_be_bytes(), &mut binary).unwrap();
        let days = i32::from_be_bytes(binary.try_into().unwrap());
        assert_eq!(canonical(Date::of_days(days.into()).unwrap()), iso);
    }
}
