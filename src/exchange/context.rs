//! The state that all connections of a server share, and use one after the other in their turns.
//!
//! Refuses to know the connections, the kernel's event queue and the listening socket: code that is
//! handed a `Context` cannot reach them.

use std::collections::VecDeque;
use std::ffi::{c_char, c_void};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::errands::Errands;
use super::hidden::Hidden;
use super::input::Input;
use super::outbox::Record;
use super::request::Request;
use super::spares::Spares;
use super::turn::Turn;
use crate::abi::Handler;
use crate::auth::guesses::Guesses;
use crate::auth::nonce::Nonces;
use crate::cgi::table::Programs;
use crate::clock::Clock;
use crate::dav::sweeping::Sweeper;
use crate::files::cache::{self, Cache};
use crate::files::links::Links;
use crate::files::mime::Types;
use crate::files::secrets::Place;
use crate::files::store::Store;
use crate::log::{Logs, shown};
use crate::long_files;
use crate::options::{OPTIONS, Options};
use crate::peer::Peer;
use crate::routes::Routes;
use crate::shared::hub::{Hub, Message};
use crate::shared::slots::Slot;
use crate::timers::Timers;
use crate::tls::port::Port;
use crate::websocket::deflate::Deflater;
use crate::websocket::long_message::LongMessages;

/// The number of steps that the methods of WebDAV, and the removal of their leftovers, may take in
/// one turn. A step is about one call of the file system.
pub const WORK_PER_TURN: usize = 256;

/// The largest number of files that are kept open.
const CACHED_DESCRIPTORS: usize = 128;

/// The number of forks between the first process and this one, raised in each child; see
/// `ffi::server`.
pub static FORKS: AtomicU64 = AtomicU64::new(0);

/// The state that a connection is handed for its turn.
pub struct Context {
    pub hub: &'static Hub,
    pub param: *mut c_void,
    pub options: Options,
    /// The text of each option that C was shown since the option was last set.
    pub shown_options: [Option<*const c_char>; OPTIONS.len()],
    pub routes: Routes,
    pub error_handler: Option<Handler>,
    /// The number of forks that the server has noticed.
    pub forks: u64,
    pub clock: Clock,
    pub timers: Timers,
    pub input: Input,
    pub turn: Turn,
    pub spares: Spares,
    /// The number of bytes in contents and queues.
    pub buffered: usize,
    pub files: Store,
    /// What helpers are asked about slow file systems.
    pub errands: Errands,
    /// The nonces of digest authentication, made when the first password is needed.
    pub nonces: Option<Nonces>,
    /// The wrong passwords that wait for their answers.
    pub guesses: Guesses,
    pub deflater: Deflater,
    pub long_messages: LongMessages,
    /// The next request comes upon a fault of the library.
    #[cfg(test)]
    pub has_fault: bool,
    pub sweeper: Sweeper,
    pub programs: Programs,
    pub logs: Logs,
    /// The protocol of new connections.
    pub tls: Port,
    /// The first port that speaks TLS by its letter, to which clients of others are redirected.
    pub secure_port: Option<u16>,
    /// The contents of connections that the program must not see at present.
    pub hidden: Hidden,
    /// Messages of other threads that were taken from the queue, and that their connections have
    /// not received yet.
    pub pending: VecDeque<Message>,
}

impl Context {
    /// Creates a context with the default options.
    pub fn new(hub: &'static Hub, param: *mut c_void) -> Self {
        let clock = Clock::start();
        let now = clock.now;
        let mut context = Self {
            hub,
            param,
            options: Options::new(),
            shown_options: [None; OPTIONS.len()],
            routes: Routes::default(),
            error_handler: None,
            forks: FORKS.load(Ordering::Relaxed),
            clock,
            timers: Timers::new(now),
            input: Input::default(),
            turn: Turn::new(now),
            spares: Spares::default(),
            buffered: 0,
            files: Store::default(),
            errands: Errands::default(),
            nonces: None,
            guesses: Guesses::default(),
            deflater: Deflater::new(),
            long_messages: LongMessages::default(),
            #[cfg(test)]
            has_fault: false,
            sweeper: Sweeper::default(),
            programs: Programs::new(now),
            logs: Logs::default(),
            tls: Port::default(),
            secure_port: None,
            hidden: Hidden::default(),
            pending: VecDeque::new(),
        };
        let timeout = context.options.config.cgi_timeout_ms;
        context.programs.set_timeout(timeout, now);
        context.publish_limits();
        context.renew_cache();
        context.files.cache.patience.closer = Some(context.errands.closer());
        context
    }

    /// Finds out which files the options for keys, password files and logs name.
    #[inline]
    pub fn look_at_secrets(&mut self) {
        if !self.files.secrets.is_empty() {
            self.note_logs();
            self.files.secrets.look(self.files.look());
        }
    }

    /// Notes the files of the open logs, since the paths of these may soon lead elsewhere.
    pub fn note_logs(&mut self) {
        let logs = [(Place::AccessLog, &self.logs.access), (Place::ErrorLog, &self.logs.error)];
        for (place, log) in logs {
            self.files.secrets.note_open(place, log.identity(), || log.metadata());
        }
    }

    /// Forgets all files, since their cached fields hold media types.
    pub fn renew_cache(&mut self) {
        let config = &self.options.config;
        let types = Types::of(config);
        let patience = std::mem::take(&mut self.files.cache.patience);
        self.files.cache = Cache::new(config.file_cache_bytes, CACHED_DESCRIPTORS, types);
        self.files.cache.patience = patience;
        self.files.cache.links = Links::of(&self.options.config);
    }

    /// Begins anew in the child of a fork, which has no helpers.
    pub fn leave_helpers(&mut self) {
        self.errands.leave_parent();
        self.files.cache.patience.closer = Some(self.errands.closer());
    }

    /// Follows the links that the options say from now on. Cached files are compared with the file
    /// system again.
    pub fn renew_links(&mut self) {
        self.files.cache.links = Links::of(&self.options.config);
        self.files.look_again();
    }

    /// Publishes the limits that other threads have to respect.
    pub fn publish_limits(&self) {
        let config = &self.options.config;
        let hub = self.hub;
        hub.iterate_timeout_ms.store(config.iterate_timeout_ms, Ordering::Relaxed);
        hub.max_send_queue.store(config.max_send_queue_bytes, Ordering::Relaxed);
        hub.max_buffered.store(config.max_buffered_bytes, Ordering::Relaxed);
    }

    /// Writes a line to the error log, unless the same line came too often in this second.
    pub fn complain(&mut self, what: &str) {
        self.logs.complain(None, what, self.clock.unix);
    }

    /// Writes a line about a client to the error log, as [`Context::complain`] does.
    pub fn complain_of(&mut self, client: Peer, what: &str) {
        self.logs.complain(Some(client), what, self.clock.unix);
    }

    /// Returns the status for a file that cannot be opened, and writes a failure to the error log.
    pub fn refusal(&mut self, client: Peer, file: &Path, error: &io::Error) -> u16 {
        if cache::is_failure(error) {
            self.complain_of(client, &format!("cannot read {}: {error}", shown(file)));
        }
        cache::status_of(error)
    }

    /// Writes the complaints of CGI programs to the error log.
    #[inline]
    pub fn log_complaints(&mut self) {
        if !self.programs.complaints.is_empty() {
            self.log_complaints_in_order();
        }
    }

    #[cold]
    fn log_complaints_in_order(&mut self) {
        for (client, what) in std::mem::take(&mut self.programs.complaints) {
            self.complain_of(client, &what);
        }
    }

    /// Removes a portion of what abandoned work of WebDAV has left behind.
    pub fn tidy(&mut self) {
        if !self.sweeper.is_idle() {
            self.sweeper.tidy(WORK_PER_TURN);
            self.turn.sweeps_later = long_files::has_put_off();
        }
    }

    /// Counts bytes that a request or its answer needs against `max_buffered_bytes`, until the
    /// answer is complete. Returns false if the limit is reached.
    pub fn charge(&mut self, request: &mut Request, len: usize) -> bool {
        if len > self.options.config.max_buffered_bytes.saturating_sub(self.buffered) {
            return false;
        }
        request.charged += len;
        self.buffered += len;
        true
    }

    /// Ends the count of all bytes of a request.
    pub fn discharge(&mut self, request: &mut Request) {
        self.recount(std::mem::take(&mut request.charged), 0);
    }

    /// Takes back a request that has been answered.
    pub fn recycle(&mut self, mut request: Box<Request>) {
        self.discharge(&mut request);
        self.spares.keep_request(request, self.clock.now);
    }

    /// Returns whether the bytes that are kept have reached `max_buffered_bytes`.
    pub fn is_full(&self) -> bool {
        self.buffered >= self.options.config.max_buffered_bytes
    }

    /// Corrects the count of the bytes that are kept: `before` of them have become `after`.
    #[inline]
    pub fn recount(&mut self, before: usize, after: usize) {
        self.buffered = (self.buffered + after).saturating_sub(before);
    }

    /// Takes the messages of other threads for one connection out of the queue. Messages for other
    /// connections stay in `pending`, in their order.
    pub fn messages_for(&mut self, slot: &'static Slot) -> Vec<Message> {
        if !slot.has_messages() {
            return Vec::new();
        }
        if self.hub.queue.is_filled() {
            self.hub.queue.take(&mut self.pending);
        }
        let is_own = |message: &Message| match message {
            Message::Write { slot: other, .. } => std::ptr::eq(*other, slot),
            _ => false,
        };
        let mut own = Vec::new();
        for _ in 0..self.pending.len() {
            match self.pending.pop_front() {
                Some(message) if is_own(&message) => own.push(message),
                Some(message) => self.pending.push_back(message),
                None => break,
            }
        }
        own
    }

    /// Writes the access log line of an answer whose bytes are sent up to the position `taken` of
    /// its outbox.
    pub fn log_access(&mut self, record: Record, taken: u64) {
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
        self.logs.access.add(&parts, self.clock.unix);
    }

    /// Returns whether this process is the child of a fork that the server has not noticed yet.
    pub fn is_unnoticed_child(&self) -> bool {
        self.forks != FORKS.load(Ordering::Relaxed)
    }
}
