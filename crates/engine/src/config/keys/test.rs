//! The keys of a service's tests.

use super::{Default, Shape, Table, key};

/// A text that may be empty.
const BODY: Shape = Shape::Either(&[Shape::Text, Shape::Choice(&[""])]);

pub(crate) static TEST: Table = Table {
    what: "a test",
    keys: &[
        key("name", Shape::Text, "What the test is about, in a line of its own.").required(),
        key("request", Shape::Mapping(&TEST_REQUEST), "What is sent to the service.").required(),
        key("expect", Shape::Mapping(&EXPECT), "What has to come back. Without it, an answer with status 200."),
        key(
            "with",
            Shape::AnyMapping,
            "What is different about the service while this test runs: put over the file as an including file would be.",
        ),
    ],
    some_of: &[],
    later: &[],
    instead: &[
        ("path", "request", "the path is a key of `request`"),
        ("method", "request", "the method is a key of `request`"),
        ("status", "expect", "the status is a key of `expect`"),
        ("set", "with", "write `with: {stages: {NAME: {workers: 0}}}`"),
    ],
};

pub(crate) static TEST_REQUEST: Table = Table {
    what: "the request of a test",
    keys: &[
        key("path", Shape::RoutePath, "The path, with the query if there is one.").required(),
        key("method", Shape::Method, "The HTTP method. Without it, POST where there is a body, else GET."),
        key("headers", Shape::Env, "The headers, by name."),
        key("body", BODY, "The body, as text."),
        key("json", Shape::Anything, "The body, as a value that is sent as JSON."),
    ],
    some_of: &[],
    later: &[],
    instead: &[("url", "path", "write the `path` alone, as in `/items?n=1`")],
};

pub(crate) static EXPECT: Table = Table {
    what: "`expect`",
    keys: &[
        key("status", Shape::Number { least: 100, most: 599 }, "The status of the answer.").or(Default::Number(200)),
        key("headers", Shape::Env, "Headers that the answer has, by name, with their values."),
        key("body", BODY, "The whole body, as text."),
        key(
            "json",
            Shape::Anything,
            "What the body is as JSON: a text is a jq program that must give `true` for it, anything else the value \
             itself.",
        ),
        key("within", Shape::Duration, "The longest that the answer may take."),
        key("at_least", Shape::Duration, "The shortest that the answer may take."),
    ],
    some_of: &[],
    later: &[],
    instead: &[("code", "status", "write `status`"), ("timeout", "within", "write `within`")],
};
