//! One turn of the loop: which connections are looked at, how much each may do, and whose output is sent
//! together.

use std::collections::VecDeque;

/// Requests of one connection that are served in one turn.
pub const REQUESTS_PER_TURN: usize = 256;
/// Bytes that one connection moves in one turn.
pub const BYTES_PER_TURN: usize = 1 << 20;
/// How many connections with something to send wait for each other. The kernel's way of sending is
/// long: gone once for all of them, it does not drive the code that answers requests out of the
/// processor's caches each time.
pub const BATCH: usize = 64;

/// The lists of a turn, and the shares of the connection that is looked at.
pub struct Turn {
    /// Connections to look at.
    pub ready: VecDeque<u32>,
    /// How many of `ready` belong to this turn.
    pub left: usize,
    /// The connection that is looked at.
    pub current: Option<u32>,
    /// Requests that the current connection may still have served.
    pub requests: usize,
    /// Bytes that the current connection may still move.
    pub bytes: usize,
    /// Connections with output that was queued outside their own turn, or that waits for that of others.
    pub dirty: Vec<u32>,
    /// Milliseconds of the clock: when waiting output was sent last, or when the turn began.
    pub batch_time: u32,
    /// Connections whose requests for files wait for those of others, to share a look with them; and
    /// whether they have waited long enough.
    pub sharing: VecDeque<u32>,
    pub shares_now: bool,
    /// The current connection has waited so in this turn.
    pub has_shared: bool,
}

impl Turn {
    /// A turn in which nothing is to be done. `now`: milliseconds of the clock.
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

    /// Whether connections wait to send, or to look at files, together.
    pub fn has_waiting(&self) -> bool {
        !self.dirty.is_empty() || !self.sharing.is_empty()
    }
}
