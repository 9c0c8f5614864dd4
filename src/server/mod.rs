//! The event loop as a state machine without C in it.
//!
//! A turn begins with [`Server::begin`], which waits for work. [`Server::step`] then does it, and
//! whenever the program is to be called it returns what to call instead of calling it: no borrow
//! of the server is live while user code runs, so a handler may call back into the library. All
//! progress lives in the server, none on the stack.

mod accept;
mod builtin;
mod cgi;
pub mod clock;
pub mod connection;
mod dav;
mod files;
mod intake;
pub mod iterate;
mod launch;
pub mod listener;
mod listing;
mod programs;
pub mod replies;
mod respond;
mod routes;
mod sending;
pub mod settings;
mod spares;
mod ssi;
mod step;
mod streams;
#[cfg(test)]
mod tests;
pub mod timers;
mod tls;
pub mod user;
pub mod websocket;
pub mod write;

use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};
use rustix::net::SendFlags;

use self::clock::Clock;
use self::connection::{Conn, Exchange, Outbox, Phase, Record};
use self::listener::Listener;
use self::programs::Program;
use self::routes::Routes;
use self::spares::LargeBuffers;
use self::timers::Timers;
use self::tls::Tls;
use crate::abi::{Handler, IterateFn, mg_connection};
use crate::auth::nonce::Nonces;
use crate::dav::sweeping::Sweeper;
use crate::files::cache::Cache;
use crate::files::secrets::Secrets;
use crate::files::shortcuts::Shortcuts;
use crate::http::request::Head;
use crate::log::{LogFile, Repeats};
use crate::options::{OPTIONS, OptionId, Options};
use crate::shared::hub::{Hub, Message};
use crate::shared::slots::{self, Slot};
use crate::websocket::deflate::Deflater;

const LISTENER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX);
/// Numbers of connections, which keep clear of these.
const NUMBERS: u64 = (1 << 30) - 1;

/// Bytes read at once; also the longest input that waits for its turn.
const SCRATCH: usize = 64 * 1024;
/// Connections accepted in one turn before others have theirs.
const ACCEPTS_PER_TURN: usize = 128;
/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// Spare exchanges and outboxes that are kept.
const SPARES: usize = 64;

/// Raised in the child of a fork; see `ffi::server`.
pub static FORKS: AtomicU64 = AtomicU64::new(0);

/// What the caller of [`Server::step`] is to do. Plain values: nothing to drop while C runs.
#[derive(Clone, Copy)]
pub enum Step {
    /// Call the handler and report with [`Server::returned`].
    Call(*mut mg_connection, Handler),
    /// Call the function of an iteration.
    Iterate(*mut mg_connection, IterateFn, *mut c_void),
    /// The turn is over.
    Done,
}

/// A web server.
pub struct Server {
    pub hub: &'static Hub,
    param: *mut c_void,
    pub options: Options,
    routes: Routes,
    error_handler: Option<Handler>,
    listener: Option<Listener>,
    poll: Option<mio::Poll>,
    /// Absent while they are gone through.
    events: Option<mio::Events>,
    forks: u64,
    clock: Clock,
    timers: Timers,
    /// Connections by index; a free place is `None`.
    conns: Vec<Option<Box<Conn>>>,
    free: Vec<u32>,
    open: usize,
    /// Where input is read to and parsed.
    scratch: Vec<u8>,
    /// What of `scratch` is unread input of the current connection.
    input: Range<usize>,
    head: Head,
    current: Option<usize>,
    /// Requests that the current connection may still have served in this turn.
    budget: usize,
    /// Bytes that the current connection may still move in this turn.
    quota: usize,
    ready: VecDeque<u32>,
    /// How many of `ready` belong to this turn.
    turn: usize,
    accepts: usize,
    /// Connections with something to send that they were given outside their own turn, or that waits
    /// for that of others.
    dirty: Vec<u32>,
    /// Milliseconds of the clock: what waits was sent last, or the turn began.
    batch_time: u32,
    /// The connection whose handler runs.
    calling: Option<usize>,
    inbox: Vec<Message>,
    /// Requests of other threads that are not begun.
    work: VecDeque<Message>,
    iterations: Vec<iterate::Iteration>,
    hidden: Vec<iterate::Hidden>,
    due: Vec<u32>,
    #[expect(clippy::vec_box, reason = "they move between here and connections")]
    spare_exchanges: Vec<Box<Exchange>>,
    #[expect(clippy::vec_box, reason = "they move between here and connections")]
    spare_outboxes: Vec<Box<Outbox>>,
    large_buffers: LargeBuffers,
    /// Given up for a moment to turn a client away when there is no descriptor left.
    spare_fd: Option<OwnedFd>,
    accept_paused: bool,
    /// Connections accepted so far, and what became lately of reading them at once.
    accepted: u32,
    first_reads: u32,
    /// Bytes of bodies and queues.
    buffered: usize,
    cache: Cache,
    shortcuts: Shortcuts,
    secrets: Secrets,
    /// Looks at files so far: what the cache knows is compared with the file system once in each. A
    /// new one begins with each turn, and whenever bytes were received or the program was called: what
    /// was found out before may be older than the request that is to be answered.
    look: u64,
    /// The look in which files were last asked for.
    looked: u64,
    /// Requests for files that wait for those of other connections, to share a look with them; and
    /// whether they have waited long enough.
    sharing: VecDeque<u32>,
    shares_now: bool,
    /// The current connection has waited so in this turn.
    has_shared: bool,
    /// Made when a password is first asked for.
    nonces: Option<Nonces>,
    deflater: Deflater,
    sweeper: Sweeper,
    /// Programs that run, by number; a free place is `None`.
    programs: Vec<Option<Box<Program>>>,
    free_programs: Vec<usize>,
    program_timers: Timers,
    /// Programs of which there is news.
    stirred: Vec<usize>,
    /// Where their output is read to.
    pipe_buf: Vec<u8>,
    access_log: LogFile,
    error_log: LogFile,
    repeats: Repeats,
    tls: Tls,
    /// What C was shown of each option since it was set last.
    pub shown_options: [Option<*const c_char>; OPTIONS.len()],
}

impl Server {
    /// A server that listens nowhere. Opens no descriptor.
    pub fn new(hub: &'static Hub, param: *mut c_void) -> Self {
        let clock = Clock::start();
        let now = clock.now;
        let timers = Timers::new(now);
        let mut server = Self {
            hub,
            param,
            options: Options::new(),
            routes: Routes::default(),
            error_handler: None,
            listener: None,
            poll: None,
            events: Some(mio::Events::with_capacity(EVENTS)),
            forks: FORKS.load(Ordering::Relaxed),
            clock,
            timers,
            conns: Vec::new(),
            free: Vec::new(),
            open: 0,
            scratch: Vec::new(),
            input: 0..0,
            head: Head::default(),
            current: None,
            budget: 0,
            quota: 0,
            ready: VecDeque::new(),
            turn: 0,
            accepts: 0,
            dirty: Vec::new(),
            batch_time: now,
            calling: None,
            inbox: Vec::new(),
            work: VecDeque::new(),
            iterations: Vec::new(),
            hidden: Vec::new(),
            due: Vec::new(),
            spare_exchanges: Vec::new(),
            spare_outboxes: Vec::new(),
            large_buffers: LargeBuffers::default(),
            spare_fd: None,
            accept_paused: false,
            accepted: 0,
            first_reads: 1,
            buffered: 0,
            cache: Cache::new(0, 0, Vec::new()),
            shortcuts: Shortcuts::default(),
            secrets: Secrets::new(),
            look: 0,
            looked: 0,
            sharing: VecDeque::new(),
            shares_now: false,
            has_shared: false,
            nonces: None,
            deflater: Deflater::new(),
            sweeper: Sweeper::default(),
            programs: Vec::new(),
            free_programs: Vec::new(),
            program_timers: Timers::new(now),
            stirred: Vec::new(),
            pipe_buf: Vec::new(),
            access_log: LogFile::default(),
            error_log: LogFile::default(),
            repeats: Repeats::default(),
            tls: Tls::default(),
            shown_options: [None; OPTIONS.len()],
        };
        server.publish_limits();
        server.renew_cache();
        server
    }

    /// Adds a handler for every path that begins with `prefix`.
    pub fn add_handler(&mut self, prefix: &[u8], handler: Handler) {
        self.routes.add(prefix, handler);
    }

    /// The handler that errors are shown to first.
    pub fn set_error_handler(&mut self, handler: Option<Handler>) {
        self.error_handler = handler;
    }

    /// Begins a turn: takes what other threads have asked for, and waits at most `wait_ms` for
    /// something to do.
    pub fn begin(&mut self, wait_ms: u32) {
        self.check_fork();
        self.clock.update();
        self.look += 1;
        // A handler that was left by an exception counts as returned, and its connection closes.
        if let Some(index) = self.calling.take() {
            self.close(index);
        }
        self.drop_abandoned();
        self.current = None;
        self.input = 0..0;
        self.take_inbox();
        self.flush_dirty();

        let busy = !self.ready.is_empty()
            || !self.stirred.is_empty()
            || !self.work.is_empty()
            || !self.sharing.is_empty()
            || !self.sweeper.is_idle()
            || self.iterations.iter().any(|iteration| iteration.is_foreign())
            || self.listener.as_ref().is_some_and(|l| l.ready && l.registered)
                && !self.accept_paused;
        let now = self.clock.now;
        let of_programs = (!self.programs.is_empty()).then(|| self.program_timers.wait(now));
        let due = [self.timers.wait(now), of_programs.flatten()];
        let wait = match due.into_iter().flatten().min() {
            _ if busy => 0,
            Some(due) => wait_ms.min(due),
            None => wait_ms,
        };
        self.access_log.flush(self.clock.unix);
        self.tend_logs();
        if !self.secrets.is_empty() {
            self.note_logs();
        }
        self.wait(Duration::from_millis(u64::from(wait)));

        self.clock.update();
        self.take_inbox();
        let mut due = std::mem::take(&mut self.due);
        self.timers.expire(self.clock.now, &mut due);
        for id in due.drain(..) {
            self.timer_due(id as usize);
        }
        self.due = due;
        if !self.programs.is_empty() {
            self.tend_programs();
        }
        self.tidy();
        self.large_buffers.expire(self.clock.now);
        self.turn = self.ready.len();
        self.batch_time = self.clock.now;
        self.accepts = ACCEPTS_PER_TURN;
    }

    fn wait(&mut self, duration: Duration) {
        if self.poll.is_none()
            && let Err(error) = self.open_poll()
        {
            self.complain(None, &format!("cannot make an event queue: {error}"));
            std::thread::sleep(duration);
            return;
        }
        self.register_listener();
        let Some(poll) = &mut self.poll else { return };
        let Some(mut events) = self.events.take() else { return };
        // An interrupted wait is a wait that ended early.
        let waited = poll.poll(&mut events, Some(duration));
        if waited.is_ok() {
            for event in events.iter() {
                match event.token() {
                    WAKER => {}
                    LISTENER => {
                        if let Some(listener) = &mut self.listener {
                            listener.ready = true;
                        }
                        self.accept_paused = false;
                    }
                    token if self.program_event(token) => {}
                    token => {
                        let index = index_of_token(token);
                        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
                            continue;
                        };
                        if token_of(index, conn.number) != token {
                            continue;
                        }
                        conn.read_closed |= event.is_read_closed();
                        conn.readable |= event.is_readable() || event.is_read_closed();
                        conn.gone |= event.is_error() || event.is_write_closed();
                        let unblocked = event.is_writable() && !conn.writable;
                        conn.writable |= event.is_writable();
                        // Who waits for an answer is read again when that is complete.
                        let reads = conn.readable && conn.phase != Phase::Answering;
                        if reads || unblocked || conn.gone {
                            self.make_ready(index);
                        }
                    }
                }
            }
        }
        self.events = Some(events);
    }

    fn open_poll(&mut self) -> io::Result<()> {
        let reserved = reserve_standard();
        let poll = mio::Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKER)?;
        drop(reserved);
        self.hub.queue.set_waker(Some(waker));
        self.poll = Some(poll);
        if self.scratch.is_empty() {
            // Zeroed by the kernel: what no input has reached yet takes no memory.
            self.scratch = vec![0; SCRATCH];
        }
        self.spare_fd = open_spare();
        Ok(())
    }

    fn register_listener(&mut self) {
        let (Some(poll), Some(listener)) = (&self.poll, &mut self.listener) else {
            return;
        };
        if listener.registered {
            return;
        }
        let fd = listener.fd();
        if !listener.is_valid() {
            self.complain(None, &format!("the program has closed the listening socket ({fd})"));
            self.replace_listener(None);
            self.options.store_text(OptionId::ListeningPort, None);
            return;
        }
        match poll.registry().register(&mut SourceFd(&fd), LISTENER, Interest::READABLE) {
            Ok(()) => {
                listener.registered = true;
                // Connections that came before are not announced again.
                listener.ready = true;
            }
            Err(error) => {
                self.complain(None, &format!("cannot watch the listening socket: {error}"))
            }
        }
    }

    /// After a fork the child has copies of everything, but the kernel's event queue is one with
    /// the parent's: it must not be touched, only left.
    fn check_fork(&mut self) {
        let forks = FORKS.load(Ordering::Relaxed);
        if self.forks != forks {
            self.forks = forks;
            self.leave_parent();
        }
    }

    /// Whether this is the child of a fork and has not left its parent yet: the event queue, and what waits to
    /// be sent or written, are the parent's.
    fn is_forked(&self) -> bool {
        self.forks != FORKS.load(Ordering::Relaxed)
    }

    #[cold]
    fn leave_parent(&mut self) {
        self.hub.queue.set_waker(None);
        self.poll = None;
        // Two processes with one key would each accept the same answer once.
        self.nonces = None;
        self.access_log.forget_waiting();
        self.error_log.forget_waiting();
        self.repeats.clear();
        self.forget_all_programs();
        self.sweeper = Sweeper::default();
        if let Some(listener) = &mut self.listener {
            listener.registered = false;
        }
        for index in 0..self.conns.len() {
            if let Some(conn) = self.conns[index].as_mut() {
                conn.registered = false;
                conn.held_back = false;
                // The parent goes on with it, and says when it ends.
                tls::end_session(conn, &mut self.buffered);
                // It logs it, too.
                if let Some(exchange) = conn.exchange.as_deref_mut() {
                    exchange.log = None;
                    exchange.task = None;
                }
                if let Some(out) = conn.out.as_deref_mut() {
                    out.records.clear();
                }
                self.close(index);
            }
        }
    }

    /// Puts a connection on the list of those to look at.
    fn make_ready(&mut self, index: usize) {
        if let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut)
            && !conn.queued
        {
            conn.queued = true;
            self.ready.push_back(index as u32);
        }
    }

    fn conn(&mut self, index: usize) -> Option<&mut Conn> {
        self.conns.get_mut(index)?.as_deref_mut()
    }

    /// The index of an open connection of this server.
    pub fn index_of(&self, slot: &'static Slot) -> Option<usize> {
        let index = slot.index();
        let conn = self.conns.get(index)?.as_ref()?;
        std::ptr::eq(conn.slot, slot).then_some(index)
    }

    /// Sends what waits.
    #[inline]
    pub fn flush_dirty(&mut self) {
        if !self.dirty.is_empty() {
            self.flush_in_order();
        }
    }

    fn flush_in_order(&mut self) {
        let mut at = 0;
        while let Some(&index) = self.dirty.get(at) {
            at += 1;
            let index = index as usize;
            let is_current = self.current == Some(index);
            if let Some(conn) = self.conn(index) {
                conn.dirty = false;
                // What that one has written may yet be taken back; it is flushed when its turn ends.
                if !is_current {
                    self.flush(index);
                    self.settle(index);
                }
            }
        }
        self.dirty.clear();
    }

    fn mark_dirty(&mut self, index: usize) {
        if self.current == Some(index) {
            return;
        }
        if let Some(conn) = self.conn(index)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(index as u32);
        }
    }

    /// Sends as much of the outbox as the socket takes. False if the connection is no more.
    fn flush(&mut self, index: usize) -> bool {
        // What is sent last waits for the end of the connection, which follows at once: both go
        // into one segment.
        let Some(conn) = self.conn(index) else { return false };
        let last = conn.phase == Phase::Draining;
        conn.held_back |= last && (conn.backlog() > 0 || conn.tls.is_some());
        let flags = if last { SendFlags::MORE } else { SendFlags::empty() };
        self.flush_with(index, flags)
    }

    fn flush_with(&mut self, index: usize, flags: SendFlags) -> bool {
        let now = self.clock.now;
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return false;
        };
        if conn.tls.is_some() {
            let failed = !self.send_sealed(index, flags);
            return self.flushed(index, failed);
        }
        let Some(out) = conn.out.as_mut() else {
            return true;
        };
        let mut failed = false;
        while !out.is_empty() && conn.writable {
            let flags = flags | SendFlags::NOSIGNAL;
            match rustix::net::send(&conn.socket, out.pending(), flags) {
                Ok(count) => {
                    // A websocket lives by what it receives.
                    if conn.socket_state.is_none() {
                        conn.last_active = now;
                    }
                    if count < out.len() {
                        // A short write means a full socket; its event comes when there is room.
                        conn.writable = false;
                    }
                    out.consume(count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => conn.writable = false,
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        self.flushed(index, failed)
    }

    /// Draws up the account after bytes were sent.
    #[inline(always)]
    fn flushed(&mut self, index: usize, failed: bool) -> bool {
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return false;
        };
        let Some(out) = conn.out.as_mut() else {
            if failed {
                self.close(index);
            }
            return !failed;
        };
        let backlog = out.len();
        let counted = conn.slot.backlog.load(Ordering::Relaxed);
        if counted != backlog {
            conn.slot.backlog.store(backlog, Ordering::Relaxed);
            self.buffered = (self.buffered + backlog).saturating_sub(counted);
        }
        if !out.records.is_empty() {
            self.log_sent(index, false);
        }
        if failed {
            self.close(index);
            return false;
        }
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return false;
        };
        if backlog == 0
            && conn.exchange.is_none()
            && let Some(mut out) = conn.out.take()
            && out.reset()
            && self.spare_outboxes.len() < SPARES
        {
            self.spare_outboxes.push(out);
        }
        true
    }

    /// Writes the access log for answers that are sent; for all there are if `all`.
    fn log_sent(&mut self, index: usize, all: bool) {
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let Some(out) = conn.out.as_mut() else { return };
        let taken = out.taken();
        let sent = out.records.iter().take_while(|record| all || record.end <= taken).count();
        for record in out.records.drain(..sent) {
            let Record { entry, head_len, end, status } = record;
            let count = taken.min(end).saturating_sub(entry.begin).saturating_sub(head_len);
            let (mut digits, mut number) = (itoa::Buffer::new(), itoa::Buffer::new());
            let status = match status {
                0 => "-",
                status => digits.format(status),
            };
            let count = number.format(count);
            let (prefix, suffix) = entry.line.split_at(entry.status_at.min(entry.line.len()));
            let parts = [prefix, status.as_bytes(), b" ", count.as_bytes(), suffix];
            self.access_log.add(&parts, self.clock.unix);
        }
    }

    /// The outbox of a connection, made if it has none.
    fn outbox(&mut self, index: usize) -> Option<&mut Outbox> {
        let conn = self.conns.get_mut(index)?.as_mut()?;
        if conn.out.is_none() {
            conn.out = Some(self.spare_outboxes.pop().unwrap_or_default());
        }
        conn.out.as_deref_mut()
    }

    /// Ends a connection at once.
    fn close(&mut self, index: usize) {
        self.finish_log(index);
        self.log_sent(index, true);
        let Some(mut conn) = self.conns.get_mut(index).and_then(Option::take) else {
            return;
        };
        if conn.tls.is_some() {
            self.say_goodbye(&mut conn);
            tls::end_session(&mut conn, &mut self.buffered);
        }
        if conn.held_back && self.forks == FORKS.load(Ordering::Relaxed) {
            // Closing alone would drop it if the client has sent something meanwhile, and would not
            // send it while a forked child has the socket, too. That child must not do this.
            let _ = rustix::net::shutdown(&conn.socket, rustix::net::Shutdown::Write);
        }
        self.open -= 1;
        let counted = conn.slot.backlog.load(Ordering::Relaxed);
        self.buffered = self.buffered.saturating_sub(counted);
        self.timers.clear(index as u32);
        if conn.registered
            && usize::BITS < 64
            && let Some(poll) = &self.poll
        {
            // A forked child may hold the same socket open: closing ours would not end its events,
            // and there is no room in a token to tell them from those of the next connection.
            let _ = poll.registry().deregister(&mut conn.socket);
        }
        if let Some(exchange) = conn.exchange.take() {
            self.recycle(exchange);
        }
        if let Some(socket) = conn.socket_state.take() {
            self.buffered = self.buffered.saturating_sub(socket.buffered());
        }
        if let Some(mut out) = conn.out.take()
            && out.reset()
            && self.spare_outboxes.len() < SPARES
        {
            self.spare_outboxes.push(out);
        }
        let seen = conn.slot.close();
        slots::release(conn.slot, seen);
        // An index that is still in a list is not given out again before the list is emptied:
        // a stale entry then finds either nobody or a connection that is merely looked at.
        self.free.push(index as u32);
        if self.current == Some(index) {
            self.current = None;
            self.input = 0..0;
        }
        self.accept_paused = false;
    }

    fn recycle(&mut self, mut exchange: Box<Exchange>) {
        self.buffered = self.buffered.saturating_sub(exchange.charged);
        if let Some(gateway) = exchange.cgi.take() {
            self.leave_program(&gateway);
        }
        if let Some(page) = exchange.page.take() {
            self.leave_page(&page);
        }
        if let Some(task) = exchange.task.take() {
            self.abandon(task);
        }
        self.large_buffers.keep(exchange.reset(), self.clock.now);
        if self.spare_exchanges.len() < SPARES {
            self.spare_exchanges.push(exchange);
        }
    }

    /// Writes a line to the error log, unless the same has failed too often in this second.
    pub fn complain(&mut self, index: Option<usize>, what: &str) {
        if !self.error_log.is_on() {
            return;
        }
        for repeated in self.repeats.take(self.clock.unix) {
            self.tell_repeated(repeated);
        }
        if !self.repeats.note(what) {
            return;
        }
        let peer = index.and_then(|index| self.conn(index)).map(|conn| {
            // The port is not known any more where the client has reset the connection.
            let (ip, port) =
                (conn.peer.to_canonical(), conn.socket.peer_addr().map(|peer| peer.port()));
            port.map_or_else(|_| ip.to_string(), |port| SocketAddr::new(ip, port).to_string())
        });
        self.log_error(peer.as_deref().unwrap_or("-"), what);
    }

    fn tell_repeated(&mut self, (what, count): (String, u32)) {
        self.log_error("-", &format!("{count} more within a second: {what}"));
    }

    fn log_error(&mut self, peer: &str, what: &str) {
        let now = self.clock.unix;
        let mut line = format!("[{}] {peer} ", crate::log::timestamp(now));
        crate::log::push_harmless(&mut line, what);
        line.push('\n');
        self.error_log.append(line.as_bytes(), now);
        if let Some(news) = self.error_log.take_news(true, now) {
            self.log_error("-", &format!("error_log_file: {news}"));
        }
    }

    /// Opens logs that could not be opened before, and tells what became of them.
    fn tend_logs(&mut self) {
        let now = self.clock.unix;
        let logs = [&self.access_log, &self.error_log];
        if logs.iter().any(|log| log.needs_care(now)) || self.repeats.are_due(now) {
            self.tend_logs_now(now);
        }
    }

    #[cold]
    fn tend_logs_now(&mut self, now: u64) {
        self.access_log.tend(now);
        self.error_log.tend(now);
        for repeated in self.repeats.take(now) {
            self.tell_repeated(repeated);
        }
        if !self.error_log.is_on() {
            return;
        }
        if let Some(news) = self.access_log.take_news(false, now) {
            self.complain(None, &format!("access_log_file: {news}"));
        }
        if let Some(news) = self.error_log.take_news(true, now) {
            self.log_error("-", &format!("error_log_file: {news}"));
        }
    }

    /// Whether somebody asked for the server's end.
    fn is_doomed(&self) -> bool {
        self.hub.doomed.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.check_fork();
        // A handler that was left by an exception has half an answer.
        if let Some(index) = self.calling.take() {
            self.close(index);
        }
        // Their requests were complete before the one that ended the server was looked at.
        while let Some(index) = self.next_sharing() {
            self.decide_now(index);
        }
        for index in 0..self.conns.len() {
            // What is answered goes out as far as the socket takes it at once: a handler may
            // answer and end the server.
            self.flush(index);
            self.close(index);
        }
        self.end_programs();
        for message in self.work.drain(..).chain(self.inbox.drain(..)) {
            message.withdraw();
        }
        for iteration in self.iterations.drain(..) {
            iteration.abandon();
        }
        self.access_log.flush(self.clock.unix);
        for repeated in self.repeats.take_all(self.clock.unix) {
            self.tell_repeated(repeated);
        }
        self.tend_logs();
    }
}

/// What names a connection to the kernel: where it is kept, and, where a word is wide enough, a
/// number that others which were kept there before or will be do not have.
fn token_of(index: usize, number: u32) -> Token {
    Token(((u64::from(number) & NUMBERS) << 32 | index as u64) as usize)
}

fn index_of_token(Token(token): Token) -> usize {
    token & u32::MAX as usize
}

/// Letters and digits that nobody can foresee.
fn random_token() -> String {
    let mut bytes = [0; 16];
    // The kernel can only refuse before it has any randomness, early in its own start.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keeps descriptors 0 to 2 taken until dropped, so that what is opened meanwhile gets others.
fn reserve_standard() -> Vec<OwnedFd> {
    let mut reserved = Vec::new();
    while reserved.len() < 3
        && let Some(fd) = open_null()
    {
        if fd.as_raw_fd() > 2 {
            break;
        }
        reserved.push(fd);
    }
    reserved
}

fn open_spare() -> Option<OwnedFd> {
    listener::above_standard(open_null()?).ok()
}

fn open_null() -> Option<OwnedFd> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).ok()
}
