//! The texts that a service is read from, and places in them.

use std::sync::Arc;

/// A range of bytes in a service file, in a file that it includes, or in something that goes over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span {
    /// Which of the texts of a report; the first is the service file.
    pub(crate) source: u32,
    /// The first byte.
    pub start: usize,
    /// The byte after the last one.
    pub end: usize,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { source: 0, start, end: end.max(start) }
    }

    /// The same range in another text.
    pub(crate) fn of(self, source: u32) -> Self {
        Self { source, ..self }
    }

    pub(crate) fn range(self) -> std::ops::Range<usize> {
        self.start..self.end
    }
}

/// A text and the name under which messages speak of it. Cloning shares the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) name: Arc<str>,
    pub(crate) text: Arc<str>,
}

/// A file's name as it may be shown: what a terminal would take for a command is escaped.
pub(crate) fn show_name(name: &str) -> String {
    let shown = |character: char| match character.is_control() {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    };
    name.chars().map(shown).collect()
}

impl Source {
    /// A byte order mark at the beginning is no part of the text.
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { name: show_name(name).into(), text: text.into() }
    }

    /// The line of a byte, counted from 1, and its column in characters, counted from 1.
    pub(crate) fn position(&self, byte: usize) -> (usize, usize) {
        let before = self.text.get(..byte).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        (line, before[start..].chars().count() + 1)
    }

    /// The whole lines that a range touches, as a range of bytes without the last line break.
    pub(crate) fn lines(&self, span: Span) -> Span {
        let text = &*self.text;
        let start = text.get(..span.start).and_then(|t| t.rfind('\n')).map_or(0, |at| at + 1);
        let last = span.end.max(span.start + 1) - 1;
        let end = text.get(last..).and_then(|t| t.find('\n')).map_or(text.len(), |at| last + at);
        let carriage = text.get(start..end).is_some_and(|line| line.ends_with('\r'));
        Span::new(start, end - usize::from(carriage && end > span.end)).of(span.source)
    }
}
