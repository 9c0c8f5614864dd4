//! The bytes that wait for a socket, and the answers among them that are logged once they are sent.
//!
//! Refuses to know the socket, and how an answer is framed.

use std::collections::VecDeque;

use super::buffers::SMALL_BUFFER;
use super::request::LogEntry;

/// The length in bytes from which a buffer that another thread has filled is kept as it is: to copy it
/// would cost more.
const LONG: usize = 64 * 1024;

/// Bytes that wait to be sent.
#[derive(Default)]
pub struct Outbox {
    /// The last bytes; new ones are appended here.
    pub bytes: Vec<u8>,
    /// The buffers in front of `bytes`, and their length in all. To move a long rest to the front of one
    /// buffer, or to free a very long one, would take too much time at once.
    front: VecDeque<Vec<u8>>,
    front_len: usize,
    /// The number of bytes of the first buffer that the socket has taken.
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
        self.front_len + self.bytes.len() - self.start
    }

    /// Returns whether no byte waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes that wait, or the first of them: see [`Outbox::is_divided`].
    #[inline]
    pub fn pending(&self) -> &[u8] {
        &self.front.front().unwrap_or(&self.bytes)[self.start..]
    }

    /// Returns whether bytes follow behind those of [`Outbox::pending`].
    pub fn is_divided(&self) -> bool {
        self.pending().len() < self.len()
    }

    /// Begins a new buffer for the bytes that will be appended, if the last one is long.
    pub fn divide_long(&mut self) {
        if self.bytes.len() >= LONG {
            self.divide();
        }
    }

    fn divide(&mut self) {
        if !self.bytes.is_empty() {
            self.front_len += self.bytes.len();
            self.front.push_back(std::mem::take(&mut self.bytes));
        }
    }

    /// Appends bytes. Returns false if there is no memory for them.
    pub fn append(&mut self, bytes: Vec<u8>) -> bool {
        if bytes.len() < LONG {
            let fits = self.bytes.try_reserve(bytes.len()).is_ok();
            self.bytes.extend_from_slice(if fits { &bytes } else { &[] });
            return fits;
        }
        if self.front.try_reserve(2).is_err() {
            return false;
        }
        self.divide();
        self.bytes = bytes;
        self.divide();
        true
    }

    /// Keeps the first `mark` bytes that wait, and drops the others.
    pub fn truncate(&mut self, mark: usize) {
        let keep = self.start + mark;
        while self.front_len > keep
            && let Some(last) = self.front.pop_back()
        {
            // What is behind it is dropped.
            self.front_len -= last.len();
            self.bytes = last;
        }
        self.bytes.truncate(keep - self.front_len);
    }

    /// Notes that the socket took `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.taken += count as u64;
        if let Some(first) = self.front.front() {
            self.start += count;
            if self.start >= first.len() {
                self.front_len -= first.len();
                self.front.pop_front();
                self.start = 0;
            }
            return;
        }
        self.start = (self.start + count).min(self.bytes.len());
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
        if self.front_len > 0 {
            self.front.clear();
            self.front_len = 0;
        }
        self.start = 0;
        self.taken = 0;
        self.records.clear();
        self.bytes.capacity() <= SMALL_BUFFER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_leave_in_their_order_however_they_are_divided(
            steps in prop::collection::vec((0u8..6, 0usize..100_000), 0..60),
        ) {
            let (mut out, mut model, mut next) = (Outbox::default(), VecDeque::new(), 0u8);
            let mut bytes = |len: usize| -> Vec<u8> {
                (0..len).map(|_| { next = next.wrapping_add(1); next }).collect()
            };
            for (step, len) in steps {
                match step {
                    0 | 1 => {
                        let more = bytes(len);
                        model.extend(&more);
                        if step == 0 { out.bytes.extend(&more) } else { prop_assert!(out.append(more)) }
                    }
                    2 => out.divide(),
                    3 => {
                        let mark = len.min(model.len());
                        model.truncate(mark);
                        out.truncate(mark);
                    }
                    _ => {
                        let count = len.min(out.pending().len());
                        let expected: Vec<u8> = model.drain(..count).collect();
                        prop_assert_eq!(&out.pending()[..count], &expected[..]);
                        out.consume(count);
                    }
                }
                prop_assert_eq!(out.len(), model.len());
                prop_assert_eq!(out.is_divided(), out.pending().len() < model.len());
                prop_assert!(out.is_empty() || !out.pending().is_empty());
            }
        }
    }
}
