//! The bytes that wait for a socket, and the answers among them that are logged once they are sent.
//!
//! Refuses to know the socket, and how an answer is framed.

use super::buffers::SMALL_BUFFER;
use super::request::LogEntry;

/// Bytes that wait to be sent.
#[derive(Default)]
pub struct Outbox {
    pub bytes: Vec<u8>,
    start: usize,
    /// The number of bytes that the socket has taken since the box was given to its connection.
    taken: u64,
    /// The answers that are logged once they are sent, in their order.
    pub records: Vec<Record>,
}

/// A complete answer whose last byte is not sent yet.
pub struct Record {
    pub entry: LogEntry,
    /// The length of its heads in bytes, which the access log does not count.
    pub head_len: u64,
    /// The position in the outbox behind its last byte.
    pub end: u64,
    /// The status; 0 if it is not known.
    pub status: u16,
}

impl Outbox {
    /// Returns the number of bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Returns whether no byte waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes that wait.
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Keeps the first `mark` bytes that wait, and drops the others.
    pub fn truncate(&mut self, mark: usize) {
        self.bytes.truncate(self.start + mark);
    }

    /// Notes that the socket took `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        self.taken += count as u64;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > SMALL_BUFFER && self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Notes that the socket took `count` bytes that were never in this box. No byte may wait.
    pub fn pass(&mut self, count: usize) {
        self.taken += count as u64;
    }

    /// Returns the position of the next byte, counted since the box was given to its connection.
    pub fn position(&self) -> u64 {
        self.taken + self.len() as u64
    }

    /// Returns the position up to which the socket has taken the bytes.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Empties the box for another connection. Returns false if it is too large to keep.
    pub fn reset(&mut self) -> bool {
        self.bytes.clear();
        self.start = 0;
        self.taken = 0;
        self.records.clear();
        self.bytes.capacity() <= SMALL_BUFFER
    }
}
