//! What the table does with entries, ends, bounds and numbers; and the same against a plain model.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { bytes: 10_000, entries: 10 };

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn ask(state: &mut State, now: u64, key: &str, op: StateOp) -> StateAnswer {
    state.ask(at(now), &StateAsk { key: key.into(), op })
}

fn set(value: &str, ttl: Option<u64>) -> StateOp {
    StateOp::Set { value: value.as_bytes().into(), ttl: ttl.map(Duration::from_secs) }
}

fn add(amount: Number, ttl: Option<u64>) -> StateOp {
    StateOp::Add { amount, ttl: ttl.map(Duration::from_secs) }
}

fn value(text: &str) -> StateAnswer {
    StateAnswer::Value(text.as_bytes().into())
}

#[test]
fn an_entry_is_there_until_it_ends_or_is_removed() {
    let mut state = State::new(BOUNDS);
    assert_eq!(ask(&mut state, 0, "a", StateOp::Get), StateAnswer::No);
    assert_eq!(ask(&mut state, 0, "a", set("1", Some(5))), StateAnswer::Done);
    assert_eq!(ask(&mut state, 4, "a", StateOp::Get), value("1"));
    assert_eq!(state.next_end(), Some(at(5)));
    assert_eq!(ask(&mut state, 5, "a", StateOp::Get), StateAnswer::No);
    assert_eq!(ask(&mut state, 5, "a", set("2", None)), StateAnswer::Done);
    assert_eq!(ask(&mut state, 1_000_000, "a", StateOp::Get), value("2"));
    assert_eq!(ask(&mut state, 1_000_000, "a", StateOp::Delete), StateAnswer::Done);
    assert_eq!(ask(&mut state, 1_000_000, "a", StateOp::Delete), StateAnswer::No);
    assert_eq!((state.bytes(), state.len(), state.next_end()), (0, 0, None));
}

#[test]
fn a_counter_counts_within_the_time_in_which_it_began() {
    let mut state = State::new(BOUNDS);
    let one = Number::Int(1);
    assert_eq!(ask(&mut state, 0, "n", add(one, Some(60))), value("1"));
    assert_eq!(ask(&mut state, 50, "n", add(one, Some(60))), value("2"));
    assert_eq!(ask(&mut state, 60, "n", add(one, Some(60))), value("1"));
    assert_eq!(ask(&mut state, 60, "n", add(Number::Float(0.5), None)), value("1.5"));
}

#[test]
fn what_cannot_be_added_is_refused_and_changes_nothing() {
    let mut state = State::new(BOUNDS);
    for (before, amount) in [
        ("9223372036854775807", Number::Int(1)),
        ("-9223372036854775808", Number::Int(-1)),
        ("1e308", Number::Float(1.7e308)),
        ("\"1\"", Number::Int(1)),
        ("null", Number::Int(1)),
    ] {
        assert_eq!(ask(&mut state, 0, "n", set(before, None)), StateAnswer::Done);
        let answer = ask(&mut state, 0, "n", add(amount, None));
        assert!(matches!(answer, StateAnswer::Refused(_)), "{before}: {answer:?}");
        assert_eq!(ask(&mut state, 0, "n", StateOp::Get), value(before));
    }
}

#[test]
fn compare_and_set_sees_what_is_there() {
    let mut state = State::new(BOUNDS);
    let swap = |expected: Option<&str>, new: &str| StateOp::CompareAndSet {
        expected: expected.map(|text| text.as_bytes().into()),
        value: new.as_bytes().into(),
        ttl: None,
    };
    assert_eq!(ask(&mut state, 0, "a", swap(Some("1"), "2")), StateAnswer::No);
    assert_eq!(ask(&mut state, 0, "a", swap(None, "1")), StateAnswer::Done);
    assert_eq!(ask(&mut state, 0, "a", swap(None, "3")), StateAnswer::No);
    assert_eq!(ask(&mut state, 0, "a", swap(Some("1"), "2")), StateAnswer::Done);
    assert_eq!(ask(&mut state, 0, "a", StateOp::Get), value("2"));
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    let mut state = State::new(BOUNDS);
    for number in 0..BOUNDS.entries {
        assert_eq!(ask(&mut state, 0, &number.to_string(), set("1", Some(9))), StateAnswer::Done);
    }
    assert!(matches!(ask(&mut state, 0, "more", set("1", None)), StateAnswer::Refused(_)));
    assert_eq!(ask(&mut state, 0, "0", set("2", Some(9))), StateAnswer::Done, "one that is there may change");
    let large = "1".repeat(BOUNDS.bytes as usize);
    assert!(matches!(ask(&mut state, 0, "0", set(&large, None)), StateAnswer::Refused(_)));
    assert_eq!(ask(&mut state, 0, "0", StateOp::Get), value("2"));
    assert_eq!(ask(&mut state, 9, "more", set("1", None)), StateAnswer::Done, "the others have ended");
    let long = "k".repeat(LONGEST_KEY + 1);
    assert!(matches!(ask(&mut state, 9, &long, StateOp::Get), StateAnswer::Refused(_)));
}

#[test]
fn numbers_are_those_of_json() {
    let of = |text: &str| Number::parse(text.as_bytes());
    assert_eq!(of(" -12\n"), Some(Number::Int(-12)));
    assert_eq!(of("0"), Some(Number::Int(0)));
    assert_eq!(of("0.5"), Some(Number::Float(0.5)));
    assert_eq!(of("1E3"), Some(Number::Float(1000.0)));
    for bad in
        ["", "-", "+1", "01", "-01.5", "1.", ".5", "1.e3", "inf", "NaN", "1e999", "1 2", "0x1", "1_0", "true", "e1"]
    {
        assert_eq!(of(bad), None, "{bad}");
    }
    assert_eq!(of("9223372036854775808"), None, "an integer that does not fit");
    let printed = [1e16, 1e-5, 0.1, 1.0, -2.5e300].map(|number| Number::Float(number).print());
    assert_eq!(printed, ["1e+16", "1e-05", "0.1", "1.0", "-2.5e+300"]);
}

#[derive(Clone, Debug)]
enum Doing {
    Get,
    Set(String, Option<u64>),
    Add(i64, Option<u64>),
    Swap(Option<String>, String),
    Delete,
}

fn doing() -> impl Strategy<Value = Doing> {
    let text = prop_oneof![Just("1".to_owned()), Just("2".to_owned()), Just("\"x\"".to_owned())];
    let ttl = proptest::option::of(0u64..6);
    prop_oneof![
        Just(Doing::Get),
        (text.clone(), ttl.clone()).prop_map(|(value, ttl)| Doing::Set(value, ttl)),
        (-3i64..4, ttl).prop_map(|(amount, ttl)| Doing::Add(amount, ttl)),
        (proptest::option::of(text.clone()), text).prop_map(|(expected, value)| Doing::Swap(expected, value)),
        Just(Doing::Delete),
    ]
}

/// What a table without bounds, which looks at each entry's end when it is asked, would say.
fn model(entries: &mut BTreeMap<u8, (String, Option<u64>)>, now: u64, key: u8, doing: &Doing) -> StateAnswer {
    entries.retain(|_, (_, end)| end.is_none_or(|end| end > now));
    let there = entries.get(&key).cloned();
    match doing {
        Doing::Get => there.map_or(StateAnswer::No, |(text, _)| value(&text)),
        Doing::Set(text, ttl) => {
            entries.insert(key, (text.clone(), ttl.map(|ttl| now + ttl)));
            StateAnswer::Done
        }
        Doing::Add(amount, ttl) => {
            let (before, end) = there.unwrap_or(("0".to_owned(), ttl.map(|ttl| now + ttl)));
            let Ok(before) = before.parse::<i64>() else { return StateAnswer::Refused(String::new()) };
            let sum = (before + amount).to_string();
            entries.insert(key, (sum.clone(), end));
            value(&sum)
        }
        Doing::Swap(expected, text) => {
            if there.map(|(text, _)| text) != *expected {
                return StateAnswer::No;
            }
            entries.insert(key, (text.clone(), None));
            StateAnswer::Done
        }
        Doing::Delete => entries.remove(&key).map_or(StateAnswer::No, |_| StateAnswer::Done),
    }
}

fn op(doing: &Doing) -> StateOp {
    match doing.clone() {
        Doing::Get => StateOp::Get,
        Doing::Set(text, ttl) => set(&text, ttl),
        Doing::Add(amount, ttl) => add(Number::Int(amount), ttl),
        Doing::Swap(expected, text) => StateOp::CompareAndSet {
            expected: expected.map(|text| text.into_bytes().into()),
            value: text.into_bytes().into(),
            ttl: None,
        },
        Doing::Delete => StateOp::Delete,
    }
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(all in proptest::collection::vec((0u64..3, 0u8..4, doing()), 0..60)) {
        let mut state = State::new(BOUNDS);
        let mut entries = BTreeMap::new();
        let mut now = 0;
        for (pause, key, doing) in all {
            now += pause;
            let answer = match ask(&mut state, now, &key.to_string(), op(&doing)) {
                StateAnswer::Refused(_) => StateAnswer::Refused(String::new()),
                answer => answer,
            };
            prop_assert_eq!(answer, model(&mut entries, now, key, &doing), "{} {:?}", now, doing);
        }
    }

    /// The books balance, and the bounds hold, whatever is written.
    #[test]
    fn the_bounds_hold(all in proptest::collection::vec((0u64..2, 0u8..20, 0usize..4000, 0u64..20), 0..80)) {
        let mut state = State::new(BOUNDS);
        let mut now = 0;
        for (pause, key, length, ttl) in all {
            now += pause;
            ask(&mut state, now, &key.to_string(), set(&"1".repeat(length), Some(ttl).filter(|ttl| *ttl > 3)));
            let sum: u64 = state.entries.iter().map(|(key, entry)| cost(key, &entry.value)).sum();
            prop_assert_eq!(sum, state.bytes());
            prop_assert!(state.bytes() <= BOUNDS.bytes && state.len() <= BOUNDS.entries);
        }
        state.expire(at(now + 100));
        prop_assert_eq!(state.entries.values().filter(|entry| entry.ends != Time::NEVER).count(), state.ends.len());
        prop_assert!(state.ends.is_empty());
    }
}
