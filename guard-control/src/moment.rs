//! Moments as people and programs write them, for a time range of a search.

use jiff::{Timestamp, ToSpan, civil::DateTime, tz::TimeZone};

/// Reads `2026-11-22`, `2026-11-22T18:00` in this zone, `2026-11-22T18:00:00+01:00`, or how long ago, as `2h` or `7d`.
pub fn read(text: &str, zone: &TimeZone) -> Result<pbjson_types::Timestamp, String> {
    let at = parse(text.trim(), zone).ok_or_else(|| {
        "write a time as 2026-11-22, 2026-11-22T18:00, 2026-11-22T18:00:00Z, or how long ago: 2h, 7d"
            .to_owned()
    })?;
    Ok(pbjson_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() })
}

fn parse(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    if text.len() > 64 {
        return None;
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    if let Ok(at) = text.parse::<DateTime>() {
        return Some(at.to_zoned(zone.clone()).ok()?.timestamp());
    }
    let ago: jiff::Span = text.parse().ok()?;
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    (ago.compare((0.seconds(), &now)).ok()?.is_gt())
        .then(|| now.checked_sub(ago).ok().map(|at| at.timestamp()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_people_write_them() {
        let seconds = |text: &str| read(text, &TimeZone::UTC).map(|at| at.seconds);
        for text in
            ["2026-11-22T18:00", "2026-11-22 18:00:00", "2026-11-22T18:00:00Z", "2026-11-22T19:00:00+01:00"]
        {
            assert_eq!(seconds(text), Ok(1_795_370_400), "{text}");
        }
        assert_eq!(seconds("2026-11-22"), Ok(1_795_370_400 - 18 * 3_600));
        let now = Timestamp::now().as_second();
        assert!((now - 7_201..=now - 7_199).contains(&seconds("2h").unwrap()));
        assert!((now - 604_801..=now - 604_799).contains(&seconds("7d").unwrap()));
        for bad in ["", "soon", "-2h", "2026-13-01", "18:00", &"9".repeat(80)] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
