//! One turn of the event loop: which connections have their turn, how much each may do, and whose
//! output is sent together.
//!
//! Connections with fresh events come first. Those that go on, since their share was not enough, wait
//! in lists of their own: how many of them there are makes no difference to a short request. Refuses to
//! know the connections themselves, of which it holds indices.

use std::collections::VecDeque;

/// The largest number of requests of one connection that are answered in one turn.
pub const REQUESTS_PER_TURN: usize = 256;
/// The largest number of bytes that one connection moves in one turn.
pub const BYTES_PER_TURN: usize = 512 << 10;
/// The number of bytes that can be searched in the time that a request takes.
const BYTES_PER_REQUEST: usize = 2048;
/// The number of connections with output that wait for each other. The kernel's path for sending is
/// long: taken once for all of them, it does not drive the code that answers requests out of the
/// processor's caches each time.
pub const BATCH: usize = 64;

/// Connections that go on behind those with fresh events.
#[derive(Default)]
pub struct Waiting {
    pub list: VecDeque<u32>,
    /// The number of entries that belong to this turn: each connection goes on once in a turn.
    left: usize,
}

impl Waiting {
    /// Begins a turn.
    pub fn begin_turn(&mut self) {
        self.left = self.list.len();
    }

    /// Returns whether a connection can go on in this turn.
    pub fn is_busy(&self) -> bool {
        self.left > 0
    }

    /// Takes the next connection.
    pub fn take_next(&mut self) -> Option<u32> {
        self.left = self.left.checked_sub(1)?;
        self.list.pop_front()
    }
}

/// The lists of a turn, and the shares of the current connection.
pub struct Turn {
    /// The connections with fresh events, which will have a turn.
    pub ready: VecDeque<u32>,
    /// The connections that go on, since their share of a turn was not enough.
    pub ongoing: Waiting,
    /// The connections whose TLS handshake goes on.
    pub handshakes: Waiting,
    /// The connections that wait for the disk, or for long files to be closed, and look again in a moment.
    pub reading: Vec<u32>,
    /// Set if what is left behind is removed in a moment, since long files are being closed.
    pub sweeps_later: bool,
    /// The number of entries of `ready` that belong to this turn.
    pub left: usize,
    /// The connection that has its turn.
    pub current: Option<u32>,
    /// Set if the current connection has its turn before those that go on.
    pub is_fresh: bool,
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
            ongoing: Waiting::default(),
            handshakes: Waiting::default(),
            reading: Vec::new(),
            sweeps_later: false,
            left: 0,
            current: None,
            is_fresh: false,
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

    /// Counts bytes that were read to answer one request: a long file takes the time of many requests.
    pub fn spend_on_reading(&mut self, bytes: usize) {
        self.requests = self.requests.saturating_sub(bytes / BYTES_PER_REQUEST);
        self.spend(bytes);
    }

    /// Begins a turn. `now` is in milliseconds of the clock.
    pub fn begin(&mut self, now: u32) {
        self.left = self.ready.len();
        if !self.reading.is_empty() {
            self.ongoing.list.extend(self.reading.drain(..));
        }
        self.ongoing.begin_turn();
        self.handshakes.begin_turn();
        self.batch_time = now;
    }

    /// Returns whether the current connection has used up its share.
    pub fn is_spent(&self) -> bool {
        self.bytes == 0 || self.requests == 0
    }

    /// Returns whether connections go on in the next turn.
    pub fn goes_on(&self) -> bool {
        !self.ready.is_empty() || !self.ongoing.list.is_empty() || !self.handshakes.list.is_empty()
    }

    /// Returns whether connections wait to send together, or to look at files together.
    pub fn has_waiting(&self) -> bool {
        !self.dirty.is_empty() || !self.sharing.is_empty()
    }
}
