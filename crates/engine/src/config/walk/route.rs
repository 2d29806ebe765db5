//! Routes, and whether they stand in each other's way.

use std::collections::HashMap;

use evener_doors::normal_path;
use matchit::{InsertError, Router};

use super::Walk;
use super::fields::Fields;
use super::pipeline::Names;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{DECODE, FALLBACK_ON, INPUT, ROUTE};
use crate::config::source::Span;
use crate::config::yaml::{Node, Plain, Scalar, Value, quote};
use crate::config::{Cors, Decode, FallbackOn, Input, Route, RouteTarget, defaults};

/// The most methods of a route; there are not that many.
const MOST_METHODS: usize = 64;

/// The longest path of a route.
const LONGEST_PATH: usize = 2048;

/// The keys of a route that say something about its way through stages.
const OF_STAGES: [&str; 8] = ["timeout", "fallback", "fallback_on", "input", "decode", "body", "priority", "on_error"];

type Methods = Option<Vec<String>>;

/// What goes for routes that say nothing of their own.
pub(super) struct Unsaid {
    pub(super) cors: Option<Cors>,
    pub(super) compression: bool,
}

/// Which paths are taken, by whom, and for which methods.
#[derive(Default)]
pub(super) struct Paths {
    router: Router<()>,
    taken: HashMap<String, Taken>,
}

/// Who takes one path.
struct Taken {
    /// The first route.
    first: Span,
    /// A route that takes any method.
    any: Option<Span>,
    methods: HashMap<String, Span>,
}

impl Taken {
    /// A route that takes one of these methods as well.
    fn by(&self, methods: &Methods) -> Option<Span> {
        match methods {
            None => Some(self.first),
            Some(methods) => self.any.or_else(|| methods.iter().find_map(|one| self.methods.get(one).copied())),
        }
    }

    fn add(&mut self, methods: &Methods, span: Span) {
        match methods {
            None => self.any = self.any.or(Some(span)),
            Some(methods) => {
                for method in methods {
                    self.methods.entry(method.clone()).or_insert(span);
                }
            }
        }
    }
}

impl Walk<'_> {
    pub(super) fn routes(&mut self, nodes: &[Node], names: &mut Names<'_>, unsaid: &Unsaid) -> Vec<Route> {
        let mut paths = Paths::default();
        nodes.iter().filter_map(|node| self.route(node, names, &mut paths, unsaid)).collect()
    }

    fn route(&mut self, node: &Node, names: &mut Names<'_>, paths: &mut Paths, unsaid: &Unsaid) -> Option<Route> {
        let mut fields = Fields::open(node, node.span, &ROUTE, &[], self)?;
        let path_span = fields.entry("path").map_or(node.span, |entry| entry.value.span);
        let path = fields.require("path", self, |node, walk| walk.route_path(node));
        let methods = fields.read("methods", self, |node, walk| walk.methods(node));
        let target = self.route_target(&mut fields, names);
        if let Value::Map(entries) = &node.value
            && let Some(stage) = entries.iter().find(|entry| &*entry.key == "stage")
        {
            // It was reported as unknown; the stage that it names is in use all the same.
            self.reference(&stage.value, names);
        }
        let timeout = fields.read("timeout", self, |node, walk| walk.duration(node, false));
        let fallback = fields.entry("fallback");
        let fallback_on = fields.read("fallback_on", self, |node, walk| Some(walk.fallback_on(node)));
        if fallback.is_none() && fallback_on.is_some() {
            let span = fields.span_of("fallback_on");
            self.useless_fallback_on(span);
        }
        let fallback = fallback.map(|entry| self.json(&entry.value));
        let input = fields.read("input", self, |node, walk| walk.choice(node, INPUT));
        let decode = fields.read("decode", self, |node, walk| walk.choice(node, DECODE));
        let body = fields.read("body", self, |node, walk| walk.size(node, 0));
        let fairness = fields.read("fairness", self, |node, walk| walk.filter(node));
        let on_error = fields.read("on_error", self, |node, walk| walk.reference(node, names));
        let priority = fields.read("priority", self, |node, walk| walk.priority(node));
        let cors = fields.read("cors", self, |node, walk| walk.cors(node));
        let compression = fields.read("compression", self, |node, walk| walk.boolean(node));
        fields.finish();
        let path = path?;
        self.check_path(path, path_span, &methods, paths);
        Some(Route {
            path: path.into(),
            methods,
            target: target?,
            timeout: timeout.unwrap_or(defaults::ROUTE_TIMEOUT),
            fallback: match fallback {
                Some(fallback) => Some(fallback?),
                None => None,
            },
            fallback_on: fallback_on.unwrap_or_default(),
            input: match input {
                Some("body") => Input::Body,
                Some("request") => Input::Request,
                _ => Input::Auto,
            },
            decode: decode.map(|decode| match decode {
                "json" => Decode::Json,
                "text" => Decode::Text,
                _ => Decode::Bytes,
            }),
            body,
            priority: priority.unwrap_or(0),
            fairness,
            on_error,
            cors: cors.unwrap_or_else(|| unsaid.cors.clone()),
            compression: compression.unwrap_or(unsaid.compression),
        })
    }

    fn route_target(&mut self, fields: &mut Fields<'_>, names: &mut Names<'_>) -> Option<RouteTarget> {
        let pipeline = fields.entry("pipeline");
        let target = pipeline.map(|entry| self.reference(&entry.value, names).map(RouteTarget::Path));
        let health = fields.entry("health").map(|entry| self.boolean(&entry.value));
        match (target, health) {
            (target, Some(Some(true))) => {
                for key in OF_STAGES.iter().chain(&["pipeline"]).filter(|key| fields.has(key)) {
                    let message = format!("a route with `health` goes to no stage, so `{key}` means nothing there");
                    let useless = Diagnostic::error("health-route", fields.span_of(key), message);
                    self.found.push(useless.hint(format!("remove `{key}`, or `health`")));
                }
                target.is_none().then_some(RouteTarget::Health)
            }
            (Some(target), _) => target,
            // It was reported.
            (None, Some(None)) => None,
            (None, Some(Some(false))) => fields.require("pipeline", self, |_, _| None),
            (None, None) => {
                fields.require_some(self);
                None
            }
        }
    }

    /// Whose requests go first.
    pub(super) fn priority(&mut self, node: &Node) -> Option<i8> {
        let Some(Plain::Int(value)) = node.scalar().map(Scalar::resolve) else {
            self.expected(node, "a whole number");
            return None;
        };
        let priority = i8::try_from(value).ok();
        if priority.is_none() {
            let message = format!("a priority is from {} to {}, not {value}", i8::MIN, i8::MAX);
            self.found.push(Diagnostic::error("out-of-range", node.span, message).hint("what says nothing has 0"));
        }
        priority
    }

    fn route_path<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        let path = self.text(node, "a path such as `/items/{id}`")?;
        match path_fault(path) {
            None => Some(path),
            Some((message, hint)) => {
                self.found.push(Diagnostic::error("bad-route-path", node.span, message).hint(hint));
                None
            }
        }
    }

    /// Reports a path that other routes take already.
    fn check_path(&mut self, path: &str, span: Span, methods: &Methods, paths: &mut Paths) {
        // As requests are compared with it.
        let path = &*normal_path(path);
        if let Some(taken) = paths.taken.get_mut(path) {
            if let Some(other) = taken.by(methods) {
                let message = format!("two routes take {} with the same method", quote(path));
                let twice = Diagnostic::error("route-conflict", span, message);
                self.found.push(twice.also(other, "taken here").hint("give them different paths or `methods`"));
            }
            return taken.add(methods, span);
        }
        let mut taken = Taken { first: span, any: None, methods: HashMap::new() };
        taken.add(methods, span);
        paths.taken.insert(path.into(), taken);
        if let Err(error) = paths.router.insert(path, ()) {
            let diagnostic = match error {
                InsertError::Conflict { with } => {
                    let message = format!("{} and {} take the same paths", quote(path), quote(&with));
                    let conflict = Diagnostic::error("route-conflict", span, message)
                        .hint("name the parameters of both alike, or change one of the paths");
                    match paths.taken.get(&with) {
                        Some(other) => conflict.also(other.first, "the other path"),
                        None => conflict,
                    }
                }
                other => Diagnostic::error("bad-route-path", span, other.to_string()),
            };
            self.found.push(diagnostic);
        }
    }

    pub(super) fn methods(&mut self, node: &Node) -> Option<Vec<String>> {
        let items = self.list(node, &["GET"])?;
        if items.len() > MOST_METHODS {
            let message = format!("this list has at most {MOST_METHODS} methods");
            self.found.push(Diagnostic::error("out-of-range", node.span, message));
            return None;
        }
        if items.is_empty() {
            let message = "a route needs at least one method";
            let empty = Diagnostic::error("empty-list", node.span, message);
            self.found.push(empty.hint("leave `methods` out to take any"));
        }
        let mut methods: Vec<String> = Vec::new();
        for item in items {
            let Some(text) = self.text(item, "a method such as `GET`") else { continue };
            let token = |c: char| c.is_ascii_uppercase() || matches!(c, '-' | '_');
            if !text.chars().all(token) {
                let message = format!("{} is not a method", quote(text));
                let wrong = Diagnostic::error("bad-method", item.span, message);
                let upper = text.to_ascii_uppercase();
                self.found.push(match upper.chars().all(token) {
                    true => wrong.hint(format!("methods are upper case: `{upper}`")),
                    false => wrong.hint("methods are words such as `GET` and `POST`"),
                });
            } else if methods.iter().any(|method| method == text) {
                let message = format!("{} is given twice", quote(text));
                self.found.push(Diagnostic::error("duplicate-item", item.span, message));
            } else {
                methods.push(text.into());
            }
        }
        Some(methods)
    }

    pub(super) fn fallback_on(&mut self, node: &Node) -> FallbackOn {
        if matches!(&node.value, Value::Seq(items) if items.is_empty()) {
            let message = "a fallback that covers no failure is never used";
            let empty = Diagnostic::error("empty-list", node.span, message);
            self.found.push(empty.hint("leave `fallback_on` out to cover timeouts"));
        }
        let chosen = self.choices(node, FALLBACK_ON);
        FallbackOn {
            timeout: chosen.contains(&"timeout"),
            error: chosen.contains(&"error"),
            lost: chosen.contains(&"lost"),
            unavailable: chosen.contains(&"unavailable"),
        }
    }

    /// A value as JSON. `None` was reported.
    pub(super) fn json(&mut self, node: &Node) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        let number = |number: Option<serde_json::Number>| number.map(Json::Number);
        let json = match &node.value {
            Value::Broken => return None,
            Value::Seq(items) => {
                let items: Vec<_> = items.iter().map(|item| self.json(item)).collect();
                return items.into_iter().collect::<Option<_>>().map(Json::Array);
            }
            Value::Map(entries) => {
                let fields = entries.iter().map(|e| Some((e.key.to_string(), self.json(&e.value)?)));
                let fields: Vec<_> = fields.collect();
                return fields.into_iter().collect::<Option<_>>().map(Json::Object);
            }
            Value::Scalar(scalar) => match scalar.resolve() {
                Plain::Null => Some(Json::Null),
                Plain::Bool(value) => Some(Json::Bool(value)),
                Plain::Int(value) => number(serde_json::Number::from_i128(value)),
                Plain::Float(value) => number(serde_json::Number::from_f64(value)),
                Plain::Str(text) => Some(Json::String(text.into())),
            },
        };
        if json.is_none() {
            let message = format!("JSON cannot hold {}", node.describe());
            let wrong = Diagnostic::error("bad-json", node.span, message);
            self.found.push(wrong.hint("put quotes around it to send it as text"));
        }
        json
    }
}

/// What is wrong with a path, and what to do about it.
fn path_fault(path: &str) -> Option<(String, String)> {
    let shown = quote(path);
    if !path.starts_with('/') {
        return Some((format!("the path {shown} does not begin with a slash"), format!("write `/{path}`")));
    }
    if path.len() > LONGEST_PATH {
        let hint = "shorten it".into();
        return Some((format!("this path has more than {LONGEST_PATH} characters"), hint));
    }
    let foreign = |segment: &str| {
        let other = segment.strip_prefix(':').or_else(|| segment.strip_prefix('<')?.strip_suffix('>'));
        let name = other.map(|name| name.rsplit(':').next().unwrap_or(name)).filter(|name| !name.is_empty());
        if segment == "*" { Some("{*rest}".to_owned()) } else { name.map(|name| format!("{{{name}}}")) }
    };
    if let Some((segment, ours)) = path.split('/').find_map(|segment| Some((segment, foreign(segment)?))) {
        let hint = format!("write {} for a parameter", quote(&ours));
        return Some((format!("{} in the path {shown} is how others write a parameter", quote(segment)), hint));
    }
    if let Some(c) = path.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#')) {
        let hint = match c {
            '?' | '#' => "a path ends before `?` and `#`; a stage sees the query in its request",
            _ => "write it percent-encoded, as clients send it",
        };
        return Some((format!("the path {shown} cannot contain {}", quote(&c.to_string())), hint.into()));
    }
    if let Err(error) = Router::new().insert(path, ()) {
        let hint = "`{name}` takes one segment and `{*name}` at the end takes the rest; write `{{` and \
                    `}}` for braces";
        let what = match error {
            InsertError::InvalidParamSegment => "a segment has two parameters",
            InsertError::InvalidCatchAll => "`{*name}` does not stand at the end",
            _ => "the braces do not hold a name",
        };
        return Some((format!("the path {shown} is not good: {what}"), hint.into()));
    }
    let mut seen: Vec<&str> = Vec::new();
    for name in parameters(path) {
        let letter = |c: char| c == '_' || c.is_ascii_alphabetic();
        let good = name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit());
        if !good {
            let message = format!("{} in {shown} cannot be the name of a parameter", quote(name));
            return Some((message, "a parameter's name has letters, digits and underscores".into()));
        }
        if seen.contains(&name) {
            let message = format!("the path {shown} has two parameters {}", quote(name));
            return Some((message, "give them different names".into()));
        }
        seen.push(name);
    }
    None
}

/// The names between single braces.
fn parameters(path: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = path;
    while let Some(at) = rest.find(['{', '}']) {
        let here = &rest[at..];
        if here.starts_with("{{") || here.starts_with("}}") {
            rest = &here[2..];
            continue;
        }
        let end = here.find('}').unwrap_or(here.len());
        if let Some(name) = here.get(1..end) {
            names.push(name.trim_start_matches('*'));
        }
        rest = here.get(end + 1..).unwrap_or_default();
    }
    names
}
