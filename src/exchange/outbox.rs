//! The bytes that wait for a socket, and the answers among them that are logged once they are sent.
//!
//! Refuses to know the socket, and how an answer is framed.

use std::collections::VecDeque;
use std::ops::Deref;

use super::buffers::SMALL_BUFFER;
use super::later::Later;
use super::request::LogEntry;
use crate::websocket::long_message::{Piece, Shared};

/// The length in bytes from which a buffer that another thread has filled is kept as it is: to copy it
/// would cost more.
const LONG: usize = 64 * 1024;

/// Bytes that wait to be sent.
#[derive(Default)]
pub struct Outbox {
    /// The last bytes; new ones are appended here.
    pub bytes: Vec<u8>,
    /// The buffers in front of `bytes`. To move a long rest to the front of one buffer, or to free a very
    /// long one, would take too much time at once.
    front: VecDeque<Buffer>,
    /// What follows behind `bytes`, and is not ready to be sent.
    later: Option<Box<Later>>,
    /// The number of bytes in `front` and `later`.
    others: usize,
    /// The number of bytes of the first buffer that the socket has taken.
    start: usize,
    /// The number of bytes that the socket has taken since the box was given to its connection.
    taken: u64,
    /// The answers that are logged once they are sent, in their order.
    pub records: Vec<Record>,
}

/// A buffer, or one that several connections send.
enum Buffer {
    Own(Vec<u8>),
    Shared(Piece),
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        match self {
            Buffer::Own(bytes) => bytes,
            Buffer::Shared(piece) => piece,
        }
    }
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
        self.others + self.bytes.len() - self.start
    }

    /// Returns whether no byte waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes that wait, or the first of them: see [`Outbox::is_divided`].
    #[inline]
    pub fn pending(&self) -> &[u8] {
        &self.front.front().map_or(&self.bytes, |first| first)[self.start..]
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
            self.others += self.bytes.len();
            self.front.push_back(Buffer::Own(std::mem::take(&mut self.bytes)));
        }
    }

    /// Appends bytes. Returns false if there is no memory for them.
    pub fn append(&mut self, bytes: Vec<u8>) -> bool {
        if self.later.is_some() {
            return self.write_last(bytes.len(), |last| last.extend_from_slice(&bytes)).is_some();
        }
        self.append_ready(bytes)
    }

    fn append_ready(&mut self, bytes: Vec<u8>) -> bool {
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

    /// Has `write` append up to `len` bytes behind all others. Returns the number of bytes that it has
    /// appended; `None` if there is no memory for them.
    pub fn write_last(&mut self, len: usize, write: impl FnOnce(&mut Vec<u8>)) -> Option<usize> {
        let later = self.later.as_mut().and_then(|later| later.last_bytes());
        let is_later = later.is_some();
        let bytes = later.unwrap_or(&mut self.bytes);
        bytes.try_reserve(len).ok()?;
        let before = bytes.len();
        write(bytes);
        let count = bytes.len() - before;
        if is_later {
            self.others += count;
        }
        Some(count)
    }

    /// Appends a message that is compressed a portion at a time; all that is written from now on follows it.
    /// Until its compression is complete it counts for the length that it has without. Returns that length;
    /// `None` if there is no memory.
    pub fn push_message(&mut self, message: Shared) -> Option<usize> {
        let len = message.borrow().plain_len();
        let is_queued = self.later.get_or_insert_default().push(message);
        if !is_queued {
            self.later.take_if(|later| later.is_empty());
            return None;
        }
        self.others += len;
        Some(len)
    }

    /// Returns whether a message waits for its compression.
    #[inline]
    pub fn has_later(&self) -> bool {
        self.later.is_some()
    }

    /// Compresses a portion of the first message that waits for it. Returns false if there is no memory for
    /// what is complete.
    pub fn go_on(&mut self) -> bool {
        let goes_on = self.later.as_mut().is_some_and(|later| later.go_on());
        goes_on || self.take_ready()
    }

    /// Gives up to compress the messages that wait for it: they go as they are. Returns false if there is no
    /// memory for that.
    pub fn leave_plain(&mut self) -> bool {
        if let Some(later) = &mut self.later {
            later.leave_plain();
        }
        self.take_ready()
    }

    /// Moves what is complete from `later` to the bytes that can be sent.
    fn take_ready(&mut self) -> bool {
        while let Some(ready) = self.later.as_mut().and_then(|later| later.take()) {
            self.others -= ready.counted + ready.behind.len();
            let fits = self.append_ready(ready.header)
                && self.append_pieces(ready.pieces)
                && self.append_ready(ready.behind);
            if !fits {
                return false;
            }
        }
        self.later.take_if(|later| later.is_empty());
        true
    }

    fn append_pieces(&mut self, pieces: Vec<Piece>) -> bool {
        if self.front.try_reserve(pieces.len() + 1).is_err() {
            return false;
        }
        self.divide();
        for piece in pieces {
            self.others += piece.len();
            if !piece.is_empty() {
                self.front.push_back(Buffer::Shared(piece));
            }
        }
        true
    }

    /// Keeps the first `mark` bytes that wait, and drops the others.
    pub fn truncate(&mut self, mark: usize) {
        debug_assert!(self.later.is_none(), "messages are not taken back");
        let keep = self.start + mark;
        while self.others > keep
            && let Some(last) = self.front.pop_back()
        {
            // What is behind it is dropped.
            self.others -= last.len();
            self.bytes = match last {
                Buffer::Own(bytes) => bytes,
                Buffer::Shared(piece) => piece.to_vec(),
            };
        }
        self.bytes.truncate(keep - self.others);
    }

    /// Notes that the socket took `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.taken += count as u64;
        if let Some(first) = self.front.front() {
            self.start += count;
            if self.start >= first.len() {
                self.others -= first.len();
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
        if self.others > 0 {
            self.front.clear();
            self.later = None;
            self.others = 0;
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
