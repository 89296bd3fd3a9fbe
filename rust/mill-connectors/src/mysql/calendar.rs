//! Days of the Gregorian calendar, which MySQL writes as year, month and day.

/// Days from 1970-01-01 to a day; `None` if there is no such day.
pub(super) fn days(year: i64, month: u8, day: u8) -> Option<i64> {
    if !(1..=12).contains(&month) || day == 0 || day > days_of(year, month) {
        return None;
    }
    // Years begin in March here, so that the day that comes and goes is the last one.
    let (month, day) = (i64::from(month), i64::from(day));
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// The year, month and day of a number of days since 1970-01-01.
pub(super) fn civil(days: i64) -> (i64, u8, u8) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month as u8, day as u8)
}

fn days_of(year: i64, month: u8) -> u8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `2026-01-02` of a number of days since 1970-01-01; `None` outside the years 0001 to 9999.
pub(super) fn day_text(number: i64) -> Option<String> {
    let (first, last) = (days(1, 1, 1)?, days(9999, 12, 31)?);
    if !(first..=last).contains(&number) {
        return None;
    }
    let (year, month, day) = civil(number);
    Some(format!("{year:04}-{month:02}-{day:02}"))
}

/// `2026-01-02 03:04:05.678901` of microseconds since 1970-01-01; `None` outside the years 0001 to 9999.
pub(super) fn moment_text(micros: i64) -> Option<String> {
    const DAY: i64 = 86_400_000_000;
    Some(format!("{} {}", day_text(micros.div_euclid(DAY))?, clock_text(micros.rem_euclid(DAY))))
}

/// `03:04:05.678901` of microseconds that are not negative; hours may have more than two digits.
pub(super) fn clock_text(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    format!("{:02}:{:02}:{:02}.{:06}", seconds / 3600, seconds / 60 % 60, seconds % 60, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_comes_back() {
        let mut expected = days(1, 1, 1).unwrap();
        for year in 1..=9999 {
            for month in 1..=12 {
                for day in 1..=days_of(year, month) {
                    assert_eq!(days(year, month, day), Some(expected));
                    assert_eq!(civil(expected), (year, month, day));
                    expected += 1;
                }
            }
        }
        assert_eq!(days(1970, 1, 1), Some(0));
        for (year, month, day) in [(2023, 2, 29), (2024, 2, 30), (2024, 0, 1), (2024, 13, 1), (2024, 1, 0), (2024, 4, 31)] {
            assert_eq!(days(year, month, day), None);
        }
    }

    #[test]
    fn texts_are_those_of_the_server() {
        assert_eq!(moment_text(-1).as_deref(), Some("1969-12-31 23:59:59.999999"));
        assert_eq!(day_text(days(1, 1, 1).unwrap() - 1), None);
        assert_eq!(clock_text(838 * 3_600_000_000 + 1), "838:00:00.000001");
    }
}
