//! What all connections of a server share, and may use while they have their turn.
//!
//! Not in it: the connections, the kernel's event queue, and the way in. What is handed a `Context` cannot reach
//! them.

use std::ffi::{c_char, c_void};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::hidden::Hidden;
use super::input::Input;
use super::outbox::Record;
use super::request::Request;
use super::spares::Spares;
use super::turn::Turn;
use crate::abi::Handler;
use crate::auth::nonce::Nonces;
use crate::cgi::table::Programs;
use crate::clock::Clock;
use crate::dav::sweeping::Sweeper;
use crate::files::cache::Cache;
use crate::files::secrets::Place;
use crate::files::store::Store;
use crate::log::Logs;
use crate::options::{OPTIONS, Options};
use crate::routes::Routes;
use crate::shared::hub::{Hub, Message};
use crate::shared::slots::Slot;
use crate::timers::Timers;
use crate::tls::port::Port;
use crate::websocket::deflate::Deflater;

/// What methods of WebDAV, and what cleans up behind them, may do in one turn: about as many calls of the file
/// system.
pub const WORK_PER_TURN: usize = 256;

/// Files that are kept open at most.
const CACHED_DESCRIPTORS: usize = 128;

/// Raised in the child of a fork; see `ffi::server`.
pub static FORKS: AtomicU64 = AtomicU64::new(0);

/// See the module.
pub struct Context {
    pub hub: &'static Hub,
    pub param: *mut c_void,
    pub options: Options,
    /// What C was shown of each option since it was set last.
    pub shown_options: [Option<*const c_char>; OPTIONS.len()],
    pub routes: Routes,
    pub error_handler: Option<Handler>,
    /// The forks that the server knows of.
    pub forks: u64,
    pub clock: Clock,
    pub timers: Timers,
    pub input: Input,
    pub turn: Turn,
    pub spares: Spares,
    /// Bytes of bodies and queues.
    pub buffered: usize,
    pub files: Store,
    /// Made when a password is first asked for.
    pub nonces: Option<Nonces>,
    pub deflater: Deflater,
    pub sweeper: Sweeper,
    pub programs: Programs,
    pub logs: Logs,
    /// What new connections speak.
    pub tls: Port,
    /// Contents of connections that the program does not see for now.
    pub hidden: Hidden,
    /// What other threads wrote, taken from the queue and not yet brought to its connection.
    pub pending: Vec<Message>,
}

impl Context {
    /// With default options.
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
            nonces: None,
            deflater: Deflater::new(),
            sweeper: Sweeper::default(),
            programs: Programs::new(now),
            logs: Logs::default(),
            tls: Port::default(),
            hidden: Hidden::default(),
            pending: Vec::new(),
        };
        let timeout = context.options.config.cgi_timeout_ms;
        context.programs.set_timeout(timeout, now);
        context.publish_limits();
        context.renew_cache();
        context
    }

    /// Finds out what the options that name keys, password files and logs lead to.
    #[inline]
    pub fn look_at_secrets(&mut self) {
        if !self.files.secrets.is_empty() {
            self.note_logs();
            self.files.secrets.look(self.files.look());
        }
    }

    /// Remembers which logs are open, since their paths may soon lead elsewhere.
    pub fn note_logs(&mut self) {
        let logs = [(Place::AccessLog, &self.logs.access), (Place::ErrorLog, &self.logs.error)];
        for (place, log) in logs {
            self.files.secrets.note_open(place, log.identity(), || log.metadata());
        }
    }

    /// Forgets all files, whose fields hold media types.
    pub fn renew_cache(&mut self) {
        let config = &self.options.config;
        let types = config.extra_mime_types.clone();
        self.files.cache = Cache::new(config.file_cache_bytes, CACHED_DESCRIPTORS, types);
    }

    /// Tells other threads what they must not exceed.
    pub fn publish_limits(&self) {
        let config = &self.options.config;
        let hub = self.hub;
        hub.iterate_timeout_ms.store(config.iterate_timeout_ms, Ordering::Relaxed);
        hub.max_send_queue.store(config.max_send_queue_bytes, Ordering::Relaxed);
        hub.max_buffered.store(config.max_buffered_bytes, Ordering::Relaxed);
    }

    /// Writes a line to the error log, unless the same has failed too often in this second.
    pub fn complain(&mut self, what: &str) {
        self.logs.complain(None, what, self.clock.unix);
    }

    /// As [`Context::complain`], about a client.
    pub fn complain_of(&mut self, client: SocketAddr, what: &str) {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        self.logs.complain(Some(client), what, self.clock.unix);
    }

    /// Writes the complaints of programs to the error log.
    #[inline]
    pub fn log_complaints(&mut self) {
        if !self.programs.complaints.is_empty() {
            self.log_complaints_in_order();
        }
    }

    #[cold]
    fn log_complaints_in_order(&mut self) {
        for (client, what) in std::mem::take(&mut self.programs.complaints) {
            match client {
                Some(client) => self.complain_of(client, &what),
                None => self.complain(&what),
            }
        }
    }

    /// Removes what abandoned work of WebDAV has left behind, in portions.
    pub fn tidy(&mut self) {
        if !self.sweeper.is_idle() {
            self.sweeper.tidy(WORK_PER_TURN);
        }
    }

    /// Counts bytes that a request or its answer needs against the limit of the server, until that is complete.
    /// False if the limit is reached.
    pub fn charge(&mut self, request: &mut Request, len: usize) -> bool {
        if len > self.options.config.max_buffered_bytes.saturating_sub(self.buffered) {
            return false;
        }
        request.charged += len;
        self.buffered += len;
        true
    }

    /// Counts nothing for a request any more.
    pub fn discharge(&mut self, request: &mut Request) {
        self.recount(std::mem::take(&mut request.charged), 0);
    }

    /// Takes back a request that is over.
    pub fn recycle(&mut self, mut request: Box<Request>) {
        self.discharge(&mut request);
        self.spares.keep_request(request, self.clock.now);
    }

    /// Whether more bytes are kept than `max_buffered_bytes` allows, or as many.
    pub fn is_full(&self) -> bool {
        self.buffered >= self.options.config.max_buffered_bytes
    }

    /// Corrects the number of bytes that are kept: `before` of them have become `after`.
    #[inline]
    pub fn recount(&mut self, before: usize, after: usize) {
        self.buffered = (self.buffered + after).saturating_sub(before);
    }

    /// Takes the messages of other threads for one connection out of the queue. Those for others stay in
    /// `pending`, in their order.
    pub fn messages_for(&mut self, slot: &'static Slot) -> Vec<Message> {
        if !slot.has_messages() {
            return Vec::new();
        }
        if self.hub.queue.is_filled() {
            self.hub.queue.take(&mut self.pending);
        }
        let is_own = |message: &mut Message| match message {
            Message::Write { slot: other, .. } => std::ptr::eq(*other, slot),
            _ => false,
        };
        self.pending.extract_if(.., is_own).collect()
    }

    /// Writes an answer that has been sent, up to the position `taken` of its outbox, into the access log.
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

    /// Whether this process is the child of a fork that the server has not noticed yet.
    pub fn is_unnoticed_child(&self) -> bool {
        self.forks != FORKS.load(Ordering::Relaxed)
    }
}
