//! Which handler a path reaches.

use super::Handler;

/// Up to this many, looking at each handler costs no more than a search.
const FEW: usize = 8;

/// The handlers by prefix. Of all whose prefix begins a path, the one added last wins.
#[derive(Default)]
pub struct Routes {
    /// In the order in which they were added.
    added: Vec<(Box<[u8]>, Handler)>,
    /// In the order of their prefixes, and each prefix once. Empty while there are few.
    sorted: Vec<Node>,
}

/// One prefix.
struct Node {
    /// Its place in `added`.
    own: u32,
    /// Who wins among all that begin a path which this one begins: the place in `added`.
    winner: u32,
    /// The node of the longest shorter prefix that begins this one.
    parent: Option<u32>,
}

impl Routes {
    /// Adds a handler. Does nothing if there is no memory for it.
    pub fn add(&mut self, prefix: &[u8], handler: Handler) {
        if self.added.try_reserve(1).is_ok() {
            self.added.push((prefix.into(), handler));
            self.sorted.clear();
        }
    }

    /// The handler for a decoded path.
    pub fn find(&mut self, path: &[u8]) -> Option<Handler> {
        if self.added.len() <= FEW {
            let found = self.added.iter().rev().find(|(prefix, _)| path.starts_with(prefix))?;
            return Some(found.1);
        }
        if self.sorted.is_empty() {
            self.sort();
        }
        // Whatever begins the path also begins every prefix between itself and the path.
        let behind = self.sorted.partition_point(|node| *self.added[node.own as usize].0 <= *path);
        let mut at = behind.checked_sub(1);
        while let Some(node) = at.and_then(|at| self.sorted.get(at)) {
            if path.starts_with(&self.added[node.own as usize].0) {
                return Some(self.added[node.winner as usize].1);
            }
            at = node.parent.map(|parent| parent as usize);
        }
        None
    }

    fn sort(&mut self) {
        let mut order: Vec<u32> = (0..self.added.len() as u32).collect();
        let prefix = |place: u32| &*self.added[place as usize].0;
        // Of equal ones the last comes first, and the others are left out.
        order.sort_unstable_by(|a, b| prefix(*a).cmp(prefix(*b)).then(b.cmp(a)));
        order.dedup_by(|later, kept| prefix(*later) == prefix(*kept));
        let mut sorted: Vec<Node> = Vec::with_capacity(order.len());
        for own in order {
            let mut parent = sorted.len().checked_sub(1);
            while let Some(node) = parent.map(|at| &sorted[at]) {
                if prefix(own).starts_with(prefix(node.own)) {
                    break;
                }
                parent = node.parent.map(|at| at as usize);
            }
            let inherited = parent.map_or(own, |at| sorted[at].winner);
            let parent = parent.map(|at| at as u32);
            sorted.push(Node { own, winner: own.max(inherited), parent });
        }
        self.sorted = sorted;
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_int;

    use proptest::prelude::*;

    use super::*;
    use crate::ffi::types::mg_connection;

    /// Handlers that are told apart by their addresses.
    fn handler(place: usize) -> Handler {
        macro_rules! numbered {
            ($($number:literal)*) => {
                [$({
                    extern "C-unwind" fn handler(_: *mut mg_connection) -> c_int {
                        std::hint::black_box($number)
                    }
                    handler as Handler
                }),*]
            };
        }
        let handlers = numbered!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19);
        handlers[place % handlers.len()]
    }

    fn slowly(added: &[(Vec<u8>, Handler)], path: &[u8]) -> Option<usize> {
        let found = added.iter().rev().find(|(prefix, _)| path.starts_with(prefix))?;
        Some(found.1 as usize)
    }

    proptest! {
        #[test]
        fn the_search_finds_what_looking_at_each_finds(
            prefixes in proptest::collection::vec("[/ab]{0,5}", 0..20),
            paths in proptest::collection::vec("[/ab]{0,8}", 1..50),
        ) {
            let mut routes = Routes::default();
            let mut added = Vec::new();
            for (place, prefix) in prefixes.iter().enumerate() {
                routes.add(prefix.as_bytes(), handler(place));
                added.push((prefix.clone().into_bytes(), handler(place)));
                for path in &paths {
                    let found = routes.find(path.as_bytes()).map(|handler| handler as usize);
                    prop_assert_eq!(found, slowly(&added, path.as_bytes()));
                }
            }
        }
    }
}
