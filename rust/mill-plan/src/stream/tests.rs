use super::*;

#[test]
fn durations_read_as_users_write_them() {
    for (us, text) in [(0, "0s"), (90_000_000, "1m30s"), (86_400_000_000, "1d"), (1_500, "1ms500us"), (-1_000_000, "-1s")] {
        assert_eq!(duration(us), text);
    }
}

#[test]
fn windows_are_half_open_and_hold_their_times() {
    let window = Window::Tumbling { size_us: 10, offset_us: 3 };
    for (time, start) in [(3, 3), (12, 3), (13, 13), (2, -7), (-7, -7), (-8, -17), (0, -7)] {
        assert_eq!(window.start_of(time), start, "{time}");
        assert!(start <= time && time < window.end_of(start));
    }
    assert_eq!(window.start_of(i64::MIN), i64::MIN, "what lies before all windows stays where it is");
}
