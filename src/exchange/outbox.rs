//! Bytes on their way to a socket, and the answers among them that are logged when they have left.

use super::buffers::SMALL_BUFFER;
use super::request::LogEntry;

/// Bytes that wait to be sent.
#[derive(Default)]
pub struct Outbox {
    pub bytes: Vec<u8>,
    start: usize,
    /// Bytes that the socket has taken since the box was given to its connection.
    taken: u64,
    /// Answers that are logged once they are sent.
    pub records: Vec<Record>,
}

/// A complete answer whose end is not sent.
pub struct Record {
    pub entry: LogEntry,
    /// Bytes of its head, which the access log does not count.
    pub head_len: u64,
    /// The position in the outbox behind its last byte.
    pub end: u64,
    /// 0 if it is not known.
    pub status: u16,
}

impl Outbox {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that wait.
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Drops the bytes behind the first `mark` that wait.
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

    /// Notes that the socket took `count` bytes that never were in here. Nothing waits.
    pub fn pass(&mut self, count: usize) {
        self.taken += count as u64;
    }

    /// The position of the next byte, counted since the box was given to its connection.
    pub fn position(&self) -> u64 {
        self.taken + self.len() as u64
    }

    /// The position up to which the socket has taken the bytes.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Makes it fit for another connection. False if it is too large to keep.
    pub fn reset(&mut self) -> bool {
        self.bytes.clear();
        self.start = 0;
        self.taken = 0;
        self.records.clear();
        self.bytes.capacity() <= SMALL_BUFFER
    }
}
