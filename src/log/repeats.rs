//! Failures that repeat: the error log has each of them a few times a second, and then their
//! number.
//!
//! Refuses to know the log, and what has failed.

/// The largest number of lines in a second for the same failure.
const LINES: u32 = 10;
/// The largest number of failures that are told apart in a second; others are always written.
const KINDS: usize = 64;

/// The failures of the current second, with their numbers.
#[derive(Default)]
pub struct Repeats {
    second: u64,
    seen: Vec<(String, u32)>,
}

impl Repeats {
    /// Counts a failure. Returns whether it gets a line of its own.
    pub fn note(&mut self, what: &str) -> bool {
        if let Some((_, count)) = self.seen.iter_mut().find(|(seen, _)| seen == what) {
            *count = count.saturating_add(1);
            return *count <= LINES;
        }
        if self.seen.len() < KINDS {
            self.seen.push((what.to_owned(), 1));
        }
        true
    }

    /// Returns whether [`Repeats::take`] has something to do.
    pub fn are_due(&self, now: u64) -> bool {
        self.second != now && !self.seen.is_empty()
    }

    /// Begins the second `now`, if it is a new one. Returns the failures of the last second that
    /// did not get all their lines, and how many lines these lacked.
    pub fn take(&mut self, now: u64) -> Vec<(String, u32)> {
        if self.second == now {
            return Vec::new();
        }
        self.take_all(now)
    }

    /// Takes the failures as [`Repeats::take`] does, although the second may not be over.
    pub fn take_all(&mut self, now: u64) -> Vec<(String, u32)> {
        self.second = now;
        let seen = std::mem::take(&mut self.seen).into_iter();
        seen.filter(|(_, count)| *count > LINES)
            .map(|(what, count)| (what, count - LINES))
            .collect()
    }

    /// Forgets all failures, in the child of a fork, since the parent reports them.
    pub fn clear(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_too_often_is_counted_and_told_once_a_second() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.take(1), []);
        let lines = (0..1000).filter(|_| repeats.note("often")).count();
        assert_eq!(lines, 10);
        assert!((0..10).all(|_| repeats.note("seldom")));
        assert!(!repeats.are_due(1));
        assert_eq!(repeats.take(1), []);
        assert!(repeats.are_due(2));
        assert_eq!(repeats.take(2), [("often".to_owned(), 990)]);
        assert!(!repeats.are_due(3));
        assert!(repeats.note("often"));
        // Many different failures are all written, and not all remembered.
        assert!((0..1000).all(|number| repeats.note(&number.to_string())));
        assert_eq!(repeats.seen.len(), KINDS);
        assert_eq!(repeats.take_all(2), []);
    }
}
