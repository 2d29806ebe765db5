//! What jobs keep for each other: a bounded table of small values, each of which may end by itself.
//!
//! Values are JSON text. Only [`StateOp::Add`] looks into one, and only at a number. Nothing is ever dropped to make room: who
//! writes into a full table is refused, so that nobody's counter starts anew because somebody else writes much.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::time::Time;

/// What an entry takes beside its key and its value.
const OVERHEAD: u64 = 160;
/// The longest key, in bytes.
pub const LONGEST_KEY: usize = 1024;

/// A number, as JSON has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// Without a point and an exponent.
    Int(i64),
    /// With one of them.
    Float(f64),
}

/// What a job asks of the state.
#[derive(Clone, Debug, PartialEq)]
pub struct StateAsk {
    /// Which entry.
    pub key: Box<str>,
    /// What about it.
    pub op: StateOp,
}

/// What is to be done with an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum StateOp {
    /// Tell its value.
    Get,
    /// Put this value there.
    Set {
        /// JSON text.
        value: Arc<[u8]>,
        /// After what time it ends; never if it is not said.
        ttl: Option<Duration>,
    },
    /// Add to the number that is there, or to 0, and tell the sum.
    Add {
        /// How much.
        amount: Number,
        /// After what time an entry ends that did not exist; one that did ends when it would have.
        ttl: Option<Duration>,
    },
    /// Put this value there if what is expected is there, byte for byte.
    CompareAndSet {
        /// What is expected; `None`: that there is no entry.
        expected: Option<Arc<[u8]>>,
        /// JSON text.
        value: Arc<[u8]>,
        /// After what time it ends; never if it is not said.
        ttl: Option<Duration>,
    },
    /// Remove it.
    Delete,
}

/// What a job is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateAnswer {
    /// There is no such entry, or it is another than the expected one.
    No,
    /// The value that is there.
    Value(Arc<[u8]>),
    /// It is done.
    Done,
    /// It cannot be done, and why.
    Refused(String),
}

/// The most that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of keys and values, with what an entry takes beside them.
    pub bytes: u64,
    /// Entries.
    pub entries: usize,
}

#[derive(Debug)]
struct Entry {
    value: Arc<[u8]>,
    ends: Time,
}

/// The table.
#[derive(Debug)]
pub struct State {
    bounds: Bounds,
    entries: BTreeMap<Arc<str>, Entry>,
    /// The entries that end by themselves, by when.
    ends: BTreeSet<(Time, Arc<str>)>,
    bytes: u64,
}

impl State {
    /// An empty table.
    pub fn new(bounds: Bounds) -> State {
        State { bounds, entries: BTreeMap::new(), ends: BTreeSet::new(), bytes: 0 }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the entries take.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the next entry ends; [`expire`](State::expire) then gives its memory back. Nobody sees it any more in any case.
    pub fn next_end(&self) -> Option<Time> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Removes the entries that have ended.
    pub fn expire(&mut self, now: Time) {
        while let Some((end, key)) = self.ends.first()
            && *end <= now
        {
            let key = key.clone();
            self.remove(&key);
        }
    }

    /// Does what is asked, and says what came of it.
    pub fn ask(&mut self, now: Time, ask: &StateAsk) -> StateAnswer {
        self.expire(now);
        let key = &*ask.key;
        if key.len() > LONGEST_KEY {
            let length = key.len();
            return StateAnswer::Refused(format!("the key has {length} bytes, and {LONGEST_KEY} is the most"));
        }
        match &ask.op {
            StateOp::Get => {
                self.entries.get(key).map_or(StateAnswer::No, |entry| StateAnswer::Value(entry.value.clone()))
            }
            StateOp::Set { value, ttl } => self.set(key, value.clone(), end(now, *ttl)),
            StateOp::Add { amount, ttl } => self.add(now, key, *amount, *ttl),
            StateOp::CompareAndSet { expected, value, ttl } => {
                if self.entries.get(key).map(|entry| &entry.value) != expected.as_ref() {
                    return StateAnswer::No;
                }
                self.set(key, value.clone(), end(now, *ttl))
            }
            StateOp::Delete if self.remove(key) => StateAnswer::Done,
            StateOp::Delete => StateAnswer::No,
        }
    }

    fn add(&mut self, now: Time, key: &str, amount: Number, ttl: Option<Duration>) -> StateAnswer {
        let (before, ends) = match self.entries.get(key) {
            None => (Number::Int(0), end(now, ttl)),
            Some(entry) => match Number::parse(&entry.value) {
                Some(number) => (number, entry.ends),
                None => return StateAnswer::Refused("what is there is not a number".to_owned()),
            },
        };
        let Some(sum) = before.plus(amount) else {
            return StateAnswer::Refused("the sum is too large for a number of 64 bits".to_owned());
        };
        let value: Arc<[u8]> = sum.print().into_bytes().into();
        match self.set(key, value.clone(), ends) {
            StateAnswer::Done => StateAnswer::Value(value),
            refused => refused,
        }
    }

    fn set(&mut self, key: &str, value: Arc<[u8]>, ends: Time) -> StateAnswer {
        let Bounds { bytes, entries } = self.bounds;
        let old = self.entries.get_key_value(key);
        let before = old.map_or(0, |(key, entry)| cost(key, &entry.value));
        let after = self.bytes - before + cost(key, &value);
        // What makes an entry smaller is done in any case.
        if after > bytes && after > self.bytes {
            return StateAnswer::Refused(format!("the state is full: {bytes} bytes are the most"));
        }
        if old.is_none() && self.entries.len() >= entries {
            return StateAnswer::Refused(format!("the state is full: {entries} entries are the most"));
        }
        let key = old.map_or_else(|| Arc::from(key), |(key, _)| key.clone());
        self.remove(&key);
        self.bytes = after;
        if ends != Time::NEVER {
            self.ends.insert((ends, key.clone()));
        }
        self.entries.insert(key, Entry { value, ends });
        StateAnswer::Done
    }

    fn remove(&mut self, key: &str) -> bool {
        let Some((key, entry)) = self.entries.remove_entry(key) else { return false };
        self.bytes -= cost(&key, &entry.value);
        self.ends.remove(&(entry.ends, key));
        true
    }
}

fn cost(key: &str, value: &[u8]) -> u64 {
    key.len() as u64 + value.len() as u64 + OVERHEAD
}

fn end(now: Time, ttl: Option<Duration>) -> Time {
    ttl.map_or(Time::NEVER, |ttl| now + ttl)
}

impl Number {
    /// The number that a JSON text is, if it is one that fits.
    pub fn parse(json: &[u8]) -> Option<Number> {
        let text = str::from_utf8(json).ok()?.trim_matches([' ', '\t', '\n', '\r']);
        // What Rust takes for a number beyond JSON: a plus, names, a point without digits on both sides.
        let digits = text.strip_prefix('-').unwrap_or(text);
        let whole = digits.split(['.', 'e', 'E']).next().unwrap_or("");
        let leading = whole.len() > 1 && whole.starts_with('0');
        if !digits.starts_with(|first: char| first.is_ascii_digit()) || leading {
            return None;
        }
        if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().map(Number::Int);
        }
        if let Some((_, fraction)) = digits.split_once('.')
            && !fraction.starts_with(|first: char| first.is_ascii_digit())
        {
            return None;
        }
        text.parse().ok().filter(|number: &f64| number.is_finite()).map(Number::Float)
    }

    /// The JSON text of it: for floats the shortest that is read as the same, in the form that Python prints.
    pub fn print(self) -> String {
        let number = match self {
            Number::Int(number) => return number.to_string(),
            Number::Float(number) => number,
        };
        let text = format!("{number:?}");
        let Some((digits, exponent)) = text.split_once('e') else { return text };
        match exponent.strip_prefix('-') {
            Some(exponent) => format!("{digits}e-{exponent:0>2}"),
            None => format!("{digits}e+{exponent:0>2}"),
        }
    }

    fn plus(self, other: Number) -> Option<Number> {
        let float = |number| match number {
            Number::Int(number) => number as f64,
            Number::Float(number) => number,
        };
        if let (Number::Int(one), Number::Int(other)) = (self, other) {
            return one.checked_add(other).map(Number::Int);
        }
        Some(float(self) + float(other)).filter(|sum| sum.is_finite()).map(Number::Float)
    }
}

#[cfg(test)]
mod tests;
