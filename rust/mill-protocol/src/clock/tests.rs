use super::*;

#[test]
fn the_time_that_users_see_is_that_of_the_innermost_clock() {
    let (outer, inner) = (Arc::new(ManualClock::default()), Arc::new(ManualClock::default()));
    outer.set(7);
    inner.set(9);
    let seen = with_shown_time(&outer, || (with_shown_time(&inner, shown_time), shown_time()));
    assert_eq!(seen, (9, 7));
    assert!(std::panic::catch_unwind(|| with_shown_time::<()>(&outer, || panic!("on purpose"))).is_err());
    assert!(shown_time() > 1_000_000_000_000_000, "the clock of the machine again");
}
