//! The tests of a service: what each sends, what it expects, and whether what it changes is good.

use std::collections::{HashMap, HashSet};

use http::{HeaderName, HeaderValue};

use super::Walk;
use super::fields::Fields;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::keys::{EXPECT, TEST, TEST_REQUEST};
use crate::config::overlay::Overlay;
use crate::config::source::Span;
use crate::config::yaml::{Entry, Node, Plain, Scalar, Value, quote};
use crate::config::{Expect, Expectation, Test, TestRequest};

/// The longest name of a test, in characters.
const LONGEST_NAME: usize = 200;
/// The longest path of a request, in bytes.
const LONGEST_PATH: usize = 8192;
/// How many values of the file may be looked at again for tests that change something; a file of a few hundred values
/// can have thousands of such tests.
const MOST_AGAIN: usize = 1_000_000;
/// After how many errors the tests that remain are left for the next time.
const ENOUGH_ERRORS: usize = 1000;

/// A body, and its content type.
type Body = (Vec<u8>, &'static str);

impl Walk<'_> {
    pub(super) fn tests(&mut self, nodes: &[Node]) -> Vec<Test> {
        let mut names = HashMap::new();
        nodes.iter().filter_map(|node| self.test(node, &mut names)).collect()
    }

    fn test<'n>(&mut self, node: &'n Node, names: &mut HashMap<&'n str, Span>) -> Option<Test> {
        let mut fields = Fields::open(node, node.span, &TEST, &[], self)?;
        let name = fields.require("name", self, |node, walk| walk.test_name(node, names));
        let request = fields.require("request", self, |node, walk| walk.test_request(node));
        let expect = fields.entry("expect");
        let expect = expect.map_or_else(|| Some(Expect::default()), |entry| self.expect(&entry.value));
        let with = fields.entry("with");
        let with = with.map(|entry| self.with(&entry.value));
        fields.finish();
        let source = &self.sources[node.span.source as usize];
        Some(Test {
            name: name?.into(),
            file: source.name.to_string(),
            line: source.position(node.span.start).0,
            request: request?,
            expect: expect?,
            with: match with {
                Some(with) => Some(with?),
                None => None,
            },
        })
    }

    fn test_name<'n>(&mut self, node: &'n Node, names: &mut HashMap<&'n str, Span>) -> Option<&'n str> {
        let name = self.text(node, "the name of the test")?;
        if name.contains(char::is_control) || name.chars().count() > LONGEST_NAME {
            let message = format!("the name of a test is one line of at most {LONGEST_NAME} characters");
            self.found.push(Diagnostic::error("bad-name", node.span, message));
            return None;
        }
        if let Some(first) = names.get(name) {
            let twice = Diagnostic::error("duplicate-name", node.span, format!("two tests are named {}", quote(name)));
            self.found.push(twice.also(*first, "the other one"));
        } else {
            names.insert(name, node.span);
        }
        Some(name)
    }

    fn test_request(&mut self, node: &Node) -> Option<TestRequest> {
        let mut fields = Fields::open(node, node.span, &TEST_REQUEST, &[], self)?;
        let path = fields.require("path", self, |node, walk| walk.test_path(node));
        let method = fields.read("method", self, |node, walk| walk.test_method(node));
        let headers = fields.read("headers", self, |node, walk| walk.test_headers(node)).unwrap_or_default();
        let (body, json) = (fields.entry("body"), fields.entry("json"));
        if let (Some(body), Some(json)) = (body, json) {
            let both = Diagnostic::error("two-bodies", json.key_span, "a request has `body` or `json`, not both");
            self.found.push(both.also(body.key_span, "the other one"));
        }
        let body = match (body, json) {
            (Some(body), _) => Some(
                self.test_text(&body.value)
                    .map(|text| -> Body { (text.as_bytes().to_vec(), "text/plain; charset=utf-8") }),
            ),
            (None, Some(json)) => {
                Some(self.json(&json.value).map(|json| -> Body { (json.to_string().into_bytes(), "application/json") }))
            }
            (None, None) => None,
        };
        fields.finish();
        let mut headers = headers;
        let unsaid = if body.is_some() { "POST" } else { "GET" };
        let body = match body {
            Some(body) => {
                let (bytes, kind) = body?;
                if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                    headers.push(("Content-Type".into(), kind.into()));
                }
                Some(bytes)
            }
            None => None,
        };
        Some(TestRequest { method: method.unwrap_or(unsaid).into(), path: path?.into(), headers, body })
    }

    fn expect(&mut self, node: &Node) -> Option<Expect> {
        let mut fields = Fields::open(node, node.span, &EXPECT, &[], self)?;
        let status = fields.read("status", self, |node, walk| walk.number(node, "a status", 100, 599));
        let headers = fields.read("headers", self, |node, walk| walk.test_headers(node)).unwrap_or_default();
        let body = fields.read("body", self, |node, walk| walk.test_text(node)).map(String::from);
        let json = fields.read("json", self, |node, walk| walk.expectation(node));
        let within = fields.read("within", self, |node, walk| walk.duration(node, false));
        let at_least = fields.read("at_least", self, |node, walk| walk.duration(node, true));
        if let (Some(within), Some(at_least)) = (within, at_least)
            && at_least > within
        {
            let message = "no answer takes at least `at_least` and comes `within` less";
            let never = Diagnostic::error("out-of-range", fields.span_of("at_least"), message);
            self.found.push(never.also(fields.span_of("within"), "the longest that it may take"));
        }
        fields.finish();
        Some(Expect {
            status: Some(status.map_or(200, |status| status as u16)),
            headers,
            body,
            json: json.into_iter().collect(),
            within,
            at_least,
        })
    }

    /// A text is a jq program, and anything else stands for itself.
    fn expectation(&mut self, node: &Node) -> Option<Expectation> {
        match node.scalar().map(Scalar::resolve) {
            Some(Plain::Str(_)) => self.filter(node).map(Expectation::Predicate),
            _ => self.json(node).map(Expectation::Equal),
        }
    }

    /// A text, which may be empty.
    fn test_text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        if let Some(Plain::Str(text)) = node.scalar().map(Scalar::resolve) {
            return Some(text);
        }
        if !node.is_broken() {
            let message = format!("expected a text, found {}", node.describe());
            let wrong = Diagnostic::error("wrong-type", node.span, message);
            self.found.push(wrong.hint("put quotes around it, or use `json` for a value"));
        }
        None
    }

    fn test_path<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        let path = self.text(node, "a path such as `/items?n=1`")?;
        let hint = if !path.starts_with('/') {
            "a path begins with a slash; the address is that of the service under test"
        } else if path.contains('#') || !path.chars().all(|c| c.is_ascii_graphic()) {
            "write it as clients send it: percent-encoded, and without `#`"
        } else if path.len() > LONGEST_PATH {
            "shorten it"
        } else {
            return Some(path);
        };
        let message = format!("{} is not the path of a request", quote(path));
        self.found.push(Diagnostic::error("bad-request-path", node.span, message).hint(hint));
        None
    }

    fn test_method<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        let method = self.text(node, "a method such as `GET`")?;
        if method.chars().all(|c| c.is_ascii_uppercase() || matches!(c, '-' | '_')) {
            return Some(method);
        }
        let wrong = Diagnostic::error("bad-method", node.span, format!("{} is not a method", quote(method)));
        self.found.push(wrong.hint("methods are words in upper case such as `GET` and `POST`"));
        None
    }

    /// Headers by name, whose values are taken as they are written.
    fn test_headers(&mut self, node: &Node) -> Option<Vec<(String, String)>> {
        let Value::Map(entries) = &node.value else {
            self.expected(node, "a mapping from headers to values");
            return None;
        };
        let mut headers = Vec::with_capacity(entries.len());
        for Entry { key, key_span, value } in entries {
            if HeaderName::try_from(&**key).is_err() {
                let message = format!("{} is not the name of a header", quote(key));
                let wrong = Diagnostic::error("bad-header", *key_span, message);
                self.found.push(wrong.hint("names of headers are words such as `Content-Type`"));
            }
            match value.scalar() {
                Some(scalar) if scalar.resolve() != Plain::Null && HeaderValue::from_str(&scalar.text).is_ok() => {
                    headers.push((key.to_string(), scalar.text.to_string()));
                }
                _ => self.expected(value, "the value of a header, on one line"),
            }
        }
        Some(headers)
    }

    fn with(&mut self, node: &Node) -> Option<Overlay> {
        let Value::Map(entries) = &node.value else {
            self.expected(node, "a mapping like a service file, such as `{stages: {NAME: {workers: 0}}}`");
            return None;
        };
        for entry in entries.iter().filter(|entry| matches!(&*entry.key, "include" | "tests")) {
            let message = format!("a test cannot change `{}`", entry.key);
            self.found.push(Diagnostic::error("bad-with", entry.key_span, message));
        }
        Some(Overlay::of(self.sources[node.span.source as usize].clone(), node))
    }

    /// Reports what is wrong with the service under tests that change it. `root` is the whole tree, which is good.
    pub(super) fn variations(&mut self, root: &Node, tests: &[Node]) {
        let changing: Vec<&Entry> = tests.iter().filter_map(|test| test.entry("with")).collect();
        let Some(first) = changing.first() else { return };
        let mut plain = root.clone();
        plain.remove("tests");
        let count = plain.count();
        let again: usize = changing.iter().map(|with| count + with.value.count()).sum();
        if again > MOST_AGAIN {
            let message = "so large a file has too many tests that change it";
            let many = Diagnostic::error("too-many-tests", first.key_span, message);
            return self
                .found
                .push(many.hint("put tests into a service file of their own, which includes the service"));
        }
        for with in changing {
            self.variation(&plain, with);
            if self.found.len() > ENOUGH_ERRORS {
                break;
            }
        }
    }

    fn variation(&mut self, plain: &Node, with: &Entry) {
        let mut spans = HashSet::new();
        with.value.clone().each_span(&mut |span| {
            spans.insert(*span);
        });
        if let Some(unknown) = super::unknown_stage(&with.value, plain) {
            return self.found.push(unknown);
        }
        let varied = with.value.clone().over(plain.clone());
        let mut walk = Walk { files: Vec::new(), found: Vec::new(), overlaid: true, ..*self };
        walk.service(&varied);
        for wrong in walk.found.into_iter().filter(|one| one.severity == Severity::Error) {
            self.found.push(match wrong.span {
                Some(span) if !spans.contains(&span) => {
                    let label = "as it then is";
                    Diagnostic { span: Some(with.key_span), label: "with this".into(), ..wrong }.also(span, label)
                }
                _ => wrong,
            });
        }
    }
}
