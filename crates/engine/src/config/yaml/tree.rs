//! The tree: values with their places.

use std::collections::HashMap;
use std::sync::Arc;

use super::Scalar;
use crate::config::source::Span;

/// A value and its place. Collections written over several lines have the place of their beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Scalar(Scalar),
    Seq(Vec<Node>),
    Map(Vec<Entry>),
    /// Something that was already reported; whoever reads it stays silent.
    Broken,
}

/// One key and its value, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Arc<str>,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) fn broken(span: Span) -> Self {
        Self { span, value: Value::Broken }
    }

    /// Calls `visit` with every place there is in this tree.
    pub(crate) fn each_span(&mut self, visit: &mut dyn FnMut(&mut Span)) {
        visit(&mut self.span);
        match &mut self.value {
            Value::Seq(items) => items.iter_mut().for_each(|item| item.each_span(visit)),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| {
                visit(&mut entry.key_span);
                entry.value.each_span(visit);
            }),
            Value::Scalar(_) | Value::Broken => {}
        }
    }

    /// Puts this tree over another: mappings merge, anything else replaces what it is put over. What is new comes
    /// behind what was there.
    pub(crate) fn over(self, base: Node) -> Node {
        match (self, base.value) {
            (Node { span, value: Value::Map(over) }, Value::Map(mut entries)) => {
                let mut places: HashMap<Arc<str>, usize> = HashMap::with_capacity(entries.len());
                places.extend(entries.iter().enumerate().map(|(place, entry)| (entry.key.clone(), place)));
                for mut entry in over {
                    let Some(&place) = places.get(&entry.key) else {
                        entries.push(entry);
                        continue;
                    };
                    let below = &mut entries[place].value;
                    let below = std::mem::replace(below, Node::broken(below.span));
                    entry.value = entry.value.over(below);
                    entries[place] = entry;
                }
                Node { span, value: Value::Map(entries) }
            }
            (over, _) => over,
        }
    }

    /// The entry of a key, if this is a mapping that has it.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| &*entry.key == key),
            _ => None,
        }
    }

    /// Takes a key out of a mapping.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Entry> {
        let Value::Map(entries) = &mut self.value else { return None };
        let place = entries.iter().position(|entry| &*entry.key == key)?;
        Some(entries.remove(place))
    }

    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.value, Value::Broken)
    }

    pub(crate) fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// How many nodes this is, itself included.
    pub(crate) fn count(&self) -> usize {
        match &self.value {
            Value::Scalar(_) | Value::Broken => 1,
            Value::Seq(items) => 1 + items.iter().map(Node::count).sum::<usize>(),
            Value::Map(entries) => 1 + entries.iter().map(|e| e.value.count()).sum::<usize>(),
        }
    }

    /// What stands here, as a message names it after "found".
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Scalar(scalar) => scalar.describe(),
            Value::Seq(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
            Value::Broken => "something unreadable".into(),
        }
    }
}
