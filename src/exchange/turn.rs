//! One turn of the event loop: which connections have their turn, how much each may do, and whose
//! output is sent together.
//!
//! Refuses to know the connections themselves, of which it holds indices.

use std::collections::VecDeque;

/// The largest number of requests of one connection that are answered in one turn.
pub const REQUESTS_PER_TURN: usize = 256;
/// The largest number of bytes that one connection moves in one turn.
pub const BYTES_PER_TURN: usize = 1 << 20;
/// The number of connections with output that wait for each other. The kernel's path for sending is
/// long: taken once for all of them, it does not drive the code that answers requests out of the
/// processor's caches each time.
pub const BATCH: usize = 64;

/// The lists of a turn, and the shares of the current connection.
pub struct Turn {
    /// The connections that will have a turn.
    pub ready: VecDeque<u32>,
    /// The number of entries of `ready` that belong to this turn.
    pub left: usize,
    /// The connection that has its turn.
    pub current: Option<u32>,
    /// The number of requests that the current connection may still have answered.
    pub requests: usize,
    /// The number of bytes that the current connection may still move.
    pub bytes: usize,
    /// The connections with output that was queued outside their own turn, or that waits for the
    /// output of others.
    pub dirty: Vec<u32>,
    /// The time at which waiting output was last sent, or at which the turn began, in milliseconds
    /// of the clock.
    pub batch_time: u32,
    /// The connections whose requests for files wait for those of others, to share a look with
    /// them, and whether they have waited long enough.
    pub sharing: VecDeque<u32>,
    pub shares_now: bool,
    /// Set if the current connection has waited in `sharing` in this turn.
    pub has_shared: bool,
}

impl Turn {
    /// Creates a turn in which there is nothing to do. `now` is in milliseconds of the clock.
    pub fn new(now: u32) -> Self {
        Self {
            ready: VecDeque::new(),
            left: 0,
            current: None,
            requests: 0,
            bytes: 0,
            dirty: Vec::new(),
            batch_time: now,
            sharing: VecDeque::new(),
            shares_now: false,
            has_shared: false,
        }
    }

    /// Counts bytes against the share of the current connection.
    #[inline]
    pub fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Returns whether connections wait to send together, or to look at files together.
    pub fn has_waiting(&self) -> bool {
        !self.dirty.is_empty() || !self.sharing.is_empty()
    }
}
