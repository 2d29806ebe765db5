//! What is written, and in which order.

use super::*;
use crate::frame::HEADER;

fn head(extension: &[u8]) -> JobHead<'_> {
    JobHead {
        job: JobKey::unpack(7),
        attempt: 2,
        tries: 1,
        left_nanos: 5,
        task: Task::Value,
        stream: false,
        batch: false,
        extension,
    }
}

fn written(outbox: &mut Outbox) -> Vec<(Header, Vec<u8>)> {
    let mut all = Vec::new();
    while !outbox.is_empty() {
        // In small bites, to see that it does not matter how much is taken at once.
        let bytes = outbox.bytes().concat();
        let bite = bytes.len().min(100_000);
        outbox.wrote(bite);
        all.extend(&bytes[..bite]);
    }
    let mut frames = Vec::new();
    while let Some(header) = Header::parse(&all).expect("a sound header") {
        let rest = all.split_off(HEADER + header.length as usize);
        frames.push((header, all.split_off(HEADER)));
        all = rest;
    }
    frames
}

#[test]
fn a_large_payload_is_cut_and_a_cancel_overtakes_it() {
    let mut outbox = Outbox::default();
    let value = Value { content: Content::Bytes, bytes: vec![1; 3 * PART + 1].into() };
    outbox.job(&head(b"{}"), &value);
    let sizes: Vec<(u8, u8, usize)> =
        written(&mut outbox).iter().map(|(header, rest)| (header.kind, header.flags, rest.len())).collect();
    assert_eq!(sizes, [(2, 1, PART + 2), (4, 1, PART), (4, 1, PART), (4, 0, 1)]);

    outbox.job(&head(b""), &value);
    outbox.cancel(JobKey::unpack(7), 2);
    let kinds: Vec<u8> = written(&mut outbox).iter().map(|(header, _)| header.kind).collect();
    assert_eq!(kinds, [2, 8], "what is left of a cancelled payload is not sent");
}

#[test]
fn a_job_waits_for_the_rest_of_another_and_may_be_withdrawn_meanwhile() {
    let mut outbox = Outbox::default();
    let large = Value { content: Content::Bytes, bytes: vec![1; PART + 1].into() };
    let small = Value { content: Content::Text, bytes: "x".into() };
    outbox.job(&head(b""), &large);
    outbox.job(&JobHead { job: JobKey::unpack(8), ..head(b"") }, &small);
    outbox.job(&JobHead { job: JobKey::unpack(9), ..head(b"") }, &small);
    outbox.recall(JobKey::unpack(8), 2);
    let frames = written(&mut outbox);
    let seen: Vec<(u8, u64, u8)> = frames.iter().map(|(header, _)| (header.kind, header.job, header.flags)).collect();
    assert_eq!(seen, [(2, 7, 1), (4, 7, 0), (2, 8, 1), (10, 8, 0), (2, 9, 0)]);
}

#[test]
fn a_large_function_is_whole_before_its_calls() {
    let mut outbox = Outbox::default();
    outbox.define(4, &vec![1; PART + 1].into());
    let call = JobHead { task: Task::Call(4), ..head(b"") };
    outbox.job(&call, &Value { content: Content::Bytes, bytes: "x".into() });
    outbox.forget(4);
    let frames = written(&mut outbox);
    let seen: Vec<(u8, u8, u64, u32)> =
        frames.iter().map(|(header, _)| (header.kind, header.verb, header.job, header.function)).collect();
    assert_eq!(seen, [(11, 0, NO_JOB, 4), (4, 0, NO_JOB, 4), (2, 2, 7, 4), (11, 1, NO_JOB, 4)]);
}

#[test]
fn a_payload_that_is_called_back_makes_way() {
    let mut outbox = Outbox::default();
    let large = Value { content: Content::Bytes, bytes: vec![1; PART + 1].into() };
    outbox.job(&head(b""), &large);
    outbox.job(&JobHead { job: JobKey::unpack(8), ..head(b"") }, &large);
    outbox.recall(JobKey::unpack(7), 2);
    let seen: Vec<(u8, u64)> = written(&mut outbox).iter().map(|(header, _)| (header.kind, header.job)).collect();
    assert_eq!(seen, [(2, 7), (10, 7), (2, 8), (4, 8)]);
}

#[test]
fn the_flags_of_a_job_stay_with_it_also_while_it_waits() {
    let mut outbox = Outbox::default();
    let large = Value { content: Content::Bytes, bytes: vec![1; PART + 1].into() };
    let small = Value { content: Content::Text, bytes: "x".into() };
    outbox.job(&JobHead { stream: true, ..head(b"") }, &large);
    outbox.job(&JobHead { job: JobKey::unpack(8), batch: true, ..head(b"") }, &small);
    outbox.job(&JobHead { job: JobKey::unpack(9), batch: true, ..head(b"") }, &small);
    outbox.job(&JobHead { job: JobKey::unpack(10), ..head(b"") }, &small);
    outbox.cancel(JobKey::unpack(9), 2);
    let frames = written(&mut outbox);
    let seen: Vec<(u8, u64, u8)> = frames.iter().map(|(header, _)| (header.kind, header.job, header.flags)).collect();
    let (more, stream, batch) = (1, 2, 4);
    let expected = [(2, 7, stream | more), (4, 7, 0), (2, 8, batch), (2, 9, batch | more), (8, 9, 0), (2, 10, 0)];
    assert_eq!(seen, expected);
}

#[test]
fn credit_and_answers_overtake_a_payload() {
    let mut outbox = Outbox::default();
    let large = Value { content: Content::Bytes, bytes: vec![1; 2 * PART].into() };
    outbox.job(&head(b""), &large);
    outbox.bytes();
    outbox.credit_chunks(JobKey::unpack(5), 3, 1000);
    outbox.state(1, &StateAnswer::No);
    outbox.state(2, &StateAnswer::Value(b"[1]".as_slice().into()));
    outbox.state(3, &StateAnswer::Done);
    outbox.state(4, &StateAnswer::Refused("it is \"full\"".to_owned()));
    let frames = written(&mut outbox);
    let credit = frames[1].0;
    assert_eq!((credit.kind, credit.job, credit.attempt, credit.number), (6, 5, 3, 1000));
    let answers: Vec<(u8, u32, u8, u8, &[u8])> = frames[2..6]
        .iter()
        .map(|(header, rest)| (header.kind, header.number, header.verb, header.content, &rest[..]))
        .collect();
    let refused = br#"{"detail":"it is \"full\""}"#;
    assert_eq!(answers, [(12, 1, 0, 0, &b""[..]), (12, 2, 1, 1, b"[1]"), (12, 3, 2, 0, b""), (12, 4, 3, 0, refused)]);
    assert_eq!(frames[5].0.extension as usize, refused.len());
    assert_eq!(frames[6].0.kind, 4, "the rest of the payload follows");
}
