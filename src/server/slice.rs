//! The time of a turn that is left for work that goes on: who has the next piece of it.
//!
//! A turn serves the connections with fresh events first. What takes longer follows in items, until
//! [`SLICE`] has passed; then the kernel is asked for fresh events again. So a client with a short
//! request waits for one item, and not for all of them. Refuses to know what an item is.

/// The kinds of work that goes on. None takes the time of another by being many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lane {
    /// Connections that have used up their share.
    Ongoing,
    /// TLS handshakes: one with a large key takes more time than thousands of requests.
    Handshakes,
    /// Connections to be accepted.
    Accepts,
    /// Walks and other jobs of threads that wait.
    Walks,
}

const LANES: [Lane; 4] = [Lane::Ongoing, Lane::Handshakes, Lane::Accepts, Lane::Walks];

/// The time for work that goes on in one turn, in nanoseconds. The item that runs when it is over is
/// finished.
const SLICE: u64 = 2_000_000;

/// The slice of the present turn, and the time that each lane has had so far.
#[derive(Default)]
pub struct Slice {
    /// The end of the slice by the clock, once it has begun in this turn.
    end: Option<u64>,
    /// The item that runs, and its beginning.
    item: Option<(Lane, u64)>,
    /// The time that each lane has had, in nanoseconds: the one with the least is next.
    used: [u64; LANES.len()],
}

impl Slice {
    /// Begins a turn.
    pub fn begin_turn(&mut self) {
        self.end = None;
        self.item = None;
    }

    /// Returns whether no item has begun in this turn.
    pub fn is_unused(&self) -> bool {
        self.end.is_none()
    }

    /// Ends the item that runs, and returns the lane of the next one: of those that are `busy`, in the
    /// order of [`Lane`], the one that has had the least time. `None` means that the turn is over. In
    /// each turn there is at least one item. `now` is in nanoseconds.
    pub fn next(&mut self, busy: [bool; LANES.len()], now: u64) -> Option<Lane> {
        if let Some((lane, begin)) = self.item.take() {
            self.used[lane as usize] += now.saturating_sub(begin);
        }
        if now >= *self.end.get_or_insert(now + SLICE) {
            return None;
        }
        let lane = LANES
            .into_iter()
            .filter(|lane| busy[*lane as usize])
            .min_by_key(|lane| self.used[*lane as usize])?;
        // A lane that had nothing to do has not saved time for later.
        let least = self.used[lane as usize];
        for (used, busy) in self.used.iter_mut().zip(busy) {
            *used = if busy { *used } else { least.max(*used) };
        }
        self.item = Some((lane, now));
        Some(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_turn_has_one_item_however_long_it_takes_and_no_more_than_fit_into_its_time() {
        let mut slice = Slice::default();
        for (item, wanted) in [(1, 2_000_000), (MS, 2), (MS + 1, 2), (2 * MS, 1), (600 * MS, 1)] {
            slice.begin_turn();
            assert!(slice.is_unused());
            let mut now = 7 * MS;
            let mut items = 0;
            while slice.next([true, false, false, false], now).is_some() {
                items += 1;
                now += item;
            }
            assert_eq!(items, wanted, "{item}");
        }
    }

    #[test]
    fn lanes_share_the_time_and_not_the_number_of_items() {
        let mut slice = Slice::default();
        let (mut now, mut used) = (0, [0; 4]);
        // A handshake takes 6 ms, a piece of a file 0.2 ms.
        let cost = [MS / 5, 6 * MS, MS / 100, MS / 20];
        for _ in 0..1000 {
            slice.begin_turn();
            while let Some(lane) = slice.next([true, true, false, true], now) {
                now += cost[lane as usize];
                used[lane as usize] += cost[lane as usize];
            }
        }
        assert_eq!(used[2], 0);
        let least = [used[0], used[1], used[3]].into_iter().min().unwrap();
        assert!(used.iter().all(|used| *used <= least + 8 * MS), "{used:?}");
    }

    #[test]
    fn a_lane_that_was_idle_does_not_have_all_the_time_later() {
        let (mut slice, mut now) = (Slice::default(), 0);
        let mut lanes = Vec::new();
        for turn in 0..1006 {
            slice.begin_turn();
            let is_busy = [true, turn >= 1000, false, false];
            while let Some(lane) = slice.next(is_busy, now) {
                lanes.push(lane);
                now += 5 * MS;
            }
        }
        let lanes = &lanes[1000..];
        let ongoing = lanes.iter().filter(|lane| **lane == Lane::Ongoing).count();
        assert_eq!(ongoing, 3, "{lanes:?}");
    }
}
