//! Days and dates of the Gregorian calendar, as PostgreSQL counts them: days from 2000-01-01.

/// Days from 1970-01-01 to 2000-01-01.
const EPOCH: i64 = 10_957;

/// Years whose first day PostgreSQL has: 4713 BC is the first.
pub(super) const YEARS: std::ops::RangeInclusive<i32> = -4_712..=5_874_897;

/// A date. Year 0 is 1 BC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) year: i32,
    pub(super) month: u8,
    pub(super) day: u8,
}

impl Date {
    /// The first day of a year.
    pub(super) fn year(year: i32) -> Self {
        Self { year, month: 1, day: 1 }
    }

    /// Days from 2000-01-01. Algorithm: <https://howardhinnant.github.io/date_algorithms.html>.
    pub(super) fn days(self) -> i64 {
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let month = (i64::from(self.month) + 9) % 12;
        let of_year = (153 * month + 2) / 5 + i64::from(self.day) - 1;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468 - EPOCH
    }

    /// The date that many days from 2000-01-01; `None` beyond what PostgreSQL has.
    pub(super) fn of_days(days: i64) -> Option<Self> {
        let days = days.checked_add(719_468 + EPOCH)?;
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let year = i32::try_from(year).ok().filter(|year| YEARS.contains(year))?;
        Some(Self { year, month: u8::try_from(month).ok()?, day: u8::try_from(day).ok()? })
    }

    /// The three letters of its day of the week.
    pub(super) fn weekday(self) -> &'static str {
        // 2000-01-01 was a Saturday.
        let names = ["Sat", "Sun", "Mon", "Tue", "Wed", "Thu", "Fri"];
        usize::try_from(self.days().rem_euclid(7))
            .ok()
            .and_then(|day| names.get(day))
            .copied()
            .unwrap_or("Sat")
    }

    /// Its year as it is written, and true where it is before Christ.
    pub(super) fn written_year(self) -> (i32, bool) {
        if self.year > 0 { (self.year, false) } else { (1 - self.year, true) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_each_other() {
        for (year, month, day, days) in [
            (2000, 1, 1, 0),
            (1970, 1, 1, -10_957),
            (2024, 2, 29, 8_825),
            (1, 1, 1, -730_119),
            (0, 12, 31, -730_120),
        ] {
            let date = Date { year, month, day };
            assert_eq!(date.days(), days);
            assert_eq!(Date::of_days(days), Some(date));
        }
        assert_eq!(Date { year: 2024, month: 5, day: 1 }.weekday(), "Wed");
        assert_eq!(Date::of_days(i64::MAX), None);
        for days in (-1_700_000..3_000_000).step_by(997) {
            assert_eq!(Date::of_days(days).unwrap().days(), days);
        }
    }
}
