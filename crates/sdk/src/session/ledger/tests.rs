//! The books of a session, with a node played by the test.

use super::*;
use crate::session::pieces::PIECE_BYTES;
use crate::work::Hash;

/// Goes in three pieces.
const LARGE: usize = 2 * PIECE_BYTES + 100;

/// Effects in a form that can be compared: the events of sinks by name, and answers to cancellations by number.
type Books = Ledger<&'static str, u32>;

const SQUARE: Hash = Hash([1; 32]);
const CUBE: Hash = Hash([2; 32]);

fn books() -> Books {
    let mut books = Books::new(1);
    books.welcome(100, 1 << 30);
    define(&mut books, SQUARE, 10);
    books
}

fn define(books: &mut Books, hash: Hash, len: usize) {
    let body = Bytes::from(vec![hash.0[0]; len]);
    books.define(Definition { hash, name: "name".into(), python: "3.11".into(), body });
}

fn submit(books: &mut Books, count: usize) -> u64 {
    books.submit(&Work::of(SQUARE), vec![Bytes::from_static(b"in"); count], &"sink").unwrap()
}

fn numbers(message: &Message) -> Vec<u64> {
    message.rest.calls.iter().map(|call| call.number).collect()
}

/// All messages that may be sent now.
fn drain(books: &mut Books, now: Instant) -> Vec<Message> {
    std::iter::from_fn(|| books.next(now)).collect()
}

/// The numbers of all calls that may be sent now.
fn drain_numbers(books: &mut Books, now: Instant) -> Vec<u64> {
    drain(books, now).iter().flat_map(numbers).collect()
}

fn value(number: u64, value: &'static [u8]) -> api::Outcome {
    let result = Some(api::outcome::Result::Value(Bytes::from_static(value)));
    api::Outcome { number, result, worker: 42, ran_ns: 7, tries: 1, ..api::Outcome::default() }
}

fn problem(number: u64, code: &str, retry_after_ns: u64) -> api::Outcome {
    let problem = api::Problem { code: code.into(), detail: "so".into(), retry_after_ns, ..api::Problem::default() };
    api::Outcome { number, result: Some(api::outcome::Result::Problem(problem)), ..api::Outcome::default() }
}

fn outcome(books: &mut Books, now: Instant, outcome: api::Outcome) -> Vec<String> {
    books.reply(now, api::SessionReply { outcomes: vec![outcome], ..api::SessionReply::default() });
    effects(books)
}

/// What has come of it, in words.
fn effects(books: &mut Books) -> Vec<String> {
    let word = |effect| match effect {
        Effect::Cancelled { answer, cancelled } => format!("answer {answer}: {cancelled}"),
        Effect::Event { sink, event: Event { number, what } } => match what {
            What::Printed { stream, data, truncated } => format!("{sink} {number}: {stream:?} {data:?} {truncated}"),
            What::Value { value, done } => {
                format!("{sink} {number}: value {:?} by {}", value.into_bytes(), done.worker)
            }
            What::Raised { exception, .. } => format!("{sink} {number}: raised {:?}", exception.into_bytes()),
            What::Problem { problem, .. } => format!("{sink} {number}: {}", problem.code),
        },
    };
    books.effects().map(word).collect()
}

#[test]
fn what_has_gathered_goes_in_one_message_with_its_function() {
    let (mut books, now) = (books(), Instant::now());
    assert_eq!(submit(&mut books, 3), 1);
    let message = books.next(now).unwrap();
    assert_eq!(numbers(&message), [1, 2, 3]);
    assert_eq!(message.rest.functions.len(), 1);
    assert_eq!(message.rest.functions[0].body.len(), 10);
    assert!(!message.rest.functions[0].more);
    assert_eq!(books.next(now), None);
    assert_eq!(submit(&mut books, 1), 4);
    let message = books.next(now).unwrap();
    assert_eq!((numbers(&message), message.rest.functions.len()), (vec![4], 0), "a function is sent once");
}

#[test]
fn a_call_says_what_its_work_says() {
    let (mut books, now) = (books(), Instant::now());
    let work = Work {
        pool: "gpu",
        group: true,
        retries: 3,
        timeout: Some(Duration::from_millis(5)),
        priority: 127,
        discard_output: true,
        ..Work::of(SQUARE)
    };
    books.submit(&work, [Bytes::from_static(b"in")], &"").unwrap();
    books.submit(&Work { timeout: Some(Duration::ZERO), ..Work::of(SQUARE) }, [Bytes::new()], &"").unwrap();
    let calls = books.next(now).unwrap().rest.calls;
    let expected = api::Call {
        number: 1,
        function: Bytes::copy_from_slice(&SQUARE.0),
        pool: "gpu".into(),
        group: true,
        retries: 3,
        timeout_ns: 5_000_000,
        priority: 100,
        discard_output: true,
        input: Bytes::from_static(b"in"),
        more: false,
        size: 0,
    };
    assert_eq!(calls[0], expected);
    assert_eq!(calls[1].timeout_ns, 1, "no time at all is not the same as all the time");
}

#[test]
fn a_function_that_is_not_defined_cannot_be_called() {
    let mut books = books();
    assert_eq!(books.submit(&Work::of(CUBE), [Bytes::new()], &""), Err(Undefined));
}

#[test]
fn nothing_is_sent_before_the_welcome() {
    let mut books = Books::new(1);
    define(&mut books, SQUARE, 10);
    submit(&mut books, 1);
    assert_eq!(books.next(Instant::now()), None);
    books.welcome(0, 0);
    assert!(books.next(Instant::now()).is_some(), "one call may always be sent");
}

#[test]
fn calls_beyond_the_window_wait_for_outcomes() {
    let (mut books, now) = (books(), Instant::now());
    books.welcome(3, 1000);
    submit(&mut books, 5);
    assert_eq!(drain_numbers(&mut books, now), [1, 2, 3]);
    assert!(books.has_more());
    assert_eq!(outcome(&mut books, now, value(2, b"four")), [r#"sink 2: value b"four" by 42"#]);
    assert_eq!(drain_numbers(&mut books, now), [4]);
    assert_eq!(books.in_flight(), 3);
}

#[test]
fn inputs_beyond_the_bytes_of_the_window_wait_and_are_not_overtaken() {
    let (mut books, now) = (books(), Instant::now());
    books.welcome(100, 1000);
    let inputs = [2000, 600, 1, 600].map(|len| Bytes::from(vec![0; len]));
    books.submit(&Work::of(SQUARE), inputs, &"").unwrap();
    assert_eq!(drain_numbers(&mut books, now), [1], "one call may always be sent, however large");
    outcome(&mut books, now, value(1, b""));
    assert_eq!(drain_numbers(&mut books, now), [2, 3]);
    outcome(&mut books, now, value(3, b""));
    assert_eq!(drain_numbers(&mut books, now), [0; 0]);
    outcome(&mut books, now, value(2, b""));
    assert_eq!(drain_numbers(&mut books, now), [4]);
}

#[test]
fn higher_priorities_go_first_over_all_pools() {
    let (mut books, now) = (books(), Instant::now());
    for (priority, pool) in [(0, ""), (1, "gpu"), (0, "gpu"), (1, "default"), (-1, "")] {
        books.submit(&Work { priority, pool, ..Work::of(SQUARE) }, [Bytes::new()], &"").unwrap();
    }
    assert_eq!(drain_numbers(&mut books, now), [2, 4, 1, 3, 5]);
}

#[test]
fn a_message_has_an_end() {
    let (mut books, now) = (books(), Instant::now());
    books.welcome(10_000, 1 << 30);
    books.submit(&Work::of(SQUARE), vec![Bytes::from(vec![0; 10_000]); 20], &"").unwrap();
    let messages = drain(&mut books, now);
    assert_eq!(messages.iter().map(|message| message.rest.calls.len()).collect::<Vec<_>>(), [7, 7, 6]);
}

#[test]
fn a_large_input_goes_in_pieces_and_others_go_on_beside_it() {
    let (mut books, now) = (books(), Instant::now());
    let large = Bytes::from(vec![5; LARGE]);
    books.submit(&Work::of(SQUARE), [large.clone()], &"").unwrap();
    let first = books.next(now).unwrap();
    let call = &first.rest.calls[0];
    assert_eq!((call.input.len(), call.more, call.size), (0, true, LARGE as u64));
    submit(&mut books, 1);
    let messages = drain(&mut books, now);
    assert_eq!(numbers(&messages[0]), [2]);
    let pieces: Vec<_> =
        std::iter::once(&first).chain(&messages).filter_map(|message| message.piece.as_ref()).collect();
    assert!(pieces.iter().all(|piece| piece.number == 1 && piece.function.is_empty()));
    assert_eq!(pieces.iter().map(|piece| piece.more).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(pieces.iter().flat_map(|piece| piece.data.to_vec()).collect::<Vec<_>>(), large);
}

#[test]
fn a_large_function_goes_in_pieces_and_only_its_own_calls_wait_for_it() {
    let (mut books, now) = (books(), Instant::now());
    define(&mut books, CUBE, LARGE);
    books.submit(&Work::of(CUBE), vec![Bytes::new(); 2], &"").unwrap();
    submit(&mut books, 1);
    let messages = drain(&mut books, now);
    assert_eq!(messages.iter().map(numbers).collect::<Vec<_>>(), [vec![3], vec![], vec![], vec![1, 2]]);
    let functions = &messages[0].rest.functions;
    assert_eq!((functions[0].body.len(), functions[0].more, functions[0].size), (0, true, LARGE as u64));
    assert!(!functions[1].more);
    let pieces: Vec<_> = messages.iter().filter_map(|message| message.piece.as_ref()).collect();
    assert!(pieces.iter().all(|piece| piece.number == 0 && piece.function == CUBE.0[..]));
    assert_eq!(pieces.iter().map(|piece| piece.data.len()).sum::<usize>(), LARGE);
}

#[test]
fn what_a_call_prints_is_told_before_its_outcome() {
    let (mut books, now) = (books(), Instant::now());
    submit(&mut books, 1);
    drain(&mut books, now);
    let printed = |stream: api::Stream, truncated| api::Printed {
        number: 1,
        stream: stream.into(),
        data: Bytes::from_static(b"hi"),
        truncated,
    };
    let printed = vec![printed(api::Stream::Stdout, false), printed(api::Stream::Stderr, true)];
    books.reply(now, api::SessionReply { printed, outcomes: vec![value(1, b"x")], ..api::SessionReply::default() });
    let expected = [r#"sink 1: Stdout b"hi" false"#, r#"sink 1: Stderr b"hi" true"#, r#"sink 1: value b"x" by 42"#];
    assert_eq!(effects(&mut books), expected);
}

#[test]
fn values_and_exceptions_that_come_in_parts_are_joined() {
    let (mut books, now) = (books(), Instant::now());
    submit(&mut books, 2);
    drain(&mut books, now);
    let raised = Some(api::outcome::Result::Raised(Bytes::new()));
    let outcomes = vec![
        api::Outcome { more: true, ..value(1, b"ab") },
        api::Outcome { more: true, result: raised, ..value(2, b"") },
    ];
    let part =
        |number, data: &'static [u8], more| api::Part { number, data: data.into(), more, ..api::Part::default() };
    let parts = vec![part(2, b"x", true), part(1, b"cd", true), part(2, b"y", false)];
    books.reply(now, api::SessionReply { outcomes, parts, ..api::SessionReply::default() });
    assert_eq!(effects(&mut books), [r#"sink 2: raised b"xy""#]);
    books.reply(now, api::SessionReply { parts: vec![part(1, b"e", false)], ..api::SessionReply::default() });
    assert_eq!(effects(&mut books), [r#"sink 1: value b"abcde" by 42"#]);
    assert_eq!(books.in_flight(), 0);
}

#[test]
fn a_refused_call_is_sent_again_under_another_number() {
    let (mut books, now) = (books(), Instant::now());
    submit(&mut books, 2);
    drain(&mut books, now);
    assert_eq!(outcome(&mut books, now, problem(1, "queue-full", 0)), [""; 0], "nobody hears of it");
    assert_eq!(books.next(now), None);
    let soon = books.wake_at().unwrap();
    assert!((37..=63).contains(&(soon - now).as_millis()));
    let again = books.next(soon).unwrap();
    assert_eq!(numbers(&again), [AGAIN + 1]);
    assert_eq!(again.rest.calls[0].input, "in");
    assert_eq!(outcome(&mut books, soon, value(1, b"late")), [""; 0], "its old number means nothing any more");
    assert_eq!(outcome(&mut books, soon, value(AGAIN + 1, b"x")), [r#"sink 1: value b"x" by 42"#]);
    assert_eq!(outcome(&mut books, soon, value(2, b"x")), [r#"sink 2: value b"x" by 42"#]);
    assert_eq!(books.in_flight(), 0);
    assert!(books.renumbered.is_empty());
}

#[test]
fn no_call_is_lost_however_often_it_is_refused() {
    let (mut books, mut now) = (books(), Instant::now());
    books.welcome(1000, 1 << 30);
    submit(&mut books, 500);
    let mut random = fastrand::Rng::with_seed(7);
    let (mut at_the_node, mut done, mut sent) = (Vec::new(), Vec::new(), 0);
    while done.len() < 500 {
        let numbers = drain_numbers(&mut books, now);
        sent += numbers.len();
        let mut reply = api::SessionReply::default();
        for number in numbers {
            // A queue that holds twenty.
            match at_the_node.len() {
                0..20 => at_the_node.push(number),
                _ => reply.outcomes.push(problem(number, "memory-full", 1_000_000)),
            }
        }
        for _ in 0..random.usize(..10).min(at_the_node.len()) {
            reply.outcomes.push(value(at_the_node.swap_remove(random.usize(..at_the_node.len())), b""));
        }
        books.reply(now, reply);
        done.extend(effects(&mut books));
        now += Duration::from_millis(1);
    }
    done.sort();
    done.dedup();
    assert_eq!(done.len(), 500);
    assert!(sent < 2000, "{sent} is too many: those who are refused learn from it");
    assert!(books.calls.is_empty() && books.renumbered.is_empty() && !books.has_more());
}

#[test]
fn a_function_that_the_node_had_no_memory_for_is_sent_again_once() {
    let (mut books, mut now) = (books(), Instant::now());
    submit(&mut books, 2);
    drain(&mut books, now);
    outcome(&mut books, now, problem(1, "unknown-function", 1_000_000));
    now += Duration::from_secs(1);
    let again = books.next(now).unwrap();
    assert_eq!((again.rest.functions.len(), numbers(&again)), (1, vec![AGAIN + 1]));
    assert_eq!(again.rest.functions[0].body.len(), 10);
    assert_eq!(outcome(&mut books, now, problem(2, "unknown-function", 1_000_000)), [""; 0]);
    now += Duration::from_secs(1);
    let again = books.next(now).unwrap();
    assert_eq!((again.rest.functions.len(), numbers(&again)), (0, vec![AGAIN + 2]), "that call was sent before");
}

#[test]
fn the_pieces_of_a_refused_call_begin_anew() {
    let (mut books, now) = (books(), Instant::now());
    books.submit(&Work::of(SQUARE), [Bytes::from(vec![5; LARGE])], &"").unwrap();
    books.next(now);
    outcome(&mut books, now, problem(1, "queue-full", 0));
    assert_eq!(books.next(now), None, "the rest of its pieces is not sent");
    let messages = drain(&mut books, now + Duration::from_secs(1));
    let sizes: Vec<_> =
        messages.iter().filter_map(|message| message.piece.as_ref()).map(|piece| piece.data.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), LARGE);
}

#[test]
fn a_call_that_waits_here_is_cancelled_at_once() {
    let (mut books, now) = (books(), Instant::now());
    books.welcome(1, 1000);
    submit(&mut books, 3);
    drain(&mut books, now);
    books.cancel(2, false, 77);
    assert_eq!(effects(&mut books), ["sink 2: cancelled", "answer 77: true"]);
    outcome(&mut books, now, value(1, b""));
    assert_eq!(drain_numbers(&mut books, now), [3]);
    books.cancel(2, true, 78);
    assert_eq!(effects(&mut books), ["answer 78: false"], "it has ended");
}

#[test]
fn a_call_that_waits_for_its_function_is_cancelled_at_once() {
    let (mut books, now) = (books(), Instant::now());
    define(&mut books, CUBE, LARGE);
    books.submit(&Work::of(CUBE), vec![Bytes::new(); 2], &"sink").unwrap();
    books.next(now);
    books.cancel(1, false, 77);
    assert_eq!(effects(&mut books), ["sink 1: cancelled", "answer 77: true"]);
    assert_eq!(drain_numbers(&mut books, now), [2]);
}

#[test]
fn the_node_is_asked_about_a_call_that_it_has() {
    let (mut books, now) = (books(), Instant::now());
    submit(&mut books, 3);
    drain(&mut books, now);
    books.cancel(1, false, 71);
    books.cancel(2, false, 72);
    books.cancel(2, true, 73);
    books.cancel(3, false, 74);
    assert!(books.has_more());
    let cancel = |number, kill| api::Cancel { number, kill };
    let expected = [cancel(1, false), cancel(2, false), cancel(2, true), cancel(3, false)];
    assert_eq!(books.next(now).unwrap().rest.cancels, expected);
    books.reply(now, api::SessionReply { going_on: vec![2], ..api::SessionReply::default() });
    assert_eq!(effects(&mut books), ["answer 72: false"]);
    assert_eq!(outcome(&mut books, now, problem(1, "cancelled", 0)), ["sink 1: cancelled", "answer 71: true"]);
    assert_eq!(outcome(&mut books, now, problem(2, "cancelled", 0)), ["sink 2: cancelled", "answer 73: true"]);
    assert_eq!(outcome(&mut books, now, value(3, b"x")), [r#"sink 3: value b"x" by 42"#, "answer 74: false"]);
}

#[test]
fn a_call_that_is_refused_while_it_is_cancelled_is_cancelled() {
    let (mut books, now) = (books(), Instant::now());
    submit(&mut books, 1);
    drain(&mut books, now);
    books.cancel(1, false, 71);
    assert_eq!(outcome(&mut books, now, problem(1, "queue-full", 0)), ["sink 1: cancelled", "answer 71: true"]);
    assert_eq!(books.wake_at(), None);
}

#[test]
fn the_rest_of_a_cancelled_input_is_not_sent() {
    let (mut books, now) = (books(), Instant::now());
    books.submit(&Work::of(SQUARE), [Bytes::from(vec![5; 10 << 20])], &"").unwrap();
    books.next(now);
    books.cancel(1, false, 71);
    let messages = drain(&mut books, now);
    assert_eq!(messages.len(), 1);
    assert_eq!((messages[0].rest.cancels.len(), &messages[0].piece), (1, &None));
}

#[test]
fn at_the_end_every_call_has_an_outcome() {
    let (mut books, now) = (books(), Instant::now());
    define(&mut books, CUBE, LARGE);
    books.welcome(2, 1 << 30);
    submit(&mut books, 2);
    drain(&mut books, now);
    books.submit(&Work::of(CUBE), [Bytes::new()], &"own").unwrap();
    submit(&mut books, 1);
    outcome(&mut books, now, value(2, b""));
    books.next(now);
    books.cancel(1, false, 71);
    books.end(&Problem::new("engine-lost", "why"));
    let expected =
        ["sink 1: engine-lost", "answer 71: false", "own 3: engine-lost", "sink 4: engine-lost"].map(str::to_owned);
    assert_eq!(effects(&mut books), expected);
    assert_eq!((books.next(now), books.has_more(), books.in_flight()), (None, false, 0));
}

#[test]
fn what_the_node_says_of_unknown_calls_is_ignored() {
    let (mut books, now) = (books(), Instant::now());
    let printed = vec![api::Printed { number: 9, ..api::Printed::default() }];
    let parts = vec![api::Part { number: 9, ..api::Part::default() }];
    let outcomes =
        vec![value(9, b""), problem(9, "queue-full", 0), api::Outcome { more: true, ..value(AGAIN + 9, b"") }];
    books.reply(now, api::SessionReply { printed, outcomes, parts, going_on: vec![9], welcome: None });
    assert_eq!(effects(&mut books), [""; 0]);
}
