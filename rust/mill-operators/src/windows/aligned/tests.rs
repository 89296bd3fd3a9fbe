use mill_plan::{Window, WindowSpec};
use mill_protocol::Watermark;

use super::{Aligned, Pane};

/// Windows by their definition: start and end of all that hold the time.
pub(crate) fn windows_of(window: Window, time: i64) -> Vec<(i64, i64)> {
    let holds = |&(start, end): &(i64, i64)| start <= time && time < end;
    let numbers = -400..400i64;
    match window {
        Window::Tumbling { size_us, offset_us } => {
            numbers.map(|n| offset_us + n * size_us).map(|start| (start, start + size_us)).filter(holds).collect()
        }
        Window::Sliding { size_us, slide_us, offset_us } => {
            numbers.map(|n| offset_us + n * slide_us).map(|start| (start, start + size_us)).filter(holds).collect()
        }
        Window::Cumulative { step_us, size_us, offset_us } => numbers
            .flat_map(|n| (1..=size_us / step_us).map(move |k| (offset_us + n * size_us, offset_us + n * size_us + k * step_us)))
            .filter(holds)
            .collect(),
    }
}

fn kinds() -> Vec<Window> {
    vec![
        Window::Tumbling { size_us: 7, offset_us: 3 },
        Window::Sliding { size_us: 10, slide_us: 5, offset_us: 0 },
        Window::Sliding { size_us: 10, slide_us: 3, offset_us: 2 },
        Window::Sliding { size_us: 7, slide_us: 7, offset_us: 1 },
        Window::Sliding { size_us: 9, slide_us: 4, offset_us: 0 },
        Window::Cumulative { step_us: 4, size_us: 12, offset_us: 5 },
        Window::Cumulative { step_us: 6, size_us: 6, offset_us: 0 },
    ]
}

#[test]
fn panes_and_windows_are_those_of_the_definition() {
    for window in kinds() {
        let aligned = Aligned::of(&WindowSpec::new(window, 0));
        for time in -60..60 {
            let expected = windows_of(window, time);
            let all_of_it = aligned.pane(time);
            let Pane { start: pane, end: pane_end, first_end: first } = all_of_it;
            assert!(pane <= time && time < pane_end, "{window} at {time}: pane {pane}..{pane_end}");
            assert_eq!(aligned.pane(pane), all_of_it);
            assert_eq!(aligned.pane(pane_end).start, pane_end, "{window}: panes touch");
            let last = aligned.last_end(pane);
            let mut found = Vec::new();
            let mut end = first;
            while end <= last {
                found.push((aligned.start_of(end), end));
                assert_eq!(aligned.end_of(aligned.id_of(end)), end);
                end = aligned.next_end(end);
            }
            assert_eq!(found, expected, "{window} at {time}");
            assert!(found.iter().all(|w| w.0 <= pane && pane_end <= w.1), "{window}: a pane lies within its windows");
        }
    }
}

#[test]
fn the_first_open_window_is_the_first_that_is_not_complete() {
    for window in kinds() {
        for lateness in [0, 1, 5, 11] {
            let aligned = Aligned::of(&WindowSpec::new(window, lateness));
            for at in -40..40 {
                let at = Watermark(at);
                let (first, last) = (aligned.pane(-80).first_end, aligned.last_end(aligned.pane(45).start));
                let mut end = first;
                while end <= last && aligned.is_complete(end, at) {
                    end = aligned.next_end(end);
                }
                assert_eq!(aligned.first_open(first, at), end, "{window} with {lateness} at {at:?}");
                if lateness > 0 {
                    assert_eq!(aligned.earliest_result(at), Watermark(end - 1), "{window} with {lateness} at {at:?}");
                }
            }
        }
    }
}

#[test]
fn times_at_the_ends_of_time_have_panes() {
    for window in kinds() {
        let aligned = Aligned::of(&WindowSpec::new(window, 1));
        for time in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
            let Pane { start, first_end, .. } = aligned.pane(time);
            assert!(start <= time, "{window} at {time}");
            assert!(first_end >= start && aligned.last_end(start) >= start, "{window} at {time}");
        }
    }
}
