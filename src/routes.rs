//! The handlers that a program has registered for prefixes of paths, and the search for the one
//! that a path selects.
//!
//! Refuses to call a handler, and to know how paths are decoded.

use crate::abi::Handler;

/// The largest number of handlers for which comparing each costs no more than a search.
const FEW: usize = 8;

/// The handlers by prefix. Of all whose prefix begins a path, the one that was added last wins.
#[derive(Default)]
pub struct Routes {
    /// The handlers in the order in which they were added.
    added: Vec<Route>,
    /// The prefixes in their order, each of them once. Empty while there are few.
    sorted: Vec<Node>,
}

struct Route {
    prefix: Prefix,
    handler: Handler,
}

/// The beginning that paths are compared with.
struct Prefix {
    /// The first eight bytes, with zeros for those that are missing, and the mask of the bits that
    /// count. For most prefixes, and most paths that do not match, no more has to be compared.
    word: u64,
    mask: u64,
    bytes: Box<[u8]>,
}

impl Prefix {
    fn new(bytes: &[u8]) -> Self {
        let mut mask = [0xff; 8];
        mask.iter_mut().skip(bytes.len()).for_each(|byte| *byte = 0);
        Self { word: first_word(bytes), mask: u64::from_le_bytes(mask), bytes: bytes.into() }
    }

    /// Returns whether the prefix begins `path`, whose first word is `word`.
    fn begins(&self, path: &[u8], word: u64) -> bool {
        word & self.mask == self.word
            && path.len() >= self.bytes.len()
            && (self.bytes.len() <= 8 || path.starts_with(&self.bytes))
    }
}

/// Returns the first eight bytes, with zeros for those that are missing.
fn first_word(bytes: &[u8]) -> u64 {
    if let Some(word) = bytes.first_chunk::<8>() {
        return u64::from_le_bytes(*word);
    }
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// One prefix among those that are searched.
struct Node {
    /// The index of its route in `added`.
    own: u32,
    /// The index in `added` of the route that wins among all that begin a path which this one
    /// begins.
    winner: u32,
    /// The node of the longest shorter prefix that begins this one.
    parent: Option<u32>,
}

impl Routes {
    /// Adds a handler. Does nothing if there is no memory for it.
    pub fn add(&mut self, prefix: &[u8], handler: Handler) {
        if self.added.try_reserve(1).is_ok() {
            self.added.push(Route { prefix: Prefix::new(prefix), handler });
            self.sorted.clear();
        }
    }

    /// Returns the handler for a decoded path.
    pub fn find(&mut self, path: &[u8]) -> Option<Handler> {
        if self.added.len() <= FEW {
            let word = first_word(path);
            let found = self.added.iter().rev().find(|route| route.prefix.begins(path, word))?;
            return Some(found.handler);
        }
        if self.sorted.is_empty() {
            self.sort();
        }
        // A prefix that begins the path also begins every prefix between itself and the path.
        let behind = self
            .sorted
            .partition_point(|node| *self.added[node.own as usize].prefix.bytes <= *path);
        let mut at = behind.checked_sub(1);
        while let Some(node) = at.and_then(|at| self.sorted.get(at)) {
            if path.starts_with(&self.added[node.own as usize].prefix.bytes) {
                return Some(self.added[node.winner as usize].handler);
            }
            at = node.parent.map(|parent| parent as usize);
        }
        None
    }

    fn sort(&mut self) {
        let prefix = |place: u32| &*self.added[place as usize].prefix.bytes;
        let mut order: Vec<u32> = Vec::with_capacity(self.added.len());
        for place in 0..self.added.len() as u32 {
            // Of equal prefixes the last one stays.
            match order.binary_search_by(|other| prefix(*other).cmp(prefix(place))) {
                Ok(at) => order[at] = place,
                Err(at) => order.insert(at, place),
            }
        }
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
    use crate::abi::mg_connection;

    /// Returns handlers that are told apart by their addresses.
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
            prefixes in proptest::collection::vec("(/aaaaaa)?[/ab\0]{0,5}", 0..20),
            paths in proptest::collection::vec("(/aaaaaa)?[/ab\0]{0,8}", 1..50),
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
