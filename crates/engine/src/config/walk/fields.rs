//! A mapping with known keys, read key by key.

use super::Walk;
use super::nearest::{ENOUGH, nearest};
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::Table;
use crate::config::source::Span;
use crate::config::yaml::{Entry, Node, Value, quote};

/// The entries of one mapping. Every key of its table must be asked for once.
pub(crate) struct Fields<'n> {
    table: &'static Table,
    entries: &'n [Entry],
    /// Where to point when something is missing.
    span: Span,
    asked: u64,
}

impl<'n> Fields<'n> {
    /// Opens a mapping and reports the keys that its table does not have. `span` is the place to point
    /// at when a key is missing; `skip` names keys that the caller reports itself.
    pub(crate) fn open(
        node: &'n Node,
        span: Span,
        table: &'static Table,
        skip: &[&str],
        walk: &mut Walk<'_>,
    ) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            let required = table.keys.iter().filter(|key| key.required);
            let mut keys: Vec<_> = required.map(|key| quote(key.name)).collect();
            if !table.some_of.is_empty() {
                keys.push(either(table));
            }
            let what = match &keys[..] {
                [] => format!("{}, a mapping", table.what),
                keys => format!("{}, a mapping with {}", table.what, keys.join(" and ")),
            };
            walk.expected(node, &what);
            return None;
        };
        for entry in entries {
            if table.index(&entry.key).is_none() && !skip.contains(&&*entry.key) {
                let hints = walk.found.len() < ENOUGH;
                walk.found.push(unknown(entry, table, hints));
            }
        }
        Some(Self { table, entries, span, asked: 0 })
    }

    /// The entry of a key, if the mapping has it.
    pub(crate) fn entry(&mut self, name: &str) -> Option<&'n Entry> {
        match self.table.index(name) {
            Some(index) => self.asked |= 1 << index,
            None => debug_assert!(false, "{} has no key `{name}` in its table", self.table.what),
        }
        self.entries.iter().find(|entry| &*entry.key == name)
    }

    /// A key's value, read. `None` if it is left out or was reported.
    pub(crate) fn read<T>(
        &mut self,
        name: &str,
        walk: &mut Walk<'_>,
        read: impl FnOnce(&'n Node, &mut Walk<'_>) -> Option<T>,
    ) -> Option<T> {
        let entry = self.entry(name)?;
        read(&entry.value, walk)
    }

    /// Like [`Self::read`], and a missing key is an error.
    pub(crate) fn require<T>(
        &mut self,
        name: &str,
        walk: &mut Walk<'_>,
        read: impl FnOnce(&'n Node, &mut Walk<'_>) -> Option<T>,
    ) -> Option<T> {
        if let Some(entry) = self.entry(name) {
            return read(&entry.value, walk);
        }
        self.missing(&[name], format!("`{name}`"), walk);
        None
    }

    /// Makes sure that one of the keys is there of which the table wants at least one.
    pub(crate) fn require_some(&self, walk: &mut Walk<'_>) {
        let names = self.table.some_of;
        if !self.entries.iter().any(|entry| names.contains(&&*entry.key)) {
            self.missing(names, either(self.table), walk);
        }
    }

    /// Reports that all of these keys are missing, unless one of them is misspelt: then it was reported, and with it
    /// what is meant.
    fn missing(&self, names: &[&str], shown: String, walk: &mut Walk<'_>) {
        let mut first = self.entries.iter().take(ENOUGH);
        if first.any(|entry| meant(&entry.key, self.table).is_some_and(|key| names.contains(&key))) {
            return;
        }
        let about = |name: &str| self.table.index(name).map_or("", |index| self.table.keys[index].about);
        let hints: Vec<_> = names.iter().map(|name| format!("`{name}`: {}", about(name))).collect();
        let message = format!("{} needs the key {shown}", self.table.what);
        walk.found.push(Diagnostic::error("missing-key", self.span, message).hint(hints.join(" ")));
    }

    /// Whether the mapping has a key.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| &*entry.key == name)
    }

    /// The place of a key, or of the whole mapping.
    pub(crate) fn span_of(&self, name: &str) -> Span {
        self.entries.iter().find(|e| &*e.key == name).map_or(self.span, |e| e.key_span)
    }

    /// Ends the reading. Debug builds panic if a key of the table was never asked for.
    pub(crate) fn finish(self) {
        let all = (1_u64 << self.table.keys.len()) - 1;
        debug_assert_eq!(self.asked, all, "{} has keys that nobody reads", self.table.what);
    }
}

/// The keys of which one is needed.
fn either(table: &Table) -> String {
    let names: Vec<_> = table.some_of.iter().map(|name| quote(name)).collect();
    names.join(" or ")
}

/// What to say about a key that a table does not have.
fn unknown(entry: &Entry, table: &Table, hints: bool) -> Diagnostic {
    let word = &*entry.key;
    if table.later.contains(&word) {
        return not_available(entry.key_span, word);
    }
    let message = format!("{} has no key {}", table.what, quote(word));
    if !hints {
        return Diagnostic::error("unknown-key", entry.key_span, message);
    }
    let known: Vec<_> = table.keys.iter().map(|key| quote(key.name)).collect();
    let known = format!("its keys are {}", known.join(", "));
    let diagnostic = Diagnostic::error("unknown-key", entry.key_span, message);
    if let Some((_, _, instead)) = table.instead.iter().find(|(name, ..)| *name == word) {
        return diagnostic.hint(*instead);
    }
    match meant(word, table) {
        Some(near) => diagnostic.hint(format!("did you mean `{near}`? {known}")),
        None => diagnostic.hint(known),
    }
}

/// The key that somebody had in mind who wrote a word that is none.
fn meant(word: &str, table: &Table) -> Option<&'static str> {
    if table.index(word).is_some() {
        return None;
    }
    match table.instead.iter().find(|(name, ..)| *name == word) {
        Some((_, key, _)) => Some(key),
        None => nearest(word, table.keys.iter().map(|key| key.name)),
    }
}

/// A word that only later versions know.
pub(crate) fn not_available(span: Span, word: &str) -> Diagnostic {
    Diagnostic::error("not-available", span, format!("`{word}` is not available in this version"))
}
