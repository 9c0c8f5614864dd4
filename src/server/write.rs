//! What programs write: from handlers, between polls, and from other threads.

use std::sync::atomic::Ordering;

use super::Server;
use super::connection::{Conn, Phase};
use super::context::Context;
use crate::http::response::{Answer, Written};
use crate::shared::hub::{Hub, Message, Verdict};
use crate::shared::slots::Slot;

/// One call of the writing family.
#[derive(Clone, Copy)]
pub enum Piece<'a> {
    Raw(&'a [u8]),
    /// Through the `mg_send` family.
    Status(u16),
    Field(&'a [u8], &'a [u8]),
    Data(&'a [u8]),
}

impl Piece<'_> {
    fn len(&self) -> usize {
        match self {
            Piece::Raw(bytes) | Piece::Data(bytes) => bytes.len(),
            Piece::Status(_) => 0,
            Piece::Field(name, value) => name.len() + value.len(),
        }
    }

    fn feed(self, answer: &mut Answer, out: &mut Vec<u8>) -> Written {
        match self {
            Piece::Raw(bytes) => answer.write(bytes, out),
            Piece::Data(bytes) => answer.send_data(bytes, out),
            Piece::Status(status) => match answer.send_status(status) {
                true => Written::Taken,
                false => Written::Refused,
            },
            Piece::Field(name, value) => {
                answer.send_header(name, value);
                Written::Taken
            }
        }
    }
}

impl Server {
    /// Takes what the program writes to a connection, on the I/O thread. False if it is refused.
    pub fn write(&mut self, slot: &'static Slot, piece: Piece<'_>) -> bool {
        let Some(index) = self.index_of(slot) else { return false };
        let Self { conns, cx, .. } = self;
        conns
            .get_mut(index)
            .and_then(Option::as_deref_mut)
            .is_some_and(|conn| conn.write(cx, piece))
    }

    /// Writes one frame to a websocket, on the I/O thread. Returns the number of bytes queued.
    pub fn write_frame(&mut self, slot: &'static Slot, opcode: u8, data: &[u8]) -> Option<usize> {
        let index = self.index_of(slot)?;
        let Self { conns, cx, .. } = self;
        conns.get_mut(index)?.as_deref_mut()?.write_frame(cx, opcode, data)
    }

    /// Takes what other threads have asked for: bytes go to their connections at once, requests
    /// wait until no handler runs.
    pub(super) fn take_inbox(&mut self) {
        if self.cx.hub.queue.is_filled() {
            self.cx.hub.queue.take(&mut self.cx.pending);
        }
        if self.cx.pending.is_empty() {
            return;
        }
        let mut pending = std::mem::take(&mut self.cx.pending);
        for message in pending.drain(..) {
            match message {
                Message::Write { slot, .. } => {
                    if let Some(index) = self.index_of(slot)
                        && let Self { conns, cx, .. } = self
                        && let Some(conn) = conns.get_mut(index).and_then(Option::as_deref_mut)
                    {
                        conn.take_message(cx, message);
                    }
                }
                Message::Complain(what) => self.cx.complain(what),
                request @ (Message::Iterate { .. } | Message::Run(..)) => {
                    self.walks.work.push_back(request);
                }
            }
        }
        if self.cx.pending.is_empty() {
            self.cx.pending = pending;
        }
    }
}

impl Conn {
    /// Takes what the program writes, on the I/O thread. False if it is refused.
    fn write(&mut self, cx: &mut Context, piece: Piece<'_>) -> bool {
        if !self.has_room(cx, piece.len()) {
            return false;
        }
        match self.phase {
            Phase::Calling | Phase::Websocket if self.socket_state.is_some() => {
                let Piece::Raw(bytes) = piece else { return false };
                self.write_unframed(cx, bytes)
            }
            Phase::Calling => self.feed(cx, piece),
            Phase::Answering => self.feed_late(cx, piece),
            _ => false,
        }
    }

    /// Raw bytes between the frames of a websocket.
    fn write_unframed(&mut self, cx: &mut Context, bytes: &[u8]) -> bool {
        // Frames that other threads wrote before stay before.
        self.take_own_messages(cx);
        if !self.slot.takes_frames() {
            return false;
        }
        let out = self.outbox(cx);
        if out.bytes.try_reserve(bytes.len()).is_err() {
            return false;
        }
        out.bytes.extend_from_slice(bytes);
        self.mark_dirty(cx);
        true
    }

    /// Continues the answer of the handler that runs.
    fn feed(&mut self, cx: &mut Context, piece: Piece<'_>) -> bool {
        self.outbox(cx);
        let exchange = self.exchange.as_deref_mut();
        let answer = exchange.and_then(|exchange| exchange.answer.as_deref_mut());
        let (Some(answer), Some(out)) = (answer, self.out.as_deref_mut()) else { return false };
        let written = piece.feed(answer, &mut out.bytes);
        if let Piece::Status(status) = piece
            && written == Written::Taken
        {
            self.slot.set_status(status);
        }
        if let Some(fault) = answer.take_fault() {
            self.complain(cx, fault);
        }
        written == Written::Taken
    }

    /// Continues the answer of a handler that has returned.
    fn feed_late(&mut self, cx: &mut Context, piece: Piece<'_>) -> bool {
        let slot = self.slot;
        // What other threads wrote before stays before: under the lock they write nothing more.
        let mut late = loop {
            self.take_own_messages(cx);
            let late = slot.answer();
            if slot.incoming.load(Ordering::Relaxed) == 0 {
                break late;
            }
        };
        self.outbox(cx);
        let (Some(answer), Some(out)) = (late.as_deref_mut(), self.out.as_deref_mut()) else {
            return false;
        };
        let written = piece.feed(answer, &mut out.bytes);
        if let Piece::Status(status) = piece
            && written == Written::Taken
        {
            slot.set_status(status);
        }
        let fault = answer.take_fault();
        let complete = answer.complete();
        drop(late);
        if let Some(fault) = fault {
            self.complain(cx, fault);
        }
        if let Some(persistent) = complete
            && written == Written::Taken
        {
            self.finish_late(cx, persistent);
        }
        self.mark_dirty(cx);
        written == Written::Taken
    }

    /// A late answer is complete.
    pub(super) fn finish_late(&mut self, cx: &mut Context, persistent: bool) {
        let answer = self.slot.answer().take();
        if let (Some(answer), Some(exchange)) = (answer, self.exchange.as_deref_mut()) {
            exchange.status = answer.status;
            exchange.head_len = answer.head_len;
            exchange.answer = Some(answer);
        }
        self.finish_exchange(cx, persistent);
        // Requests that waited behind this one are served in the next turn.
        self.make_ready(cx);
    }

    pub(super) fn has_room(&self, cx: &Context, len: usize) -> bool {
        let config = &cx.options.config;
        let (queue, total) = (config.max_send_queue_bytes, config.max_buffered_bytes);
        let waiting = self.backlog();
        let uncounted = waiting.saturating_sub(self.slot.backlog.load(Ordering::Relaxed));
        len <= queue.saturating_sub(waiting)
            && len <= total.saturating_sub(cx.buffered.saturating_add(uncounted))
    }

    /// Takes what other threads have written to this connection; what is for others stays in
    /// [`Context::pending`].
    pub(super) fn take_own_messages(&mut self, cx: &mut Context) {
        // Counted before it is put into the queue.
        if self.slot.incoming.load(Ordering::Relaxed) == 0 {
            return;
        }
        if cx.hub.queue.is_filled() {
            cx.hub.queue.take(&mut cx.pending);
        }
        let is_own = |message: &Message| match message {
            Message::Write { slot, .. } => std::ptr::eq(*slot, self.slot),
            _ => false,
        };
        let own: Vec<Message> = cx.pending.extract_if(.., |message| is_own(message)).collect();
        for message in own {
            self.take_message(cx, message);
        }
    }

    /// Takes what another thread has written to this connection, or to an earlier one in its slot.
    fn take_message(&mut self, cx: &mut Context, message: Message) {
        let Message::Write { slot, generation, bytes, charged, verdict } = message else { return };
        if slot.open_generation() != Some(generation) {
            return;
        }
        slot.incoming.fetch_sub(charged, Ordering::Relaxed);
        if let Verdict::Frame { header_len } = verdict {
            self.take_frame(cx, &bytes, header_len);
            return;
        }
        if verdict == Verdict::Unjudged {
            // Until it has returned: all that is unjudged then is taken under the slot's lock.
            if let Some(exchange) = self.exchange.as_deref_mut() {
                exchange.held.push(bytes);
            }
            return;
        }
        if self.has_sent_close() {
            return;
        }
        let out = self.outbox(cx);
        if out.bytes.try_reserve(bytes.len()).is_err() {
            // The caller was told that these bytes go out; an answer with a hole must not.
            self.complain(cx, "out of memory: a connection is closed");
            // The lock of its slot may be held here: it is closed in its next turn.
            self.gone = true;
            self.writable = false;
            self.make_ready(cx);
            return;
        }
        out.bytes.extend_from_slice(&bytes);
        if let Verdict::End { persistent } = verdict {
            self.finish_late(cx, persistent);
        }
        self.mark_dirty(cx);
    }
}

/// Takes raw bytes from a thread that does not hold the server. False if they are refused.
pub fn write_from_elsewhere(slot: &'static Slot, bytes: &[u8]) -> bool {
    let Some(generation) = slot.open_generation() else {
        return false;
    };
    let Some(hub) = slot.hub() else { return false };
    let mut late = slot.answer();
    // The connection may have closed since, and another begun: look again, under the lock that
    // closing takes too.
    let raw = slot.takes_frames();
    if slot.open_generation() != Some(generation) || !slot.is_answerable() && !raw {
        return false;
    }
    let len = bytes.len();
    if !has_room_elsewhere(slot, hub, len) {
        return false;
    }
    let mut out = Vec::new();
    let verdict = match late.as_deref_mut() {
        Some(answer) if !raw => {
            if answer.write(bytes, &mut out) == Written::Refused {
                return false;
            }
            if let Some(fault) = answer.take_fault() {
                let _ = hub.queue.push(Message::Complain(fault));
            }
            match answer.complete() {
                Some(persistent) => Verdict::End { persistent },
                None => Verdict::Part,
            }
        }
        _ => {
            if out.try_reserve_exact(len).is_err() {
                return false;
            }
            out.extend_from_slice(bytes);
            if raw { Verdict::Part } else { Verdict::Unjudged }
        }
    };
    let charged = out.len().max(len);
    slot.incoming.fetch_add(charged, Ordering::Relaxed);
    let message = Message::Write { slot, generation, bytes: out, charged, verdict };
    hub.queue.push(message).is_ok()
}

/// Whether `len` more bytes from other threads fit, as far as these can know.
pub(super) fn has_room_elsewhere(slot: &Slot, hub: &Hub, len: usize) -> bool {
    let incoming = slot.incoming.load(Ordering::Relaxed);
    let waiting = incoming.saturating_add(slot.backlog.load(Ordering::Relaxed));
    let buffered = hub.buffered.load(Ordering::Relaxed).saturating_add(incoming);
    len <= hub.max_send_queue.load(Ordering::Relaxed).saturating_sub(waiting)
        && len <= hub.max_buffered.load(Ordering::Relaxed).saturating_sub(buffered)
}
