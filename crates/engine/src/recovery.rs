//! What the pipeline of an `on_error` gets: the problem, and what the client had sent.

use evener_core::{Problem, RequestId, Topology};
use evener_doors::{Origin, ProblemView};
use evener_protocol::{Content, Value};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::local;

#[derive(Serialize)]
struct Whole<'a> {
    problem: &'a ProblemView<'a>,
    value: Option<&'a RawValue>,
}

/// `{"problem": …, "value": …}`: the problem as clients see it, with its cause; and the original value. That is the request
/// with its body if `origin` is given; bytes that are no text are null.
pub(crate) fn value(
    topology: &Topology,
    problem: &Problem,
    request: RequestId,
    original: &Value,
    origin: Option<&Origin>,
) -> Value {
    let stage = problem.stage.map(|stage| topology.stage(stage).name.as_str());
    let view = ProblemView::new(problem, request, stage, true);
    let original = match (origin, &original.content) {
        (Some(origin), _) => String::from_utf8(local::request(origin, &original.bytes)).ok(),
        (None, Content::Json) => std::str::from_utf8(&original.bytes).ok().map(str::to_owned),
        (None, Content::Nothing) => None,
        (None, Content::Text | Content::Bytes | Content::Named(_)) => {
            // A string can always be JSON.
            std::str::from_utf8(&original.bytes).ok().and_then(|text| serde_json::to_string(text).ok())
        }
    };
    // What is not JSON after all, whatever its content type said, is null as well.
    let original = original.and_then(|json| RawValue::from_string(json).ok());
    // Written as it is, and not read: a number keeps all of its digits.
    let whole = serde_json::to_vec(&Whole { problem: &view, value: original.as_deref() });
    let bytes = whole.unwrap_or_else(|error| {
        tracing::error!(%error, "a problem could not be written for an `on_error`");
        b"null".to_vec()
    });
    Value { content: Content::Json, bytes: bytes.into() }
}
