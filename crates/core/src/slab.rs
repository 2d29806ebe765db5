//! A slab whose keys carry a generation, so that an old key never reaches a newer tenant of its slot.

use std::fmt;
use std::marker::PhantomData;

/// Names one entry of a [`Slab`] of this tag. A key outlives its entry harmlessly: it then names nothing.
pub struct Key<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    fn new(index: u32, generation: u32) -> Self {
        Key { index, generation, of: PhantomData }
    }

    /// The key as one number, for a wire.
    pub fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The key that [`pack`](Key::pack) made `packed` of. Any number is a key; most name nothing.
    pub fn unpack(packed: u64) -> Self {
        Key::new(packed as u32, (packed >> 32) as u32)
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}
impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.generation == other.generation
    }
}
impl<T> Eq for Key<T> {}
impl<T> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Key<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.pack().cmp(&other.pack())
    }
}
impl<T> std::hash::Hash for Key<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.pack().hash(state);
    }
}
impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

#[derive(Debug, Clone)]
enum Slot<T> {
    Taken(T),
    Free { next: u32 },
}

#[derive(Debug, Clone)]
struct Entry<T> {
    generation: u32,
    slot: Slot<T>,
}

const NONE: u32 = u32::MAX;

/// Entries of one kind, reached by [`Key`] in constant time. A freed slot is used again, under a new generation.
///
/// The `Tag` is what keys name, where that is not the entry's type itself.
#[derive(Debug, Clone)]
pub struct Slab<T, Tag = T> {
    entries: Vec<Entry<T>>,
    free: u32,
    len: usize,
    tag: PhantomData<fn() -> Tag>,
}

impl<T, Tag> Default for Slab<T, Tag> {
    fn default() -> Self {
        Slab { entries: Vec::new(), free: NONE, len: 0, tag: PhantomData }
    }
}

impl<T, Tag> Slab<T, Tag> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes `value` in and names it.
    ///
    /// # Panics
    ///
    /// If there were 2^32 - 1 entries already.
    pub fn insert(&mut self, value: T) -> Key<Tag> {
        self.len += 1;
        if self.free != NONE {
            let index = self.free;
            let entry = &mut self.entries[index as usize];
            if let Slot::Free { next } = entry.slot {
                self.free = next;
            }
            entry.slot = Slot::Taken(value);
            return Key::new(index, entry.generation);
        }
        let index = u32::try_from(self.entries.len()).unwrap_or(NONE);
        assert!(index != NONE, "a slab holds fewer than 2^32 - 1 entries");
        self.entries.push(Entry { generation: 0, slot: Slot::Taken(value) });
        Key::new(index, 0)
    }

    /// Takes the entry out, or `None` if the key names nothing any more.
    pub fn remove(&mut self, key: Key<Tag>) -> Option<T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation || matches!(entry.slot, Slot::Free { .. }) {
            return None;
        }
        let slot = std::mem::replace(&mut entry.slot, Slot::Free { next: self.free });
        entry.generation = entry.generation.wrapping_add(1);
        self.free = key.index;
        self.len -= 1;
        match slot {
            Slot::Taken(value) => Some(value),
            Slot::Free { .. } => None,
        }
    }

    /// The entry that the key names.
    pub fn get(&self, key: Key<Tag>) -> Option<&T> {
        match self.entries.get(key.index as usize) {
            Some(Entry { generation, slot: Slot::Taken(value) }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The entry that the key names, to change it.
    pub fn get_mut(&mut self, key: Key<Tag>) -> Option<&mut T> {
        match self.entries.get_mut(key.index as usize) {
            Some(Entry { generation, slot: Slot::Taken(value) }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// All entries, in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Key<Tag>, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| match &entry.slot {
            Slot::Taken(value) => Some((Key::new(index as u32, entry.generation), value)),
            Slot::Free { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_names_nothing() {
        let mut slab: Slab<_> = Slab::default();
        let first = slab.insert("a");
        assert_eq!(slab.remove(first), Some("a"));
        let second = slab.insert("b");
        assert_eq!(second.index, first.index, "the slot is used again");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"b"));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn keys_survive_a_wire() {
        let mut slab: Slab<_> = Slab::default();
        for _ in 0..3 {
            let key = slab.insert(0);
            slab.remove(key);
        }
        let key = slab.insert(7);
        assert_eq!(slab.get(Key::unpack(key.pack())), Some(&7));
        assert_eq!(slab.get(Key::unpack(u64::MAX)), None);
    }
}
