//! What programs write: from handlers, between polls, and from other threads.

use std::sync::atomic::Ordering;

use super::Server;
use super::connection::Phase;
use crate::http::response::{Answer, Written};
use crate::shared::hub::{Hub, Message, Verdict};
use crate::shared::slots::{Generation, Slot};

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
        let Some(index) = self.index_of(slot) else {
            return false;
        };
        if !self.has_room(index, piece.len()) {
            return false;
        }
        match self.conn(index).map(|conn| conn.phase) {
            Some(Phase::Calling | Phase::Websocket) if self.is_websocket(index) => {
                let Piece::Raw(bytes) = piece else { return false };
                self.write_unframed(index, bytes)
            }
            Some(Phase::Calling) => {
                if self.outbox(index).is_none() {
                    return false;
                }
                let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
                    return false;
                };
                let exchange = conn.exchange.as_deref_mut();
                let answer = exchange.and_then(|exchange| exchange.answer.as_deref_mut());
                let (Some(answer), Some(out)) = (answer, conn.out.as_deref_mut()) else {
                    return false;
                };
                let written = piece.feed(answer, &mut out.bytes);
                if let Piece::Status(status) = piece
                    && written == Written::Taken
                {
                    conn.slot.set_status(status);
                }
                if let Some(fault) = answer.take_fault() {
                    self.complain(Some(index), fault);
                }
                written == Written::Taken
            }
            Some(Phase::Answering) => self.feed_late(index, piece),
            _ => false,
        }
    }

    fn is_websocket(&mut self, index: usize) -> bool {
        self.conn(index).is_some_and(|conn| conn.socket_state.is_some())
    }

    /// Raw bytes between the frames of a websocket.
    fn write_unframed(&mut self, index: usize, bytes: &[u8]) -> bool {
        // Frames that other threads wrote before stay before.
        self.take_inbox();
        let open = self.conn(index).is_some_and(|conn| conn.slot.takes_frames());
        let Some(out) = self.outbox(index).filter(|_| open) else { return false };
        if out.bytes.try_reserve(bytes.len()).is_err() {
            return false;
        }
        out.bytes.extend_from_slice(bytes);
        self.mark_dirty(index);
        true
    }

    /// Continues the answer of a handler that has returned.
    fn feed_late(&mut self, index: usize, piece: Piece<'_>) -> bool {
        let Some(slot) = self.conn(index).map(|conn| conn.slot) else {
            return false;
        };
        // What other threads wrote before stays before: under the lock they write nothing more.
        let mut late = loop {
            self.take_inbox();
            let late = slot.answer();
            if !self.cx.hub.queue.is_filled() {
                break late;
            }
        };
        if self.outbox(index).is_none() {
            return false;
        }
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return false;
        };
        let (Some(answer), Some(out)) = (late.as_deref_mut(), conn.out.as_deref_mut()) else {
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
            self.complain(Some(index), fault);
        }
        if let Some(persistent) = complete
            && written == Written::Taken
        {
            self.finish_late(index, persistent);
        }
        self.mark_dirty(index);
        written == Written::Taken
    }

    /// A late answer is complete.
    pub(super) fn finish_late(&mut self, index: usize, persistent: bool) {
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let answer = conn.slot.answer().take();
        if let (Some(answer), Some(exchange)) = (answer, conn.exchange.as_deref_mut()) {
            exchange.status = answer.status;
            exchange.head_len = answer.head_len;
            exchange.answer = Some(answer);
        }
        self.finish_exchange(index, persistent);
        // Requests that waited behind this one are served in the next turn.
        self.make_ready(index);
    }

    pub(super) fn has_room(&mut self, index: usize, len: usize) -> bool {
        let config = &self.cx.options.config;
        let (queue, total) = (config.max_send_queue_bytes, config.max_buffered_bytes);
        let Some(conn) = self.conns.get(index).and_then(Option::as_ref) else {
            return false;
        };
        let waiting = conn.backlog();
        let uncounted = waiting.saturating_sub(conn.slot.backlog.load(Ordering::Relaxed));
        len <= queue.saturating_sub(waiting)
            && len <= total.saturating_sub(self.cx.buffered.saturating_add(uncounted))
    }

    /// Takes what other threads have asked for: bytes go to their connections at once, requests
    /// wait until no handler runs.
    pub(super) fn take_inbox(&mut self) {
        if !self.cx.hub.queue.is_filled() {
            return;
        }
        let mut inbox = std::mem::take(&mut self.inbox);
        self.cx.hub.queue.take(&mut inbox);
        for message in inbox.drain(..) {
            match message {
                Message::Write { slot, generation, bytes, charged, verdict } => {
                    self.take_written(slot, generation, bytes, charged, verdict);
                }
                Message::Complain(what) => self.complain(None, what),
                request @ (Message::Iterate { .. } | Message::Run(..)) => {
                    self.walks.work.push_back(request);
                }
            }
        }
        self.inbox = inbox;
    }

    fn take_written(
        &mut self,
        slot: &'static Slot,
        generation: Generation,
        bytes: Vec<u8>,
        charged: usize,
        verdict: Verdict,
    ) {
        if slot.open_generation() != Some(generation) {
            return;
        }
        slot.incoming.fetch_sub(charged, Ordering::Relaxed);
        let Some(index) = self.index_of(slot) else {
            return;
        };
        if let Verdict::Frame { header_len } = verdict {
            self.take_frame(index, &bytes, header_len);
            return;
        }
        if verdict == Verdict::Unjudged {
            // Until it has returned: all that is unjudged then is taken under the slot's lock.
            if let Some(exchange) = self.exchange(index) {
                exchange.held.push(bytes);
            }
            return;
        }
        if self.has_sent_close(index) {
            return;
        }
        let Some(out) = self.outbox(index) else {
            return;
        };
        if out.bytes.try_reserve(bytes.len()).is_err() {
            // The caller was told that these bytes go out; an answer with a hole must not.
            self.complain(Some(index), "out of memory: a connection is closed");
            // The lock of its slot may be held here: it is closed in its next turn.
            if let Some(conn) = self.conn(index) {
                conn.gone = true;
                conn.writable = false;
            }
            self.make_ready(index);
            return;
        }
        out.bytes.extend_from_slice(&bytes);
        if let Verdict::End { persistent } = verdict {
            self.finish_late(index, persistent);
        }
        self.mark_dirty(index);
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
