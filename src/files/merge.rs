//! Sorts the entries of a directory that arrive in portions, without ever sorting all of them at
//! once: a portion is sorted when it arrives, and portions are merged as entries are taken.
//!
//! Knows nothing of the directory, nor of how entries are shown.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, TryReserveError};
use std::vec;

use super::listing::{Entry, Order};

/// An iterator over the entries of sorted portions, in order.
pub struct Merge {
    order: Order,
    portions: Vec<vec::IntoIter<Entry>>,
    /// The first entry of each portion that is not empty.
    next: BinaryHeap<Reverse<First>>,
}

/// An entry, the number of its portion, and the order by which it is compared.
struct First(Entry, usize, Order);

impl Merge {
    pub fn new(order: Order) -> Merge {
        Merge { order, portions: Vec::new(), next: BinaryHeap::new() }
    }

    /// Adds a portion, whose entries are in any order. All portions must be added before the first
    /// entry is taken.
    pub fn add(&mut self, mut portion: Vec<Entry>) -> Result<(), TryReserveError> {
        self.portions.try_reserve(1)?;
        self.next.try_reserve(1)?;
        portion.sort_unstable_by(|a, b| self.order.compare(a, b));
        let mut portion = portion.into_iter();
        if let Some(first) = portion.next() {
            self.next.push(Reverse(First(first, self.portions.len(), self.order)));
        }
        self.portions.push(portion);
        Ok(())
    }

    /// Returns whether no entry is left.
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }
}

impl Iterator for Merge {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let Reverse(First(entry, number, order)) = self.next.pop()?;
        if let Some(following) = self.portions.get_mut(number).and_then(Iterator::next) {
            // The heap does not grow, since an entry was just taken from it.
            self.next.push(Reverse(First(following, number, order)));
        }
        Some(entry)
    }
}

impl Ord for First {
    fn cmp(&self, other: &First) -> Ordering {
        self.2.compare(&self.0, &other.0)
    }
}

impl PartialOrd for First {
    fn partial_cmp(&self, other: &First) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for First {}

impl PartialEq for First {
    fn eq(&self, other: &First) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (prop::collection::vec(97..100u8, 1..4), any::<bool>(), 0..4u64, 0..4u64);
        let entry =
            entry.prop_map(|(name, is_dir, size, modified)| Entry { name, is_dir, size, modified });
        prop::collection::vec(entry, 0..20)
    }

    proptest! {
        #[test]
        fn merged_portions_are_what_sorting_all_would_give(
            portions in prop::collection::vec(entries(), 0..6),
            query in "[nds][ad]",
        ) {
            let order = Order::from_query(Some(query.as_bytes()));
            let mut merge = Merge::new(order);
            for portion in &portions {
                merge.add(portion.clone()).expect("memory");
            }
            let mut all = portions.concat();
            all.sort_by(|a, b| order.compare(a, b));
            // Entries of the same name, which no directory has, may come in any order.
            let key = |entry: &Entry| (entry.is_dir, entry.name.clone());
            let merged: Vec<_> = merge.map(|entry| key(&entry)).collect();
            prop_assert_eq!(merged, all.iter().map(key).collect::<Vec<_>>());
        }
    }
}
