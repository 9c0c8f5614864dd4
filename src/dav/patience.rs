//! How long a request waits for another process that has a directory locked (`flock(2)`) to change
//! its properties or locks.
//!
//! Nothing sleeps: the request tries again in each turn. Knows nothing of what is locked.

/// The longest wait, in seconds. A process that changes much has the directory locked most of the time,
/// and who tries between may miss each gap for a while.
const LONGEST: u64 = 10;

/// A wait for another process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// The end of the wait, in seconds since 1970; `None` before the wait begins.
    until: Option<u64>,
}

impl Patience {
    /// Begins a wait.
    pub fn since(now: u64) -> Patience {
        Patience { until: Some(now + LONGEST) }
    }

    /// Returns whether to wait on, and begins the wait if that has not been done. A wait ends early
    /// if the clock is set back.
    pub fn lasts(&mut self, now: u64) -> bool {
        let until = *self.until.get_or_insert(now + LONGEST);
        now < until && until - now <= LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_its_time_or_with_a_clock_that_is_set_back() {
        let table = [(10, true), (19, true), (20, false), (9, false)];
        for (now, expected) in table {
            let mut begun = Patience::default();
            assert!(begun.lasts(10));
            assert_eq!(begun.lasts(now), expected, "{now}");
            assert_eq!(Patience::since(10).lasts(now), expected, "{now}");
        }
    }
}
