//! A map that is a sorted list: it takes little memory, and is meant for content that is read far
//! more often than changed. Knows nothing of what it holds.

use std::borrow::Borrow;

/// A map whose entries are sorted by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sorted<K, V> {
    entries: Vec<(K, V)>,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Sorted<K, V> {
        Sorted { entries: Vec::new() }
    }
}

impl<K: Ord, V> Sorted<K, V> {
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let index = self.index_of(key).ok()?;
        Some(&self.entries[index].1)
    }

    /// Returns the value of a key. A key that is missing is inserted with the value `new`.
    pub fn entry(&mut self, key: K, new: V) -> &mut V {
        let index = self.index_of(&key).unwrap_or_else(|index| {
            self.entries.insert(index, (key, new));
            index
        });
        &mut self.entries[index].1
    }

    /// Sets the value of a key. Returns the value before it.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.index_of(&key) {
            Ok(index) => Some(std::mem::replace(&mut self.entries[index].1, value)),
            Err(index) => {
                self.entries.insert(index, (key, value));
                None
            }
        }
    }

    /// Appends a key that is greater than all others. Returns `None` if it is not.
    pub fn append(&mut self, key: K, value: V) -> Option<()> {
        if self.entries.last().is_some_and(|(last, _)| *last >= key) {
            return None;
        }
        self.entries.push((key, value));
        Some(())
    }

    /// Returns the value of the greatest key.
    pub fn last_mut(&mut self) -> Option<&mut V> {
        self.entries.last_mut().map(|(_, value)| value)
    }

    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let index = self.index_of(key).ok()?;
        Some(self.entries.remove(index).1)
    }

    pub fn retain(&mut self, is_kept: impl FnMut(&(K, V)) -> bool) {
        self.entries.retain(is_kept);
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, (K, V)> {
        self.entries.iter()
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    /// Finds the index of a key, or that where it would be inserted.
    fn index_of<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.entries.binary_search_by(|(known, _)| known.borrow().cmp(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in proptest::collection::vec((0..5, 0..9u8), 0..60)) {
            let (mut sorted, mut map) = (Sorted::default(), BTreeMap::new());
            for (number, (step, key)) in steps.into_iter().enumerate() {
                match step {
                    0 => prop_assert_eq!(sorted.insert(key, number), map.insert(key, number)),
                    1 => prop_assert_eq!(sorted.remove(&key), map.remove(&key)),
                    2 => prop_assert_eq!(*sorted.entry(key, number), *map.entry(key).or_insert(number)),
                    3 => {
                        let is_last = map.keys().all(|known| *known < key);
                        prop_assert_eq!(sorted.append(key, number).is_some(), is_last);
                        is_last.then(|| map.insert(key, number));
                    }
                    _ => prop_assert_eq!(sorted.get(&key), map.get(&key)),
                }
                prop_assert!(sorted.iter().map(|(key, value)| (key, value)).eq(map.iter()));
                prop_assert_eq!((sorted.len(), sorted.is_empty()), (map.len(), map.is_empty()));
            }
        }
    }
}
