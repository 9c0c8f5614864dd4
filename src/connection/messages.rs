//! The bytes that programs write to a connection, raw or through the `mg_send` family: on the I/O
//! thread, and as messages of other threads.
//!
//! Refuses to know where an answer ends, which is in `http/response`, and how other threads write,
//! which is in `shared/writes`.

use std::sync::atomic::Ordering;

use super::wire::Wire;
use super::{Conn, State};
use crate::exchange::context::Context;
use crate::http::response::{Answer, Written};
use crate::pages;
use crate::shared::hub::{Message, Role};
use crate::shared::slots::Slot;

/// One call of a function that writes.
#[derive(Clone, Copy)]
pub enum Piece<'a> {
    Raw(&'a [u8]),
    /// A call of the `mg_send` family.
    Status(u16),
    Field(&'a [u8], &'a [u8]),
    Data(&'a [u8]),
}

impl Piece<'_> {
    /// Returns the number of bytes that the outbox has to have room for.
    fn len(&self) -> usize {
        match self {
            Piece::Raw(bytes) | Piece::Data(bytes) => bytes.len(),
            Piece::Status(_) => 0,
            Piece::Field(name, value) => name.len() + value.len(),
        }
    }

    /// Appends the piece to an answer. The program is shown a status that the piece sets.
    fn feed(self, slot: &Slot, answer: &mut Answer, out: &mut Vec<u8>) -> bool {
        match self {
            Piece::Raw(bytes) => answer.write(bytes, out) == Written::Taken,
            Piece::Data(bytes) => answer.send_data(bytes, out) == Written::Taken,
            Piece::Field(name, value) => {
                answer.send_header(name, value);
                true
            }
            Piece::Status(status) => {
                let taken = answer.send_status(status);
                if taken {
                    slot.set_status(status);
                }
                taken
            }
        }
    }
}

impl Conn {
    /// Takes bytes that the program writes on the I/O thread. Returns false if they are refused.
    pub fn write(&mut self, cx: &mut Context, piece: Piece<'_>) -> bool {
        if !self.wire.has_room(cx, piece.len()) {
            if !matches!(piece, Piece::Raw(_)) {
                self.cut_off(cx);
            }
            return false;
        }
        match &mut self.state {
            State::Websocket(websocket) => match piece {
                Piece::Raw(bytes) => websocket.write_raw(&mut self.wire, cx, bytes),
                _ => false,
            },
            State::Calling { answer, .. } => {
                let slot = self.wire.slot;
                let out = &mut self.wire.outbox(cx).bytes;
                if piece.len() >= pages::AT_ONCE && !pages::reserve(out, piece.len()) {
                    return false;
                }
                let taken = piece.feed(slot, answer, out);
                if let Some(fault) = answer.take_fault() {
                    self.wire.complain(cx, fault);
                }
                taken
            }
            State::Answering(_) => self.write_late(cx, piece),
            _ => false,
        }
    }

    /// Ends the answer of the `mg_send` family of which a piece was refused: those functions do not say so, and what
    /// comes behind a gap would be taken for content.
    #[cold]
    fn cut_off(&mut self, cx: &mut Context) {
        match &mut self.state {
            State::Calling { answer, .. } => {
                answer.cut_off();
                if let Some(fault) = answer.take_fault() {
                    self.wire.complain(cx, fault);
                }
            }
            State::Answering(_) => {
                let mut late = self.wire.slot.lock_answer();
                let Some(answer) = late.as_deref_mut() else { return };
                if answer.cut_off() {
                    let fault = answer.take_fault();
                    drop(late);
                    self.end_cut_answer(cx, fault);
                }
            }
            _ => {}
        }
    }

    /// Has a connection closed whose late answer has a gap.
    fn end_cut_answer(&mut self, cx: &mut Context, fault: Option<&'static str>) {
        if let Some(fault) = fault {
            self.wire.complain(cx, fault);
        }
        self.wire.reset_on_close();
        self.wire.gone = true;
        self.wire.writable = false;
        self.wire.make_ready(cx);
    }

    /// Writes one frame on the I/O thread. Returns the number of bytes queued.
    pub fn write_frame(&mut self, cx: &mut Context, opcode: u8, data: &[u8]) -> Option<usize> {
        self.state.websocket_mut()?.write_frame(&mut self.wire, cx, opcode, data)
    }

    /// Continues the answer of a handler that has returned.
    fn write_late(&mut self, cx: &mut Context, piece: Piece<'_>) -> bool {
        let slot = self.wire.slot;
        // Messages that other threads wrote before go first: under the lock, they write none.
        let mut late = loop {
            self.take_messages(cx);
            let late = slot.lock_answer();
            if !slot.has_messages() {
                break late;
            }
        };
        let Some(answer) = late.as_deref_mut() else { return false };
        let taken = piece.feed(slot, answer, &mut self.wire.outbox(cx).bytes);
        let (fault, complete) = (answer.take_fault(), answer.complete());
        let is_cut = answer.is_cut();
        drop(late);
        if is_cut {
            self.end_cut_answer(cx, fault);
            return taken;
        }
        if let Some(fault) = fault {
            self.wire.complain(cx, fault);
        }
        if let Some(persistent) = complete
            && taken
        {
            self.finish_late(cx, persistent);
        }
        self.wire.mark_dirty(cx);
        taken
    }

    /// Takes the messages of other threads for this connection out of the queue.
    pub(super) fn take_messages(&mut self, cx: &mut Context) {
        for message in cx.messages_for(self.wire.slot) {
            self.take_message(cx, message);
        }
    }

    /// Takes a message of another thread. A message for an earlier connection with this slot is dropped.
    pub fn take_message(&mut self, cx: &mut Context, message: Message) {
        let Some((bytes, role)) = open_message(self.wire.slot, message) else { return };
        match &mut self.state {
            State::Websocket(websocket)
            | State::Draining { websocket: Some(websocket), .. }
            | State::Lingering { websocket: Some(websocket), .. } => {
                websocket.take_message(&mut self.wire, cx, bytes, role);
            }
            // Bytes that are unchecked when the handler returns are taken under the slot's lock.
            State::Calling { answer, .. } if role == Role::Unchecked => answer.hold(bytes),
            _ if role == Role::Unchecked => {}
            _ => {
                if queue(&mut self.wire, cx, bytes)
                    && let Role::End { persistent } = role
                {
                    self.finish_late(cx, persistent);
                }
            }
        }
    }
}

/// Returns the bytes of a message and their role, if it is for the connection that `slot` has now.
pub(super) fn open_message(slot: &Slot, message: Message) -> Option<(Vec<u8>, Role)> {
    let Message::Write { generation, bytes, charged, role, .. } = message else { return None };
    if slot.open_generation() != Some(generation) {
        return None;
    }
    slot.incoming.fetch_sub(charged, Ordering::Relaxed);
    Some((bytes, role))
}

/// Queues bytes of another thread, which has been told that they are sent. Returns false if there
/// is no memory for them: an answer with a gap must not go on.
pub(super) fn queue(wire: &mut Wire, cx: &mut Context, bytes: Vec<u8>) -> bool {
    if !wire.outbox(cx).append(bytes) {
        give_up(wire, cx);
        return false;
    }
    wire.mark_dirty(cx);
    true
}

/// Closes a connection because bytes cannot be queued of which the writer was told that they are sent: an answer
/// with a gap must not go on.
pub(super) fn give_up(wire: &mut Wire, cx: &mut Context) {
    wire.complain(cx, "out of memory: a connection is closed");
    // The lock of its slot may be held here: it is closed in its next turn.
    wire.gone = true;
    wire.writable = false;
    wire.make_ready(cx);
}
