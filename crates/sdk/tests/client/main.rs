//! The client against a node that the test plays, over a real socket.

#![allow(clippy::unwrap_used)]

mod node;

use std::time::Duration;

use bytes::Bytes;
use evener_protocol::api;
use evener_sdk::{Client, Definition, Error, Event, Hash, Options, Session, What, Work};
use tokio::net::{TcpListener, UnixListener};
use tonic::Status;

use self::node::{LIMIT, Node, within};

const HASH: Hash = Hash([3; 32]);

fn define(session: &Session, len: usize) {
    let body = Bytes::from(vec![1; len]);
    session.define(Definition { hash: HASH, name: "f".into(), python: "3.11".into(), body }).unwrap();
}

/// The outcomes of so many calls, in the order of their numbers.
async fn outcomes(session: &Session, count: usize) -> Vec<(u64, What)> {
    let mut outcomes = Vec::new();
    while outcomes.len() < count {
        let events = within(session.events().recv()).await.expect("there are more outcomes to come");
        let ends = events.into_iter().filter(|event| event.what.is_outcome());
        outcomes.extend(ends.map(|Event { number, what }| (number, what)));
    }
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes
}

fn code(what: &What) -> &str {
    match what {
        What::Problem { problem, .. } => &problem.code,
        _ => "no problem",
    }
}

async fn connect_error(options: Options) -> Error {
    within(Session::connect(options)).await.err().expect("it cannot connect")
}

#[tokio::test]
async fn a_call_goes_out_and_its_value_comes_back() {
    let mut node = Node::start();
    let (session, mut visit) = node.session().await;
    assert_eq!(session.welcome().version, "1.2.3");
    assert_eq!(session.welcome().node, "here-1");
    assert_eq!(session.welcome().pools[0].python, "3.11");
    define(&session, 10);
    let number = session.submit(&Work::of(HASH), Bytes::from_static(b"in")).unwrap();
    let request = visit.read().await;
    assert_eq!(request.functions[0].hash, HASH.0[..]);
    assert_eq!((request.calls[0].number, &request.calls[0].input[..]), (number, &b"in"[..]));
    visit.values([(number, Bytes::from_static(b"out"))]).await;
    let (ended, what) = outcomes(&session, 1).await.remove(0);
    let What::Value { value, done } = what else { panic!("{what:?}") };
    assert_eq!((ended, value.into_bytes(), done.worker), (number, Bytes::from_static(b"out"), 7));
    assert_eq!(done.ran, Duration::from_micros(1));
}

#[tokio::test]
async fn many_calls_share_few_messages_and_none_is_lost() {
    let mut node = Node::start();
    let (session, mut visit) = node.session().await;
    define(&session, 10);
    let first = session.submit_many(&Work::of(HASH), vec![Bytes::new(); 20_000]).unwrap();
    let echo = tokio::spawn(async move {
        let (mut messages, mut most, mut seen) = (0, 0, 0);
        while seen < 20_000 {
            let calls = visit.read().await.calls;
            (messages, most, seen) = (messages + 1, most.max(calls.len()), seen + calls.len());
            visit.values(calls.into_iter().map(|call| (call.number, call.input))).await;
        }
        (messages, most)
    });
    let outcomes = outcomes(&session, 20_000).await;
    assert!(outcomes.iter().map(|(number, _)| *number).eq(first..first + 20_000));
    let (messages, most) = within(echo).await.unwrap();
    assert!(messages < 5000, "{messages} messages for 20,000 calls");
    assert!(most <= 100, "{most} calls in a message, and 100 is the window");
}

#[tokio::test]
async fn the_window_is_kept() {
    let mut node = Node::start();
    let (session, mut visit) = node.session_with(2, 1 << 20).await;
    define(&session, 10);
    session.submit_many(&Work::of(HASH), vec![Bytes::new(); 3]).unwrap();
    session.submit(&Work { priority: 1, ..Work::of(HASH) }, Bytes::new()).unwrap();
    assert_eq!(visit.read_calls(2).await.iter().map(|call| call.number).collect::<Vec<_>>(), [4, 1]);
    let more = tokio::time::timeout(Duration::from_millis(50), visit.read_calls(1)).await;
    assert!(more.is_err(), "two are with the node");
    visit.values([(4, Bytes::new())]).await;
    assert_eq!(visit.read_calls(1).await[0].number, 2);
}

#[tokio::test]
async fn large_functions_inputs_and_values_go_in_parts() {
    let mut node = Node::start();
    let (session, mut visit) = node.session().await;
    define(&session, 3 << 20);
    let input: Bytes = (0..20 << 20).map(|index: u32| (index % 251) as u8).collect();
    let number = session.submit(&Work::of(HASH), input.clone()).unwrap();
    let (mut body, mut read) = (0, Vec::new());
    let mut complete = false;
    while !complete {
        for part in visit.read().await.parts {
            assert!(part.data.len() <= api::PIECE);
            match part.number {
                0 => body += part.data.len(),
                _ => {
                    assert_eq!((part.number, body), (number, 3 << 20));
                    read.extend_from_slice(&part.data);
                    complete = !part.more;
                }
            }
        }
    }
    assert!(read == input);
    let mut pieces = input.chunks(api::PIECE).map(Bytes::copy_from_slice).peekable();
    let result = Some(api::outcome::Result::Raised(pieces.next().unwrap()));
    let outcome = api::Outcome { number, result, more: true, ..api::Outcome::default() };
    visit.say(api::SessionReply { outcomes: vec![outcome], ..api::SessionReply::default() }).await;
    while let Some(data) = pieces.next() {
        let part = api::Part { number, data, more: pieces.peek().is_some(), ..api::Part::default() };
        visit.say(api::SessionReply { parts: vec![part], ..api::SessionReply::default() }).await;
    }
    let (_, what) = outcomes(&session, 1).await.remove(0);
    let What::Raised { exception, .. } = what else { panic!("{what:?}") };
    assert_eq!(exception.len(), input.len());
    assert!(exception.into_bytes() == input);
}

#[tokio::test]
async fn small_calls_do_not_wait_behind_a_large_one() {
    let mut node = Node::start();
    let (session, mut visit) = node.session().await;
    define(&session, 10);
    session.submit(&Work::of(HASH), Bytes::from(vec![0; 64 << 20])).unwrap();
    while visit.read().await.parts.is_empty() {}
    let small = session.submit(&Work::of(HASH), Bytes::new()).unwrap();
    let mut before = 0;
    loop {
        let request = visit.read().await;
        before += request.parts.iter().map(|part| part.data.len()).sum::<usize>();
        if request.calls.iter().any(|call| call.number == small) {
            break;
        }
    }
    // What was on its way already: the windows of HTTP/2, and what the sockets hold.
    assert!(before < 40 << 20, "{before} bytes went first");
}

#[tokio::test]
async fn a_direct_call_has_its_events_to_itself() {
    let mut node = Node::start();
    let (session, mut visit) = node.session().await;
    define(&session, 10);
    let direct = session.call(&Work::of(HASH), Bytes::new()).unwrap();
    let number = direct.number();
    visit.read_calls(1).await;
    let printed = vec![api::Printed { number, data: "hi".into(), ..api::Printed::default() }];
    visit.say(api::SessionReply { printed, ..api::SessionReply::default() }).await;
    let events = within(direct.recv()).await.unwrap();
    assert!(matches!(&events[0].what, What::Printed { data, .. } if data == "hi"));
    visit.values([(number, Bytes::new())]).await;
    let events = within(direct.recv()).await.unwrap();
    assert!(matches!(events[0].what, What::Value { .. }));
    assert!(within(direct.recv()).await.is_none());
    assert_eq!(session.events().wait(Some(Duration::ZERO)).unwrap().len(), 0);
}

#[tokio::test]
async fn cancelling_asks_the_node_and_tells_what_it_says() {
    let mut node = Node::start();
    let (session, mut visit) = node.session_with(2, 1 << 20).await;
    define(&session, 10);
    session.submit_many(&Work::of(HASH), vec![Bytes::new(); 3]).unwrap();
    visit.read_calls(2).await;
    assert!(within(session.cancel(3, false)).await, "it waits on this side");
    assert_eq!(code(&outcomes(&session, 1).await[0].1), "cancelled");
    let (gentle, forced) = (session.cancel(1, false), session.cancel(2, true));
    let mut cancels = Vec::new();
    while cancels.len() < 2 {
        cancels.extend(visit.read().await.cancels);
    }
    assert_eq!(cancels, [api::Cancel { number: 1, kill: false }, api::Cancel { number: 2, kill: true }]);
    let problem = api::Problem { code: "cancelled".into(), ..api::Problem::default() };
    let result = Some(api::outcome::Result::Problem(problem));
    let outcomes_ = vec![api::Outcome { number: 2, result, ..api::Outcome::default() }];
    visit.say(api::SessionReply { outcomes: outcomes_, going_on: vec![1], ..api::SessionReply::default() }).await;
    assert!(!within(gentle).await);
    assert!(within(forced).await);
    assert!(!within(session.cancel(2, true)).await, "it has ended");
}

#[tokio::test]
async fn refused_calls_are_brought_again() {
    let mut node = Node::start();
    let (session, mut visit) = node.session().await;
    define(&session, 10);
    session.submit_many(&Work::of(HASH), vec![Bytes::from_static(b"in"); 10]).unwrap();
    let refused = visit.read_calls(10).await.into_iter().map(|call| {
        let problem = api::Problem { code: "queue-full".into(), ..api::Problem::default() };
        let result = Some(api::outcome::Result::Problem(problem));
        api::Outcome { number: call.number, result, ..api::Outcome::default() }
    });
    visit.say(api::SessionReply { outcomes: refused.collect(), ..api::SessionReply::default() }).await;
    let echo = tokio::spawn(async move {
        let mut again = 0;
        while again < 10 {
            let calls = visit.read_calls(1).await;
            assert!(calls.iter().all(|call| call.input == "in"));
            again += calls.len();
            visit.values(calls.into_iter().map(|call| (call.number, Bytes::new()))).await;
        }
        visit
    });
    let outcomes = outcomes(&session, 10).await;
    assert!(outcomes.iter().map(|(number, _)| *number).eq(1..=10));
    assert!(outcomes.iter().all(|(_, what)| matches!(what, What::Value { .. })));
    within(echo).await.unwrap();
}

#[tokio::test]
async fn when_the_node_dies_every_call_ends_and_the_session_is_over() {
    let mut node = Node::start();
    let (session, mut visit) = node.session_with(2, 1 << 20).await;
    define(&session, 10);
    session.submit_many(&Work::of(HASH), vec![Bytes::new(); 3]).unwrap();
    let direct = session.call(&Work::of(HASH), Bytes::new()).unwrap();
    visit.read_calls(2).await;
    let cancel = session.cancel(1, false);
    node.kill();
    let ends = outcomes(&session, 3).await;
    assert!(ends.iter().all(|(_, what)| code(what) == "engine-lost"), "{ends:?}");
    let What::Problem { problem, .. } = &ends[0].1 else { panic!("{ends:?}") };
    assert!(problem.detail.contains("unix:/") && problem.retryable, "{problem:?}");
    assert_eq!(code(&within(direct.recv()).await.unwrap()[0].what), "engine-lost");
    assert!(!within(cancel).await);
    assert!(within(session.events().recv()).await.is_none());
    assert_eq!(session.submit(&Work::of(HASH), Bytes::new()).unwrap_err().kind(), "lost");
    assert_eq!(within(session.workers("")).await.unwrap_err().kind(), "lost");
    session.close();
    assert_eq!(session.submit(&Work::of(HASH), Bytes::new()).unwrap_err().kind(), "lost", "that came first");
}

#[tokio::test]
async fn when_the_node_ends_the_session_it_is_lost() {
    let mut node = Node::start();
    let (session, mut visit) = node.session().await;
    define(&session, 10);
    session.submit(&Work::of(HASH), Bytes::new()).unwrap();
    visit.refuse(Status::invalid_argument("this cannot be")).await;
    let ends = outcomes(&session, 1).await;
    let What::Problem { problem, .. } = &ends[0].1 else { panic!("{ends:?}") };
    assert!(problem.detail.contains("this cannot be"), "{problem:?}");
    let (session, visit) = node.session().await;
    drop(visit);
    assert!(within(session.events().recv()).await.is_none());
    assert!(
        session.submit(&Work::of(HASH), Bytes::new()).unwrap_err().to_string().contains("the node ended the session")
    );
}

#[tokio::test]
async fn closing_ends_every_call_and_the_node_sees_it() {
    let mut node = Node::start();
    let (session, mut visit) = node.session_with(2, 1 << 20).await;
    define(&session, 10);
    session.submit_many(&Work::of(HASH), vec![Bytes::new(); 3]).unwrap();
    visit.read_calls(2).await;
    session.close();
    session.close();
    assert!(outcomes(&session, 3).await.iter().all(|(_, what)| code(what) == "session-closed"));
    assert!(within(session.events().recv()).await.is_none());
    assert_eq!(session.submit(&Work::of(HASH), Bytes::new()), Err(Error::Closed));
    while visit.read_or_end().await.is_some() {}
}

#[tokio::test]
async fn a_session_ends_with_its_last_handle() {
    let mut node = Node::start();
    let (session, mut visit) = node.session().await;
    let other = session.clone();
    drop(session);
    define(&other, 10);
    other.submit(&Work::of(HASH), Bytes::new()).unwrap();
    visit.read_calls(1).await;
    drop(other);
    while visit.read_or_end().await.is_some() {}
}

#[tokio::test]
async fn a_session_can_be_driven_by_a_thread_of_its_own() {
    let mut node = Node::start();
    let starting = Session::start(node.options());
    let mut visit = node.visit().await;
    visit.welcome(100, 1 << 20).await;
    let session = within(starting).await.unwrap();
    define(&session, 10);
    let waiting = std::thread::spawn({
        let session = session.clone();
        move || session.call(&Work::of(HASH), Bytes::new()).unwrap().wait(Some(LIMIT))
    });
    let number = visit.read_calls(1).await[0].number;
    visit.values([(number, Bytes::from_static(b"out"))]).await;
    while !waiting.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(waiting.join().unwrap().unwrap().len(), 1);
    assert_eq!(within(session.workers("gpu")).await.unwrap()[0].pool, "gpu");
    session.close();
    while visit.read_or_end().await.is_some() {}
    assert!(within(session.workers("")).await.is_err());
}

#[tokio::test]
async fn functions_must_be_defined_before_they_are_called() {
    let mut node = Node::start();
    let (session, _visit) = node.session().await;
    let error = session.submit(&Work::of(HASH), Bytes::new()).unwrap_err();
    assert_eq!(error.kind(), "undefined");
    assert!(error.to_string().contains("030303"), "{error}");
}

#[tokio::test]
async fn one_call_needs_no_session() {
    let node = Node::start();
    let mut client = within(Client::connect(&node.options())).await.unwrap();
    let function = Definition { hash: HASH, name: "f".into(), python: "3.11".into(), body: Bytes::new() };
    let input = Bytes::from(vec![9; 10 << 20]);
    let mut submitted = within(client.submit(&function, &Work::of(HASH), input.clone())).await.unwrap();
    let printed = within(submitted.next()).await.unwrap();
    assert!(matches!(printed, Some(What::Printed { data, .. }) if data == "f"));
    assert_eq!(submitted.id(), "id-1");
    let Some(What::Value { value, .. }) = within(submitted.next()).await.unwrap() else { panic!("no value") };
    assert!(value.into_bytes() == input);
    assert!(within(submitted.next()).await.unwrap().is_none());
    assert!(within(client.cancel("id-1", true)).await.unwrap());
    assert!(!within(client.cancel("id-2", true)).await.unwrap());
    assert_eq!(within(client.workers("")).await.unwrap()[0].pid, 7);
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_a_missing_one_is_named() {
    let node = Node::start();
    let wrong = node.options().token_file.unwrap().with_file_name("wrong");
    std::fs::write(&wrong, "no").unwrap();
    let error = connect_error(Options { token_file: Some(wrong.clone()), ..node.options() }).await;
    assert_eq!(error.kind(), "unauthorized");
    assert!(error.to_string().contains("a wrong token") && error.to_string().contains("EVENER_TOKEN_FILE"), "{error}");
    let mut client = Client::connect(&Options { token_file: Some(wrong), ..node.options() }).await.unwrap();
    assert_eq!(client.workers("").await.unwrap_err().kind(), "unauthorized");
    let missing = Some("/nonexistent/token".into());
    let error = connect_error(Options { token_file: missing, ..node.options() }).await;
    assert_eq!(error.kind(), "unauthorized");
    assert!(error.to_string().contains("/nonexistent/token"), "{error}");
}

#[tokio::test]
async fn where_nobody_listens_that_is_said() {
    let error = connect_error(Options::new("unix:/nonexistent/api.sock")).await;
    assert_eq!(error.kind(), "connect");
    assert!(error.to_string().contains("no such socket; is `evener up` running?"), "{error}");
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let error = connect_error(Options::new(format!("http://127.0.0.1:{port}"))).await;
    assert_eq!(error.kind(), "connect");
    assert!(error.to_string().contains("nobody listens there"), "{error}");
}

#[tokio::test]
async fn what_listens_and_is_no_node_is_told_apart() {
    let node = Node::start();
    let token_file = node.options().token_file;
    let folder = token_file.clone().unwrap();
    let options = |name: &str| Options {
        token_file: token_file.clone(),
        timeout: Duration::from_millis(300),
        ..Options::new(format!("unix:{}", folder.with_file_name(name).display()))
    };
    let listener = UnixListener::bind(folder.with_file_name("silent")).unwrap();
    let error = connect_error(options("silent")).await;
    assert_eq!(error.kind(), "connect");
    assert!(error.to_string().contains("within 300ms"), "{error}");
    drop(listener);
    let listener = UnixListener::bind(folder.with_file_name("http")).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
            tokio::time::sleep(LIMIT).await;
        }
    });
    let error = connect_error(options("http")).await;
    assert_eq!(error.kind(), "protocol", "{error}");
    assert!(error.to_string().contains("does not speak Evener's API"), "{error}");
}
