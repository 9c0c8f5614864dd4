//! The socket of one connection, with TLS or without: input that was received, and output that
//! waits. POSIX sockets, non-blocking. Events are edge-triggered, so that each is followed until a
//! call would block.
//!
//! This is the only place that knows whether a connection speaks TLS. Refuses to know what the
//! bytes mean.

mod sealed;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::net::TcpStream;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::answer::file::{CHANGED, FileBody, NOT_CACHED};
use crate::exchange::context::Context;
use crate::exchange::input::SCRATCH;
use crate::exchange::outbox::Outbox;
use crate::peer::Peer;
use crate::shared::pool;
use crate::shared::slots::Slot;
use crate::tls::Session;
use crate::websocket::long_message::Shared;

/// The largest number of bytes of a file that the kernel moves at once.
const TRANSFER_AT_ONCE: usize = 512 << 10;
/// The largest number of bytes that are sent at once, before others have their turn: while the client
/// reads, a socket takes any number.
const SEND_AT_ONCE: usize = 1 << 20;

/// The number of bytes that wait from which a connection is served behind others when its socket takes
/// more.
const MUCH: usize = 64 << 10;

/// The socket, with its input and output.
pub struct Wire {
    pub slot: &'static Slot,
    pub socket: TcpStream,
    /// The address of the client.
    pub peer: Peer,
    /// Set if the socket may have bytes to read.
    pub readable: bool,
    /// Set if the socket may take bytes.
    pub writable: bool,
    /// Set if the kernel has announced that the client shut its sending side. Earlier bytes may
    /// still have to be read.
    pub read_closed: bool,
    /// Set if all that the client will ever send is read.
    pub eof: bool,
    /// Set after a reset, or when both directions are shut.
    pub gone: bool,
    /// Set if the peer is a trusted proxy: the fields that name clients are read.
    pub hears_proxies: bool,
    /// Set if the kernel announces events of the socket.
    pub registered: bool,
    /// Set if the kernel may keep the last bytes back until the connection is shut.
    held_back: bool,
    /// Set if only received bytes keep the connection from being idle, and sent ones do not.
    pub lives_by_input: bool,
    /// Set if the connection is in a list of those that will have a turn.
    pub queued: bool,
    /// Set if events of the connection wait behind those of others: its last share of a turn was not
    /// enough, or its TLS handshake is not complete.
    pub yields: bool,
    /// Set if the connection is in the list of those with new output.
    pub dirty: bool,
    /// The time of the last traffic, in milliseconds of the server's clock.
    pub last_active: u32,
    /// The input that waits for more, or for its turn.
    pub input: Box<[u8]>,
    pub out: Option<Box<Outbox>>,
    /// The TLS session, if the connection speaks TLS.
    session: Option<Box<Session>>,
}

/// The result of an attempt to receive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Received {
    Bytes,
    /// Nothing has arrived.
    Nothing,
    /// The client will send nothing more.
    End,
    /// The connection has failed.
    Lost,
    /// The client broke the rules of TLS and was told so: the connection is to end. With `in_plain`
    /// the client spoke HTTP.
    Refused {
        in_plain: bool,
    },
}

/// The result of an attempt to send a piece of a file.
pub enum Transferred {
    Bytes,
    /// The socket is full.
    Nothing,
    /// Another attempt is due, perhaps by copying.
    Again,
    /// The file has changed, or cannot be read any more.
    Unreadable(io::Error),
    /// The connection has failed.
    Lost,
}

impl Wire {
    /// Creates the wire of an accepted socket. `now` is in milliseconds of the server's clock.
    pub fn new(
        slot: &'static Slot,
        socket: TcpStream,
        peer: Peer,
        session: Option<Box<Session>>,
        now: u32,
    ) -> Self {
        Self {
            slot,
            socket,
            peer,
            readable: true,
            writable: true,
            read_closed: false,
            eof: false,
            gone: false,
            hears_proxies: false,
            registered: false,
            held_back: false,
            lives_by_input: false,
            queued: false,
            yields: session.is_some(),
            dirty: false,
            last_active: now,
            input: Box::default(),
            out: None,
            session,
        }
    }

    /// Returns the index of the connection in the server and its lists.
    #[inline]
    pub fn index(&self) -> u32 {
        self.slot.index() as u32
    }

    /// Writes a line about this client to the error log, unless the same line came too often in
    /// this second.
    pub fn complain(&self, cx: &mut Context, what: &str) {
        let client = match self.hears_proxies {
            // The client of the present request, or of the handshake of a websocket.
            true => self.slot.shown_peer().unwrap_or(self.peer),
            false => self.peer,
        };
        cx.complain_of(client, what);
    }

    /// Returns whether the connection has its turn.
    #[inline]
    pub fn is_current(&self, cx: &Context) -> bool {
        cx.turn.current == Some(self.index())
    }

    /// Gives the connection a turn, since there is something new for it.
    #[inline]
    pub fn announce(&mut self, cx: &mut Context) {
        if self.yields {
            self.make_ready(cx);
        } else if !self.queued {
            self.queued = true;
            cx.turn.ready.push_back(self.index());
        }
    }

    /// Gives the connection a turn behind those that have fresh events.
    pub fn make_ready(&mut self, cx: &mut Context) {
        self.yields |= self.is_current(cx) && cx.turn.is_spent();
        if !self.queued {
            self.queued = true;
            let list = match self.is_handshaking() {
                true => &mut cx.turn.handshakes,
                false => &mut cx.turn.ongoing,
            };
            list.list.push_back(self.index());
        }
    }

    /// Gives the connection a turn in a moment, since the disk reads what it needs.
    pub fn come_back(&mut self, cx: &mut Context) {
        if !self.queued {
            self.queued = true;
            cx.turn.reading.push(self.index());
        }
    }

    /// Has output sent that was queued outside the connection's own turn.
    #[inline]
    pub fn mark_dirty(&mut self, cx: &mut Context) {
        if !self.dirty && !self.is_current(cx) {
            self.dirty = true;
            cx.turn.dirty.push(self.index());
        }
    }

    /// Returns whether bytes are about to be read: a handler may have kept the thread for long.
    pub fn has_unread(&self) -> bool {
        self.queued && self.readable
    }

    /// Asks the kernel whether the connection can go on, which it may not have announced yet, and gives
    /// it a turn if so. `sends` says that there is more to send than what waits here.
    #[cold]
    pub fn look_again(&mut self, cx: &mut Context, sends: bool) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::IN | PollFlags::OUT)];
        if !matches!(rustix::event::poll(&mut polled, Some(&Timespec::default())), Ok(1)) {
            return false;
        }
        let found = polled[0].revents();
        let has_room = (sends || self.must_send()) && found.contains(PollFlags::OUT);
        self.readable |= found.contains(PollFlags::IN);
        self.writable |= has_room;
        if !found.contains(PollFlags::IN) && !has_room {
            return false;
        }
        self.announce(cx);
        true
    }

    /// Returns whether bytes have to be sent before the connection may end.
    pub fn must_send(&self) -> bool {
        self.backlog() > 0 || self.session.as_ref().is_some_and(|session| session.must_send())
    }

    /// Returns the number of bytes that wait to be sent.
    #[inline]
    pub fn backlog(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.len())
    }

    /// Returns the outbox, made if there is none.
    #[inline]
    pub fn outbox(&mut self, cx: &mut Context) -> &mut Outbox {
        self.out.get_or_insert_with(|| cx.spares.outbox())
    }

    /// Returns whether `len` more bytes of this thread fit into the outbox.
    pub fn has_room(&self, cx: &Context, len: usize) -> bool {
        let config = &cx.options.config;
        let (queue, total) = (config.max_send_queue_bytes, config.max_buffered_bytes);
        let waiting = self.backlog();
        let uncounted = waiting.saturating_sub(self.slot.backlog.load(Ordering::Relaxed));
        len <= queue.saturating_sub(waiting)
            && len <= total.saturating_sub(cx.buffered.saturating_add(uncounted))
    }

    /// Returns the address that the client has connected to.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// Returns whether the connection speaks TLS.
    #[inline]
    pub fn is_secure(&self) -> bool {
        self.session.is_some()
    }

    /// Returns the certificate that the client has shown, in DER.
    pub fn client_certificate(&self) -> Option<&[u8]> {
        self.session.as_ref()?.peer_certificate()
    }

    /// Returns whether a part of a TLS record has arrived.
    pub fn has_partial_record(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.has_partial())
    }

    /// Returns whether the TLS handshake is not complete.
    pub fn is_handshaking(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_handshaking())
    }

    /// Begins a TLS session.
    pub fn begin_session(&mut self, session: Box<Session>) {
        self.session = Some(session);
    }

    /// Receives behind the unread input. With `awaits_content` a part of a record counts as
    /// traffic.
    #[inline]
    pub fn receive(&mut self, cx: &mut Context, awaits_content: bool) -> Received {
        if self.eof {
            return Received::End;
        }
        if !self.readable {
            return Received::Nothing;
        }
        if self.session.is_some() {
            return self.receive_sealed(cx, awaits_content);
        }
        self.receive_plain(cx)
    }

    /// Looks at the bytes that have arrived, at most `limit` of them, and leaves them in the socket.
    /// Returns their place in the shared input, which is to have no unread bytes.
    pub fn peek(&mut self, cx: &mut Context, limit: usize) -> Result<Range<usize>, Received> {
        debug_assert!(cx.input.unread.is_empty());
        cx.input.clear();
        if self.eof {
            return Err(Received::End);
        }
        if !self.readable {
            return Err(Received::Nothing);
        }
        let space = cx.input.buf.get_mut(..limit).ok_or(Received::Lost)?;
        match receive(&self.socket, space, RecvFlags::PEEK) {
            Ok(0) => {
                (self.eof, self.readable) = (true, false);
                Err(Received::End)
            }
            Ok(count) => {
                cx.turn.spend(count);
                Ok(0..count)
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                Err(Received::Nothing)
            }
            Err(_) => Err(Received::Lost),
        }
    }

    /// Takes `len` bytes that were looked at out of the socket. Returns false if the connection has
    /// failed.
    pub fn skip(&mut self, cx: &mut Context, len: usize) -> bool {
        self.last_active = cx.clock.now;
        let Some(space) = cx.input.buf.get_mut(..len) else { return false };
        receive(&self.socket, space, RecvFlags::empty()) == Ok(len)
    }

    /// Receives input that is discarded, and so need not be decrypted.
    pub fn receive_unsealed(&mut self, cx: &mut Context) -> Received {
        match () {
            () if self.eof => Received::End,
            () if !self.readable => Received::Nothing,
            () => self.receive_plain(cx),
        }
    }

    #[inline]
    fn receive_plain(&mut self, cx: &mut Context) -> Received {
        if !cx.input.make_room(SCRATCH / 4) {
            return Received::Lost;
        }
        // The last byte is for the NUL behind a message that ends the input.
        let end = cx.input.buf.len() - 1;
        let space = &mut cx.input.buf[cx.input.unread.end..end];
        let room = space.len();
        match receive(&self.socket, space, RecvFlags::empty()) {
            Ok(0) => {
                self.eof = true;
                self.readable = false;
                Received::End
            }
            Ok(count) => {
                // A short read has emptied the socket, unless the end of the stream is next: that
                // has been announced already, and will not be announced again.
                self.readable = count == room || self.read_closed;
                self.last_active = cx.clock.now;
                cx.files.look_again();
                cx.input.unread.end += count;
                cx.turn.spend(count);
                Received::Bytes
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                Received::Nothing
            }
            Err(_) => Received::Lost,
        }
    }

    /// Receives into the spare capacity of a buffer. Returns the number of bytes, or the reason for
    /// none.
    pub fn receive_into(&mut self, cx: &mut Context, buf: &mut Vec<u8>) -> Result<usize, Received> {
        if self.eof {
            return Err(Received::End);
        }
        if !self.readable {
            return Err(Received::Nothing);
        }
        let room = buf.capacity() - buf.len();
        let count = loop {
            match rustix::net::recv(&self.socket, spare_capacity(buf), RecvFlags::empty()) {
                Ok((count, _)) => break count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    return Err(Received::Nothing);
                }
                Err(_) => return Err(Received::Lost),
            }
        };
        if count == 0 {
            self.eof = true;
            return Err(Received::End);
        }
        self.readable = count == room || self.read_closed;
        self.last_active = cx.clock.now;
        cx.files.look_again();
        cx.turn.spend(count);
        Ok(count)
    }

    /// Keeps the input that is not parsed. Returns false if there is no memory for it.
    pub fn keep_unread(&mut self, cx: &mut Context) -> bool {
        let unread = &cx.input.buf[std::mem::take(&mut cx.input.unread)];
        let mut input = Vec::new();
        if input.try_reserve_exact(unread.len()).is_err() {
            return false;
        }
        input.extend_from_slice(unread);
        self.input = input.into_boxed_slice();
        true
    }

    /// Sends as much of the outbox as the socket takes. Returns false if the connection has failed.
    /// `is_last` says that only the end of the connection follows.
    #[inline]
    pub fn flush(&mut self, cx: &mut Context, is_last: bool) -> bool {
        // The last bytes wait for the end of the connection, which follows at once, so that both
        // share a segment.
        self.held_back |= is_last && (self.backlog() > 0 || self.session.is_some());
        let flags = if is_last { SendFlags::MORE } else { SendFlags::empty() };
        self.send(cx, flags, is_last)
    }

    /// Sends as [`Wire::flush`], where more output follows at once: the rest of a segment waits for
    /// it.
    pub fn flush_before_more(&mut self, cx: &mut Context) -> bool {
        self.send(cx, SendFlags::MORE, false)
    }

    #[inline]
    fn send(&mut self, cx: &mut Context, flags: SendFlags, is_last: bool) -> bool {
        // One that waits for its turn has had its share, or will have it soon.
        if self.compresses() && !self.queued {
            return self.send_and_compress(cx, flags, is_last);
        }
        self.send_ready(cx, flags, is_last)
    }

    #[inline(always)]
    fn send_ready(&mut self, cx: &mut Context, flags: SendFlags, is_last: bool) -> bool {
        let is_well = match self.session.is_some() {
            true => self.send_sealed(cx, flags, is_last),
            false => self.send_plain(cx, flags),
        };
        self.count_sent(cx);
        is_well
    }

    #[cold]
    #[inline(never)]
    fn send_and_compress(&mut self, cx: &mut Context, flags: SendFlags, is_last: bool) -> bool {
        let is_well = self.send_ready(cx, flags, is_last) && self.compress_more(cx);
        self.count_sent(cx);
        is_well
    }

    /// Returns whether a message waits for its compression.
    #[inline]
    pub fn compresses(&self) -> bool {
        self.out.as_ref().is_some_and(|out| out.has_later())
    }

    /// Queues a message that is compressed in turns of the connection. Returns the number of bytes for which
    /// it counts; `None` if there is no memory.
    pub fn queue_message(&mut self, cx: &mut Context, message: Shared) -> Option<usize> {
        let len = self.outbox(cx).push_message(message)?;
        self.yields = true;
        self.make_ready(cx);
        Some(len)
    }

    /// Compresses a portion of the message that waits for it, and gives the connection another turn. Returns
    /// false if there is no memory for the message: an end of the connection is better than a gap.
    #[cold]
    fn compress_more(&mut self, cx: &mut Context) -> bool {
        if self.out.as_mut().is_some_and(|out| !out.go_on()) {
            self.complain(cx, "out of memory: a connection is closed");
            return false;
        }
        self.yields = true;
        self.make_ready(cx);
        true
    }

    /// Gives up to compress messages that wait for it, at the end of the server.
    pub fn leave_plain(&mut self) -> bool {
        self.out.as_mut().is_none_or(|out| out.leave_plain())
    }

    #[inline(always)]
    fn send_plain(&mut self, cx: &mut Context, flags: SendFlags) -> bool {
        let Some(out) = self.out.as_mut() else { return true };
        while self.writable {
            if out.len() > SEND_AT_ONCE {
                return self.send_share(cx, flags);
            }
            let pending = out.pending();
            if pending.is_empty() {
                break;
            }
            match rustix::net::send(&self.socket, pending, flags | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    if !self.lives_by_input {
                        self.last_active = cx.clock.now;
                    }
                    if count < pending.len() {
                        // A short write means that the socket is full. An event announces room.
                        self.writable = false;
                    }
                    out.consume(count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.writable = false,
                Err(_) => return false,
            }
        }
        true
    }

    /// Sends a share of very many bytes. The others follow in turns of their own. Returns false if the
    /// connection has failed.
    #[cold]
    fn send_share(&mut self, cx: &mut Context, flags: SendFlags) -> bool {
        if self.queued {
            // It has had its share, or will have it soon.
            return true;
        }
        let Some(out) = self.out.as_mut() else { return true };
        out.divide_long();
        let mut left = SEND_AT_ONCE;
        while left > 0 && self.writable {
            let pending = out.pending();
            if pending.is_empty() {
                break;
            }
            let share = &pending[..pending.len().min(left)];
            match rustix::net::send(&self.socket, share, flags | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    if !self.lives_by_input {
                        self.last_active = cx.clock.now;
                    }
                    self.writable = count == share.len();
                    left -= count;
                    out.consume(count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.writable = false,
                Err(_) => return false,
            }
        }
        self.go_on_sending(cx);
        true
    }

    /// Gives the connection another turn if its socket takes more.
    fn go_on_sending(&mut self, cx: &mut Context) {
        if self.writable {
            self.yields = true;
            self.make_ready(cx);
        }
    }

    /// Corrects the count of queued bytes, and logs the answers that are sent now.
    #[inline]
    fn count_sent(&mut self, cx: &mut Context) {
        let Some(out) = self.out.as_mut() else { return };
        let backlog = out.len();
        let counted = self.slot.backlog.load(Ordering::Relaxed);
        if counted != backlog {
            self.slot.backlog.store(backlog, Ordering::Relaxed);
            cx.recount(counted, backlog);
            // It has had a share. When the socket takes more, others have their turn first.
            self.yields |= backlog >= MUCH;
        }
        if !out.records.is_empty() {
            self.log_sent(cx, false);
        }
    }

    /// Writes the access log lines of answers that are sent; with `all`, of all answers.
    fn log_sent(&mut self, cx: &mut Context, all: bool) {
        let Some(out) = self.out.as_mut() else { return };
        let taken = out.taken();
        let sent = out.records.iter().take_while(|record| all || record.end <= taken).count();
        for record in out.records.drain(..sent) {
            cx.log_access(record, taken);
        }
    }

    /// Gives an empty outbox back.
    #[inline]
    pub fn give_back_outbox(&mut self, cx: &mut Context) {
        if self.backlog() == 0
            && let Some(out) = self.out.take()
        {
            cx.spares.keep_outbox(out);
        }
    }

    /// Sends a piece of a file straight to the socket, once all earlier bytes are sent.
    pub fn transfer(&mut self, cx: &mut Context, file: &mut FileBody) -> Transferred {
        // The head shares a segment with what follows.
        if !self.send(cx, SendFlags::MORE, false) {
            return Transferred::Lost;
        }
        if !self.writable || self.backlog() > 0 {
            return Transferred::Nothing;
        }
        match file.transfer(&self.socket, TRANSFER_AT_ONCE, cx.files.look(), cx.clock.now) {
            Ok(count) => {
                self.outbox(cx).pass(count);
                self.last_active = cx.clock.now;
                // A second attempt at once would send small pieces to a socket that is nearly full.
                let whole = count == TRANSFER_AT_ONCE || !file.is_transfer();
                self.writable = whole || takes_more(&self.socket);
                self.yields |= !self.writable && !file.is_sent();
                cx.turn.spend(count);
                Transferred::Bytes
            }
            Err(NOT_CACHED) => {
                self.come_back(cx);
                Transferred::Nothing
            }
            Err(Errno::AGAIN) => {
                self.writable = false;
                Transferred::Nothing
            }
            Err(Errno::INTR) => Transferred::Again,
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                file.copy_on();
                Transferred::Again
            }
            Err(CHANGED) => Transferred::Unreadable(ErrorKind::InvalidData.into()),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::TIMEDOUT | Errno::NOTCONN) => {
                Transferred::Lost
            }
            Err(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN) => Transferred::Lost,
            Err(error) => Transferred::Unreadable(error.into()),
        }
    }

    /// Has the timeouts checked in `ahead` milliseconds.
    pub fn set_timer(&self, cx: &mut Context, ahead: u64) {
        cx.timers.set(self.index(), deadline(cx, ahead), cx.clock.now);
    }

    /// Has the timer come due after so many milliseconds, if it does not before.
    pub fn bring_timer_forward(&self, cx: &mut Context, ahead: u64) {
        cx.timers.bring_forward(self.index(), deadline(cx, ahead), cx.clock.now);
    }

    /// Shuts the sending side of the socket.
    pub fn shut_sending(&self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
    }

    /// Makes the end of the connection a reset: where nothing else marks the end of an answer, an
    /// orderly end would mean that it is complete.
    pub fn reset_on_close(&self) {
        // If this fails, the client cannot tell that the answer is incomplete, and there is no
        // other way.
        let _ = rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }

    /// Ends the wire. The socket closes when the wire is dropped. `is_cut` says that an answer is
    /// incomplete, so that the client must be able to tell.
    pub fn end(&mut self, cx: &mut Context, is_cut: bool) {
        self.log_sent(cx, true);
        if self.session.is_some() {
            self.end_sealed(cx, is_cut);
        }
        if self.held_back && !cx.is_unnoticed_child() {
            // Closing alone would drop the last bytes if the client has sent something meanwhile,
            // and would not send them while a forked child holds the socket, too. That child must
            // not shut it.
            self.shut_sending();
        }
        let counted = self.slot.backlog.load(Ordering::Relaxed);
        cx.recount(counted, 0);
        cx.timers.clear(self.index());
        if let Some(out) = self.out.take() {
            cx.spares.keep_outbox(out);
        }
        let was_seen = self.slot.close();
        pool::release(self.slot, was_seen);
    }

    /// Leaves the connection to the parent, in the child of a fork: nothing is logged or sent for
    /// it any more.
    pub fn leave_to_parent(&mut self, cx: &mut Context) {
        self.registered = false;
        self.held_back = false;
        self.end_session(cx);
        if let Some(out) = self.out.as_deref_mut() {
            out.records.clear();
        }
    }
}

/// Receives into `space`, and repeats the call after a signal.
fn receive(socket: &TcpStream, space: &mut [u8], flags: RecvFlags) -> rustix::io::Result<usize> {
    loop {
        match rustix::net::recv(socket, &mut *space, flags) {
            Ok((count, _)) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns whether a socket that took less than it was given would take more, since a signal, too,
/// makes it take less. If it is full, the call makes the kernel announce when it no longer is.
fn takes_more(socket: &TcpStream) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
    // If this call fails, the next attempt to send finds out.
    !matches!(rustix::event::poll(&mut fds, Some(&Timespec::default())), Ok(0))
}

/// Returns the time that so many milliseconds lead to, as far as the timers look ahead.
fn deadline(cx: &Context, ahead: u64) -> u32 {
    let ahead = u32::try_from(ahead).unwrap_or(u32::MAX).min(u32::MAX / 4);
    cx.clock.now.wrapping_add(ahead)
}
