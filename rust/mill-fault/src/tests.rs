use super::*;

/// The fault is one for the process, so the tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fault(step: &str, first: u64, times: u64, effect: Effect) -> Fault {
    Fault { step: step.to_owned(), first, times, effect }
}

#[test]
fn unarmed_steps_succeed_and_are_not_counted() {
    let _turn = turn();
    disarm();
    assert!(reach("a").is_ok());
    assert!(disarm().is_empty());
}

#[test]
fn a_step_fails_as_often_as_asked_and_others_do_not() {
    let _turn = turn();
    arm(fault("a", 2, 2, Effect::Full));
    let seen: Vec<bool> = (0..5).map(|_| reach("a").is_ok() && reach("b").is_ok()).collect();
    assert_eq!(seen, [true, false, false, true, true]);
    assert_eq!(disarm(), BTreeMap::from([("a", 5), ("b", 3)]));
}

#[test]
fn any_step_is_counted_over_all_names() {
    let _turn = turn();
    arm(fault(ANY, 3, 1, Effect::Fail));
    assert_eq!([reach("a").is_ok(), reach("b").is_ok(), reach("a").is_ok(), reach("b").is_ok()], [true, true, false, true]);
    disarm();
}

#[test]
fn after_a_simulated_death_every_step_fails_until_disarmed() {
    let _turn = turn();
    arm(fault("a", 1, 1, Effect::Die));
    assert!(!is_dead());
    pass("a");
    assert!(is_dead());
    assert!(reach("b").is_err());
    disarm();
    assert!(!is_dead());
    assert!(reach("b").is_ok());
}

#[test]
fn the_variable_names_step_count_and_effect() {
    assert_eq!(parse("file.rename:3"), Some(fault("file.rename", 3, 1, Effect::Kill)));
    assert_eq!(parse("*:10:kill"), Some(fault("*", 10, 1, Effect::Kill)));
    assert_eq!(parse("a:1:fail"), Some(fault("a", 1, 1, Effect::Fail)));
    assert_eq!(parse("a:1:panic"), Some(fault("a", 1, 1, Effect::Panic)));
    for wrong in ["", "a", "a:0", "a:x", "a:1:explode", "a:1:fail:2"] {
        assert_eq!(parse(wrong), None, "{wrong:?}");
    }
}

#[cfg(unix)]
#[test]
fn an_armed_process_is_killed() {
    use std::os::unix::process::ExitStatusExt;
    // This test program again, with the variable set, running the test below.
    let program = std::env::current_exe().expect("the test program has a path");
    let mut command = std::process::Command::new(program);
    command.args(["--exact", "tests::reaches_a_step_when_told", "--ignored"]).env(VARIABLE, "here:2");
    let status = command.status().expect("the test program starts");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn reaches_a_step_when_told() {
    assert!(reach("here").is_ok());
    assert!(reach("here").is_err(), "the process is killed before it comes here");
}

#[test]
fn a_step_panics_and_leaves_the_hook_usable() {
    let _turn = turn();
    arm(fault("a", 2, 1, Effect::Panic));
    assert!(reach("a").is_ok());
    let panic = std::panic::catch_unwind(|| pass("a")).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("step a panicked"));
    assert!(reach("a").is_ok());
    assert_eq!(disarm()["a"], 3);
}
