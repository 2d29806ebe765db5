//! `${NAME}`, `${NAME:-default}` and `$$` in the scalars of a tree.

use std::ffi::OsString;

use super::scalar::quote;
use super::{Node, Value};
use crate::config::diagnostic::Diagnostic;
use crate::config::source::{Source, Span};

/// The most bytes that expanded scalars may have together.
const MOST: usize = 4 << 20;

/// Expands every value in place; keys stay as they are. A scalar that does not expand is broken and
/// reported.
pub(crate) fn expand(
    node: &mut Node,
    source: &Source,
    env: &dyn Fn(&str) -> Option<OsString>,
    found: &mut Vec<Diagnostic>,
) {
    Expansion { source, env, found, used: 0 }.node(node);
}

/// A code, a message and a hint.
type Fault = (&'static str, String, String);

struct Expansion<'a> {
    source: &'a Source,
    env: &'a dyn Fn(&str) -> Option<OsString>,
    found: &'a mut Vec<Diagnostic>,
    used: usize,
}

impl Expansion<'_> {
    fn node(&mut self, node: &mut Node) {
        match &mut node.value {
            Value::Seq(items) => items.iter_mut().for_each(|item| self.node(item)),
            Value::Map(entries) => entries.iter_mut().for_each(|e| self.node(&mut e.value)),
            Value::Scalar(scalar) if scalar.text.contains('$') => match self.text(&scalar.text, node.span) {
                Some((text, expanded)) => {
                    scalar.text = text.into();
                    scalar.expanded = expanded;
                }
                None => node.value = Value::Broken,
            },
            Value::Scalar(_) | Value::Broken => {}
        }
    }

    /// The expanded text, and whether a variable had a part in it.
    fn text(&mut self, text: &str, span: Span) -> Option<(String, bool)> {
        let mut out = String::with_capacity(text.len());
        let (mut rest, mut good, mut expanded) = (text, true, false);
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let here = &rest[at..];
            if let Some(after) = here.strip_prefix("$$") {
                out.push('$');
                rest = after;
            } else if let Some(inside) = here.strip_prefix("${") {
                expanded = true;
                let end = inside.find('}');
                let whole = &here[..end.map_or(here.len(), |end| end + 3)];
                match self.variable(end.map(|end| &inside[..end])) {
                    Ok(value) => out.push_str(&value),
                    Err((code, message, hint)) => {
                        let place = self.place(whole, span);
                        self.found.push(Diagnostic::error(code, place, message).hint(hint));
                        good = false;
                    }
                }
                rest = &here[whole.len()..];
            } else {
                out.push('$');
                rest = &here[1..];
            }
            if self.used + out.len() > MOST {
                let message = "expanded variables make this file too large";
                self.found.push(Diagnostic::error("too-large", span, message));
                return None;
            }
        }
        out.push_str(rest);
        self.used += out.len();
        good.then_some((out, expanded))
    }

    fn variable(&self, inside: Option<&str>) -> Result<String, Fault> {
        let malformed = |message: String| {
            let hint = "write `${NAME}` or `${NAME:-default}`, and `$$` for a dollar";
            ("bad-variable", message, hint.to_string())
        };
        let inside = inside.ok_or_else(|| malformed("`${` has no closing brace".into()))?;
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let letter = |c: char| c == '_' || c.is_ascii_alphabetic();
        if !name.starts_with(letter) || !name.chars().all(|c| letter(c) || c.is_ascii_digit()) {
            return Err(malformed(format!("{} is not the name of a variable", quote(name))));
        }
        if default.is_some_and(|default| default.contains("${")) {
            return Err(malformed("a default cannot contain another variable".into()));
        }
        let value = (self.env)(name).map(OsString::into_string).transpose().map_err(|_| {
            let message =
                format!("the environment variable `{name}` is set, and is no UTF-8, which a service file is in");
            let hint = "set it to a text in UTF-8; workers get variables as they are, without `${…}`".to_owned();
            ("variable-not-utf8", message, hint)
        })?;
        match (value, default) {
            (Some(value), None) => Ok(value),
            (Some(value), Some(_)) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(default.into()),
            (None, None) => {
                let message = format!("the environment variable `{name}` is not set");
                let hint = format!("set it, or give a default: `${{{name}:-default}}`");
                Err(("unset-variable", message, hint))
            }
        }
    }

    /// Where a variable stands inside of its scalar, if the file has it in one piece.
    fn place(&self, whole: &str, span: Span) -> Span {
        match self.source.text[span.range()].find(whole) {
            Some(at) => Span::new(span.start + at, span.start + at + whole.len()),
            None => span,
        }
    }
}
