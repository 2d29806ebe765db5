//! Whether an answer is what a test expects, and if not, in what it differs.

use std::time::{Duration, Instant};

use evener_engine::config::{Expect, Expectation};
use evener_engine::jq::{Input, Limits, Program};
use http::HeaderMap;
use serde_json::Value;

use super::client::Came;
use super::text::{brief, span};

/// How long a jq program may look at an answer.
const LOOK: Duration = Duration::from_secs(10);

/// All that is wrong, a line each; nothing if the answer is as expected.
pub(super) fn judge(expect: &Expect, came: &Came) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(status) = expect.status
        && status != came.status.as_u16()
    {
        wrong.push(format!("status: expected {status}, came {}", came.status.as_u16()));
    }
    wrong.extend(expect.headers.iter().filter_map(|(name, value)| header(name, value, &came.headers)));
    if let Some(why) = &came.broken {
        wrong.push(format!("body: the answer broke off after {} bytes: {why}", came.body.len()));
    }
    if let Some(body) = &expect.body
        && body.as_bytes() != came.body
    {
        let came = brief(&String::from_utf8_lossy(&came.body));
        wrong.push(format!("body: expected {:?}, came {came:?}", brief(body)));
    }
    wrong.extend(expect.json.iter().filter_map(|expectation| json(expectation, &came.body)));
    if let Some(within) = expect.within
        && came.took > within
    {
        wrong.push(format!("time: expected within {}, took {}", span(within), span(came.took)));
    }
    if let Some(at_least) = expect.at_least
        && came.took < at_least
    {
        wrong.push(format!("time: expected at least {}, took {}", span(at_least), span(came.took)));
    }
    wrong
}

fn header(name: &str, value: &str, headers: &HeaderMap) -> Option<String> {
    let found: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    if found.iter().any(|found| found == value) {
        return None;
    }
    let came = match &found[..] {
        [] => "none".to_owned(),
        found => found.iter().map(|value| format!("{:?}", brief(value))).collect::<Vec<_>>().join(" and "),
    };
    Some(format!("header {name}: expected {value:?}, came {came}"))
}

fn json(expectation: &Expectation, body: &[u8]) -> Option<String> {
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(_) if body.is_empty() => return Some("json: the body is empty".into()),
        Err(why) => return Some(format!("json: the body is not JSON: {why}")),
    };
    match expectation {
        Expectation::Equal(expected) => {
            difference(expected, &value, "").map(|difference| format!("json: {difference}"))
        }
        Expectation::Predicate(filter) => {
            let source = &filter.source;
            let limits = Limits { until: Some(Instant::now() + LOOK), ..Limits::default() };
            let given = Program::compile(source)
                .map_err(|error| error.to_string())
                .and_then(|program| program.predicate(Input::Json(body), &limits).map_err(|error| error.to_string()));
            match given {
                Ok(true) => None,
                Ok(false) => Some(format!("json: `{source}` gave false")),
                Err(why) => Some(format!("json: `{source}`: {why}")),
            }
        }
    }
}

/// The first place where two values differ.
fn difference(expected: &Value, came: &Value, place: &str) -> Option<String> {
    let at = if place.is_empty() { String::new() } else { format!("at {place}: ") };
    match (expected, came) {
        (Value::Object(expected), Value::Object(came)) => {
            let missing = expected.keys().find(|key| !came.contains_key(*key));
            let extra = came.keys().find(|key| !expected.contains_key(*key));
            match (missing, extra) {
                (Some(key), _) => Some(format!("{at}expected the key {key:?}, which did not come")),
                (None, Some(key)) => Some(format!("{at}the key {key:?} came, which was not expected")),
                (None, None) => expected.iter().find_map(|(key, value)| {
                    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                    let place = if plain { format!("{place}.{key}") } else { format!("{place}[{key:?}]") };
                    difference(value, &came[key], &place)
                }),
            }
        }
        (Value::Array(expected), Value::Array(came)) if expected.len() == came.len() => {
            let mut pairs = expected.iter().zip(came).enumerate();
            pairs.find_map(|(index, (expected, came))| difference(expected, came, &format!("{place}[{index}]")))
        }
        (Value::Array(expected), Value::Array(came)) => {
            Some(format!("{at}expected a list of {}, came one of {}", expected.len(), came.len()))
        }
        (Value::Number(one), Value::Number(other))
            if one == other || one.as_f64() == other.as_f64() && !exact(one, other) =>
        {
            None
        }
        (expected, came) if expected == came => None,
        (expected, came) => {
            Some(format!("{at}expected {}, came {}", brief(&expected.to_string()), brief(&came.to_string())))
        }
    }
}

/// Whether both are whole numbers, which floating point may take for equal when they are not.
fn exact(one: &serde_json::Number, other: &serde_json::Number) -> bool {
    !one.is_f64() && !other.is_f64()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use evener_engine::config::Filter;
    use http::StatusCode;
    use serde_json::json;

    use super::*;

    fn came(body: &'static str) -> Came {
        let mut headers = HeaderMap::new();
        headers.append("vary", http::HeaderValue::from_static("Origin"));
        headers.append("vary", http::HeaderValue::from_static("Accept"));
        let took = Duration::from_millis(120);
        Came { status: StatusCode::OK, headers, body: Bytes::from_static(body.as_bytes()), broken: None, took }
    }

    fn wrong(expect: Expect, body: &'static str) -> Vec<String> {
        judge(&expect, &came(body))
    }

    fn equal(value: Value, body: &'static str) -> Vec<String> {
        wrong(Expect { json: vec![Expectation::Equal(value)], ..Expect::default() }, body)
    }

    fn predicate(source: &str, body: &'static str) -> Vec<String> {
        let filter = Filter { source: source.into() };
        wrong(Expect { json: vec![Expectation::Predicate(filter)], ..Expect::default() }, body)
    }

    #[test]
    fn nothing_is_wrong_with_what_is_expected() {
        let headers = vec![("Vary".into(), "Accept".into())];
        let within = Some(Duration::from_millis(500));
        let at_least = Some(Duration::from_millis(100));
        let body = Some("hello".into());
        let expect = Expect { headers, body, within, at_least, ..Expect::default() };
        assert_eq!(wrong(expect, "hello"), [""; 0]);
        assert_eq!(wrong(Expect { status: None, ..Expect::default() }, ""), [""; 0]);
    }

    #[test]
    fn all_that_is_wrong_is_said() {
        let expect = Expect {
            status: Some(404),
            headers: vec![("Vary".into(), "Cookie".into()), ("X-No".into(), "1".into())],
            body: Some("hello\n".into()),
            within: Some(Duration::from_millis(100)),
            at_least: None,
            json: Vec::new(),
        };
        let said = [
            "status: expected 404, came 200",
            "header Vary: expected \"Cookie\", came \"Origin\" and \"Accept\"",
            "header X-No: expected \"1\", came none",
            "body: expected \"hello\\n\", came \"hello\"",
            "time: expected within 100 ms, took 120 ms",
        ];
        assert_eq!(wrong(expect, "hello"), said);
        let late = Expect { at_least: Some(Duration::from_secs(1)), ..Expect::default() };
        assert_eq!(wrong(late, ""), ["time: expected at least 1 s, took 120 ms"]);
        let broken = Came { broken: Some("why".into()), ..came("hell") };
        assert_eq!(judge(&Expect::default(), &broken), ["body: the answer broke off after 4 bytes: why"]);
    }

    #[test]
    fn values_are_equal_or_differ_in_a_place() {
        assert_eq!(equal(json!({"a": [1, {"b": 2.0}], "c": null}), r#"{"c":null,"a":[1.0,{"b":2}]}"#), [""; 0]);
        assert_eq!(
            equal(json!({"a": [1, {"b": 2}]}), r#"{"a":[1,{"b":"2"}]}"#),
            ["json: at .a[1].b: expected 2, came \"2\""]
        );
        assert_eq!(equal(json!({"a": 1}), r#"{"b":1}"#), ["json: expected the key \"a\", which did not come"]);
        assert_eq!(
            equal(json!({"x y": {}}), r#"{"x y":{"b":1}}"#),
            ["json: at [\"x y\"]: the key \"b\" came, which was not expected"]
        );
        assert_eq!(equal(json!([1, 2]), "[1]"), ["json: expected a list of 2, came one of 1"]);
        assert_eq!(equal(json!(9_007_199_254_740_993_i64), "9007199254740992").len(), 1);
        assert_eq!(equal(json!(1), ""), ["json: the body is empty"]);
        assert!(equal(json!(1), "<p>")[0].starts_with("json: the body is not JSON: expected value at line 1"));
    }

    #[test]
    fn programs_give_true_or_say_why_not() {
        assert_eq!(predicate(".a == 1", r#"{"a":1}"#), [""; 0]);
        assert_eq!(predicate(".a == 2", r#"{"a":1}"#), ["json: `.a == 2` gave false"]);
        assert_eq!(predicate(".a", r#"{"a":1}"#), ["json: `.a`: the jq program gave a number and not true or false"]);
        assert!(predicate(".a.b == 1", r#"{"a":1}"#)[0].starts_with("json: `.a.b == 1`: "));
    }
}
