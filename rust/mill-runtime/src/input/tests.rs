use mill_protocol::{Epoch, Watermark};
use mill_queue::Parker;

use super::*;
use crate::channel::{Sender, WorkerRef, channel};
use crate::portion::Allowance;

fn input(channels: usize, is_aligned: bool) -> (Vec<Sender>, Input) {
    let worker = WorkerRef { index: 0, unparker: Parker::new().unparker() };
    let (senders, receivers) = (0..channels).map(|_| channel(8, &worker, &worker, &Allowance::unlimited())).unzip();
    let receivers: Vec<_> = receivers;
    (senders, Input::new(1, receivers.into_iter().map(|channel| (0, channel)).collect(), is_aligned))
}

/// Everything that comes, as text: a watermark as `w5`, a barrier as `b1`, the end as `end`; all on entry 0.
fn drain(input: &mut Input) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        match input.poll(|_| true).unwrap() {
            Polled::Nothing => return seen,
            Polled::Taken => {}
            Polled::Event(Event::Watermark(0, at)) => seen.push(format!("w{}", at.0)),
            Polled::Event(Event::Barrier(epoch)) => seen.push(format!("b{}", epoch.0)),
            Polled::Event(Event::InputEnd(0)) => seen.push("input end".to_owned()),
            Polled::Event(Event::End) => seen.push("end".to_owned()),
            Polled::Event(other) => unreachable!("{other:?} was not sent"),
        }
    }
}

fn send(sender: &mut Sender, envelopes: impl IntoIterator<Item = Envelope>) {
    envelopes.into_iter().for_each(|envelope| assert!(sender.try_send(envelope).is_ok()));
}

fn watermark(at: i64) -> Envelope {
    Envelope::Watermark(Watermark(at))
}

#[test]
fn alignment_shows_nothing_behind_a_barrier_before_it_is_complete() {
    for (is_aligned, first) in [(true, vec!["w1"]), (false, vec!["w1", "w2"])] {
        let (mut senders, mut input) = input(2, is_aligned);
        send(&mut senders[1], [watermark(1)]);
        send(&mut senders[0], [watermark(1), Envelope::Barrier(Epoch(1)), watermark(3)]);
        let mut seen = drain(&mut input);
        send(&mut senders[1], [watermark(2)]);
        seen.extend(drain(&mut input));
        assert_eq!(seen, first, "is_aligned={is_aligned}");
        send(&mut senders[1], [Envelope::Barrier(Epoch(1))]);
        let rest = drain(&mut input);
        assert_eq!(rest[0], "b1");
        assert_eq!(rest.get(1).map(String::as_str), is_aligned.then_some("w2"), "what was held back comes now");
    }
}

#[test]
fn a_channel_that_has_ended_owes_no_barrier() {
    let (mut senders, mut input) = input(2, true);
    send(&mut senders[0], [Envelope::Barrier(Epoch(4)), watermark(9), Envelope::End]);
    assert!(drain(&mut input).is_empty());
    send(&mut senders[1], [watermark(3), Envelope::End]);
    let max = format!("w{}", i64::MAX);
    assert_eq!(drain(&mut input), ["b4", "w9", &max, "input end", "end"]);
}

#[test]
fn a_task_without_channels_has_ended() {
    let (_, mut input) = input(0, true);
    assert_eq!(drain(&mut input), [format!("w{}", i64::MAX), "input end".to_owned(), "end".to_owned()]);
}
