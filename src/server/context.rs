//! What all connections of a server share, and may use while they have their turn.
//!
//! Not in it: the connections, the kernel's event queue, and the way in. What is handed a `Context` cannot reach
//! them.

use std::ffi::{c_char, c_void};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::FORKS;
use super::connection::Exchange;
use super::intake::Input;
use super::iterate::Hidden;
use super::routes::Routes;
use super::spares::Spares;
use super::step::Turn;
use super::tls::Tls;
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
use crate::shared::hub::{Hub, Message};
use crate::timers::Timers;
use crate::websocket::deflate::Deflater;

/// Files that are kept open at most.
const CACHED_DESCRIPTORS: usize = 128;

/// See the module.
pub struct Context {
    pub hub: &'static Hub,
    pub param: *mut c_void,
    pub options: Options,
    /// What C was shown of each option since it was set last.
    pub shown_options: [Option<*const c_char>; OPTIONS.len()],
    pub(super) routes: Routes,
    pub error_handler: Option<Handler>,
    /// The forks that the server knows of.
    pub forks: u64,
    pub clock: Clock,
    pub(super) timers: Timers,
    pub(super) input: Input,
    pub(super) turn: Turn,
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
    pub(super) tls: Tls,
    /// Contents of connections that the program does not see for now.
    pub(super) hidden: Vec<Hidden>,
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
            tls: Tls::default(),
            hidden: Vec::new(),
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

    /// Moves what programs have complained of to the error log.
    #[inline]
    pub fn log_complaints(&mut self) {
        if !self.programs.complaints.is_empty() {
            self.log_complaints_now();
        }
    }

    #[cold]
    fn log_complaints_now(&mut self) {
        for (client, line) in std::mem::take(&mut self.programs.complaints) {
            match client {
                Some(client) => self.complain_of(client, &line),
                None => self.complain(&line),
            }
        }
    }

    /// Takes back an exchange that is over.
    pub fn recycle(&mut self, mut exchange: Box<Exchange>) {
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
        self.spares.keep_exchange(exchange, self.clock.now);
    }

    /// Whether this process is the child of a fork that the server has not noticed yet.
    pub fn is_unnoticed_child(&self) -> bool {
        self.forks != FORKS.load(Ordering::Relaxed)
    }
}
