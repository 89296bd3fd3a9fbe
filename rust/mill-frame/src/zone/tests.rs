use chrono::{LocalResult, NaiveDate, NaiveDateTime, Offset, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};

use super::{TABLE, Zone, in_same_calendar};

fn zone(name: &str) -> Zone {
    name.parse().unwrap()
}

fn second(year: i32, month: u32, day: u32, hour: u32) -> i64 {
    NaiveDate::from_ymd_opt(year, month, day).unwrap().and_hms_opt(hour, 0, 0).unwrap().and_utc().timestamp()
}

fn offset(zone: Tz, time: NaiveDateTime) -> i32 {
    zone.offset_from_utc_datetime(&time).fix().local_minus_utc()
}

#[test]
fn years_with_the_same_weekdays_have_the_same_changes_in_every_zone() {
    const HOURS_PER_STEP: i64 = 3;
    let (first, last) = (second(2088, 1, 1, 0), second(2099, 12, 31, 21));
    let times: Vec<(NaiveDateTime, NaiveDateTime)> = (first..=last)
        .step_by((HOURS_PER_STEP * 3600) as usize)
        .map(|second| chrono::DateTime::from_timestamp(second, 0).unwrap().naive_utc())
        .map(|time| (time, in_same_calendar(time)))
        .collect();
    for zone in TZ_VARIANTS {
        for (time, other) in &times {
            assert_eq!(offset(zone, *time), offset(zone, *other), "{zone} {time} {other}");
        }
    }
}

#[test]
fn years_of_the_table_begin_on_the_seven_weekdays_and_have_no_leap_day() {
    for (weekday, year) in TABLE.into_iter().enumerate() {
        let first = NaiveDate::from_yo_opt(year, 1).unwrap();
        assert_eq!(chrono::Datelike::weekday(&first).num_days_from_monday() as usize, weekday);
        assert!(!first.leap_year());
    }
}

#[test]
fn clocks_change_after_2099_by_the_rules_of_their_zones() {
    let new_york = zone("America/New_York");
    for year in [2100, 2150, 2400, 9999, 200_000] {
        assert_eq!(new_york.offset_at(second(year, 1, 15, 12)), -5 * 3600, "{year}");
        assert_eq!(new_york.offset_at(second(year, 7, 15, 12)), -4 * 3600, "{year}");
    }
    // The second Sunday of March 2104, a leap year, is the ninth.
    assert_eq!(new_york.offset_at(second(2104, 3, 9, 6)), -5 * 3600);
    assert_eq!(new_york.offset_at(second(2104, 3, 9, 7)), -4 * 3600);
    assert_eq!(new_york.offsets_of_local(second(2104, 3, 9, 2)), LocalResult::None);
    assert_eq!(new_york.offsets_of_local(second(2104, 11, 2, 1)), LocalResult::Ambiguous(-4 * 3600, -5 * 3600));
    assert_eq!(zone("Australia/Sydney").offset_at(second(2150, 1, 15, 12)), 11 * 3600);
    // It follows the moon up to 2087, and keeps one offset from then on.
    assert_eq!(zone("Africa/Casablanca").offset_at(second(2111, 5, 1, 12)), 3600);
}

#[test]
fn every_second_has_an_offset() {
    for name in ["Europe/Berlin", "UTC", "-05:30", "Asia/Gaza"] {
        let zone = zone(name);
        for second in [i64::MIN, i64::MIN + 1, 0, i64::MAX - 1, i64::MAX] {
            assert!(zone.offset_at(second).abs() < 86_400);
            zone.offsets_of_local(second);
        }
    }
    assert_eq!(zone("Europe/Berlin").offset_at(i64::MIN), 53 * 60 + 28);
}

#[test]
fn zones_are_read_by_name_or_offset() {
    for (text, seconds) in [("+05:30", 19_800), ("-0530", -19_800), ("+05", 18_000), ("Z", 0), ("utc", 0), ("Asia/Tokyo", 32_400)] {
        assert_eq!(zone(text).offset_at(0), seconds, "{text}");
    }
    for wrong in ["", "+", "5", "+5:30", "05:30", "+24:00", "Mars/Olympus", "+05:3é"] {
        assert!(wrong.parse::<Zone>().is_err(), "{wrong}");
    }
}

#[test]
fn zones_are_called_as_python_calls_them() {
    let name = |text: &str, second: i64| {
        let mut name = String::new();
        zone(text).push_name(second, &mut name);
        name
    };
    assert_eq!(name("Europe/Berlin", second(2150, 7, 1, 0)), "CEST");
    assert_eq!(name("America/Sao_Paulo", 0), "-03");
    assert_eq!(name("+05:30", 0), "UTC+05:30");
    assert_eq!(name("+00:00", 0), "UTC");
}
