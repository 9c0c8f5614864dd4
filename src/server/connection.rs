//! One client: what the I/O thread keeps of a connection beside its slot.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use mio::net::TcpStream;
use rustix::net::SendFlags;

use super::cgi::Gateway;
use super::context::Context;
use super::sending::FileBody;
use super::spares;
use super::ssi::Page;
use super::step::Flow;
use super::streams::Stream;
use super::websocket::Socket;
use crate::abi::Handler;
use crate::http::chunked::Decoder;
use crate::http::request::Head;
use crate::http::response::Answer;
use crate::log;
use crate::shared::slots::{self, Shown, Slot};
use crate::site::{Intake, Task};
use crate::tls::Session;

/// Buffers above this size are given back to the allocator instead of being used again.
const KEEP_CAPACITY: usize = spares::SMALL;

/// For [`Conn::cannot_be`].
pub const NO_REQUEST: &str = "a connection has lost the request that it works on";

/// What a connection is doing. An idle one is in `Head` and owns no buffer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Waits for a request, or for the rest of its head.
    Head,
    /// Waits for a request that must not be served: TLS is to be spoken here, and cannot be.
    Barred,
    /// Takes in the content of a request.
    Body,
    /// The request is complete, and waits for those of others to share a look at files with them.
    Deciding,
    /// A handler of the program's runs.
    Calling,
    /// The handler has returned, its answer is not complete.
    Answering,
    /// A file goes out.
    Sending,
    /// The library works on the request, in portions.
    Working,
    /// What a CGI program writes goes out, or a page that is put together.
    Relaying,
    /// A websocket.
    Websocket,
    /// The last answer goes out; then the connection ends.
    Draining,
    /// The last answer is out and the sending side shut; input is discarded, so that no reset
    /// takes the answer from the client.
    Lingering,
}

/// The I/O thread's part of a connection.
pub struct Conn {
    pub slot: &'static Slot,
    pub socket: TcpStream,
    pub peer: SocketAddr,
    pub phase: Phase,
    /// The socket may have something to read.
    pub readable: bool,
    /// The socket may take something.
    pub writable: bool,
    /// The kernel says that the client has shut its sending side; what it sent before may still
    /// have to be read.
    pub read_closed: bool,
    /// All that the client will ever send is read.
    pub eof: bool,
    /// A reset, or both directions shut.
    pub gone: bool,
    pub registered: bool,
    /// The kernel may keep the last bytes back until the connection is shut.
    pub held_back: bool,
    /// It is in the list of connections to look at.
    pub queued: bool,
    /// It is in the list of connections with fresh output.
    pub dirty: bool,
    /// Requests wait for room in the outbox, not for the client.
    pub paused: bool,
    /// Tells it from others that are kept where it is kept.
    pub number: u32,
    /// Bytes without meaning since the last request.
    pub blank: u32,
    /// Part of a request has arrived: the request timeout runs.
    pub begun: bool,
    /// The request took too long: it is to be answered with 408.
    pub timed_out: bool,
    /// The end of the connection must not lose the answer to unread input.
    pub linger: bool,
    /// Milliseconds of the server's clock: the last traffic.
    pub last_active: u32,
    /// Milliseconds of the server's clock: the start of the request, or of lingering.
    pub since: u32,
    /// Bytes discarded while lingering.
    pub discarded: u32,
    /// Input that waits for more, or for its turn.
    pub input: Vec<u8>,
    pub out: Option<Box<Outbox>>,
    /// The current request; of a websocket, the one that opened it.
    pub exchange: Option<Box<Exchange>>,
    /// What makes it a websocket.
    pub socket_state: Option<Box<Socket>>,
    /// What makes it speak TLS.
    pub tls: Option<Box<Session>>,
}

impl Conn {
    /// The number under which the server and its lists know the connection.
    pub fn index(&self) -> u32 {
        self.slot.index() as u32
    }

    /// Writes a line about this client to the error log, unless the same has failed too often in this
    /// second.
    pub fn complain(&self, cx: &mut Context, what: &str) {
        cx.complain_of(self.peer, what);
    }

    /// Says in the error log that the library has a fault, and ends the connection.
    #[cold]
    pub fn cannot_be(&self, cx: &mut Context, what: &'static str) -> Flow {
        debug_assert!(false, "{what}");
        self.complain(cx, what);
        Flow::Close
    }

    /// Whether it has its turn.
    pub fn is_current(&self, cx: &Context) -> bool {
        cx.turn.current == Some(self.index() as usize)
    }

    /// Has the server look at it, in this turn or the next.
    pub fn make_ready(&mut self, cx: &mut Context) {
        if !self.queued {
            self.queued = true;
            cx.turn.ready.push_back(self.index());
        }
    }

    /// Has the server send what was queued for it outside its own turn.
    pub fn mark_dirty(&mut self, cx: &mut Context) {
        if !self.is_current(cx) && !self.dirty {
            self.dirty = true;
            cx.turn.dirty.push(self.index());
        }
    }

    /// Whether something has arrived that is about to be read: a handler may have kept the thread
    /// for long.
    pub fn has_unread(&self) -> bool {
        self.queued && self.readable
    }

    /// Whether something has to be sent before it may end.
    pub fn must_send(&self) -> bool {
        self.backlog() > 0 || self.tls.as_ref().is_some_and(|session| session.must_send())
    }

    /// Bytes that wait to be sent.
    pub fn backlog(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.len())
    }

    /// The outbox, made if there is none.
    #[inline]
    pub fn outbox(&mut self, cx: &mut Context) -> &mut Outbox {
        self.out.get_or_insert_with(|| cx.spares.outbox())
    }

    /// Sends as much of the outbox as the socket takes. False if the connection has failed.
    pub fn flush(&mut self, cx: &mut Context) -> bool {
        // What is sent last waits for the end of the connection, which follows at once: both go
        // into one segment.
        let last = self.phase == Phase::Draining;
        self.held_back |= last && (self.backlog() > 0 || self.tls.is_some());
        let flags = if last { SendFlags::MORE } else { SendFlags::empty() };
        self.flush_with(cx, flags)
    }

    /// As [`Conn::flush`], with flags for the kernel.
    pub fn flush_with(&mut self, cx: &mut Context, flags: SendFlags) -> bool {
        if self.tls.is_some() {
            let is_well = self.send_sealed(cx, flags);
            self.count_sent(cx);
            return is_well;
        }
        let Some(out) = self.out.as_mut() else { return true };
        let mut is_well = true;
        while !out.is_empty() && self.writable {
            match rustix::net::send(&self.socket, out.pending(), flags | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    // A websocket lives by what it receives.
                    if self.socket_state.is_none() {
                        self.last_active = cx.clock.now;
                    }
                    if count < out.len() {
                        // A short write means a full socket; its event comes when there is room.
                        self.writable = false;
                    }
                    out.consume(count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => self.writable = false,
                Err(_) => {
                    is_well = false;
                    break;
                }
            }
        }
        self.count_sent(cx);
        is_well
    }

    /// Corrects the account of what waits, logs the answers that are sent now, and gives an empty outbox
    /// back.
    #[inline(always)]
    fn count_sent(&mut self, cx: &mut Context) {
        let Some(out) = self.out.as_mut() else { return };
        let backlog = out.len();
        let counted = self.slot.backlog.load(Ordering::Relaxed);
        if counted != backlog {
            self.slot.backlog.store(backlog, Ordering::Relaxed);
            cx.buffered = (cx.buffered + backlog).saturating_sub(counted);
        }
        if !out.records.is_empty() {
            self.log_sent(cx, false);
        }
        if backlog == 0
            && self.exchange.is_none()
            && let Some(out) = self.out.take()
        {
            cx.spares.keep_outbox(out);
        }
    }

    /// Writes the access log for answers that are sent; for all there are if `all`.
    fn log_sent(&mut self, cx: &mut Context, all: bool) {
        let Some(out) = self.out.as_mut() else { return };
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
            cx.logs.access.add(&parts, cx.clock.unix);
        }
    }

    /// Ends it: nothing of it is left but a socket that closes when this is dropped.
    pub fn end(&mut self, cx: &mut Context) {
        self.finish_log(cx);
        self.log_sent(cx, true);
        if self.tls.is_some() {
            self.say_goodbye(cx);
            self.end_session(cx);
        }
        if self.held_back && !cx.is_unnoticed_child() {
            // Closing alone would drop it if the client has sent something meanwhile, and would not
            // send it while a forked child has the socket, too. That child must not do this.
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
        }
        let counted = self.slot.backlog.load(Ordering::Relaxed);
        cx.buffered = cx.buffered.saturating_sub(counted);
        cx.timers.clear(self.index());
        if let Some(exchange) = self.exchange.take() {
            cx.recycle(exchange);
        }
        if let Some(socket) = self.socket_state.take() {
            cx.buffered = cx.buffered.saturating_sub(socket.buffered());
        }
        if let Some(out) = self.out.take() {
            cx.spares.keep_outbox(out);
        }
        let seen = self.slot.close();
        slots::release(self.slot, seen);
    }
}

/// One request and its answer.
pub struct Exchange {
    /// Whom it is with.
    pub client: SocketAddr,
    /// The head, then the content. It does not move while the program may look at it.
    pub buf: Vec<u8>,
    pub head: Head,
    /// The decoded path.
    pub path: Vec<u8>,
    pub shown: Shown,
    pub body: Body,
    /// What becomes of the content.
    pub intake: Intake,
    pub plan: Plan,
    /// What [`Plan::Builtin`] will do, when that was decided before the content came.
    pub task: Option<Task>,
    /// Absent while it is given late, then it lies in the slot.
    pub answer: Option<Box<Answer>>,
    /// What the access log says: the status, and the bytes of the head, which it does not count.
    /// 0 until known.
    pub status: u16,
    pub head_len: u64,
    /// Fields that the library's own answer has beside the usual ones.
    pub fields: Vec<u8>,
    /// A document of XML that is its content.
    pub document: Option<String>,
    /// Length of the outbox when the error handler was called: what it wrote can be dropped.
    pub mark: usize,
    /// Whatever the answer, the connection ends with it.
    pub last: bool,
    /// Whom digest authentication let in, and by which password file.
    pub user: Vec<u8>,
    pub granted: Option<PathBuf>,
    /// The count of its nonce is used up by this request itself.
    pub spent: bool,
    /// The CGI program that answers.
    pub cgi: Option<Box<Gateway>>,
    /// The page with includes that is being put together.
    pub page: Option<Box<Page>>,
    /// How often a program sent it elsewhere.
    pub redirections: u8,
    pub file: Option<FileBody>,
    pub stream: Option<Box<Stream>>,
    pub log: Option<LogEntry>,
    /// Bytes of the request body that have arrived, framing included.
    pub arrived: u64,
    /// Bytes of content that count against the server's limit.
    pub charged: usize,
    /// What other threads wrote while the handler ran.
    pub held: Vec<Vec<u8>>,
}

/// Who answers a request.
#[derive(Clone, Copy, Debug, Default)]
pub enum Plan {
    #[default]
    Builtin,
    Handler(Handler),
    /// The error handler, for this status.
    Error(u16),
}

/// What of the content has not arrived.
#[derive(Clone, Debug, Default)]
pub enum Body {
    #[default]
    Complete,
    Length(u64),
    Chunked(Decoder),
}

/// What the access log will say of a request.
pub struct LogEntry {
    /// The line without status and byte count, and where these belong.
    pub line: Vec<u8>,
    pub status_at: usize,
    /// Position in the outbox at which the answer begins.
    pub begin: u64,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            client: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            buf: Vec::new(),
            head: Head::default(),
            path: Vec::new(),
            shown: Shown::default(),
            body: Body::Complete,
            intake: Intake::Discard,
            plan: Plan::Builtin,
            task: None,
            answer: None,
            status: 0,
            head_len: 0,
            fields: Vec::new(),
            document: None,
            mark: 0,
            last: false,
            user: Vec::new(),
            granted: None,
            spent: false,
            cgi: None,
            page: None,
            redirections: 0,
            file: None,
            stream: None,
            log: None,
            arrived: 0,
            charged: 0,
            held: Vec::new(),
        }
    }
}

impl Exchange {
    /// Whether the connection stays open behind an answer of the library's own. `has_length`: there
    /// is a Content-Length in its head, without which a client of HTTP/1.0 waits for the end.
    pub fn persists(&self, has_length: bool) -> bool {
        self.head.persistent && !self.last && (has_length || self.head.minor > 0)
    }

    /// Its method.
    pub fn method(&self) -> &[u8] {
        self.buf.get(self.head.method.range()).unwrap_or_default()
    }

    /// Its head, as it was sent.
    pub fn head_bytes(&self) -> &[u8] {
        self.buf.get(..self.head.len).unwrap_or_default()
    }

    /// Names the user in the line of the access log.
    pub fn log_user(&mut self, user: &[u8]) {
        if let Some(LogEntry { line, status_at, .. }) = &mut self.log {
            log::set_user(line, status_at, user);
        }
    }

    /// Makes it fit for another request, keeping its buffers. Returns one that is too large.
    pub fn reset(&mut self) -> Vec<u8> {
        self.buf.clear();
        let large = match self.buf.capacity() > KEEP_CAPACITY {
            true => std::mem::take(&mut self.buf),
            false => Vec::new(),
        };
        if let Some(answer) = &mut self.answer {
            // The log must not take it for the next one.
            (answer.status, answer.head_len) = (0, 0);
        }
        self.path.clear();
        self.body = Body::Complete;
        self.intake = Intake::Discard;
        self.plan = Plan::Builtin;
        self.task = None;
        self.last = false;
        self.user.clear();
        self.granted = None;
        self.spent = false;
        self.cgi = None;
        self.page = None;
        self.redirections = 0;
        self.file = None;
        self.stream = None;
        self.log = None;
        self.fields.clear();
        self.document = None;
        self.status = 0;
        self.head_len = 0;
        self.arrived = 0;
        self.charged = 0;
        self.mark = 0;
        self.shown = Shown::default();
        self.held.clear();
        large
    }
}

/// Bytes on their way to a socket.
#[derive(Default)]
pub struct Outbox {
    pub bytes: Vec<u8>,
    start: usize,
    /// Bytes taken by the socket since the box was empty and without an owner.
    taken: u64,
    /// Answers that are logged once they are sent.
    pub records: Vec<Record>,
}

/// A complete answer of which the end is not sent.
pub struct Record {
    pub entry: LogEntry,
    pub head_len: u64,
    pub end: u64,
    pub status: u16,
}

impl Outbox {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes that wait.
    pub fn pending(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Drops what was appended after `mark` bytes waited.
    pub fn truncate(&mut self, mark: usize) {
        self.bytes.truncate(self.start + mark);
    }

    /// Notes that the socket took `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        self.taken += count as u64;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > KEEP_CAPACITY && self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Notes that the socket took `count` bytes that never were in here. Nothing waits.
    pub fn pass(&mut self, count: usize) {
        self.taken += count as u64;
    }

    /// Where the next byte goes, counted since the box was empty and without an owner.
    pub fn position(&self) -> u64 {
        self.taken + self.len() as u64
    }

    /// How far the socket has taken the bytes.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Makes it fit for another connection. False if it is too large to keep.
    pub fn reset(&mut self) -> bool {
        self.bytes.clear();
        self.start = 0;
        self.taken = 0;
        self.records.clear();
        self.bytes.capacity() <= KEEP_CAPACITY
    }
}
