use mill_plan::{Window, WindowSpec};
use mill_protocol::Watermark;

use super::Aligned;

/// Windows by their definition: start and end of all that hold the time.
fn windows(window: Window, time: i64) -> Vec<(i64, i64)> {
    let range = -400..400i64;
    match window {
        Window::Tumbling { size_us, offset_us } => {
            range.map(|n| offset_us + n * size_us).map(|start| (start, start + size_us)).filter(|w| w.0 <= time && time < w.1).collect()
        }
        Window::Sliding { size_us, slide_us, offset_us } => {
            range.map(|n| offset_us + n * slide_us).map(|start| (start, start + size_us)).filter(|w| w.0 <= time && time < w.1).collect()
        }
        Window::Cumulative { step_us, size_us, offset_us } => range
            .map(|n| offset_us + n * size_us)
            .flat_map(|start| (1..=size_us / step_us).map(move |k| (start, start + k * step_us)))
            .filter(|w| w.0 <= time && time < w.1)
            .collect(),
        other => panic!("{other:?} is not aligned"),
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
        let aligned = Aligned::of(&WindowSpec::new(window, 0)).unwrap();
        for time in -60..60 {
            let expected = windows(window, time);
            let pane = aligned.pane_of(time);
            let pane_end = aligned.end_of_pane(pane);
            assert!(pane <= time && time < pane_end, "{window} at {time}: pane {pane}..{pane_end}");
            assert_eq!(aligned.pane_of(pane), pane);
            assert_eq!(aligned.pane_of(pane_end), pane_end, "{window}: panes touch");
            let (first, last) = (aligned.first_end(pane), aligned.last_end(pane));
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
            let aligned = Aligned::of(&WindowSpec::new(window, lateness)).unwrap();
            for at in -40..40 {
                let at = Watermark(at);
                let (first, last) = (aligned.first_end(aligned.pane_of(-80)), aligned.last_end(aligned.pane_of(45)));
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
        let aligned = Aligned::of(&WindowSpec::new(window, 1)).unwrap();
        for time in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
            let pane = aligned.pane_of(time);
            assert!(pane <= time, "{window} at {time}");
            assert!(aligned.first_end(pane) >= pane && aligned.last_end(pane) >= pane, "{window} at {time}");
        }
    }
}
