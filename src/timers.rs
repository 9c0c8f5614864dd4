//! A coarse timer wheel. An entry that comes due is only a reason to look again: traffic does not
//! touch the wheel, so that its cost does not depend on the number of requests.
//!
//! Refuses to know what an entry stands for, and reads no clock.

/// The span of a bucket in milliseconds.
const TICK: u32 = 32;
const BUCKETS: usize = 512;
const WORDS: usize = BUCKETS / 64;
const NONE: u32 = u32::MAX;
/// The number of ticks after which the clock begins anew.
const SPAN: u32 = u32::MAX / TICK + 1;

/// The largest distance in milliseconds at which an entry is set. Later deadlines come due then,
/// and are set anew.
pub const HORIZON_MS: u32 = TICK * (BUCKETS as u32 - 2);

/// The place of an entry in the list of its bucket.
#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
    bucket: u32,
}

/// The wheel. Times are milliseconds of a clock that wraps.
pub struct Timers {
    heads: Vec<u32>,
    links: Vec<Link>,
    /// One bit for each bucket, set if the bucket is not empty.
    filled: [u64; WORDS],
    /// One bit for each word of `filled`, set if the word is not 0.
    words: u8,
    /// The current tick. All buckets before it are empty.
    tick: u32,
}

impl Timers {
    /// Creates a wheel that starts at `now`.
    pub fn new(now: u32) -> Self {
        Self {
            heads: vec![NONE; BUCKETS],
            links: Vec::new(),
            filled: [0; WORDS],
            words: 0,
            tick: now / TICK,
        }
    }

    /// Sets the entry `id` to `deadline`, in place of any earlier setting.
    pub fn set(&mut self, id: u32, deadline: u32, now: u32) {
        self.clear(id);
        let steps = steps_to(deadline, now);
        let bucket = (self.tick_of(now).wrapping_add(steps)) % BUCKETS as u32;
        let id_index = id as usize;
        if self.links.len() <= id_index {
            self.links.resize(id_index + 1, Link { prev: NONE, next: NONE, bucket: NONE });
        }
        let head = self.heads[bucket as usize];
        self.links[id_index] = Link { prev: NONE, next: head, bucket };
        if let Some(link) = self.links.get_mut(head as usize) {
            link.prev = id;
        }
        self.heads[bucket as usize] = id;
        self.filled[bucket as usize / 64] |= 1 << (bucket % 64);
        self.words |= 1 << (bucket / 64);
    }

    /// Sets the entry `id` to `deadline`, unless it comes due before that: who sets it again and again must
    /// not put it off for ever.
    pub fn bring_forward(&mut self, id: u32, deadline: u32, now: u32) {
        if let Some(link) = self.links.get(id as usize)
            && link.bucket != NONE
        {
            let buckets = BUCKETS as u32;
            let left = match (link.bucket + buckets - self.tick % buckets) % buckets {
                0 => buckets,
                left => left,
            };
            let passed = (self.tick_of(now) + SPAN - self.tick) % SPAN;
            if left <= passed.saturating_add(steps_to(deadline, now)) {
                return;
            }
        }
        self.set(id, deadline, now);
    }

    fn tick_of(&self, now: u32) -> u32 {
        now / TICK
    }

    /// Removes the entry `id`, if it is set.
    pub fn clear(&mut self, id: u32) {
        let Some(link) = self.links.get_mut(id as usize) else {
            return;
        };
        if link.bucket == NONE {
            return;
        }
        let Link { prev, next, bucket } = *link;
        link.bucket = NONE;
        match self.links.get_mut(prev as usize) {
            Some(link) => link.next = next,
            None => self.heads[bucket as usize] = next,
        }
        if let Some(link) = self.links.get_mut(next as usize) {
            link.prev = prev;
        }
        if self.heads[bucket as usize] == NONE {
            let word = &mut self.filled[bucket as usize / 64];
            *word &= !(1 << (bucket % 64));
            if *word == 0 {
                self.words &= !(1 << (bucket / 64));
            }
        }
    }

    /// Takes all entries that have come due by `now` and appends them to `due`.
    pub fn expire(&mut self, now: u32, due: &mut Vec<u32>) {
        let target = self.tick_of(now);
        // The tick counter wraps with the clock. One turn of the wheel is the most to walk.
        let steps = (target + SPAN - self.tick) % SPAN;
        for step in 1..=steps.min(BUCKETS as u32) {
            let bucket = self.tick.wrapping_add(step) % BUCKETS as u32;
            while let Some(id) = Some(self.heads[bucket as usize]).filter(|id| *id != NONE) {
                self.clear(id);
                due.push(id);
            }
        }
        self.tick = target;
    }

    /// Returns the milliseconds from `now` until an entry may come due; `None` if none is set.
    #[inline]
    pub fn wait(&self, now: u32) -> Option<u32> {
        let start = self.tick.wrapping_add(1) % BUCKETS as u32;
        let mut word = start as usize / 64;
        let mut bits = self.filled[word] >> (start % 64) << (start % 64);
        if bits == 0 {
            if self.words == 0 {
                return None;
            }
            // The next words are searched, and last the word of `start` itself, of which the lower
            // bits are left.
            let behind = self.words.rotate_right(word as u32 + 1).trailing_zeros() as usize;
            word = (word + 1 + behind) % WORDS;
            bits = self.filled[word];
        }
        let bucket = word as u32 * 64 + bits.trailing_zeros();
        let steps = (bucket + BUCKETS as u32 - start) % BUCKETS as u32 + 1;
        let elapsed = now.wrapping_sub(self.tick.wrapping_mul(TICK));
        Some((steps * TICK).saturating_sub(elapsed))
    }
}

/// Returns the number of ticks from `now` to the bucket of `deadline`: that behind it, so that an entry never
/// comes due too early.
fn steps_to(deadline: u32, now: u32) -> u32 {
    let ahead = deadline.wrapping_sub(now);
    let ahead = if ahead > u32::MAX / 2 { 0 } else { ahead.min(HORIZON_MS) };
    (now % TICK + ahead) / TICK + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_come_due_after_their_deadline_and_within_two_ticks() {
        for start in [0, 1, 31, 32, 1000, u32::MAX - 50_000] {
            for ahead in [0, 1, 31, 32, 33, 500, 5000, HORIZON_MS - 1] {
                let mut timers = Timers::new(start);
                timers.set(3, start.wrapping_add(ahead), start);
                let mut due = Vec::new();
                let mut passed = 0;
                while due.is_empty() {
                    let wait = timers.wait(start.wrapping_add(passed)).expect("an entry is set");
                    passed += wait.max(1);
                    timers.expire(start.wrapping_add(passed), &mut due);
                    assert!(passed <= ahead + 2 * TICK, "{start} {ahead} {passed}");
                }
                assert!(passed >= ahead, "{start} {ahead} {passed}");
                assert_eq!(due, [3]);
                assert_eq!(timers.wait(start.wrapping_add(passed)), None);
            }
        }
    }

    #[test]
    fn an_entry_is_brought_forward_and_never_put_off() {
        for start in [0, 31, 1000, u32::MAX - 700] {
            let mut timers = Timers::new(start);
            timers.bring_forward(0, start.wrapping_add(500), start);
            timers.bring_forward(1, start.wrapping_add(5000), start);
            let (mut due, mut passed) = (Vec::new(), 0);
            while due.is_empty() && passed < 2000 {
                passed += 10;
                let now = start.wrapping_add(passed);
                timers.expire(now, &mut due);
                if due.is_empty() {
                    timers.bring_forward(0, now.wrapping_add(500), now);
                }
            }
            assert!(due == [0] && (500..600).contains(&passed), "{start} {passed} {due:?}");
            let now = start.wrapping_add(passed);
            timers.bring_forward(1, now.wrapping_add(50), now);
            timers.expire(now.wrapping_add(100), &mut due);
            assert_eq!(due, [0, 1], "{start}");
        }
    }

    #[test]
    fn a_cleared_entry_never_comes_due_and_its_neighbours_do() {
        let mut timers = Timers::new(0);
        for id in 0..5 {
            timers.set(id, 100, 0);
        }
        timers.clear(2);
        timers.clear(4);
        timers.clear(9);
        let mut due = Vec::new();
        timers.expire(200, &mut due);
        due.sort_unstable();
        assert_eq!(due, [0, 1, 3]);
    }

    #[test]
    fn a_deadline_beyond_the_horizon_is_looked_at_before() {
        let mut timers = Timers::new(0);
        timers.set(0, 3_600_000, 0);
        let wait = timers.wait(0).expect("set");
        assert!(wait <= HORIZON_MS + 2 * TICK);
    }
    proptest! {
        #[test]
        fn the_wait_is_that_for_the_first_bucket_with_an_entry(
            start in any::<u32>(),
            steps in proptest::collection::vec((0u32..8, 0..HORIZON_MS, 0u32..9_000, 0u8..4), 1..40),
        ) {
            let mut timers = Timers::new(start);
            let (mut now, mut due) = (start, Vec::new());
            for (id, ahead, passed, what) in steps {
                match what {
                    0 => timers.clear(id),
                    1 => {
                        now = now.wrapping_add(passed);
                        timers.expire(now, &mut due);
                    }
                    _ => timers.set(id, now.wrapping_add(ahead), now),
                }
                let filled = |step: &u32| {
                    let bucket = timers.tick.wrapping_add(*step) % BUCKETS as u32;
                    timers.heads[bucket as usize] != NONE
                };
                let elapsed = now.wrapping_sub(timers.tick.wrapping_mul(TICK));
                let first = (1..=BUCKETS as u32).find(filled);
                let expected = first.map(|step| (step * TICK).saturating_sub(elapsed));
                prop_assert_eq!(timers.wait(now), expected);
            }
        }
    }
}
