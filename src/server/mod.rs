//! The event loop of a server (RFC 9112), as a state machine that never calls C.
//!
//! A turn begins with [`Server::begin`], which waits for work. [`Server::step`] does the work.
//! Whenever the program is to be called, it returns the call instead of making it: no borrow of the
//! server is alive while user code runs, so that a handler may call back into the library. All
//! progress is kept in the server, none on the stack. Refuses to know requests and answers.

mod accept;
mod certificates;
mod conns;
mod events;
mod left_out;
pub mod listener;
mod local_socket;
mod ports;
pub mod settings;
mod slice;
mod sockets;
#[cfg(test)]
mod tests;
mod turn;
pub mod user;
pub mod walks;
mod writes;

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;

use self::accept::Acceptor;
use self::certificates::Certificates;
use self::conns::Conns;
use self::events::{EventQueue, WAKER};
use self::listener::RETRY_MS;
use self::slice::Slice;
use self::walks::Walks;
use crate::abi::{Handler, IterateFn, mg_connection};
use crate::connection::{Conn, Flow, Found};
use crate::exchange::context::{Context, FORKS};
use crate::exchange::errands::Delivery;
use crate::files::patience::{Answer, Finding};
use crate::long_files;
use crate::shared::hub::Hub;

/// The task of the caller of [`Server::step`]: plain values, so that there is nothing to drop while
/// C runs.
#[derive(Clone, Copy)]
pub enum Step {
    /// Call the handler, and report with [`Server::returned`].
    Call(*mut mg_connection, Handler),
    /// Call the function of a walk, and report with [`Server::visited`].
    Iterate(*mut mg_connection, IterateFn, *mut c_void),
    /// The turn is over.
    Done,
}

/// The milliseconds after which what waits for the disk, or for long files to be closed, looks again.
const READING_MS: u32 = 2;
/// The largest number of timers that are acted on in one turn.
const TIMERS_PER_TURN: usize = 256;

/// A web server.
pub struct Server {
    /// The state that its connections share.
    pub cx: Context,
    conns: Conns,
    /// The connection whose handler runs.
    calling: Option<u32>,
    acceptor: Acceptor,
    certificates: Certificates,
    queue: EventQueue,
    walks: Walks,
    slice: Slice,
    /// The connections whose timers have come due, and that have not been looked at.
    due: Vec<u32>,
    /// An empty list, whose memory is used again in each turn.
    woken: Vec<u32>,
}

impl Server {
    /// Creates a server that does not listen. Opens no descriptor.
    pub fn new(hub: &'static Hub, param: *mut c_void) -> Self {
        Self {
            cx: Context::new(hub, param),
            conns: Conns::default(),
            calling: None,
            acceptor: Acceptor::default(),
            certificates: Certificates::default(),
            queue: EventQueue::new(),
            walks: Walks::default(),
            slice: Slice::default(),
            due: Vec::new(),
            woken: Vec::new(),
        }
    }

    /// Adds a handler for every path that begins with `prefix`.
    pub fn add_handler(&mut self, prefix: &[u8], handler: Handler) {
        self.cx.routes.add(prefix, handler);
    }

    /// Sets the handler that is called for errors.
    pub fn set_error_handler(&mut self, handler: Option<Handler>) {
        self.cx.error_handler = handler;
    }

    /// Begins a turn: takes the messages of other threads, and waits at most `wait_ms` for work.
    pub fn begin(&mut self, wait_ms: u32) {
        self.check_fork();
        self.cx.clock.update();
        self.cx.files.look_again();
        self.end_abandoned_calls();
        self.cx.turn.current = None;
        self.cx.input.clear();
        self.take_messages();
        self.flush_dirty();
        let wait = self.time_to_wait(wait_ms);
        self.write_logs();
        self.wait(Duration::from_millis(u64::from(wait)));

        self.cx.clock.update();
        self.take_messages();
        self.expire_timers();
        if !self.cx.programs.is_empty() {
            self.tend_programs();
        }
        if self.cx.errands.is_busy() {
            self.deliver();
        }
        self.cx.tidy();
        self.forget_messages();
        self.cx.spares.buffers.expire(self.cx.clock.now);
        self.cx.turn.begin(self.cx.clock.now);
        self.acceptor.begin_turn(self.cx.clock.now);
        self.slice.begin_turn();
    }

    /// Forgets messages that a walk might have written again.
    #[inline]
    fn forget_messages(&mut self) {
        let Context { deflater, long_messages, .. } = &mut self.cx;
        if (deflater.remembers() || long_messages.remembers()) && !self.walks.is_busy() {
            deflater.forget_last();
            long_messages.forget_last();
        }
    }

    /// Closes the connection whose handler an exception has left, and ends walks that were left so.
    fn end_abandoned_calls(&mut self) {
        if let Some(index) = self.calling.take() {
            self.close(index);
        }
        self.walks.end_abandoned(&mut self.cx.hidden);
    }

    /// Returns the milliseconds for which the kernel may let the loop sleep, at most `wait_ms`.
    fn time_to_wait(&self, wait_ms: u32) -> u32 {
        let is_busy = self.cx.turn.goes_on()
            || !self.cx.pending.is_empty()
            || !self.due.is_empty()
            || self.cx.programs.is_busy()
            || self.walks.is_busy()
            || !self.cx.turn.sharing.is_empty()
            || self.is_sweeping() && !self.cx.turn.sweeps_later
            || self.acceptor.is_busy();
        if is_busy {
            return 0;
        }
        let now = self.cx.clock.now;
        let mut wait = wait_ms;
        if let Some(due) = self.cx.timers.wait(now) {
            wait = wait.min(due);
        }
        if let Some(due) = self.cx.programs.wait(now) {
            wait = wait.min(due);
        }
        if let Some(due) = self.acceptor.wait(now) {
            wait = wait.min(due);
        }
        if !self.cx.turn.reading.is_empty() || self.is_sweeping() {
            wait = wait.min(READING_MS);
        }
        wait
    }

    /// Returns whether there is something left behind that is to be removed.
    fn is_sweeping(&self) -> bool {
        !self.cx.sweeper.is_idle()
    }

    /// Writes what waits for the logs.
    fn write_logs(&mut self) {
        self.cx.log_complaints();
        self.cx.logs.access.flush(self.cx.clock.unix);
        self.cx.logs.tend(self.cx.clock.unix);
        if !self.cx.files.secrets.is_empty() {
            self.cx.note_logs();
        }
    }

    /// Waits for events and notes them, after opening the event queue if need be.
    fn wait(&mut self, mut duration: Duration) {
        let retry = Duration::from_millis(u64::from(RETRY_MS));
        if !self.queue.is_open()
            && let Err(error) = self.open_queue()
        {
            self.cx.complain(&format!("cannot make an event queue: {error}"));
            std::thread::sleep(duration.min(retry));
            return;
        }
        if !self.watch_listeners() {
            duration = duration.min(retry);
        }
        if !self.cx.programs.is_watched() {
            // There may have been no descriptor for it.
            self.let_programs_be_watched();
        }
        let Self { queue, conns, cx, acceptor, .. } = self;
        for event in queue.wait(duration) {
            match event.token() {
                WAKER => {}
                token if cx.programs.note_event(token) => {}
                token => {
                    if let Some(place) = events::listener_of(token) {
                        acceptor.note_event(place);
                    } else if let Some(conn) = conns.get(events::index_of(token))
                        && events::token_of(conn) == token
                        && conn.note_event(event)
                    {
                        conn.wire.announce(cx);
                    }
                }
            }
        }
    }

    /// Opens the event queue, and what can be opened only then.
    fn open_queue(&mut self) -> std::io::Result<()> {
        self.cx.input.open()?;
        let waker = Arc::new(self.queue.open()?);
        self.cx.hub.queue.set_waker(Some(waker.clone()));
        // If it fails, the kernel has no memory, and the next event comes as well.
        self.cx.errands.set_bell(Some(Box::new(move || drop(waker.wake()))));
        self.let_programs_be_watched();
        self.acceptor.open_spare();
        Ok(())
    }

    /// Lets the table of CGI programs watch pipes. Only with a document root, since it takes a
    /// descriptor.
    fn let_programs_be_watched(&mut self) {
        if self.cx.options.config.document_root.is_none() || self.cx.programs.is_watched() {
            return;
        }
        match self.queue.registry() {
            Some(Ok(registry)) => self.cx.programs.watch_by(Some(registry)),
            Some(Err(error)) => {
                self.cx.complain(&format!("cannot watch the pipes of programs: {error}"));
            }
            None => {}
        }
    }

    /// Acts on the timers of connections that have come due, or on a part of them: many connections may
    /// have begun to be idle at the same time.
    fn expire_timers(&mut self) {
        self.cx.timers.expire(self.cx.clock.now, &mut self.due);
        if !self.due.is_empty() {
            self.act_on_timers();
        }
    }

    #[inline(never)]
    fn act_on_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        for index in due.drain(..due.len().min(TIMERS_PER_TURN)) {
            if let Some(conn) = self.conns.get(index)
                && matches!(conn.timer_due(&mut self.cx), Flow::Close)
            {
                self.close(index);
            }
        }
        self.due = due;
    }

    /// Tends the CGI programs of which there is news.
    fn tend_programs(&mut self) {
        let Self { conns, cx, .. } = self;
        let now = cx.clock.now;
        cx.programs.expire(now, |index, programs| {
            conns.look_at(index).is_none_or(|conn| conn.waits_for_program(programs))
        });
        if cx.programs.is_busy() {
            cx.programs.tend(now);
            // Programs that have done their work may have changed files.
            cx.files.look_again();
            cx.log_complaints();
        }
        let mut woken = std::mem::take(&mut self.woken);
        cx.programs.take_woken(&mut woken);
        for index in woken.drain(..) {
            if let Some(conn) = conns.get(index) {
                conn.wire.announce(cx);
            }
        }
        self.woken = woken;
    }

    /// Gives the answers of helpers to the connections that wait for them.
    #[inline(never)]
    fn deliver(&mut self) {
        let Self { conns, cx, .. } = self;
        for Delivery { number, askers, path, answer } in cx.errands.take() {
            let found = match (answer, path) {
                (Some(Answer::File(report)), Some(path)) => {
                    Found::File(path, cx.files.cache.take_report(*report))
                }
                (None, Some(path)) => {
                    cx.complain("a fault of the library: a helper that looked at a file");
                    Found::File(path, Finding::failed())
                }
                (Some(Answer::Piece(piece)), _) => Found::Piece(piece),
                (Some(Answer::File(_)) | None, _) => Found::Piece(Err(Errno::IO.into())),
            };
            let mut found = Some(found);
            for (place, asker) in askers.iter().enumerate() {
                let is_last = place + 1 == askers.len();
                let found = if is_last { found.take() } else { found.as_ref().map(Found::again) };
                if let Some(conn) = conns.get(asker.index)
                    && conn.number == asker.number
                    && let Some(found) = found
                {
                    conn.take_found(cx, number, found);
                }
            }
        }
    }

    /// Returns the call of a handler for the current connection.
    fn call(&mut self, index: u32, handler: Handler) -> Step {
        // The handler may end the process.
        self.cx.log_complaints();
        self.flush_late();
        let Some(conn) = self.conns.get(index) else {
            debug_assert!(false, "a handler of no connection");
            return Step::Done;
        };
        self.calling = Some(index);
        Step::Call(conn.begin_call(), handler)
    }

    /// Acts on the return of the handler of a [`Step::Call`], with `result`.
    pub fn returned(&mut self, result: c_int) {
        // The handler may have changed files.
        self.cx.files.look_again();
        let Some(index) = self.calling.take() else { return };
        if let Some(conn) = self.conns.get(index)
            && matches!(conn.end_call(&mut self.cx, result), Flow::Close)
        {
            self.close(index);
        }
        // Bytes that threads have written to other connections meanwhile go out in this turn: there may be none
        // after it.
        self.take_messages();
    }

    /// Closes the connections that wait for a request of which nothing has come. Returns the number of those
    /// that are left. To be called between two turns, at the end of a server that ends its transfers.
    pub fn close_idle(&mut self) -> usize {
        for index in self.conns.indices() {
            if self.conns.look_at(index).is_some_and(Conn::is_idle) {
                self.close(index);
            }
        }
        self.conns.open()
    }

    /// Closes the connection that a fault of the library was in, after the panic was caught. `what`
    /// is the text of the panic.
    pub fn recover(&mut self, what: &str) {
        let index = self.calling.take().or(self.cx.turn.current);
        // All connections are received into this buffer, which the fault may have lost.
        if let Err(error) = self.cx.input.open() {
            self.cx.complain(&format!("cannot receive any more: {error}"));
        }
        let Some(index) = index.filter(|index| self.conns.get(*index).is_some()) else {
            return self.cx.complain(&format!("a fault of the library: {what}"));
        };
        if let Some(conn) = self.conns.get(index) {
            let line = format!("a fault of the library, whose connection is closed: {what}");
            conn.wire.complain(&mut self.cx, &line);
        }
        self.close(index);
    }

    /// Closes a connection at once.
    fn close(&mut self, index: u32) {
        let Some(mut conn) = self.conns.take(index) else { return };
        conn.end(&mut self.cx);
        self.queue.unwatch(&mut conn);
        if self.cx.turn.current == Some(index) {
            self.cx.turn.current = None;
            self.cx.input.clear();
        }
        // A client may wait for the place, or for the descriptor.
        self.acceptor.resume();
    }

    /// Notices that this process is the child of a fork. The child has copies of all memory, but
    /// shares the kernel's event queue with the parent, and must leave it alone.
    fn check_fork(&mut self) {
        let forks = FORKS.load(Ordering::Relaxed);
        if self.cx.forks != forks {
            self.cx.forks = forks;
            self.leave_parent();
        }
    }

    /// Drops what belongs to the parent, in the child of a fork.
    #[cold]
    fn leave_parent(&mut self) {
        self.cx.hub.queue.set_waker(None);
        self.cx.leave_helpers();
        self.cx.programs.watch_by(None);
        self.queue.leave();
        // Two processes with one key would each accept the same credentials once.
        self.cx.nonces = None;
        self.cx.logs.leave_parent();
        self.cx.programs.forget_all();
        self.cx.sweeper = Default::default();
        self.acceptor.leave_parent();
        self.walks.leave_parent();
        for index in self.conns.indices() {
            if let Some(conn) = self.conns.get(index) {
                conn.end_in_child(&mut self.cx);
                self.conns.take(index);
            }
        }
        self.cx.turn.current = None;
        self.cx.input.clear();
        self.acceptor.resume();
    }

    /// Returns whether the program has destroyed the server while it ran.
    fn is_doomed(&self) -> bool {
        self.cx.hub.doomed.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.check_fork();
        // A handler that an exception has left has an incomplete answer.
        if let Some(index) = self.calling.take() {
            self.close(index);
        }
        // Threads were told that these bytes go out.
        self.take_all_messages();
        // These requests were complete before the server was destroyed.
        while let Some(index) = self.next_sharing() {
            if let Some(conn) = self.conns.get(index) {
                conn.drive(&mut self.cx);
            }
        }
        for index in self.conns.indices() {
            // Answers are sent as far as the socket takes them at once: a handler may answer and
            // destroy the server.
            if let Some(conn) = self.conns.get(index) {
                conn.flush_all(&mut self.cx);
            }
            self.close(index);
        }
        self.cx.programs.end(self.cx.clock.now);
        self.cx.log_complaints();
        for message in self.cx.pending.drain(..) {
            message.withdraw();
        }
        self.walks.abandon();
        self.cx.logs.end(self.cx.clock.unix);
        self.cx.files.cache.close_files();
        self.cx.errands.end();
        long_files::settle();
    }
}
