//! What the branches of a scatter come to: one JSON value of theirs.

use std::sync::Arc;

use bytes::Bytes;
use evener_core::{Part, Payloads, Problem, Topology};
use evener_doors::Parcel;
use evener_protocol::{Content, Value};
use serde::Serialize;

/// How core puts payloads together.
pub(crate) const PAYLOADS: Payloads<Parcel> = Payloads { gather, constant };

fn constant(json: &str) -> Parcel {
    Parcel { value: Value { content: Content::Json, bytes: Bytes::copy_from_slice(json.as_bytes()) }, held: None }
}

/// What stands for a branch that failed, where failures are collected.
#[derive(Serialize)]
struct Failed<'a> {
    error: Reason<'a>,
}

#[derive(Serialize)]
struct Reason<'a> {
    code: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tries: Option<u32>,
    retryable: bool,
}

/// An object by the names of the branches, or a list in their order.
fn gather(topology: &Topology, parts: &[Part<'_, Parcel>], named: bool) -> Result<Parcel, String> {
    let sizes =
        parts.iter().map(|part| part.name.len() + part.value.map_or(128, |parcel| parcel.value.bytes.len()) + 8);
    let mut json = Vec::with_capacity(sizes.sum::<usize>() + 2);
    json.push(if named { b'{' } else { b'[' });
    for (part, number) in parts.iter().zip(0..) {
        if number > 0 {
            json.push(b',');
        }
        if named {
            append(&mut json, &part.name);
            json.push(b':');
        }
        match part.value {
            Ok(parcel) => append_value(&mut json, &parcel.value).map_err(|what| match named {
                true => format!("`{}` came to {what}", part.name),
                false => format!("that of element {number} came to {what}"),
            })?,
            Err(problem) => append(&mut json, &failed(topology, problem)),
        }
    }
    json.push(if named { b'}' } else { b']' });
    let held = parts.iter().find_map(|part| part.value.ok().and_then(|parcel| parcel.held.as_ref()));
    let held = held.map(|held| Arc::new(held.charge(json.len() as u64)));
    Ok(Parcel { value: Value { content: Content::Json, bytes: json.into() }, held })
}

fn failed<'a>(topology: &'a Topology, problem: &'a Problem) -> Failed<'a> {
    Failed {
        error: Reason {
            code: problem.code.name(),
            status: problem.status,
            detail: &problem.detail,
            stage: problem.stage.map(|stage| topology.stage(stage).name.as_str()),
            tries: Some(problem.tries).filter(|tries| *tries > 0),
            retryable: problem.code.is_retryable(),
        },
    }
}

fn append(json: &mut Vec<u8>, value: &impl Serialize) {
    // Strings, numbers and booleans under string keys, into memory: nothing here can fail.
    let _ = serde_json::to_writer(json, value);
}

/// Appends a value as JSON; the error says what it is instead.
fn append_value(json: &mut Vec<u8>, value: &Value) -> Result<(), String> {
    match &value.content {
        Content::Nothing => json.extend_from_slice(b"null"),
        Content::Json => json.extend_from_slice(&value.bytes),
        Content::Text => match std::str::from_utf8(&value.bytes) {
            Ok(text) => append(json, &text),
            Err(_) => return Err("text that is not UTF-8".to_owned()),
        },
        Content::Bytes => return Err("bytes, which JSON cannot hold: return text or an object there".to_owned()),
        Content::Named(name) => return Err(format!("{name}, which JSON cannot hold")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use evener_core::{Budget, Code, StageId, StageRules};

    use super::*;

    fn topology() -> Topology {
        Topology::new::<StageId>(vec![StageRules::named("sum")], vec![], 1)
    }

    fn parcel(content: Content, bytes: &'static str) -> Parcel {
        Parcel { value: Value { content, bytes: bytes.into() }, held: None }
    }

    fn gathered(parts: &[(&str, Result<&Parcel, &Problem>)], named: bool) -> Result<String, String> {
        let parts: Vec<_> = parts.iter().map(|(name, value)| Part { name, value: *value }).collect();
        let parcel = gather(&topology(), &parts, named)?;
        assert_eq!(parcel.value.content, Content::Json);
        Ok(String::from_utf8(parcel.value.bytes.to_vec()).expect("JSON is UTF-8"))
    }

    #[test]
    fn values_stand_by_name_or_in_their_order() {
        let (one, text) = (parcel(Content::Json, "{\"n\":1}"), parcel(Content::Text, "a \"b\""));
        let nothing = parcel(Content::Nothing, "");
        assert_eq!(
            gathered(&[("x\"y", Ok(&one)), ("t", Ok(&text)), ("n", Ok(&nothing))], true).as_deref(),
            Ok(r#"{"x\"y":{"n":1},"t":"a \"b\"","n":null}"#)
        );
        assert_eq!(gathered(&[("", Ok(&one)), ("", Ok(&text))], false).as_deref(), Ok(r#"[{"n":1},"a \"b\""]"#));
        assert_eq!(gathered(&[], false).as_deref(), Ok("[]"));
    }

    #[test]
    fn a_failure_stands_in_its_place_and_bytes_are_refused() {
        let problem = Problem::new(Code::WorkerDied, "the worker died").in_stage(StageId(0));
        assert_eq!(
            gathered(&[("s", Err(&problem))], true).as_deref(),
            Ok(
                r#"{"s":{"error":{"code":"worker-died","status":502,"detail":"the worker died","stage":"sum","retryable":true}}}"#
            )
        );
        let bytes = parcel(Content::Bytes, "x");
        let wrong = gathered(&[("s", Ok(&bytes))], true).expect_err("bytes are no JSON");
        assert!(wrong.starts_with("`s` came to bytes"), "{wrong}");
    }

    #[test]
    fn the_gathered_value_counts_against_the_same_memory() {
        let budget = Budget::new(1000);
        let held = Some(Arc::new(budget.charge(2)));
        let part = Parcel { held, ..parcel(Content::Json, "42") };
        let whole = gather(&topology(), &[Part { name: "a", value: Ok(&part) }], true).expect("it is JSON");
        assert_eq!(budget.used(), 2 + whole.value.bytes.len() as u64);
        drop((part, whole));
        assert_eq!(budget.used(), 0);
    }
}
