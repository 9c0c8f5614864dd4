//! The part of a wire that speaks TLS: from the socket through the session to plain bytes, and back
//! (RFC 8446, RFC 5246).
//!
//! All input that has arrived is decrypted at once into the buffer of the turn, so that no readable
//! bytes hide in a session, and events of the socket stay all there is to wait for. Output waits
//! unencrypted, as on any connection, and is encrypted in portions when the socket has taken the
//! ones before. Refuses to know how records are encrypted, which is in the room `tls`.

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::{Received, Wire, receive};
use crate::exchange::context::Context;
use crate::exchange::input::SCRATCH;

/// The number of bytes of records that are received and decrypted at once.
const RECORDS: usize = SCRATCH * 3 / 4;
/// The number of bytes from which others have their turn while a connection encrypts and sends.
const SEAL_AT_ONCE: usize = 512 << 10;

/// The answer to a client that speaks plain HTTP instead of TLS.
const NOT_PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 39\r\nConnection: close\r\n\r\nThis port speaks TLS: ask for https://\n";

impl Wire {
    /// Drops the session, and the count of its bytes.
    pub(super) fn end_session(&mut self, cx: &mut Context) {
        if let Some(mut session) = self.session.take() {
            let (_, counted) = session.recount();
            cx.recount(counted, 0);
        }
    }

    /// Corrects the count of the bytes that wait in the session.
    fn count_session(&mut self, cx: &mut Context) {
        if let Some(session) = self.session.as_deref_mut() {
            let (waiting, counted) = session.recount();
            cx.recount(counted, waiting);
        }
    }

    /// Receives records, and decrypts them behind the unread input.
    #[inline(never)]
    pub(super) fn receive_sealed(&mut self, cx: &mut Context, awaits_content: bool) -> Received {
        let received = self.receive_records(cx, awaits_content);
        self.count_session(cx);
        let is_full = cx.buffered > cx.options.config.max_buffered_bytes;
        let is_refused = matches!(received, Received::Refused { .. });
        if is_full && !awaits_content && !is_refused && self.has_partial_record() {
            self.complain(cx, "max_buffered_bytes: part of a TLS record is not kept");
            return Received::Lost;
        }
        received
    }

    fn receive_records(&mut self, cx: &mut Context, awaits_content: bool) -> Received {
        // Records are longer than the bytes that they decrypt to.
        if !cx.input.make_room(RECORDS + 1) {
            return Received::Lost;
        }
        if cx.tls.received.try_reserve(RECORDS.saturating_sub(cx.tls.received.len())).is_err() {
            self.complain(cx, "no memory for TLS: the connection is closed");
            return Received::Lost;
        }
        cx.tls.received.resize(RECORDS, 0);
        loop {
            let Some(session) = self.session.as_deref_mut() else { return Received::Lost };
            if !self.readable {
                return Received::Nothing;
            }
            if cx.turn.bytes == 0 {
                self.make_ready(cx);
                return Received::Nothing;
            }
            let records = &mut cx.tls.received;
            let begin = session.begin_input(records);
            let count = match receive(&self.socket, &mut records[begin..], RecvFlags::empty()) {
                Ok(0) => {
                    (self.eof, self.readable) = (true, false);
                    return Received::End;
                }
                Ok(count) => count,
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    return Received::Nothing;
                }
                Err(_) => return Received::Lost,
            };
            self.readable = begin + count == records.len() || self.read_closed;
            cx.files.look_again();
            cx.turn.spend(count);
            let (was_fresh, was_handshaking) = (session.is_fresh(), session.is_handshaking());
            let (buf, end) = (&mut cx.input.buf, &mut cx.input.unread.end);
            let before = *end;
            let decrypted = session.receive(&mut records[..begin + count], |piece| {
                if let Some(place) = buf.get_mut(*end..*end + piece.len()) {
                    place.copy_from_slice(piece);
                    *end += piece.len();
                }
            });
            let ended = match decrypted {
                Ok(ended) => ended,
                Err(error) => {
                    let in_plain = was_fresh && records[0].is_ascii_alphabetic();
                    return self.refuse(cx, in_plain, &error);
                }
            };
            if ended {
                (self.eof, self.readable) = (true, false);
            }
            // Records without content are not traffic, or they would keep an idle connection for
            // ever. A part of a long record on a slow link is traffic where content is awaited.
            let has_content = cx.input.unread.end > before;
            if has_content || was_handshaking || awaits_content && session.has_partial() {
                self.last_active = cx.clock.now;
            }
            if has_content {
                return Received::Bytes;
            }
            if ended {
                return Received::End;
            }
        }
    }

    /// Tells a client that it does not speak TLS, or breaks its rules.
    fn refuse(&mut self, cx: &mut Context, in_plain: bool, error: &str) -> Received {
        if in_plain {
            self.complain(cx, "plain HTTP where TLS is spoken");
            self.end_session(cx);
            self.outbox(cx).bytes.extend_from_slice(NOT_PLAIN);
        } else {
            self.complain(cx, &format!("TLS: {error}"));
        }
        match self.flush(cx, false) {
            true => Received::Refused { in_plain },
            false => Received::Lost,
        }
    }

    /// Encrypts and sends as much as the socket takes. Returns false if the connection has failed.
    #[inline(never)]
    pub(super) fn send_sealed(
        &mut self,
        cx: &mut Context,
        flags: SendFlags,
        is_last: bool,
    ) -> bool {
        let is_well = self.send_records(cx, flags, is_last);
        self.count_session(cx);
        is_well
    }

    fn send_records(&mut self, cx: &mut Context, flags: SendFlags, is_last: bool) -> bool {
        if cx.is_unnoticed_child() {
            // A child must not send under the keys of its parent. It drops them when it polls.
            return true;
        }
        let Some(session) = self.session.as_deref_mut() else { return true };
        let records = &mut cx.tls.sealed;
        let is_long = self.out.as_ref().is_some_and(|out| out.len() > SEAL_AT_ONCE);
        // One that waits for its turn has had its share, or will have it soon.
        let mut left = if is_long && self.queued { 0 } else { SEAL_AT_ONCE };
        if is_long && let Some(out) = self.out.as_mut() {
            out.divide_long();
        }
        while self.writable {
            if left == 0 {
                self.go_on_sending(cx);
                break;
            }
            let out = self.out.as_ref();
            let plain = out.map_or(&[][..], |out| out.pending());
            let is_last = is_last && !out.is_some_and(|out| out.is_divided());
            if let Err(why) = session.fill(plain, is_last, records) {
                cx.complain_of(self.peer, &format!("the connection is closed: {why}"));
                return false;
            }
            if records.is_empty() {
                break;
            }
            match rustix::net::send(&self.socket, records.as_slice(), flags | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    // Records that carry no content do not keep a connection from being idle.
                    if !self.lives_by_input && session.carries() {
                        self.last_active = cx.clock.now;
                    }
                    if count < records.as_slice().len() {
                        self.writable = false;
                    }
                    left = left.saturating_sub(count);
                    let done = session.sent(records.as_slice(), count);
                    let is_empty = self.out.as_mut().is_none_or(|out| {
                        out.consume(done);
                        out.is_empty()
                    });
                    if is_empty && !is_last {
                        break;
                    }
                }
                Err(Errno::INTR) => {
                    session.sent(records.as_slice(), 0);
                }
                Err(Errno::AGAIN) => {
                    session.sent(records.as_slice(), 0);
                    self.writable = false;
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Ends the session of a connection that is about to be closed. Sends `close_notify`, unless an
    /// answer is cut off: the client must be able to tell.
    #[cold]
    pub(super) fn end_sealed(&mut self, cx: &mut Context, is_cut: bool) {
        let is_silent = is_cut || cx.is_unnoticed_child() || !self.writable || self.gone;
        if !is_silent
            && self.backlog() == 0
            && let Some(session) = self.session.as_deref_mut()
        {
            let records = &mut cx.tls.sealed;
            if session.fill(&[], true, records).is_ok() && !records.is_empty() {
                // A client that has gone need not be told.
                let _ = rustix::net::send(&self.socket, records.as_slice(), SendFlags::NOSIGNAL);
            }
        }
        self.end_session(cx);
    }
}
