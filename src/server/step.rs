//! Readiness in, [`Step`] out: gives each connection its turn.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use mio::Interest;

use super::connection::{Conn, Phase};
use super::context::Context;
use super::intake::Refill;
use super::{Server, Step};
use crate::abi::Handler;
use crate::options::Config;

/// Requests of one connection that are served in one turn.
const REQUESTS_PER_TURN: usize = 256;
/// Bytes that one connection moves in one turn.
const BYTES_PER_TURN: usize = 1 << 20;
/// How many connections with something to send wait for each other. The kernel's way of sending is
/// long: gone once for all of them, it does not drive the code that answers requests out of the
/// processor's caches each time.
const BATCH: usize = 64;
/// What is longer is sent at once: it would drive other things out of them.
const MAX_WAITING: usize = 4 * 1024;
/// Reading a connection as soon as it is accepted pays when this is not too seldom successful:
/// success weighs so much more than failure.
const FIRST_READ_GAIN: u32 = 3;
const MAX_FIRST_READS: u32 = 16 * FIRST_READ_GAIN;
/// One in so many is read at once in any case, to notice when times change.
const FIRST_READ_PROBE: u32 = 32;
/// How long input is discarded after the last answer, and how much of it.
const LINGER_MS: u32 = 2_000;
const LINGER_BYTES: u32 = 1 << 20;

/// Who has his turn, and how much of it is left.
pub(super) struct Turn {
    pub ready: VecDeque<u32>,
    /// How many of `ready` belong to this turn.
    pub left: usize,
    /// The connection that has its turn.
    pub current: Option<usize>,
    /// Requests that the current connection may still have served.
    pub requests: usize,
    /// Bytes that the current connection may still move.
    pub bytes: usize,
    /// Connections with something to send that they were given outside their own turn, or that waits for
    /// that of others.
    pub dirty: Vec<u32>,
    /// Milliseconds of the clock: what waits was sent last, or the turn began.
    pub batch_time: u32,
    /// Requests for files that wait for those of other connections, to share a look with them; and
    /// whether they have waited long enough.
    pub sharing: VecDeque<u32>,
    pub shares_now: bool,
    /// The current connection has waited so in this turn.
    pub has_shared: bool,
}

impl Turn {
    pub fn new(now: u32) -> Self {
        Self {
            ready: VecDeque::new(),
            left: 0,
            current: None,
            requests: 0,
            bytes: 0,
            dirty: Vec::new(),
            batch_time: now,
            sharing: VecDeque::new(),
            shares_now: false,
            has_shared: false,
        }
    }
}

/// How it goes on with the current connection.
pub enum Flow {
    Again,
    /// It is done for this turn.
    Leave,
    /// It ends at once.
    Close,
    Call(Handler),
}

impl Server {
    /// Works until the program is to be called, or there is nothing to do.
    pub fn step(&mut self) -> Step {
        // A handler may have forked: what waits to be sent is the parent's.
        self.check_fork();
        while !self.is_doomed() {
            if let Some(index) = self.cx.turn.current {
                let Self { conns, cx, .. } = self;
                let Some(conn) = conns.get_mut(index).and_then(Option::as_deref_mut) else {
                    debug_assert!(false, "the current connection is closed");
                    cx.turn.current = None;
                    continue;
                };
                match conn.drive(cx) {
                    Flow::Again => {}
                    Flow::Leave => self.leave(index),
                    Flow::Close => self.close(index),
                    Flow::Call(handler) => {
                        // It may end the process.
                        cx.log_complaints();
                        return self.call(index, handler);
                    }
                }
            } else if let Some(step) = self.next_visit() {
                self.flush_late();
                self.cx.log_complaints();
                return step;
            } else if self.cx.turn.left > 0 && !self.cx.turn.shares_now {
                self.cx.turn.left -= 1;
                self.cx.turn.has_shared = false;
                if let Some(index) = self.cx.turn.ready.pop_front() {
                    self.activate(index as usize);
                }
            } else if let Some(index) = self.next_sharing() {
                self.cx.turn.has_shared = true;
                self.activate(index);
            } else if self.cx.turn.left > 0 {
                // Those who waited have gone; it goes on with the others.
                self.cx.turn.shares_now = false;
            } else if let Some(index) = self.accept() {
                if self.may_have_sent() {
                    self.activate(index);
                } else {
                    self.register(index);
                }
            } else {
                self.flush_dirty();
                if !self.begin_work() {
                    break;
                }
            }
        }
        self.cx.log_complaints();
        self.cx.hub.buffered.store(self.cx.buffered, Ordering::Relaxed);
        self.cx.logs.access.flush(self.cx.clock.unix);
        Step::Done
    }

    /// Makes a connection the current one.
    fn activate(&mut self, index: usize) {
        self.flush_late();
        let Self { conns, cx, .. } = self;
        let Some(conn) = conns.get_mut(index).and_then(Option::as_deref_mut) else { return };
        conn.queued = false;
        conn.paused = false;
        // Both ends have said that they send no more, perhaps: what has come is read before it is closed,
        // or that would be a reset, and what is on its way to the client would be lost.
        if conn.gone && conn.phase != Phase::Lingering {
            self.close(index);
            return;
        }
        let waiting = conn.input.len();
        if waiting > 0 {
            if cx.input.buf.len() <= waiting {
                cx.input.buf.resize(waiting + 1, 0);
            }
            cx.input.buf[..waiting].copy_from_slice(&conn.input);
            conn.input = Vec::new();
        }
        cx.input.unread = 0..waiting;
        cx.turn.current = Some(index);
        cx.turn.requests = REQUESTS_PER_TURN;
        cx.turn.bytes = BYTES_PER_TURN;
        if (conn.out.is_some() || conn.tls.is_some()) && !conn.flush(cx) {
            self.close(index);
        }
    }

    /// Ends the turn of the current connection: sends what it has, keeps what it has not parsed.
    fn leave(&mut self, index: usize) {
        let Self { conns, cx, .. } = self;
        let Some(conn) = conns.get_mut(index).and_then(Option::as_deref_mut) else { return };
        let waits = conn.may_wait(cx);
        if !waits && !conn.flush(cx) || !conn.keep_unread(cx) {
            self.close(index);
            return;
        }
        cx.turn.current = None;
        if waits {
            conn.mark_dirty(cx);
            if cx.turn.dirty.len() >= BATCH {
                self.flush_dirty();
            }
            return;
        }
        if matches!(conn.settle(cx), Flow::Close) {
            self.close(index);
        } else if !conn.registered {
            if cx.turn.bytes == BYTES_PER_TURN {
                self.acceptor.first_reads =
                    self.acceptor.first_reads.saturating_sub(1 + FIRST_READ_GAIN);
            }
            self.register(index);
        }
    }

    /// Sends what waits if its time is over: something takes long.
    #[inline]
    pub(super) fn flush_late(&mut self) {
        let waits = !self.cx.turn.dirty.is_empty() || !self.cx.turn.sharing.is_empty();
        if waits && self.cx.clock.read() != self.cx.turn.batch_time {
            self.cx.turn.batch_time = self.cx.clock.read();
            self.cx.turn.shares_now = !self.cx.turn.sharing.is_empty();
            self.flush_dirty();
        }
    }

    /// The next connection whose request has waited to share a look.
    #[inline]
    pub(super) fn next_sharing(&mut self) -> Option<usize> {
        while let Some(index) = self.cx.turn.sharing.pop_front() {
            self.cx.turn.shares_now &= !self.cx.turn.sharing.is_empty();
            let index = index as usize;
            if self.conn(index).is_some_and(|conn| conn.phase == Phase::Deciding) {
                return Some(index);
            }
        }
        None
    }

    /// Whether a connection that was just accepted is worth reading from. If a request is there,
    /// the kernel need not be asked to announce it; if there is none, a call is wasted. So it goes by
    /// what came of it lately.
    fn may_have_sent(&mut self) -> bool {
        self.acceptor.accepted = self.acceptor.accepted.wrapping_add(1);
        let tries = self.acceptor.first_reads > 0
            || self.acceptor.accepted.is_multiple_of(FIRST_READ_PROBE);
        if tries {
            // Taken back if nothing comes of it.
            self.acceptor.first_reads =
                (self.acceptor.first_reads + FIRST_READ_GAIN).min(MAX_FIRST_READS);
        }
        tries
    }

    /// Has the kernel announce what happens to a connection.
    fn register(&mut self, index: usize) {
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else { return };
        let Some(poll) = &self.poll else { return };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = super::token_of(index, conn.number);
        match poll.registry().register(&mut conn.socket, token, interest) {
            Ok(()) => conn.registered = true,
            Err(error) => {
                let address = conn.peer;
                self.cx.complain_of(address, &format!("cannot watch the connection: {error}"));
                self.close(index);
            }
        }
    }

    /// A timer has come due.
    pub(super) fn timer_due(&mut self, index: usize) {
        let Self { conns, cx, .. } = self;
        if let Some(conn) = conns.get_mut(index).and_then(Option::as_deref_mut)
            && matches!(conn.timer_due(cx), Flow::Close)
        {
            self.close(index);
        }
    }
}

impl Conn {
    // Called from one place, several times for each request.
    #[inline(always)]
    fn drive(&mut self, cx: &mut Context) -> Flow {
        if std::mem::take(&mut self.timed_out) {
            if self.tls.as_ref().is_some_and(|session| session.is_handshaking()) {
                return self.give_up_handshake(cx);
            }
            if self.phase == Phase::Barred {
                return Flow::Close;
            }
            return self.refuse(cx, 408, false);
        }
        match self.phase {
            Phase::Head => self.next_head(cx),
            Phase::Barred => self.turn_down(cx),
            Phase::Body => match self.relay(cx) {
                Some(flow) => flow,
                None => self.take_body(cx),
            },
            Phase::Deciding => self.decide_now(cx),
            Phase::Calling | Phase::Answering => Flow::Leave,
            Phase::Sending => self.send_file(cx),
            Phase::Working => self.work_on(cx),
            Phase::Relaying => self.relay(cx).unwrap_or(Flow::Leave),
            Phase::Websocket => self.take_frames(cx),
            Phase::Draining => self.drain_then_close(cx),
            Phase::Lingering => self.discard(cx),
        }
    }

    /// Whether what it has to send can wait for that of others.
    fn may_wait(&self, cx: &Context) -> bool {
        let has_company =
            cx.turn.left > 0 || !cx.turn.dirty.is_empty() || !cx.turn.sharing.is_empty();
        let rests = matches!(self.phase, Phase::Head | Phase::Deciding | Phase::Websocket);
        has_company && rests && self.registered && (1..=MAX_WAITING).contains(&self.backlog())
    }

    /// Keeps what has been read and not been parsed. False if there is no memory for it.
    fn keep_unread(&mut self, cx: &mut Context) -> bool {
        let unread = &cx.input.buf[std::mem::take(&mut cx.input.unread)];
        if unread.is_empty() && self.tls.as_ref().is_none_or(|session| !session.has_partial()) {
            return true;
        }
        if self.input.try_reserve_exact(unread.len()).is_err() {
            return false;
        }
        self.input.extend_from_slice(unread);
        let awaits_head = matches!(self.phase, Phase::Head | Phase::Barred);
        if awaits_head && !self.begun && !self.paused {
            self.begun = true;
            self.since = cx.clock.now;
        }
        true
    }

    /// Whether a request that needs to know of files waits for those of other connections that are
    /// about to be read. One look answers them all, once the last byte of each is there.
    pub(super) fn may_share(&mut self, cx: &mut Context) -> bool {
        let needs_look = !cx.files.was_asked() && cx.options.config.document_root.is_some();
        // Once in a turn, or a client that always has another request would keep all others waiting for ever.
        if cx.turn.left == 0 || cx.turn.has_shared || !needs_look {
            return false;
        }
        self.phase = Phase::Deciding;
        cx.turn.sharing.push_back(self.index());
        cx.turn.shares_now |= cx.turn.sharing.len() >= BATCH;
        true
    }

    /// Goes on with what waited for room in the outbox, after a flush.
    pub(super) fn settle(&mut self, cx: &mut Context) -> Flow {
        if self.backlog() > 0 && !self.writable {
            return Flow::Leave;
        }
        match self.phase {
            Phase::Draining => return self.drain_then_close(cx),
            // What goes out need not have been in the outbox.
            Phase::Sending if self.writable => self.make_ready(cx),
            Phase::Body | Phase::Relaying if self.has_output(cx) => self.make_ready(cx),
            _ => {}
        }
        Flow::Leave
    }

    /// Ends the connection once all is sent, without losing the answer to unread input.
    pub(super) fn drain_then_close(&mut self, cx: &mut Context) -> Flow {
        self.phase = Phase::Draining;
        if self.must_send() {
            if !self.writable {
                return Flow::Leave;
            }
            if !self.flush(cx) {
                return Flow::Close;
            }
            if self.must_send() {
                return Flow::Leave;
            }
        }
        let is_current = self.is_current(cx);
        // Closing a socket with unread input resets the connection, and the client may lose
        // what it has not read yet (RFC 9112, section 9.6).
        let unread = self.linger
            || self.readable
            || !self.input.is_empty()
            || is_current && !cx.input.unread.is_empty();
        if self.eof || !unread {
            return Flow::Close;
        }
        self.phase = Phase::Lingering;
        self.since = cx.clock.now;
        self.input = Vec::new();
        if is_current {
            cx.input.unread = 0..0;
        }
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
        self.file_timer(cx, LINGER_MS.into());
        if is_current {
            return Flow::Again;
        }
        self.make_ready(cx);
        Flow::Leave
    }

    /// Throws input away until the client closes, for a while.
    fn discard(&mut self, cx: &mut Context) -> Flow {
        loop {
            if self.discarded > LINGER_BYTES {
                // The rest stays unread until the time is over. Who can send no more looks for the
                // answer, while a reset at once could reach a client before it has.
                return Flow::Leave;
            }
            cx.input.unread = 0..0;
            let refill = self.refill(cx);
            let count = cx.input.unread.len() as u32;
            cx.input.unread = 0..0;
            self.discarded = self.discarded.saturating_add(count);
            match refill {
                Refill::Wait => return Flow::Leave,
                Refill::Got => {}
                Refill::Eof | Refill::Lost => {
                    return Flow::Close;
                }
            }
        }
    }

    /// Files the connection's timer: at the latest when one of its timeouts may be over.
    pub(super) fn set_timer(&mut self, cx: &mut Context) {
        let Config { idle_timeout_ms, request_timeout_ms, .. } = cx.options.config;
        let ahead = match self.socket_state.is_some() {
            true => Some(self.websocket_horizon(cx)).filter(|ms| *ms > 0),
            false => [idle_timeout_ms, request_timeout_ms].into_iter().filter(|ms| *ms > 0).min(),
        };
        match ahead {
            Some(ahead) => self.file_timer(cx, ahead),
            None => cx.timers.clear(self.index()),
        }
    }

    pub(super) fn file_timer(&mut self, cx: &mut Context, ahead: u64) {
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX).min(u32::MAX / 4);
        let now = cx.clock.now;
        cx.timers.set(self.index(), now.wrapping_add(ahead), now);
    }

    /// A timer has come due: closes the connection, or files the timer anew. Traffic does not
    /// touch timers, so most that come due find that there has been some.
    pub(super) fn timer_due(&mut self, cx: &mut Context) -> Flow {
        let now = cx.clock.now;
        let Config { idle_timeout_ms, request_timeout_ms, .. } = cx.options.config;
        let waits = self.waits_for_program(&cx.programs);
        if waits {
            // That has a timeout of its own.
            (self.last_active, self.since) = (now, now);
        }
        let since = u64::from(now.wrapping_sub(self.since));
        let quiet = u64::from(now.wrapping_sub(self.last_active));
        if self.phase == Phase::Lingering {
            match u64::from(LINGER_MS).checked_sub(since) {
                None | Some(0) => return Flow::Close,
                Some(left) => self.file_timer(cx, left),
            }
            return Flow::Leave;
        }
        if self.socket_state.is_some() {
            return self.websocket_due(cx);
        }
        let mut next = [idle_timeout_ms, request_timeout_ms]
            .into_iter()
            .filter(|ms| *ms > 0)
            .min()
            .unwrap_or(u64::MAX);
        let unread = self.has_unread();
        let awaits_head = matches!(self.phase, Phase::Head | Phase::Barred);
        let receiving = self.phase == Phase::Body || awaits_head && self.begun;
        if receiving && request_timeout_ms > 0 {
            let arrived = self.exchange.as_ref().map_or(0, |exchange| exchange.arrived);
            // As long again for each 16 KiB: slow links may upload, drops may not hold a request.
            let allowed = request_timeout_ms.saturating_mul(1 + arrived / 16_384);
            if since >= allowed {
                self.timed_out = true;
                self.make_ready(cx);
                return Flow::Leave;
            }
            next = next.min(allowed - since);
        }
        if idle_timeout_ms > 0 {
            if quiet >= idle_timeout_ms && !unread {
                return Flow::Close;
            }
            next = next.min(idle_timeout_ms.saturating_sub(quiet).max(1));
        }
        if next < u64::MAX {
            self.file_timer(cx, next);
        }
        Flow::Leave
    }
}
