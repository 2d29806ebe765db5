//! Builds the tree from the parser's events.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::scalar::quote;
use super::syntax::{self, Lines};
use super::{Entry, Node, Scalar, Value};
use crate::config::diagnostic::Diagnostic;
use crate::config::source::{Source, Span};

/// How deep collections may be nested.
const DEPTH: usize = 64;

/// How many nodes may be copied in all, into anchors and out of them. A service file that repeats
/// itself copies a few hundred; a bomb of aliases wants billions.
const COPIES: usize = 100_000;

/// Reads a text. `None` if it cannot be walked at all; `found` then says why.
pub(crate) fn build(source: &Source, found: &mut Vec<Diagnostic>) -> Option<Node> {
    let unprintable = syntax::unprintable(source);
    if !unprintable.is_empty() {
        found.extend(unprintable);
        return None;
    }
    let text = &*source.text;
    let mut builder = Builder {
        source,
        lines: Lines::new(text),
        found,
        stack: Vec::new(),
        anchors: HashMap::new(),
        copies: 0,
        root: None,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let outcome = match event {
            Ok((event, span)) => builder.event(event, &span),
            Err(error) => builder.stop(syntax::failed(source, &builder.lines, &error)),
        };
        outcome.ok()?;
    }
    if builder.root.is_none() {
        let empty = Diagnostic::file("empty-file", "the file is empty");
        builder.found.push(empty.hint("a service file begins with `service: NAME`"));
    }
    builder.root
}

/// The text cannot be read on; why was reported.
struct Stop;

/// A collection that is not yet closed.
struct Open {
    span: Span,
    anchor: usize,
    items: Items,
}

enum Items {
    Seq(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashMap<Arc<str>, Span>, key: Key },
}

/// The key whose value comes next.
enum Key {
    Awaited,
    Given(Arc<str>, Span),
    /// It was reported; its value is dropped.
    Refused,
}

struct Builder<'a> {
    source: &'a Source,
    lines: Lines,
    found: &'a mut Vec<Diagnostic>,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    copies: usize,
    root: Option<Node>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, at: &saphyr_parser::Span) -> Result<(), Stop> {
        let span = Span::new(self.lines.byte(&at.start), self.lines.byte(&at.end));
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                let message = "a service file is one YAML document, and here begins a second";
                let second = Diagnostic::error("many-documents", span, message);
                self.stop(second.hint("put each service into a file of its own"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.tag(tag.is_some(), span);
                let plain = style == ScalarStyle::Plain;
                let span = if plain && text.is_empty() { self.nothing(span) } else { span };
                let scalar = Scalar { text: text.as_ref().into(), plain, expanded: false };
                self.add(Node { span, value: Value::Scalar(scalar) }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.is_some(), span);
                self.open(span, anchor, Items::Seq(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.is_some(), span);
                let items = Items::Map { entries: Vec::new(), seen: HashMap::new(), key: Key::Awaited };
                self.open(span, anchor, items)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(anchor) => self.alias(anchor, span),
            _ => Ok(()),
        }
    }

    fn stop(&mut self, why: Diagnostic) -> Result<(), Stop> {
        self.found.push(why);
        Err(Stop)
    }

    /// The place of a value that is not there: its key, or the dash before it.
    fn nothing(&self, span: Span) -> Span {
        match self.stack.last() {
            Some(Open { items: Items::Map { key: Key::Given(_, key), .. }, .. }) => *key,
            Some(Open { items: Items::Map { .. }, .. }) => span,
            _ => {
                let end = self.source.text[..span.start].trim_end().len();
                let start = self.source.text[..end].char_indices().next_back();
                Span::new(start.map_or(end, |(at, _)| at), end)
            }
        }
    }

    fn tag(&mut self, tagged: bool, span: Span) {
        if tagged {
            let tag = Diagnostic::error("tag", span, "tags have no meaning in a service file");
            self.found.push(tag.hint("remove it; quote a value to make it text"));
        }
    }

    fn open(&mut self, span: Span, anchor: usize, items: Items) -> Result<(), Stop> {
        if self.stack.len() >= DEPTH {
            let message = format!("lists and mappings are nested more than {DEPTH} deep");
            return self.stop(Diagnostic::error("too-deep", span, message));
        }
        self.stack.push(Open { span, anchor, items });
        Ok(())
    }

    fn close(&mut self, end: Span) -> Result<(), Stop> {
        let Some(Open { span, anchor, items }) = self.stack.pop() else { return Ok(()) };
        // Flow collections end with their bracket; block ones wherever the next thing begins.
        let flow = self.source.text[..end.end].ends_with([']', '}']) && end.end > end.start;
        let whole = Span::new(span.start, end.end);
        let one_line = !self.source.text[whole.range()].contains('\n');
        let (first, value) = match items {
            Items::Seq(items) => (None, Value::Seq(items)),
            Items::Map { entries, .. } => (entries.first().map(|e| e.key_span), Value::Map(entries)),
        };
        let span = if flow && one_line { whole } else { first.filter(|_| !flow).unwrap_or(span) };
        self.add(Node { span, value }, anchor)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        let Some(node) = self.anchors.get(&anchor) else {
            let message = "this alias stands inside of what it stands for";
            self.found.push(Diagnostic::error("alias-cycle", span, message));
            return self.add(Node::broken(span), 0);
        };
        let count = node.count();
        self.charge(count, span)?;
        let value = self.anchors.get(&anchor).map_or(Value::Broken, |node| node.value.clone());
        self.add(Node { span, value }, 0)
    }

    fn charge(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.copies += nodes;
        if self.copies <= COPIES {
            return Ok(());
        }
        let message = format!("anchors and aliases copy more than {COPIES} values");
        self.stop(Diagnostic::error("alias-bomb", span, message).hint("write the values out"))
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        if anchor != 0 {
            self.charge(node.count(), node.span)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::Seq(items)) => items.push(node),
            Some(Items::Map { entries, seen, key }) => match std::mem::replace(key, Key::Awaited) {
                Key::Awaited => *key = check_key(node, seen, self.found),
                Key::Given(name, key_span) => entries.push(Entry { key: name, key_span, value: node }),
                Key::Refused => {}
            },
        }
        Ok(())
    }
}

fn check_key(node: Node, seen: &mut HashMap<Arc<str>, Span>, found: &mut Vec<Diagnostic>) -> Key {
    let span = node.span;
    let scalar = match node.value {
        Value::Scalar(scalar) if !scalar.text.is_empty() => scalar,
        Value::Broken => return Key::Refused,
        _ => {
            let message = format!("a key is a text, and this is {}", node.describe());
            found.push(Diagnostic::error("bad-key", span, message));
            return Key::Refused;
        }
    };
    if scalar.plain && &*scalar.text == "<<" {
        found.push(
            Diagnostic::error("merge-key", span, "merge keys (`<<`) are not part of YAML 1.2")
                .hint("write the keys out, or use an alias for a whole value"),
        );
        return Key::Refused;
    }
    if let Some(first) = seen.get(&scalar.text) {
        found.push(
            Diagnostic::error("duplicate-key", span, format!("the key {} is given twice", quote(&scalar.text)))
                .label("again here")
                .also(*first, "first here"),
        );
        return Key::Refused;
    }
    seen.insert(scalar.text.clone(), span);
    Key::Given(scalar.text, span)
}
