//! The way of bytes that programs write to their connections.
//!
//! Refuses to know what a connection does with them.

use std::collections::VecDeque;

use super::Server;
use crate::connection::Piece;
use crate::shared::hub::Message;
use crate::shared::slots::Slot;

/// The largest number of messages that are taken at once, and of their bytes: each may lead to a call
/// that sends, or has to be compressed.
const MESSAGES_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 256 << 10;

impl Server {
    /// Takes bytes that the program writes to a connection on the I/O thread. Returns false if they
    /// are refused.
    pub fn write(&mut self, slot: &'static Slot, piece: Piece<'_>) -> bool {
        self.bring_pending();
        self.conns.of_slot(slot).is_some_and(|conn| conn.write(&mut self.cx, piece))
    }

    /// Writes one frame to a websocket on the I/O thread. Returns the number of bytes queued.
    pub fn write_frame(&mut self, slot: &'static Slot, opcode: u8, data: &[u8]) -> Option<usize> {
        self.bring_pending();
        self.conns.of_slot(slot)?.write_frame(&mut self.cx, opcode, data)
    }

    /// Delivers messages that another connection took from the queue while it looked for its own. Otherwise each
    /// connection of a walk would search the whole list.
    #[inline]
    fn bring_pending(&mut self) {
        if !self.cx.pending.is_empty() {
            self.take_messages();
        }
    }

    /// Takes the messages of other threads: bytes go to their connections at once, requests wait
    /// until no handler runs. Of very many messages, or long ones, a part is taken, and the others in the
    /// turns that follow.
    #[inline]
    pub(super) fn take_messages(&mut self) {
        if self.cx.hub.queue.is_filled() {
            self.cx.hub.queue.take(&mut self.cx.pending);
        }
        if !self.cx.pending.is_empty() {
            self.take_portion();
        }
    }

    /// Takes all messages of other threads.
    pub(super) fn take_all_messages(&mut self) {
        self.take_messages();
        while !self.cx.pending.is_empty() {
            self.take_portion();
        }
    }

    fn take_portion(&mut self) {
        for _ in 0..portion(&self.cx.pending) {
            // The others stay in place, since a connection may look for its own.
            let Some(message) = self.cx.pending.pop_front() else { return };
            match message {
                Message::Write { slot, .. } => {
                    if let Some(conn) = self.conns.of_slot(slot) {
                        conn.take_message(&mut self.cx, message);
                    }
                }
                Message::Complain(what) => self.cx.complain(what),
                request @ (Message::Iterate { .. } | Message::Run(..)) => self.walks.put(request),
            }
        }
    }
}

/// Returns the number of messages that are taken at once: one at least.
fn portion(messages: &VecDeque<Message>) -> usize {
    let mut bytes = 0;
    let fits = |message: &&Message| {
        let has_room = bytes < BYTES_AT_ONCE;
        if let Message::Write { bytes: more, .. } = message {
            bytes += more.len();
        }
        has_room
    };
    messages.iter().take(MESSAGES_AT_ONCE).take_while(fits).count()
}
