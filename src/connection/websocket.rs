//! Websocket connections (RFC 6455): delivery of messages, writing of frames, pings, closing.
//!
//! Keeps the request of the handshake, since the program may read its strings until the connection
//! closes. Refuses to know how frames are parsed, which is in the room `websocket`.

use std::ffi::c_int;
use std::io::IoSlice;
use std::ops::Range;

use mio::net::TcpStream;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::messages::open_message;
use super::wire::{Received, Wire};
use crate::abi::Handler;
use crate::exchange::context::Context;
use crate::exchange::outbox::Outbox;
use crate::exchange::request::Request;
use crate::options::{Config, IterateContent, WebsocketDelivery};
use crate::pages;
use crate::shared::hub::Role;
use crate::shared::slots::Content;
use crate::websocket::deflate::{Deflate, MAX_COMPRESSED};
use crate::websocket::frame;
use crate::websocket::message::{Payload, Receiver, Step, TRY_AGAIN_LATER, Unit};

/// While more bytes than this wait to be sent, nothing is read.
const MAX_BACKLOG: usize = 1 << 20;
/// The payload of a frame of at least this many bytes is sent without a copy in the outbox: from
/// there on, the copy costs more than one call for several frames saves.
const GATHER_FROM: usize = 12 * 1024;
/// The largest number of bytes of a frame that are sent by the function that writes it.
const SEND_AT_ONCE: usize = 1 << 20;
/// The time in milliseconds in which a client has to answer a Close frame of the program's. After one of the
/// library's own the connection lingers, as after any last answer.
const CLOSING_MS: u32 = 5_000;

/// The state of a websocket, without its wire.
pub struct Websocket {
    /// The request of the handshake.
    pub request: Box<Request>,
    handler: Handler,
    receiver: Receiver,
    /// The compression that the handshake agreed on.
    deflate: Option<Deflate>,
    /// The message that the handler is shown.
    shown: Option<Shown>,
    /// The Close frame that the server has queued, after which it sends nothing.
    sent_close: Option<SentClose>,
    /// The time of the last ping, in milliseconds of the server's clock.
    last_ping: u32,
    /// The last message with its NUL, and its `wsbits`; see the option `iterate_content`.
    last: (Vec<u8>, u8),
}

/// A Close frame of the server.
#[derive(Clone, Copy)]
struct SentClose {
    /// The time in milliseconds of the server's clock.
    at: u32,
}

/// A message that the handler is shown.
struct Shown {
    /// The place in the buffer of the turn, and the byte that the NUL behind the message replaces;
    /// `None` if the receiver owns the message.
    borrowed: Option<(Range<usize>, u8)>,
    /// Set if it is not a control frame.
    is_data: bool,
    wsbits: u8,
    /// The status code for the answer, if it is a Close frame.
    close: Option<Option<u16>>,
}

/// The next step with a websocket.
pub enum WebsocketFlow {
    /// There may be more to do.
    Again,
    /// It waits for events, or for its next turn.
    Leave,
    /// The handler is to be called.
    Call(Handler),
    /// The closing handshake is done, or has failed. The connection ends once all bytes are sent.
    End,
    /// The connection is to be closed at once.
    Close,
}

impl Websocket {
    /// Creates a websocket after its handshake.
    pub fn new(
        request: Box<Request>,
        handler: Handler,
        deflate: Option<Deflate>,
        cx: &Context,
    ) -> Self {
        let config = &cx.options.config;
        let unit = match config.websocket_delivery {
            WebsocketDelivery::Messages => Unit::Message,
            WebsocketDelivery::Frames => Unit::Frame,
        };
        let receiver = Receiver::new(unit, config.max_websocket_message_bytes, deflate);
        Self {
            request,
            handler,
            receiver,
            deflate,
            shown: None,
            sent_close: None,
            last_ping: cx.clock.now,
            last: Default::default(),
        }
    }

    /// Returns the number of bytes that are kept: of incomplete messages, and of the last one.
    pub fn buffered(&self) -> usize {
        self.receiver.buffered() + self.last.0.len()
    }

    /// Returns whether the handler is being called.
    pub fn is_calling(&self) -> bool {
        self.shown.is_some()
    }

    /// Returns the last message, if it is kept.
    pub fn last_message(&mut self) -> Content {
        let (message, wsbits) = &mut self.last;
        Content::of_message(message, *wsbits)
    }

    /// Reads frames, up to the next message for the handler.
    pub fn take_frames(&mut self, wire: &mut Wire, cx: &mut Context) -> WebsocketFlow {
        loop {
            if wire.backlog() > MAX_BACKLOG {
                // Nothing is read from a client that does not read.
                if !wire.flush(cx, false) {
                    return WebsocketFlow::Close;
                }
                if wire.backlog() > MAX_BACKLOG {
                    return WebsocketFlow::Leave;
                }
            }
            if cx.turn.requests == 0 || cx.turn.bytes == 0 {
                wire.make_ready(cx);
                return WebsocketFlow::Leave;
            }
            match self.next_event(wire, cx) {
                Some(WebsocketFlow::Again) => {}
                Some(flow) => return flow,
                None => match wire.receive(cx, true) {
                    Received::Bytes => {}
                    Received::Nothing => return WebsocketFlow::Leave,
                    // Without a Close frame the connection has failed, and there is no use in
                    // sending one. Queued frames are sent, since the client may still read.
                    Received::End => {
                        self.stop_frames(wire, cx);
                        return WebsocketFlow::End;
                    }
                    Received::Lost | Received::Refused { .. } => return WebsocketFlow::Close,
                },
            }
        }
    }

    /// Acts on the next frames of the input. Returns `None` if no frame is complete.
    fn next_event(&mut self, wire: &mut Wire, cx: &mut Context) -> Option<WebsocketFlow> {
        if cx.input.unread.is_empty() {
            return None;
        }
        let frames = cx.options.config.websocket_delivery == WebsocketDelivery::Frames;
        let start = cx.input.unread.start;
        let before = self.receiver.buffered();
        let step = self.receiver.step(&mut cx.input.buf[cx.input.unread.clone()]);
        let after = self.receiver.buffered();
        cx.recount(before, after);
        cx.turn.requests = cx.turn.requests.saturating_sub(1);
        cx.turn.spend(after.saturating_sub(before));
        if let Step::More { consumed }
        | Step::Pause { consumed }
        | Step::Message { consumed, .. }
        | Step::Ping { consumed, .. }
        | Step::Pong { consumed, .. }
        | Step::Close { consumed, .. } = &step
        {
            cx.input.unread.start += consumed;
        }
        // After a Close frame of the server, messages of the client are ignored.
        let is_late = self.sent_close.is_some();
        let flow = match step {
            Step::More { .. } => {
                if after > before && cx.buffered > cx.options.config.max_buffered_bytes {
                    return Some(self.fail(wire, cx, TRY_AGAIN_LATER));
                }
                return None;
            }
            Step::Pause { .. } if cx.buffered > cx.options.config.max_buffered_bytes => {
                self.fail(wire, cx, TRY_AGAIN_LATER)
            }
            Step::Pause { .. } => WebsocketFlow::Again,
            Step::Close { code, payload, .. } => {
                self.deliver(wire, cx, 0x80 | frame::CLOSE, payload, start, Some(code))
            }
            Step::Fail { code } => self.fail(wire, cx, code),
            Step::Message { .. } | Step::Ping { .. } | Step::Pong { .. } if is_late => {
                WebsocketFlow::Again
            }
            Step::Message { wsbits, payload, .. } => {
                self.deliver(wire, cx, wsbits, payload, start, None)
            }
            Step::Ping { payload, .. } => {
                self.pong(wire, cx, &payload, start);
                match frames {
                    true => self.deliver(wire, cx, 0x80 | frame::PING, payload, start, None),
                    false => WebsocketFlow::Again,
                }
            }
            Step::Pong { payload, .. } if frames => {
                self.deliver(wire, cx, 0x80 | frame::PONG, payload, start, None)
            }
            Step::Pong { .. } => WebsocketFlow::Again,
        };
        Some(flow)
    }

    /// Closes the websocket with a status code, since the client broke a rule or a limit.
    fn fail(&mut self, wire: &mut Wire, cx: &mut Context, code: u16) -> WebsocketFlow {
        self.begin_close(wire, cx, Some(code));
        WebsocketFlow::End
    }

    /// Queues the Pong frame for a Ping.
    fn pong(&mut self, wire: &mut Wire, cx: &mut Context, payload: &Payload, start: usize) {
        let out = wire.out.get_or_insert_with(|| cx.spares.outbox());
        let payload = match payload {
            Payload::Input(range) => &cx.input.buf[start + range.start..start + range.end],
            Payload::Own => without_nul(self.receiver.own()),
        };
        frame::write_header(&mut out.bytes, frame::PONG, payload.len(), false);
        out.bytes.extend_from_slice(payload);
    }

    /// Shows a message to the handler. `close` is set for a Close frame, and holds the status code
    /// for its answer.
    fn deliver(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context,
        wsbits: u8,
        payload: Payload,
        start: usize,
        close: Option<Option<u16>>,
    ) -> WebsocketFlow {
        if close.is_some() {
            // From here on only the answering Close frame may be written, and on this thread only.
            self.stop_frames(wire, cx);
        }
        let slot = wire.slot;
        let borrowed = match payload {
            Payload::Input(range) => {
                let (begin, end) = (start + range.start, start + range.end);
                // The NUL replaces the first byte of the next frame, which is put back later.
                let byte = std::mem::replace(&mut cx.input.buf[end], 0);
                slot.show_message(&mut cx.input.buf[begin..end], wsbits);
                Some((begin..end, byte))
            }
            Payload::Own => {
                slot.show_message(without_nul(self.receiver.own()), wsbits);
                None
            }
        };
        let is_data = wsbits & 15 < frame::CLOSE;
        self.shown = Some(Shown { borrowed, close, is_data, wsbits });
        WebsocketFlow::Call(self.handler)
    }

    /// Acts on the return of the handler, with `result`, for the message that it was shown.
    pub fn message_handled(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context,
        result: c_int,
    ) -> WebsocketFlow {
        wire.slot.hide_message();
        let Some(shown) = self.shown.take() else {
            debug_assert!(false, "a handler returned that was shown no message");
            wire.complain(cx, "a handler returned that was shown no message");
            return WebsocketFlow::Close;
        };
        self.keep_last(cx, &shown);
        match shown.borrowed {
            Some((range, byte)) => cx.input.buf[range.end] = byte,
            None => {
                let before = self.receiver.buffered();
                self.receiver.release();
                cx.recount(before, self.receiver.buffered());
            }
        }
        match shown.close {
            Some(code) => self.begin_close(wire, cx, code),
            None if result != 0 => self.begin_close(wire, cx, Some(1000)),
            None => return WebsocketFlow::Again,
        }
        WebsocketFlow::End
    }

    /// Keeps a message for walks that show the last one.
    fn keep_last(&mut self, cx: &mut Context, shown: &Shown) {
        if !shown.is_data || cx.options.config.iterate_content != IterateContent::Last {
            return;
        }
        let before = self.last.0.len();
        let room = cx.options.config.max_buffered_bytes.saturating_sub(cx.buffered);
        let message = match &shown.borrowed {
            Some((range, _)) => cx.input.buf.get(range.clone()).unwrap_or_default(),
            None => without_nul(self.receiver.own()),
        };
        copy_with_nul(&mut self.last.0, message, room);
        self.last.1 = shown.wsbits;
        cx.recount(before, self.last.0.len());
    }

    /// Takes no more frames of other threads. Frames that these have written go first.
    fn stop_frames(&mut self, wire: &mut Wire, cx: &mut Context) {
        let slot = wire.slot;
        let guard = slot.lock_answer();
        slot.set_takes_frames(false);
        self.take_messages(wire, cx);
        drop(guard);
    }

    /// Queues a Close frame, unless one is queued already.
    fn begin_close(&mut self, wire: &mut Wire, cx: &mut Context, code: Option<u16>) {
        self.stop_frames(wire, cx);
        if self.sent_close.is_some() {
            return;
        }
        let payload = code.map(u16::to_be_bytes);
        let payload = payload.as_ref().map_or(&[][..], |code| code);
        // Without memory for it, the end of the connection is the answer.
        let _ = wire.outbox(cx).write_last(frame::MAX_HEADER + payload.len(), |bytes| {
            frame::write_header(bytes, frame::CLOSE, payload.len(), false);
            bytes.extend_from_slice(payload);
        });
        self.note_close(wire, cx);
    }

    /// Notes that a Close frame is queued, and sets the timer for the client's answer.
    fn note_close(&mut self, wire: &Wire, cx: &mut Context) {
        self.sent_close = Some(SentClose { at: cx.clock.now });
        wire.set_timer(cx, CLOSING_MS.into());
    }

    /// Frees the memory of an incomplete message while the connection lingers.
    pub fn drop_partial(&mut self, cx: &mut Context) {
        let before = self.receiver.buffered();
        self.receiver.close();
        cx.recount(before, self.receiver.buffered());
    }

    /// Writes one frame on the I/O thread. Returns the number of bytes queued.
    pub fn write_frame(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context,
        opcode: u8,
        data: &[u8],
    ) -> Option<usize> {
        let slot = wire.slot;
        // Nothing may be sent behind a Close frame: under the lock, no other thread writes between
        // the check for its messages and this frame.
        let _guard = (opcode == frame::CLOSE).then(|| slot.lock_answer());
        // Messages that other threads wrote before go first.
        self.take_messages(wire, cx);
        if !wire.has_room(cx, data.len() + frame::MAX_HEADER) {
            return None;
        }
        let answers_close = self.shown.as_ref().is_some_and(|shown| shown.close.is_some());
        if self.sent_close.is_some() || answers_close && opcode != frame::CLOSE {
            return None;
        }
        let queued = match self.deflate {
            Some(deflate) => write_deflated(wire, cx, opcode, data, deflate)?,
            None => write_plain(wire, cx, opcode, data)?,
        };
        if opcode == frame::CLOSE {
            slot.set_takes_frames(false);
            self.note_close(wire, cx);
        }
        wire.mark_dirty(cx);
        Some(queued)
    }

    /// Writes raw bytes between frames, on the I/O thread. Returns false if they are refused.
    pub fn write_raw(&mut self, wire: &mut Wire, cx: &mut Context, bytes: &[u8]) -> bool {
        // Messages that other threads wrote before go first.
        self.take_messages(wire, cx);
        if !wire.slot.takes_frames() {
            return false;
        }
        let copy = |last: &mut Vec<u8>| last.extend_from_slice(bytes);
        let is_queued = wire.outbox(cx).write_last(bytes.len(), copy).is_some();
        if is_queued {
            wire.mark_dirty(cx);
        }
        is_queued
    }

    /// Takes the messages of other threads for this connection out of the queue.
    #[inline]
    fn take_messages(&mut self, wire: &mut Wire, cx: &mut Context) {
        if wire.slot.has_messages() {
            self.take_messages_in_order(wire, cx);
        }
    }

    fn take_messages_in_order(&mut self, wire: &mut Wire, cx: &mut Context) {
        for message in cx.messages_for(wire.slot) {
            if let Some((bytes, role)) = open_message(wire.slot, message) {
                self.take_message(wire, cx, bytes, role);
            }
        }
    }

    /// Takes a frame, or raw bytes, that another thread has written.
    pub fn take_message(&mut self, wire: &mut Wire, cx: &mut Context, bytes: Vec<u8>, role: Role) {
        if self.sent_close.is_some() {
            return;
        }
        let Role::Frame { header_len } = role else {
            super::messages::queue(wire, cx, bytes);
            return;
        };
        let Some(opcode) = bytes.first().map(|first| first & 15) else {
            debug_assert!(false, "a frame has a header");
            wire.complain(cx, "a frame without a header is dropped");
            return;
        };
        let out = wire.out.get_or_insert_with(|| cx.spares.outbox());
        let is_queued = match &self.deflate {
            Some(deflate) => {
                let data = bytes.get(header_len..).unwrap_or_default();
                let compress =
                    |last: &mut Vec<u8>| cx.deflater.write_frame(last, opcode, data, deflate);
                out.write_last(bytes.len(), compress).is_some()
            }
            None => out.append(bytes),
        };
        if !is_queued {
            super::messages::give_up(wire, cx);
            return;
        }
        if opcode == frame::CLOSE {
            self.note_close(wire, cx);
        }
        wire.mark_dirty(cx);
    }

    /// Returns the largest distance in milliseconds for the timer; 0 for no timer.
    pub fn horizon(&self, cx: &Context) -> u64 {
        let idle = cx.options.config.idle_timeout_ms;
        let wakes = match self.sent_close.is_some() {
            true => u64::from(CLOSING_MS),
            false => ping_interval(cx),
        };
        match (wakes, idle) {
            (0, idle) => idle,
            (wakes, 0) => wakes,
            (wakes, idle) => wakes.min(idle),
        }
    }

    /// Acts on the timer, which has come due: pings the client, or closes the connection.
    pub fn timer_due(&mut self, wire: &mut Wire, cx: &mut Context) -> WebsocketFlow {
        let now = cx.clock.now;
        let idle = cx.options.config.idle_timeout_ms;
        let interval = ping_interval(cx);
        let quiet = u64::from(now.wrapping_sub(wire.last_active));
        let mut next = u64::MAX;
        if idle > 0 {
            if quiet >= idle && !wire.queued {
                return WebsocketFlow::Close;
            }
            next = idle.saturating_sub(quiet).max(1);
        }
        if let Some(SentClose { at }) = &mut self.sent_close {
            if wire.compresses() {
                // The client has not been sent the Close frame, which follows a message of ours.
                *at = now;
            }
            let since = now.wrapping_sub(*at);
            if since >= CLOSING_MS {
                return WebsocketFlow::Close;
            }
            next = next.min(u64::from(CLOSING_MS - since));
        } else if interval > 0 {
            let since = quiet.min(u64::from(now.wrapping_sub(self.last_ping)));
            if since >= interval {
                self.last_ping = now;
                next = next.min(interval);
                frame::write_header(&mut wire.outbox(cx).bytes, frame::PING, 0, false);
                wire.mark_dirty(cx);
            } else {
                next = next.min(interval - since);
            }
        }
        if next < u64::MAX {
            wire.set_timer(cx, next);
        }
        WebsocketFlow::Leave
    }
}

/// Returns the milliseconds between pings; 0 for no pings.
fn ping_interval(cx: &Context) -> u64 {
    let Config { websocket_ping_interval_ms, idle_timeout_ms, .. } = cx.options.config;
    match (websocket_ping_interval_ms, idle_timeout_ms) {
        (0, _) => 0,
        (interval, 0) => interval,
        // An interval that suits a dead peer is too long for one that merely has nothing to say.
        (interval, idle) => interval.min(idle / 3).max(1),
    }
}

/// Queues one frame as it is. Returns the number of bytes queued; `None` if there is no memory for them.
#[inline(always)]
fn write_plain(wire: &mut Wire, cx: &mut Context, opcode: u8, data: &[u8]) -> Option<usize> {
    let is_plain = !wire.is_secure();
    let Wire { out, socket, writable, .. } = &mut *wire;
    let out = out.get_or_insert_with(|| cx.spares.outbox());
    out.bytes.try_reserve(data.len() + frame::MAX_HEADER).ok()?;
    let before = out.position();
    let is_first = out.is_empty();
    frame::write_header(&mut out.bytes, opcode, data.len(), false);
    let sent = match is_first && data.len() >= GATHER_FROM && is_plain && *writable {
        true => send_with_header(socket, writable, out, data),
        false => 0,
    };
    // There is room for them.
    pages::append(&mut out.bytes, data.get(sent..).unwrap_or_default());
    usize::try_from(out.position() - before).ok()
}

/// Queues one frame, compressed if that makes it shorter. Returns the number of bytes queued; `None` if there is
/// no memory for them.
#[inline(never)]
fn write_deflated(
    wire: &mut Wire,
    cx: &mut Context,
    opcode: u8,
    data: &[u8],
    deflate: Deflate,
) -> Option<usize> {
    if let Some(message) = cx.long_messages.begin(&mut cx.deflater, opcode, data, &deflate) {
        return wire.queue_message(cx, message);
    }
    if data.len() > MAX_COMPRESSED && !wire.compresses() {
        return write_plain(wire, cx, opcode, data);
    }
    let out = wire.out.get_or_insert_with(|| cx.spares.outbox());
    let compress = |last: &mut Vec<u8>| cx.deflater.write_frame(last, opcode, data, &deflate);
    out.write_last(data.len() + frame::MAX_HEADER, compress)
}

/// Sends the header in the outbox, and as much of the payload as the socket takes. Returns the
/// number of bytes of the payload. Errors are left to the next flush, since the program may be in a
/// handler of this connection.
fn send_with_header(
    socket: &TcpStream,
    writable: &mut bool,
    out: &mut Outbox,
    data: &[u8],
) -> usize {
    let header = out.len();
    let share = data.get(..SEND_AT_ONCE).unwrap_or(data);
    let parts = [IoSlice::new(out.pending()), IoSlice::new(share)];
    let flags = SendFlags::NOSIGNAL;
    let Ok(count) = sendmsg(socket, &parts, &mut SendAncillaryBuffer::default(), flags) else {
        return 0;
    };
    if count < header + share.len() {
        *writable = false;
    }
    let sent = count.saturating_sub(header);
    out.consume(count - sent);
    out.pass(sent);
    sent
}

/// Keeps a message with a NUL behind it, if it fits into `room` bytes.
fn copy_with_nul(last: &mut Vec<u8>, message: &[u8], room: usize) {
    last.clear();
    if message.len() < room && last.try_reserve_exact(message.len() + 1).is_ok() {
        last.extend_from_slice(message);
        last.push(0);
    }
}

/// Returns the payload in front of its NUL.
fn without_nul(own: &mut [u8]) -> &mut [u8] {
    match own {
        [payload @ .., _] => payload,
        [] => own,
    }
}
