//! Single values: what a scalar must be, and what to say if it is something else.

use std::path::PathBuf;
use std::time::Duration;

use super::Walk;
use super::nearest::{ENOUGH, nearest};
use super::units::{self, Wrong};
use crate::config::diagnostic::Diagnostic;
use crate::config::source::Span;
use crate::config::yaml::{Entry, Node, Plain, Scalar, Value, quote};

/// The longest name of a service, stage or pipeline; it becomes part of file names.
const LONGEST_NAME: usize = 64;

impl Walk<'_> {
    /// Reports a value that is not what is expected there.
    pub(crate) fn expected(&mut self, node: &Node, what: &str) {
        if !node.is_broken() {
            let message = format!("expected {what}, found {}", node.describe());
            self.found.push(Diagnostic::error("wrong-type", node.span, message));
        }
    }

    /// The nearest of some known words.
    pub(crate) fn nearest<'w>(&self, word: &str, known: &[&'w str]) -> Option<&'w str> {
        if self.found.len() > ENOUGH { None } else { nearest(word, known.iter().copied()) }
    }

    fn wrong<T>(&mut self, code: &'static str, node: &Node, result: Result<T, Wrong>) -> Option<T> {
        let Wrong { message, hint } = match result {
            Ok(value) => return Some(value),
            Err(wrong) => wrong,
        };
        self.found.push(Diagnostic::error(code, node.span, message).hint(hint));
        None
    }

    /// Any text, not empty.
    pub(crate) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match node.scalar().map(Scalar::resolve) {
            Some(Plain::Str(text)) if !text.is_empty() => Some(text),
            _ => {
                self.expected(node, what);
                None
            }
        }
    }

    pub(crate) fn boolean(&mut self, node: &Node) -> Option<bool> {
        match node.scalar().map(Scalar::resolve) {
            Some(Plain::Bool(value)) => return Some(value),
            Some(Plain::Str(_)) => {
                let message = format!("expected `true` or `false`, found {}", node.describe());
                let wrong = Diagnostic::error("wrong-type", node.span, message);
                self.found.push(wrong.hint("only `true` and `false` are booleans, without quotes"));
            }
            _ => self.expected(node, "`true` or `false`"),
        }
        None
    }

    /// A duration of at least a nanosecond, or also none at all.
    pub(crate) fn duration(&mut self, node: &Node, zero: bool) -> Option<Duration> {
        let what = "a duration such as `2s`";
        let text = match node.scalar().map(|scalar| (scalar.resolve(), &*scalar.text)) {
            Some((Plain::Str(_) | Plain::Int(_) | Plain::Float(_), text)) if !text.is_empty() => text,
            _ => {
                self.expected(node, what);
                return None;
            }
        };
        let duration = self.wrong("bad-duration", node, units::duration(text))?;
        if duration.is_zero() && !zero {
            let message = "this duration must be longer than nothing";
            self.found.push(Diagnostic::error("out-of-range", node.span, message));
            return None;
        }
        Some(duration)
    }

    /// A size in bytes.
    pub(crate) fn size(&mut self, node: &Node, least: u64) -> Option<u64> {
        let text = match node.scalar().map(|scalar| (scalar.resolve(), &*scalar.text)) {
            Some((Plain::Str(_) | Plain::Int(_) | Plain::Float(_), text)) if !text.is_empty() => text,
            _ => {
                self.expected(node, "a size such as `64MiB`");
                return None;
            }
        };
        let size = self.wrong("bad-size", node, units::size(text))?;
        if size < least {
            let message = format!("this size must be at least {}", units::show_size(least));
            let wrong = Diagnostic::error("out-of-range", node.span, message);
            self.found.push(wrong.hint("a bare number counts bytes; units are `KiB`, `MiB`, `GiB`"));
            return None;
        }
        Some(size)
    }

    /// A whole number within bounds. `what` says what it counts.
    pub(crate) fn number(&mut self, node: &Node, what: &str, least: u64, most: u64) -> Option<u64> {
        let Some(Plain::Int(value)) = node.scalar().map(Scalar::resolve) else {
            self.expected(node, what);
            return None;
        };
        match u64::try_from(value) {
            Ok(value) if (least..=most).contains(&value) => Some(value),
            _ => {
                let bound = match value < i128::from(least) {
                    true => format!("at least {least}"),
                    false => format!("at most {most}"),
                };
                let found = node.describe();
                let message = format!("expected {what} of {bound}, found {found}");
                self.found.push(Diagnostic::error("out-of-range", node.span, message));
                None
            }
        }
    }

    /// One of some words.
    pub(crate) fn choice(&mut self, node: &Node, words: &[&'static str]) -> Option<&'static str> {
        let all: Vec<_> = words.iter().map(|word| quote(word)).collect();
        let what = format!("one of {}", all.join(", "));
        let Some(Plain::Str(text)) = node.scalar().map(Scalar::resolve) else {
            self.expected(node, &what);
            return None;
        };
        if let Some(word) = words.iter().find(|word| **word == text) {
            return Some(word);
        }
        let message = format!("expected {what}, found {}", node.describe());
        let wrong = Diagnostic::error("bad-choice", node.span, message);
        self.found.push(match self.nearest(text, words) {
            Some(near) => wrong.hint(format!("did you mean `{near}`?")),
            None => wrong,
        });
        None
    }

    /// A list of some words, each at most once.
    pub(crate) fn choices(&mut self, node: &Node, words: &[&'static str]) -> Vec<&'static str> {
        let mut chosen: Vec<(&'static str, Span)> = Vec::new();
        for item in self.list(node, words).unwrap_or_default() {
            let Some(word) = self.choice(item, words) else { continue };
            match chosen.iter().find(|(other, _)| *other == word) {
                Some((_, first)) => {
                    let message = format!("`{word}` is given twice");
                    let twice = Diagnostic::error("duplicate-item", item.span, message);
                    self.found.push(twice.also(*first, "first here"));
                }
                None => chosen.push((word, item.span)),
            }
        }
        chosen.into_iter().map(|(word, _)| word).collect()
    }

    /// A list. `examples` shows how one is written.
    pub(crate) fn list<'n>(&mut self, node: &'n Node, examples: &[&str]) -> Option<&'n [Node]> {
        if let Value::Seq(items) = &node.value {
            return Some(items);
        }
        let message = format!("expected a list, found {}", node.describe());
        let wrong = Diagnostic::error("wrong-type", node.span, message);
        let example = match node.scalar().map(Scalar::resolve) {
            Some(Plain::Str(text)) if node.scalar().is_some_and(|s| !s.expanded) => text,
            _ => examples.first().copied().unwrap_or("…"),
        };
        if !node.is_broken() {
            self.found.push(wrong.hint(format!("write it between brackets: `[{example}]`")));
        }
        None
    }

    /// The entries of a mapping whose keys are names.
    pub(crate) fn named<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Entry]> {
        let Value::Map(entries) = &node.value else {
            self.expected(node, what);
            return None;
        };
        for entry in entries {
            self.check_name(&entry.key, entry.key_span);
        }
        Some(entries)
    }

    pub(crate) fn name<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        let text = self.text(node, what)?;
        self.check_name(text, node.span).then_some(text)
    }

    /// Whether a text can be a name: `[A-Za-z_][A-Za-z0-9_-]*`.
    fn check_name(&mut self, name: &str, span: Span) -> bool {
        let letter = |c: char| c == '_' || c.is_ascii_alphabetic();
        let rest = |c: char| letter(c) || c == '-' || c.is_ascii_digit();
        let hint = if name.len() > LONGEST_NAME {
            format!("a name has at most {LONGEST_NAME} characters")
        } else if !name.starts_with(letter) {
            "a name begins with a letter or an underscore".into()
        } else if !name.chars().all(rest) {
            "a name has letters, digits, underscores and dashes".into()
        } else {
            return true;
        };
        let message = format!("{} cannot be a name", quote(name));
        self.found.push(Diagnostic::error("bad-name", span, message).hint(hint));
        false
    }

    /// A path, which starts in the folder of the service file unless it is absolute.
    pub(crate) fn path(&mut self, node: &Node) -> Option<PathBuf> {
        let text = self.text(node, "a path")?;
        if text.contains('\0') {
            let message = "a path cannot contain a NUL character";
            self.found.push(Diagnostic::error("bad-path", node.span, message));
            return None;
        }
        Some(self.folder.join(text))
    }

    /// Reports a path that leads nowhere, or to something else than `what`.
    pub(crate) fn must_exist(&mut self, node: &Node, path: PathBuf, what: Kind) -> Option<PathBuf> {
        let good = match what {
            Kind::File => path.is_file(),
            Kind::Folder => path.is_dir(),
        };
        if good {
            return Some(path);
        }
        let word = if what == Kind::File { "file" } else { "folder" };
        let message = format!("there is no {word} {}", quote(&path.display().to_string()));
        let missing = Diagnostic::error("missing-file", node.span, message);
        self.found.push(missing.hint("relative paths start in the folder of the service file"));
        None
    }
}

/// What a path must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
}
