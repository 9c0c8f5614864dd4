//! The buffer into which every connection is received and in which it is parsed. Only unfinished
//! input is copied to a buffer of its connection, so that this memory stays in the processor's
//! caches, and an idle connection needs no buffer.
//!
//! Refuses to know sockets, and how requests are parsed.

use std::io;
use std::ops::Range;

use crate::http::request::Head;

/// The number of bytes that are received at once, and of the longest input that waits for its turn.
pub const SCRATCH: usize = 64 * 1024;

/// The input of the current connection.
#[derive(Default)]
pub struct Input {
    /// The bytes as they are received and parsed; empty until the first poll.
    pub buf: Vec<u8>,
    /// The part of `buf` that is unread.
    pub unread: Range<usize>,
    /// The head that was parsed last.
    pub head: Head,
}

impl Input {
    /// Makes the buffer, unless it is there. The kernel zeroes it: pages that no input has reached yet take
    /// no memory.
    pub fn open(&mut self) -> io::Result<()> {
        if self.buf.len() < SCRATCH {
            // A vector that is filled later would be written to here.
            Vec::<u8>::new().try_reserve_exact(SCRATCH)?;
            self.buf = vec![0; SCRATCH];
            self.clear();
        }
        Ok(())
    }

    /// Returns the unread bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.unread.clone()]
    }

    /// Makes room for `least` bytes behind the unread input. Returns false if there is no memory
    /// for them.
    #[inline(always)]
    pub fn make_room(&mut self, least: usize) -> bool {
        let Input { buf, unread, .. } = self;
        if Range::is_empty(unread) {
            *unread = 0..0;
        } else if buf.len() - unread.end < least {
            buf.copy_within(unread.clone(), 0);
            *unread = 0..unread.len();
            if buf.len() - unread.end < least {
                if buf.try_reserve(SCRATCH).is_err() {
                    return false;
                }
                buf.resize(buf.len() + SCRATCH, 0);
            }
        }
        true
    }

    /// Makes `bytes` the unread input. One more byte of room is for the NUL behind a message that
    /// ends there.
    pub fn put(&mut self, bytes: &[u8]) {
        if self.buf.len() <= bytes.len() {
            self.buf.resize(bytes.len() + 1, 0);
        }
        self.buf[..bytes.len()].copy_from_slice(bytes);
        self.unread = 0..bytes.len();
    }

    /// Drops the unread input.
    pub fn clear(&mut self) {
        self.unread = 0..0;
    }
}
