//! What workers send, well-formed and not.

use evener_core::{Failure, JobKey, Outcome};
use evener_protocol::frame::PART;
use evener_protocol::{Content, FromWorker, Header, Inbox, Kind, ProtocolError, Value};
use proptest::prelude::*;

fn frame(header: Header, extension: &str, payload: &[u8]) -> Vec<u8> {
    let length = (extension.len() + payload.len()) as u32;
    let mut bytes = Header { length, extension: extension.len() as u32, ..header }.encode().to_vec();
    bytes.extend_from_slice(extension.as_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn outcome(verb: u8, number: u32, content: u8) -> Header {
    Header { verb, number, content, job: 5, attempt: 3, ..Header::new(Kind::Outcome) }
}

fn only(bytes: &[u8]) -> Result<Option<FromWorker>, ProtocolError> {
    let mut inbox = Inbox::new(1 << 20);
    inbox.feed(bytes);
    inbox.next()
}

#[test]
fn ready_says_what_the_worker_wants() {
    let message = only(&frame(Header::new(Kind::Ready), r#"{"protocol":1,"runtime":"x","context":true,"new":1}"#, b""));
    assert!(matches!(message, Ok(Some(FromWorker::Ready(ready))) if ready.context && ready.runtime == "x"));
    let other = only(&frame(Header::new(Kind::Ready), r#"{"protocol":2}"#, b""));
    assert_eq!(other, Err(ProtocolError::Version(2)));
}

#[test]
fn a_result_in_parts_is_put_together() {
    let mut inbox = Inbox::new(1 << 20);
    let first = Header { flags: 1, ..outcome(1, 0, 3) };
    inbox.feed(&frame(first, "", &[1; PART]));
    assert_eq!(inbox.next(), Ok(None));
    let part = Header { job: 5, attempt: 3, ..Header::new(Kind::Part) };
    inbox.feed(&frame(part, "", &[2; 3]));
    let Ok(Some(FromWorker::Outcome { job, attempt, outcome: Outcome::Next(value), .. })) = inbox.next() else {
        panic!("no value");
    };
    assert_eq!((job, attempt), (JobKey::unpack(5), 3));
    assert_eq!(value.content, Content::Bytes);
    assert_eq!(value.bytes.len(), PART + 3);
    assert_eq!(&value.bytes[PART - 1..], &[1, 2, 2, 2]);
}

#[test]
fn a_large_frame_that_comes_bit_by_bit_is_put_together() {
    let payload: Vec<u8> = (0..PART + 70_000).map(|number| number as u8).collect();
    for extension in ["", r#"{"size":332144}"#] {
        let first = Header { flags: 1, ..outcome(6, 0, 3) };
        let part = Header { job: 5, attempt: 3, ..Header::new(Kind::Part) };
        let mut bytes = frame(first, extension, &payload[..PART]);
        bytes.extend(frame(part, "", &payload[PART..]));
        bytes.extend(frame(Header { number: 3, ..Header::new(Kind::Credit) }, "", b""));
        let mut inbox = Inbox::new(1 << 20);
        let mut messages = Vec::new();
        for bite in bytes.chunks(30_001) {
            inbox.feed(bite);
            messages.extend(std::iter::from_fn(|| inbox.next().expect("sound frames")));
        }
        let [FromWorker::Outcome { outcome: Outcome::Raised { exception, .. }, .. }, FromWorker::Credit(3)] =
            &messages[..]
        else {
            panic!("{messages:?}");
        };
        assert_eq!(exception.bytes, payload);
    }
}

#[test]
fn a_result_over_the_limit_is_dropped_and_fails() {
    let mut inbox = Inbox::new(10);
    inbox.feed(&frame(Header { flags: 1, ..outcome(1, 0, 3) }, "", &[1; 9]));
    inbox.feed(&frame(Header { job: 5, attempt: 3, ..Header::new(Kind::Part) }, "", &[2; 9]));
    let message = inbox.next();
    assert!(
        matches!(&message, Ok(Some(FromWorker::Outcome { outcome: Outcome::Fail(Failure::TooLarge { detail }), .. }))
            if detail.contains("18 bytes")),
        "{message:?}"
    );
}

#[test]
fn failures() {
    let fail = |reason, extension| match only(&frame(outcome(4, reason, 0), extension, b"")) {
        Ok(Some(FromWorker::Outcome { outcome: Outcome::Fail(failure), .. })) => Ok(failure),
        other => Err(other),
    };
    let raised = Failure::Error { name: "E".into(), message: "m".into(), traceback: "t".into() };
    assert_eq!(fail(1, r#"{"type":"E","message":"m","traceback":"t"}"#), Ok(raised));
    assert_eq!(fail(2, r#"{"status":418,"detail":"d"}"#), Ok(Failure::Abort { status: 418, detail: "d".into() }));
    assert!(fail(2, r#"{"status":200,"detail":"d"}"#).is_err());
    assert_eq!(fail(4, r#"{"place":"result[0]","detail":"d"}"#), Ok(Failure::Encode { detail: "result[0]: d".into() }));
    assert_eq!(fail(5, ""), Ok(Failure::Cancelled));
    assert!(fail(7, "").is_err());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let next = frame(outcome(1, 0, 1), "", b"1");
    assert!(matches!(only(&next), Ok(Some(FromWorker::Outcome { outcome: Outcome::Next(Value { .. }), .. }))));
    for bad in [
        frame(Header { kind: 2, ..outcome(1, 0, 1) }, "", b"1"),
        frame(Header { kind: 3, ..outcome(1, 0, 1) }, "", b"1"),
        frame(Header { kind: 77, ..outcome(1, 0, 1) }, "", b"1"),
        frame(Header { flags: 2, ..outcome(1, 0, 1) }, "", b"1"),
        frame(outcome(9, 0, 1), "", b"1"),
        frame(outcome(1, 0, 0), "", b"1"),
        frame(outcome(1, 0, 9), "", b"1"),
        frame(outcome(1, 0, 4), "", b"1"),
        frame(outcome(2, 99, 1), "", b"1"),
        frame(outcome(3, 0, 1), "{}", b"1"),
        frame(outcome(1, 0, 1), "[", b"1"),
        frame(Header { job: 5, attempt: 3, ..Header::new(Kind::Part) }, "", b"1"),
        vec![0xff; 64],
    ] {
        assert!(only(&bad).is_err(), "{bad:?}");
    }
}

proptest! {
    /// Whatever comes, in whatever pieces: messages or an error, never a panic.
    #[test]
    fn garbage_is_harmless(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20)) {
        let mut inbox = Inbox::new(1000);
        'all: for piece in pieces {
            inbox.feed(&piece);
            loop {
                match inbox.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'all,
                }
            }
        }
    }

    /// Nearly right frames, in any pieces, with every field likely to be near its limits.
    #[test]
    fn odd_frames_are_harmless(
        kind in 0u8..12, flags in 0u8..3, content in 0u8..6, verb in 0u8..6, number in 0u32..700,
        extension in "(\\{\"(target|status|content_type|headers)\":(\"x\"|500|\\[\\[\"a\",\"b\"\\]\\])\\})?",
        payload in proptest::collection::vec(any::<u8>(), 0..50), cut in 1usize..60, times in 1usize..4,
    ) {
        let header = Header { kind, flags, content, verb, number, job: 5, attempt: 3, ..Header::new(Kind::Job) };
        let bytes = frame(header, &extension, &payload).repeat(times);
        let mut inbox = Inbox::new(60);
        'all: for piece in bytes.chunks(cut) {
            inbox.feed(piece);
            loop {
                match inbox.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'all,
                }
            }
        }
    }
}
