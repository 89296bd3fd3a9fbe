use super::*;

#[test]
fn durations_read_as_users_write_them() {
    for (us, text) in [(0, "0s"), (90_000_000, "1m30s"), (86_400_000_000, "1d"), (1_500, "1ms500us"), (-1_000_000, "-1s")] {
        assert_eq!(duration(us), text);
    }
}

