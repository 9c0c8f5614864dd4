//! What follows the bytes of an outbox and is not ready to be sent: long messages that are compressed a portion
//! at a time, and what was written behind them.
//!
//! Owns the order. Refuses to know how a message is compressed.

use std::collections::VecDeque;

use crate::websocket::long_message::{Piece, Shared};

/// The messages in their order. The first one waits for its compression.
#[derive(Default)]
pub struct Later {
    entries: VecDeque<Entry>,
}

struct Entry {
    message: Shared,
    /// The bytes between this message and the next one.
    behind: Vec<u8>,
}

/// What can be sent now.
pub struct Ready {
    /// The header of a frame, and the pieces of its payload.
    pub header: Vec<u8>,
    pub pieces: Vec<Piece>,
    /// The number of bytes for which the message was counted so far.
    pub counted: usize,
    /// The bytes behind it.
    pub behind: Vec<u8>,
}

impl Later {
    /// Appends a message. Returns false if there is no memory for it.
    pub fn push(&mut self, message: Shared) -> bool {
        let has_room = self.entries.try_reserve(1).is_ok();
        if has_room {
            self.entries.push_back(Entry { message, behind: Vec::new() });
        }
        has_room
    }

    /// Returns the place for bytes behind all messages.
    pub fn last_bytes(&mut self) -> Option<&mut Vec<u8>> {
        self.entries.back_mut().map(|last| &mut last.behind)
    }

    /// Compresses a portion of the first message. Returns false once that is complete.
    pub fn go_on(&mut self) -> bool {
        self.entries.front().is_some_and(|first| !first.message.borrow_mut().go_on())
    }

    /// Gives all compressions up.
    pub fn leave_plain(&mut self) {
        for entry in &self.entries {
            entry.message.borrow_mut().leave_plain();
        }
    }

    /// Takes the first message, and what follows it, if it is complete.
    pub fn take(&mut self) -> Option<Ready> {
        let message = self.entries.front()?.message.borrow();
        let (header, pieces) = message.frame()?;
        let (pieces, counted) = (pieces.to_vec(), message.plain_len());
        drop(message);
        let behind = self.entries.pop_front()?.behind;
        Some(Ready { header, pieces, counted, behind })
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
