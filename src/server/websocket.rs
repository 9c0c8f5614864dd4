//! Websocket connections (RFC 6455): handshake, delivery of messages, closing.
//!
//! The handshake's exchange stays with the connection, since the program may read its strings
//! until the connection closes.

use std::ffi::c_int;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::atomic::Ordering;

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::connection::{Conn, Outbox, Phase};
use super::context::Context;
use super::intake::Refill;
use super::step::Flow;
use crate::abi::Handler;
use crate::options::{Config, IterateContent, WebsocketDelivery};
use crate::shared::hub::{Message, Verdict};
use crate::shared::slots::{Content, Slot};
use crate::websocket::deflate::Deflate;
use crate::websocket::frame;
use crate::websocket::handshake::{self, Verdict as Handshake};
use crate::websocket::message::{Payload, Receiver, Step, TRY_AGAIN_LATER, Unit};

/// While more than this waits to be sent, nothing is read.
const HIGH_WATER: usize = 1 << 20;
/// The payload of a frame of at least this size goes to the kernel without a copy in the outbox:
/// by then the copy costs more than a call that sends more than one frame saves.
const DIRECT: usize = 12 * 1024;
/// How long a client may take to answer our Close.
const CLOSING_MS: u32 = 5_000;

/// What a websocket has beside its connection.
pub struct Socket {
    handler: Handler,
    receiver: Receiver,
    /// What of compression the handshake agreed on.
    deflate: Option<Deflate>,
    shown: Option<Shown>,
    /// Set once a Close frame of ours is queued: nothing is sent after it.
    sent_close: Option<Close>,
    /// Milliseconds of the server's clock.
    last_ping: u32,
    /// The last message, its NUL included, and its `wsbits`; see `iterate_content`.
    last: (Vec<u8>, u8),
}

/// Our Close frame.
#[derive(Clone, Copy)]
struct Close {
    /// Milliseconds of the server's clock.
    at: u32,
}

/// The message that the handler is looking at.
struct Shown {
    /// Where in `scratch` it is, and the byte that belongs where the NUL behind it stands.
    borrowed: Option<(Range<usize>, u8)>,
    /// It is no control frame.
    is_data: bool,
    wsbits: u8,
    /// It is a Close: the code to answer with.
    close: Option<Option<u16>>,
}

impl Conn {
    /// Answers a request for a websocket that a handler matches.
    pub(super) fn upgrade(&mut self, cx: &mut Context, handler: Handler) -> Flow {
        let Config {
            websocket_protocols,
            websocket_deflate,
            websocket_delivery,
            max_websocket_message_bytes,
            ..
        } = &cx.options.config;
        let Some(exchange) = self.exchange.as_deref_mut() else { return Flow::Leave };
        let Some(head) = exchange.buf.get(..exchange.head.len) else { return Flow::Leave };
        let verdict =
            handshake::judge(&exchange.head, head, websocket_protocols, *websocket_deflate);
        let (key, protocol, deflate) = match verdict {
            Handshake::Accept { key, protocol, deflate } => (key, protocol, deflate),
            Handshake::Refuse(status) => {
                if status == 426 {
                    // RFC 9110, section 15.5.22, and RFC 6455, section 4.4.
                    let fields = b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
                    exchange.fields.extend_from_slice(fields);
                }
                return self.fail(cx, status);
            }
        };
        let mut response = Vec::with_capacity(256);
        handshake::write_response(&mut response, key, protocol, deflate.as_ref());
        let unit = match websocket_delivery {
            WebsocketDelivery::Messages => Unit::Message,
            WebsocketDelivery::Frames => Unit::Frame,
        };
        let receiver = Receiver::new(unit, *max_websocket_message_bytes, deflate);
        let now = cx.clock.now;
        exchange.status = 101;
        exchange.head_len = response.len() as u64;
        let socket = Socket {
            handler,
            receiver,
            deflate,
            shown: None,
            sent_close: None,
            last_ping: now,
            last: Default::default(),
        };
        self.socket_state = Some(Box::new(socket));
        self.phase = Phase::Websocket;
        let slot = self.slot;
        let out = self.outbox(cx);
        out.bytes.extend_from_slice(&response);
        if !self.show() {
            return Flow::Close;
        }
        slot.hide_message();
        slot.become_websocket();
        slot.set_takes_frames(true);
        self.set_timer(cx);
        Flow::Again
    }

    /// Reads frames, and hands messages to the handler.
    pub(super) fn take_frames(&mut self, cx: &mut Context) -> Flow {
        loop {
            if self.backlog() > HIGH_WATER {
                // A client that does not read is not read from.
                if !self.flush(cx) {
                    return Flow::Close;
                }
                if self.backlog() > HIGH_WATER {
                    return Flow::Leave;
                }
            }
            if cx.turn.requests == 0 || cx.turn.bytes == 0 {
                self.make_ready(cx);
                return Flow::Leave;
            }
            match self.next_event(cx) {
                None => match self.refill(cx) {
                    Refill::Got => {}
                    Refill::Wait => return Flow::Leave,
                    // Without a Close the connection has failed: there is nobody to tell.
                    Refill::Eof | Refill::Lost => {
                        return Flow::Close;
                    }
                },
                Some(flow) => match flow {
                    Flow::Again => {}
                    flow => return flow,
                },
            }
        }
    }

    /// Acts on the next frames of the input. `None` if there is nothing complete.
    fn next_event(&mut self, cx: &mut Context) -> Option<Flow> {
        if cx.input.unread.is_empty() {
            return None;
        }
        let limit = cx.options.config.max_buffered_bytes;
        let frames = cx.options.config.websocket_delivery == WebsocketDelivery::Frames;
        let start = cx.input.unread.start;
        let socket = self.socket_state.as_deref_mut()?;
        let before = socket.receiver.buffered();
        let step = socket.receiver.step(&mut cx.input.buf[cx.input.unread.clone()]);
        let after = socket.receiver.buffered();
        cx.buffered = (cx.buffered + after).saturating_sub(before);
        // After our Close the client's messages come too late.
        let open = socket.sent_close.is_none();
        cx.turn.requests = cx.turn.requests.saturating_sub(1);
        let flow = match step {
            Step::More { consumed } => {
                cx.input.unread.start += consumed;
                if after > before && cx.buffered > limit {
                    return Some(self.fail_websocket(cx, TRY_AGAIN_LATER));
                }
                return None;
            }
            Step::Message { wsbits, payload, consumed, .. } => {
                cx.input.unread.start += consumed;
                if !open {
                    return Some(Flow::Again);
                }
                self.deliver(cx, wsbits, payload, start, None)
            }
            Step::Ping { payload, consumed } => {
                cx.input.unread.start += consumed;
                if !open {
                    return Some(Flow::Again);
                }
                self.pong(cx, &payload, start);
                if !frames {
                    return Some(Flow::Again);
                }
                self.deliver(cx, 0x80 | frame::PING, payload, start, None)
            }
            Step::Pong { payload, consumed } => {
                cx.input.unread.start += consumed;
                if !open || !frames {
                    return Some(Flow::Again);
                }
                self.deliver(cx, 0x80 | frame::PONG, payload, start, None)
            }
            Step::Close { code, payload, consumed } => {
                cx.input.unread.start += consumed;
                self.deliver(cx, 0x80 | frame::CLOSE, payload, start, Some(code))
            }
            Step::Fail { code } => self.fail_websocket(cx, code),
        };
        Some(flow)
    }

    /// The client broke the rules or a limit: closes with the code that says so.
    fn fail_websocket(&mut self, cx: &mut Context, code: u16) -> Flow {
        self.begin_close(cx, Some(code));
        self.end_websocket(cx);
        Flow::Again
    }

    fn pong(&mut self, cx: &mut Context, payload: &Payload, start: usize) {
        self.outbox(cx);
        let (Some(socket), Some(out)) = (self.socket_state.as_deref_mut(), self.out.as_deref_mut())
        else {
            return;
        };
        let payload = match payload {
            Payload::Input(range) => &cx.input.buf[start + range.start..start + range.end],
            Payload::Own => without_nul(socket.receiver.own()),
        };
        frame::write_header(&mut out.bytes, frame::PONG, payload.len(), false);
        out.bytes.extend_from_slice(payload);
    }

    /// Shows a message to the handler.
    fn deliver(
        &mut self,
        cx: &mut Context,
        wsbits: u8,
        payload: Payload,
        start: usize,
        close: Option<Option<u16>>,
    ) -> Flow {
        if close.is_some() {
            // From here on only an answering Close may be written, on this thread.
            self.stop_frames(cx);
        }
        let slot = self.slot;
        let Some(socket) = self.socket_state.as_deref_mut() else { return Flow::Leave };
        let borrowed = match payload {
            Payload::Input(range) => {
                let (begin, end) = (start + range.start, start + range.end);
                // The NUL takes the place of the next frame's first byte, which is put back.
                let byte = std::mem::replace(&mut cx.input.buf[end], 0);
                slot.show_message(&mut cx.input.buf[begin..end], wsbits);
                Some((begin..end, byte))
            }
            Payload::Own => {
                slot.show_message(without_nul(socket.receiver.own()), wsbits);
                None
            }
        };
        let is_data = wsbits & 15 < frame::CLOSE;
        socket.shown = Some(Shown { borrowed, close, is_data, wsbits });
        Flow::Call(socket.handler)
    }

    /// The handler has seen a message.
    pub(super) fn message_handled(&mut self, cx: &mut Context, result: c_int) {
        self.slot.hide_message();
        self.phase = Phase::Websocket;
        let Some(socket) = self.socket_state.as_deref_mut() else { return };
        let Some(shown) = socket.shown.take() else { return };
        if shown.is_data && cx.options.config.iterate_content == IterateContent::Last {
            let before = socket.last.0.len();
            let room = cx.options.config.max_buffered_bytes.saturating_sub(cx.buffered);
            let message = match &shown.borrowed {
                Some((range, _)) => cx.input.buf.get(range.clone()).unwrap_or_default(),
                None => without_nul(socket.receiver.own()),
            };
            keep_message(&mut socket.last.0, message, room);
            socket.last.1 = shown.wsbits;
            cx.buffered = (cx.buffered + socket.last.0.len()).saturating_sub(before);
        }
        if let Some((range, byte)) = shown.borrowed {
            cx.input.buf[range.end] = byte;
        } else {
            let before = socket.receiver.buffered();
            socket.receiver.release();
            cx.buffered = (cx.buffered + socket.receiver.buffered()).saturating_sub(before);
        }
        match shown.close {
            Some(code) => {
                self.begin_close(cx, code);
                self.end_websocket(cx);
            }
            None if result != 0 => {
                self.begin_close(cx, Some(1000));
                self.end_websocket(cx);
            }
            None => {}
        }
    }

    /// Whether a Close frame of ours is queued, behind which nothing may be sent.
    pub(super) fn has_sent_close(&self) -> bool {
        let socket = self.socket_state.as_deref();
        socket.is_some_and(|socket| socket.sent_close.is_some())
    }

    /// Takes no more frames for a connection; those that other threads have written go first.
    fn stop_frames(&mut self, cx: &mut Context) {
        let slot = self.slot;
        let guard = slot.answer();
        slot.set_takes_frames(false);
        self.take_own_messages(cx);
        drop(guard);
    }

    /// Sends a Close frame, unless one is sent.
    fn begin_close(&mut self, cx: &mut Context, code: Option<u16>) {
        self.stop_frames(cx);
        let now = cx.clock.now;
        self.outbox(cx);
        let (Some(socket), Some(out)) = (self.socket_state.as_deref_mut(), self.out.as_deref_mut())
        else {
            return;
        };
        if socket.sent_close.is_some() {
            return;
        }
        socket.sent_close = Some(Close { at: now });
        let payload = code.map(u16::to_be_bytes);
        let payload = payload.as_ref().map_or(&[][..], |code| code);
        frame::write_header(&mut out.bytes, frame::CLOSE, payload.len(), false);
        out.bytes.extend_from_slice(payload);
        cx.timers.set(self.index(), now.wrapping_add(CLOSING_MS), now);
    }

    /// Both sides have closed, or there is no talking to the client: ends the connection once all
    /// is sent.
    fn end_websocket(&mut self, cx: &mut Context) {
        self.phase = Phase::Draining;
        self.linger = true;
        if let Some(socket) = self.socket_state.as_deref_mut() {
            // Memory for half a message is of use to others while this one lingers.
            let before = socket.receiver.buffered();
            socket.receiver.close();
            cx.buffered = (cx.buffered + socket.receiver.buffered()).saturating_sub(before);
        }
        if !self.is_current(cx) {
            self.make_ready(cx);
        }
    }

    /// Writes one frame, on the I/O thread. Returns the number of bytes queued.
    pub(super) fn write_frame(
        &mut self,
        cx: &mut Context,
        opcode: u8,
        data: &[u8],
    ) -> Option<usize> {
        let slot = self.slot;
        // Behind a Close nothing may be sent: nobody writes between the look into the inbox and it.
        let _guard = (opcode == frame::CLOSE).then(|| slot.answer());
        // What other threads wrote before stays before.
        self.take_own_messages(cx);
        if !self.has_room(cx, data.len() + frame::MAX_HEADER) {
            return None;
        }
        self.outbox(cx);
        let now = cx.clock.now;
        let (socket, out) = (self.socket_state.as_deref_mut()?, self.out.as_deref_mut()?);
        let answers_close = socket.shown.as_ref().is_some_and(|shown| shown.close.is_some());
        if socket.sent_close.is_some() || answers_close && opcode != frame::CLOSE {
            return None;
        }
        out.bytes.try_reserve(data.len() + frame::MAX_HEADER).ok()?;
        let before = out.position();
        match &socket.deflate {
            Some(deflate) => cx.deflater.write_frame(&mut out.bytes, opcode, data, deflate),
            None => {
                let at = out.bytes.len();
                frame::write_header(&mut out.bytes, opcode, data.len(), false);
                let sent = match at {
                    0 if data.len() >= DIRECT && self.writable && self.tls.is_none() => {
                        send_with_header(&self.socket, &mut self.writable, out, data)
                    }
                    _ => 0,
                };
                out.bytes.extend_from_slice(data.get(sent..).unwrap_or_default());
            }
        }
        let queued = usize::try_from(out.position() - before).unwrap_or(usize::MAX);
        if opcode == frame::CLOSE {
            socket.sent_close = Some(Close { at: now });
            slot.set_takes_frames(false);
            cx.timers.set(self.index(), now.wrapping_add(CLOSING_MS), now);
        }
        self.mark_dirty(cx);
        Some(queued)
    }

    /// A frame that another thread has written.
    pub(super) fn take_frame(&mut self, cx: &mut Context, bytes: &[u8], header_len: usize) {
        let now = cx.clock.now;
        self.outbox(cx);
        let (Some(socket), Some(out)) = (self.socket_state.as_deref_mut(), self.out.as_deref_mut())
        else {
            return;
        };
        if socket.sent_close.is_some() || out.bytes.try_reserve(bytes.len()).is_err() {
            return;
        }
        let Some(opcode) = bytes.first().map(|first| first & 15) else { return };
        match &socket.deflate {
            Some(deflate) => {
                let data = bytes.get(header_len..).unwrap_or_default();
                cx.deflater.write_frame(&mut out.bytes, opcode, data, deflate);
            }
            None => out.bytes.extend_from_slice(bytes),
        }
        if opcode == frame::CLOSE {
            socket.sent_close = Some(Close { at: now });
            cx.timers.set(self.index(), now.wrapping_add(CLOSING_MS), now);
        }
        self.mark_dirty(cx);
    }

    /// Milliseconds between pings; 0 for none.
    fn ping_interval(cx: &Context) -> u64 {
        let Config { websocket_ping_interval_ms, idle_timeout_ms, .. } = cx.options.config;
        match (websocket_ping_interval_ms, idle_timeout_ms) {
            (0, _) => 0,
            (interval, 0) => interval,
            // Late enough for a dead peer is too late for one that merely has nothing to say.
            (interval, idle) => interval.min(idle / 3).max(1),
        }
    }

    /// How far ahead a websocket's timer is filed at most; 0 for never.
    pub(super) fn websocket_horizon(&mut self, cx: &mut Context) -> u64 {
        let idle = cx.options.config.idle_timeout_ms;
        let socket = self.socket_state.as_deref();
        let wakes = match socket.is_some_and(|socket| socket.sent_close.is_some()) {
            true => u64::from(CLOSING_MS),
            false => Conn::ping_interval(cx),
        };
        match (wakes, idle) {
            (0, idle) => idle,
            (wakes, 0) => wakes,
            (wakes, idle) => wakes.min(idle),
        }
    }

    /// A websocket's timer has come due: pings, or closes.
    pub(super) fn websocket_due(&mut self, cx: &mut Context) -> Flow {
        let now = cx.clock.now;
        let idle = cx.options.config.idle_timeout_ms;
        let interval = Conn::ping_interval(cx);
        let quiet = u64::from(now.wrapping_sub(self.last_active));
        let unread = self.has_unread();
        let Some(socket) = self.socket_state.as_deref_mut() else {
            return self.cannot_be(cx, "a websocket without its state");
        };
        let mut next = u64::MAX;
        if idle > 0 {
            if quiet >= idle && !unread {
                return Flow::Close;
            }
            next = idle.saturating_sub(quiet).max(1);
        }
        if let Some(Close { at }) = socket.sent_close {
            let since = now.wrapping_sub(at);
            if since >= CLOSING_MS {
                return Flow::Close;
            }
            next = next.min(u64::from(CLOSING_MS - since));
        } else if interval > 0 {
            let since = quiet.min(u64::from(now.wrapping_sub(socket.last_ping)));
            if since >= interval {
                socket.last_ping = now;
                next = next.min(interval);
                {
                    let out = self.outbox(cx);
                    frame::write_header(&mut out.bytes, frame::PING, 0, false);
                }
                self.mark_dirty(cx);
            } else {
                next = next.min(interval - since);
            }
        }
        if next < u64::MAX {
            self.file_timer(cx, next);
        }
        Flow::Leave
    }
}

/// Sends the header in the outbox, and as much of the payload behind it as the socket takes.
/// Returns how much of the payload that is. Errors are left to the next flush: the program may be
/// in a handler of this connection.
fn send_with_header(
    socket: &mio::net::TcpStream,
    writable: &mut bool,
    out: &mut Outbox,
    data: &[u8],
) -> usize {
    let header = out.len();
    let parts = [IoSlice::new(out.pending()), IoSlice::new(data)];
    let flags = SendFlags::NOSIGNAL;
    let Ok(count) = sendmsg(socket, &parts, &mut SendAncillaryBuffer::default(), flags) else {
        return 0;
    };
    if count < header + data.len() {
        *writable = false;
    }
    let sent = count.saturating_sub(header);
    out.consume(count - sent);
    out.pass(sent);
    sent
}

/// Keeps a message with a NUL behind it, if it fits into `room`.
fn keep_message(last: &mut Vec<u8>, message: &[u8], room: usize) {
    last.clear();
    if message.len() < room && last.try_reserve_exact(message.len() + 1).is_ok() {
        last.extend_from_slice(message);
        last.push(0);
    }
}

/// The payload in front of its NUL.
fn without_nul(own: &mut [u8]) -> &mut [u8] {
    match own {
        [payload @ .., _] => payload,
        [] => own,
    }
}

impl Socket {
    /// Bytes of messages that are not complete.
    pub fn buffered(&self) -> usize {
        self.receiver.buffered() + self.last.0.len()
    }
}

impl Conn {
    /// The last message of a websocket, where it is kept.
    pub fn last_message(&mut self) -> Option<Content> {
        let (message, wsbits) = &mut self.socket_state.as_deref_mut()?.last;
        Some(Content::of_message(message, *wsbits))
    }

    /// Whether the handshake has made it a websocket that is not closing.
    pub fn is_open_websocket(&self) -> bool {
        self.socket_state.is_some() && matches!(self.phase, Phase::Websocket | Phase::Calling)
    }
}

/// Takes a frame from a thread that does not hold the server. Returns the number of bytes queued.
pub fn write_frame_from_elsewhere(slot: &'static Slot, opcode: u8, data: &[u8]) -> Option<usize> {
    let generation = slot.open_generation()?;
    let hub = slot.hub()?;
    let _guard = slot.answer();
    // Looked at again under the lock that closing takes too.
    if slot.open_generation() != Some(generation) || !slot.takes_frames() {
        return None;
    }
    let len = data.len().checked_add(frame::MAX_HEADER)?;
    if !super::write::has_room_elsewhere(slot, hub, len) {
        return None;
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).ok()?;
    frame::write_header(&mut bytes, opcode, data.len(), false);
    let header_len = bytes.len();
    bytes.extend_from_slice(data);
    if opcode == frame::CLOSE {
        slot.set_takes_frames(false);
    }
    let charged = bytes.len();
    slot.incoming.fetch_add(charged, Ordering::Relaxed);
    let verdict = Verdict::Frame { header_len };
    let message = Message::Write { slot, generation, bytes, charged, verdict };
    hub.queue.push(message).is_ok().then_some(charged)
}
