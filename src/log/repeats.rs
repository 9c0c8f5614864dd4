//! Failures that come again and again: the error log has each of them a few times a second, and then
//! their number.

/// Lines that the same failure gets in a second.
const LINES: u32 = 10;
/// Failures that are told apart in a second; others are written whenever they come.
const KINDS: usize = 64;

/// What failed in the current second, and how often.
#[derive(Default)]
pub struct Repeats {
    second: u64,
    seen: Vec<(String, u32)>,
}

impl Repeats {
    /// Counts a failure. Whether it gets a line of its own.
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

    /// Whether [`Repeats::take`] has something to do.
    pub fn are_due(&self, now: u64) -> bool {
        self.second != now && !self.seen.is_empty()
    }

    /// Begins the second `now`, if it is another one: the failures of the last one that did not get
    /// all their lines, and how many these were.
    pub fn take(&mut self, now: u64) -> Vec<(String, u32)> {
        if self.second == now {
            return Vec::new();
        }
        self.take_all(now)
    }

    /// The same, although the second may not be over.
    pub fn take_all(&mut self, now: u64) -> Vec<(String, u32)> {
        self.second = now;
        let seen = std::mem::take(&mut self.seen).into_iter();
        seen.filter(|(_, count)| *count > LINES)
            .map(|(what, count)| (what, count - LINES))
            .collect()
    }

    /// Forgets everything: in the child of a fork, whose parent tells it.
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
        // Many that differ are all written, and not all remembered.
        assert!((0..1000).all(|number| repeats.note(&number.to_string())));
        assert_eq!(repeats.seen.len(), KINDS);
        assert_eq!(repeats.take_all(2), []);
    }
}
