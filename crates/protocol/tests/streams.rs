//! Chunks and questions about the state as workers send them, cut anywhere and well-formed or not.

use std::time::Duration;

use evener_core::state::{Number, StateAsk, StateOp};
use evener_core::{JobKey, Outcome};
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

fn of_job(kind: Kind) -> Header {
    Header { job: 5, attempt: 3, ..Header::new(kind) }
}

fn chunk(content: u8, payload: &[u8]) -> Vec<u8> {
    frame(Header { content, ..of_job(Kind::Chunk) }, "", payload)
}

fn state(verb: u8, extension: &str, payload: &[u8]) -> Vec<u8> {
    let content = u8::from(!payload.is_empty());
    frame(Header { verb, content, number: 7, ..of_job(Kind::State) }, extension, payload)
}

fn only(bytes: &[u8]) -> Result<Option<FromWorker>, ProtocolError> {
    let mut inbox = Inbox::new(1 << 20);
    inbox.feed(bytes);
    inbox.next()
}

/// All messages of these bytes, when they come in pieces of that size.
fn all(bytes: &[u8], cut: usize, largest: u64) -> Result<Vec<FromWorker>, ProtocolError> {
    let mut inbox = Inbox::new(largest);
    let mut messages = Vec::new();
    for piece in bytes.chunks(cut) {
        inbox.feed(piece);
        while let Some(message) = inbox.next()? {
            messages.push(message);
        }
    }
    Ok(messages)
}

fn asked(verb: u8, extension: &str, payload: &[u8]) -> Result<StateOp, ProtocolError> {
    match only(&state(verb, extension, payload))? {
        Some(FromWorker::State { number: 7, job, attempt: 3, ask: StateAsk { key, op } }) => {
            assert_eq!((job, &*key), (JobKey::unpack(5), "k"));
            Ok(op)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn ready_names_files() {
    let ready = |extension: &str| match only(&frame(Header::new(Kind::Ready), extension, b"")) {
        Ok(Some(FromWorker::Ready(ready))) => ready,
        other => panic!("{other:?}"),
    };
    assert_eq!(ready(r#"{"protocol":1,"files":["/a.py","/b.py"]}"#).files, ["/a.py", "/b.py"]);
    assert!(ready(r#"{"protocol":1}"#).files.is_empty());
    let many = serde_json::json!({ "protocol": 1, "files": vec!["/a"; 1500] }).to_string();
    assert_eq!(ready(&many).files.len(), 1000);
}

#[test]
fn a_stream_is_its_chunks_and_an_end() {
    let large: Vec<u8> = (0..PART + 70_000).map(|number| number as u8).collect();
    let named = Header { content: 4, ..of_job(Kind::Chunk) };
    let mut bytes = chunk(2, "é".as_bytes());
    bytes.extend(frame(Header { content: 3, flags: 1, ..of_job(Kind::Chunk) }, r#"{"size":332144}"#, &large[..PART]));
    bytes.extend(state(1, r#"{"key":"k"}"#, b""));
    bytes.extend(frame(of_job(Kind::Part), "", &large[PART..]));
    bytes.extend(frame(named, r#"{"content_type":"image/png"}"#, b"x"));
    bytes.extend(chunk(1, b"[]"));
    bytes.extend(frame(Header { verb: 7, nanos: 9, ..of_job(Kind::Outcome) }, "", b""));
    for cut in [1, 39, 41, 30_001, bytes.len()] {
        let messages = all(&bytes, cut, 1 << 20).expect("sound frames");
        let values: Vec<&Value> = messages
            .iter()
            .filter_map(|message| match message {
                FromWorker::Chunk { job, attempt: 3, value } if *job == JobKey::unpack(5) => Some(value),
                _ => None,
            })
            .collect();
        let contents: Vec<&Content> = values.iter().map(|value| &value.content).collect();
        assert_eq!(contents, [&Content::Text, &Content::Bytes, &Content::Named("image/png".into()), &Content::Json]);
        assert_eq!(values[1].bytes, large);
        assert!(matches!(messages[1], FromWorker::State { .. }), "it does not wait for the parts of a chunk");
        assert_eq!(
            messages[5],
            FromWorker::Outcome {
                job: JobKey::unpack(5),
                attempt: 3,
                ran_nanos: 9,
                outcome: Outcome::Ended,
                printed: [0; 2],
            }
        );
        assert_eq!(messages.len(), 6);
    }
}

#[test]
fn a_chunk_over_the_limit_ends_the_connection() {
    let mut bytes = frame(Header { content: 3, flags: 1, ..of_job(Kind::Chunk) }, "", &[1; 9]);
    bytes.extend(frame(of_job(Kind::Part), "", &[1; 9]));
    assert_eq!(all(&bytes, 7, 10), Err(ProtocolError::Chunk { size: 18, largest: 10 }));
    assert_eq!(all(&chunk(3, &[1; 11]), 7, 10), Err(ProtocolError::Chunk { size: 11, largest: 10 }));
}

#[test]
fn questions() {
    let json = |text: &str| text.as_bytes().into();
    assert_eq!(asked(1, r#"{"key":"k"}"#, b""), Ok(StateOp::Get));
    assert_eq!(asked(5, r#"{"key":"k"}"#, b""), Ok(StateOp::Delete));
    let ttl = Some(Duration::from_millis(1500));
    assert_eq!(asked(2, r#"{"key":"k","ttl":1.5}"#, b"[1]"), Ok(StateOp::Set { value: json("[1]"), ttl }));
    let ttl = Some(Duration::MAX);
    assert_eq!(asked(2, r#"{"key":"k","ttl":1e300}"#, b"1"), Ok(StateOp::Set { value: json("1"), ttl }));
    let add = |amount| Ok(StateOp::Add { amount, ttl: None });
    assert_eq!(asked(3, r#"{"key":"k","amount":-9223372036854775808}"#, b""), add(Number::Int(i64::MIN)));
    assert_eq!(asked(3, r#"{"key":"k","amount":2.0,"ttl":null}"#, b""), add(Number::Float(2.0)));
    let swap = |expected: Option<&str>| {
        Ok(StateOp::CompareAndSet { expected: expected.map(json), value: json("34"), ttl: None })
    };
    assert_eq!(asked(4, r#"{"key":"k","expected":2}"#, b"1234"), swap(Some("12")));
    assert_eq!(asked(4, r#"{"key":"k","expected":null}"#, b"34"), swap(None));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for bad in [
        chunk(0, b""),
        chunk(0, b"1"),
        chunk(9, b"1"),
        chunk(4, b"1"),
        frame(Header { content: 1, verb: 1, ..of_job(Kind::Chunk) }, "", b"1"),
        frame(Header { content: 1, flags: 2, ..of_job(Kind::Chunk) }, "", b"1"),
        frame(Header { content: 1, verb: 7, ..of_job(Kind::Outcome) }, "", b"1"),
        state(0, r#"{"key":"k"}"#, b""),
        state(6, r#"{"key":"k"}"#, b""),
        state(1, "", b""),
        state(1, "{}", b""),
        state(1, r#"{"key":7}"#, b""),
        state(1, r#"{"key":"k"}"#, b"1"),
        state(2, r#"{"key":"k"}"#, b""),
        state(2, r#"{"key":"k","ttl":-1}"#, b"1"),
        state(3, r#"{"key":"k"}"#, b""),
        state(3, r#"{"key":"k","amount":"1"}"#, b""),
        state(3, r#"{"key":"k","amount":9223372036854775808}"#, b""),
        state(4, r#"{"key":"k","expected":4}"#, b"1234"),
        state(4, r#"{"key":"k","expected":5}"#, b"1234"),
        state(4, r#"{"key":"k","expected":0}"#, b"1234"),
        frame(Header { flags: 1, ..of_job(Kind::State) }, r#"{"key":"k"}"#, b""),
    ] {
        assert!(only(&bad).is_err(), "{bad:?}");
    }
    let mut between = frame(Header { content: 3, flags: 1, ..of_job(Kind::Chunk) }, "", b"1");
    between.extend(chunk(3, b"1"));
    assert!(matches!(only(&between), Err(ProtocolError::OutOfTurn(_))));
}

proptest! {
    /// Nearly right frames in any pieces: the same messages or the same error, however they are cut, and never a panic.
    #[test]
    fn odd_frames_are_harmless(
        frames in proptest::collection::vec((
            prop_oneof![Just(4u8), Just(5), Just(6), Just(7), Just(12)], 0u8..3, 0u8..5, 0u8..9, 0u32..3,
            "(\\{\"(key\":\"k\",\"(ttl|amount|expected)|content_type)\":(\"x\"|5|-1|2.5|null)\\})?",
            proptest::collection::vec(any::<u8>(), 0..50),
        ), 1..6),
        cut in 1usize..60,
    ) {
        let mut bytes = Vec::new();
        for (kind, flags, content, verb, number, extension, payload) in frames {
            let header = Header { kind, flags, content, verb, number, ..of_job(Kind::Job) };
            bytes.extend(frame(header, &extension, &payload));
        }
        prop_assert_eq!(all(&bytes, cut, 60), all(&bytes, bytes.len(), 60));
    }
}
