//! The event loop as a state machine without C in it.
//!
//! A turn begins with [`Server::begin`], which waits for work. [`Server::step`] then does it, and
//! whenever the program is to be called it returns what to call instead of calling it: no borrow
//! of the server is live while user code runs, so a handler may call back into the library. All
//! progress lives in the server, none on the stack.

mod accept;
mod builtin;
mod cgi;
pub mod connection;
pub mod context;
mod dav;
pub mod files;
mod intake;
pub mod iterate;
pub mod listener;
mod listing;
pub mod replies;
mod respond;
mod routes;
mod sending;
pub mod settings;
mod spares;
mod ssi;
pub mod step;
mod streams;
#[cfg(test)]
mod tests;
mod tls;
pub mod user;
pub mod websocket;
pub mod write;

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Token};

use self::accept::Acceptor;
use self::connection::{Conn, Phase};
use self::context::Context;
use self::iterate::Walks;
use self::step::Flow;
use crate::abi::{Handler, IterateFn, mg_connection};
use crate::options::OptionId;
use crate::shared::hub::{Hub, Message};
use crate::shared::slots::Slot;

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
    /// What its connections share.
    pub cx: Context,
    /// Connections by index; a free place is `None`.
    conns: Vec<Option<Box<Conn>>>,
    free: Vec<u32>,
    open: usize,
    /// The connection whose handler runs.
    calling: Option<usize>,
    acceptor: Acceptor,
    poll: Option<mio::Poll>,
    /// Absent while they are gone through.
    events: Option<mio::Events>,
    inbox: Vec<Message>,
    walks: Walks,
    due: Vec<u32>,
}

impl Server {
    /// A server that listens nowhere. Opens no descriptor.
    pub fn new(hub: &'static Hub, param: *mut c_void) -> Self {
        Self {
            cx: Context::new(hub, param),
            conns: Vec::new(),
            free: Vec::new(),
            open: 0,
            calling: None,
            acceptor: Acceptor::default(),
            poll: None,
            events: Some(mio::Events::with_capacity(EVENTS)),
            inbox: Vec::new(),
            walks: Walks::default(),
            due: Vec::new(),
        }
    }

    /// Adds a handler for every path that begins with `prefix`.
    pub fn add_handler(&mut self, prefix: &[u8], handler: Handler) {
        self.cx.routes.add(prefix, handler);
    }

    /// The handler that errors are shown to first.
    pub fn set_error_handler(&mut self, handler: Option<Handler>) {
        self.cx.error_handler = handler;
    }

    /// Begins a turn: takes what other threads have asked for, and waits at most `wait_ms` for
    /// something to do.
    pub fn begin(&mut self, wait_ms: u32) {
        self.check_fork();
        self.cx.clock.update();
        self.cx.files.look_again();
        // A handler that was left by an exception counts as returned, and its connection closes.
        if let Some(index) = self.calling.take() {
            self.close(index);
        }
        self.drop_abandoned();
        self.cx.turn.current = None;
        self.cx.input.unread = 0..0;
        self.take_inbox();
        self.flush_dirty();

        let busy = !self.cx.turn.ready.is_empty()
            || self.cx.programs.is_busy()
            || !self.walks.work.is_empty()
            || !self.cx.turn.sharing.is_empty()
            || !self.cx.sweeper.is_idle()
            || self.walks.list.iter().any(|iteration| iteration.is_foreign())
            || self.acceptor.listener.as_ref().is_some_and(|l| l.ready && l.registered)
                && !self.acceptor.paused;
        let now = self.cx.clock.now;
        let due = [self.cx.timers.wait(now), self.cx.programs.wait(now)];
        let wait = match due.into_iter().flatten().min() {
            _ if busy => 0,
            Some(due) => wait_ms.min(due),
            None => wait_ms,
        };
        self.cx.log_complaints();
        self.cx.logs.access.flush(self.cx.clock.unix);
        self.cx.logs.tend(self.cx.clock.unix);
        if !self.cx.files.secrets.is_empty() {
            self.cx.note_logs();
        }
        self.wait(Duration::from_millis(u64::from(wait)));

        self.cx.clock.update();
        self.take_inbox();
        let mut due = std::mem::take(&mut self.due);
        self.cx.timers.expire(self.cx.clock.now, &mut due);
        for id in due.drain(..) {
            self.timer_due(id as usize);
        }
        self.due = due;
        if !self.cx.programs.is_empty() {
            self.tend_programs();
        }
        self.cx.tidy();
        self.cx.spares.buffers.expire(self.cx.clock.now);
        self.cx.turn.left = self.cx.turn.ready.len();
        self.cx.turn.batch_time = self.cx.clock.now;
        self.acceptor.left = ACCEPTS_PER_TURN;
    }

    /// Looks after the programs of which there is news.
    fn tend_programs(&mut self) {
        let Self { conns, cx, .. } = self;
        let now = cx.clock.now;
        cx.programs.expire(now, |index, programs| {
            let conn = conns.get(index as usize).and_then(Option::as_deref);
            conn.is_none_or(|conn| conn.waits_for_program(programs))
        });
        if cx.programs.is_busy() {
            cx.programs.tend(now);
            // Programs that have done their work may have changed files.
            cx.files.look_again();
            cx.log_complaints();
        }
        let mut woken = std::mem::take(&mut self.due);
        cx.programs.take_woken(&mut woken);
        for index in woken.drain(..) {
            if let Some(conn) = conns.get_mut(index as usize).and_then(Option::as_deref_mut) {
                conn.make_ready(cx);
            }
        }
        self.due = woken;
    }

    fn wait(&mut self, duration: Duration) {
        if self.poll.is_none()
            && let Err(error) = self.open_poll()
        {
            self.cx.complain(&format!("cannot make an event queue: {error}"));
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
                        if let Some(listener) = &mut self.acceptor.listener {
                            listener.ready = true;
                        }
                        self.acceptor.paused = false;
                    }
                    token if self.cx.programs.note_event(token) => {}
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
                            conn.make_ready(&mut self.cx);
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
        self.cx.programs.watch_by(Some(poll.registry().try_clone()?));
        self.cx.hub.queue.set_waker(Some(waker));
        self.poll = Some(poll);
        if self.cx.input.buf.is_empty() {
            // Zeroed by the kernel: what no input has reached yet takes no memory.
            self.cx.input.buf = vec![0; SCRATCH];
        }
        self.acceptor.spare_fd = open_spare();
        Ok(())
    }

    fn register_listener(&mut self) {
        let (Some(poll), Some(listener)) = (&self.poll, &mut self.acceptor.listener) else {
            return;
        };
        if listener.registered {
            return;
        }
        let fd = listener.fd();
        if !listener.is_valid() {
            self.cx.complain(&format!("the program has closed the listening socket ({fd})"));
            self.replace_listener(None);
            self.cx.options.store_text(OptionId::ListeningPort, None);
            return;
        }
        match poll.registry().register(&mut SourceFd(&fd), LISTENER, Interest::READABLE) {
            Ok(()) => {
                listener.registered = true;
                // Connections that came before are not announced again.
                listener.ready = true;
            }
            Err(error) => self.cx.complain(&format!("cannot watch the listening socket: {error}")),
        }
    }

    /// After a fork the child has copies of everything, but the kernel's event queue is one with
    /// the parent's: it must not be touched, only left.
    fn check_fork(&mut self) {
        let forks = FORKS.load(Ordering::Relaxed);
        if self.cx.forks != forks {
            self.cx.forks = forks;
            self.leave_parent();
        }
    }

    /// Whether this is the child of a fork and has not left its parent yet: the event queue, and what waits to
    /// be sent or written, are the parent's.
    fn is_forked(&self) -> bool {
        self.cx.is_unnoticed_child()
    }

    #[cold]
    fn leave_parent(&mut self) {
        self.cx.hub.queue.set_waker(None);
        self.cx.programs.watch_by(None);
        self.poll = None;
        // Two processes with one key would each accept the same answer once.
        self.cx.nonces = None;
        self.cx.logs.leave_parent();
        self.cx.programs.forget_all();
        self.cx.sweeper = Default::default();
        if let Some(listener) = &mut self.acceptor.listener {
            listener.registered = false;
        }
        for index in 0..self.conns.len() {
            if let Some(conn) = self.conns[index].as_mut() {
                conn.registered = false;
                conn.held_back = false;
                // The parent goes on with it, and says when it ends.
                conn.end_session(&mut self.cx);
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
        if !self.cx.turn.dirty.is_empty() {
            self.flush_in_order();
        }
    }

    fn flush_in_order(&mut self) {
        let mut at = 0;
        while let Some(&index) = self.cx.turn.dirty.get(at) {
            at += 1;
            let index = index as usize;
            let Self { conns, cx, .. } = self;
            let Some(conn) = conns.get_mut(index).and_then(Option::as_deref_mut) else { continue };
            conn.dirty = false;
            // What that one has written may yet be taken back; it is flushed when its turn ends.
            if cx.turn.current != Some(index)
                && (!conn.flush(cx) || matches!(conn.settle(cx), Flow::Close))
            {
                self.close(index);
            }
        }
        self.cx.turn.dirty.clear();
    }

    /// Ends a connection at once.
    fn close(&mut self, index: usize) {
        let Some(mut conn) = self.conns.get_mut(index).and_then(Option::take) else { return };
        conn.end(&mut self.cx);
        self.open -= 1;
        if conn.registered
            && usize::BITS < 64
            && let Some(poll) = &self.poll
        {
            // A forked child may hold the same socket open: closing ours would not end its events,
            // and there is no room in a token to tell them from those of the next connection.
            let _ = poll.registry().deregister(&mut conn.socket);
        }
        // An index that is still in a list is not given out again before the list is emptied:
        // a stale entry then finds either nobody or a connection that is merely looked at.
        self.free.push(index as u32);
        if self.cx.turn.current == Some(index) {
            self.cx.turn.current = None;
            self.cx.input.unread = 0..0;
        }
        self.acceptor.paused = false;
    }

    /// Whether somebody asked for the server's end.
    fn is_doomed(&self) -> bool {
        self.cx.hub.doomed.load(Ordering::Relaxed)
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
            let Self { conns, cx, .. } = self;
            if let Some(conn) = conns.get_mut(index).and_then(Option::as_deref_mut)
                && matches!(conn.decide_now(cx), Flow::Close)
            {
                self.close(index);
            }
        }
        for index in 0..self.conns.len() {
            // What is answered goes out as far as the socket takes it at once: a handler may
            // answer and end the server.
            let Self { conns, cx, .. } = self;
            if let Some(conn) = conns.get_mut(index).and_then(Option::as_deref_mut) {
                conn.flush(cx);
            }
            self.close(index);
        }
        self.cx.programs.end(self.cx.clock.now);
        self.cx.log_complaints();
        for message in self.walks.work.drain(..).chain(self.inbox.drain(..)) {
            message.withdraw();
        }
        for iteration in self.walks.list.drain(..) {
            iteration.abandon();
        }
        self.cx.logs.end(self.cx.clock.unix);
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
