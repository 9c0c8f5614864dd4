//! One connection: its wire, and the state of its conversation (RFC 9112, RFC 6455).
//!
//! A connection is handed the [`Context`] of its server for its turn. Refuses to know other
//! connections, the event queue and the listening socket.

mod answers;
mod barred;
mod calls;
mod closing;
mod content;
mod denials;
mod heads;
mod looking;
mod messages;
mod proxied;
mod redirected;
mod timeouts;
mod websocket;
mod wire;

use mio::net::TcpStream;

use self::calls::Purpose;
use self::content::Recipient;
pub use self::looking::Found;
use self::looking::Search;
pub use self::messages::Piece;
use self::timeouts::Lateness;
pub use self::websocket::Websocket;
use self::websocket::WebsocketFlow;
pub use self::wire::{Received, Wire};
use crate::abi::Handler;
use crate::answer::Source;
use crate::auth::guesses::time_left;
use crate::cgi::table::Number;
use crate::exchange::context::Context;
use crate::exchange::outbox::Record;
use crate::exchange::request::Request;
use crate::http::response::Answer;
use crate::peer::Peer;
use crate::shared::slots::{Content, Slot};
use crate::tls::Session;
use crate::tls::port::{Opening, Speech};

/// The largest number of bytes that wait for the output of other connections. More would drive
/// other data out of the processor's caches.
const MAX_DEFERRED: usize = 4 * 1024;

/// What the connections of a listening socket get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Serve(Speech),
    /// The address of a port that speaks TLS.
    Redirect,
}

impl Default for Manner {
    fn default() -> Self {
        Manner::Serve(Speech::default())
    }
}

impl Manner {
    /// Returns what is spoken.
    pub fn speech(self) -> Speech {
        match self {
            Manner::Serve(speech) => speech,
            Manner::Redirect => Speech::Plain,
        }
    }
}

/// A connection.
pub struct Conn {
    pub wire: Wire,
    state: State,
    /// The number that tells the connection from others with the same index.
    pub number: u32,
    /// The start of the request, or of lingering, in milliseconds of the server's clock.
    since: u32,
    /// Whether the request took too long.
    lateness: Lateness,
    /// What the listening socket was told.
    manner: Manner,
}

// An idle connection costs little more than this.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Conn>() <= 144);

/// The state of a conversation. An idle connection is in `Head`, and owns no buffer.
enum State {
    /// Waiting for a request, or for the rest of its head.
    Head(Waiting),
    /// Waiting for what a trusted proxy sends first, which may be a header of the PROXY protocol.
    /// With `is_barred` the connection is `Barred` behind it.
    ProxyHeader {
        waiting: Waiting,
        is_barred: bool,
    },
    /// Waiting for a request that must not be served: TLS was asked for and cannot be spoken, or the
    /// listening socket redirects all requests.
    Barred(Waiting),
    /// Taking the content of a request.
    Content {
        request: Box<Request>,
        recipient: Recipient,
    },
    /// Waiting with a complete request for those of others, to share a look at files with them.
    Deciding(Box<Request>),
    /// Waiting with a complete request for a slow file system, which helpers ask.
    Looking {
        request: Box<Request>,
        search: Box<Search>,
    },
    /// Running a handler of the program.
    Calling {
        request: Box<Request>,
        answer: Box<Answer>,
        purpose: Purpose,
    },
    /// Waiting for the rest of an answer whose handler has returned. The answer is in the slot.
    Answering(Box<Request>),
    /// Making an answer of the library's own, in portions.
    Producing {
        request: Box<Request>,
        source: Source,
    },
    /// Waiting until this time with the answer 401, so that passwords cannot be tried fast.
    Denying {
        request: Box<Request>,
        until: u32,
    },
    /// About to end, since the answer cannot be completed.
    Broken(Box<Request>),
    Websocket(Box<Websocket>),
    /// Sending the last answer, after which the connection ends. With `lingers` the end must not
    /// lose the answer to unread input. `websocket` is the websocket that the connection was.
    Draining {
        lingers: bool,
        websocket: Option<Box<Websocket>>,
    },
    /// Discarding input after the last answer, with the sending side shut, so that no reset takes
    /// the answer from the client.
    Lingering {
        discarded: u32,
        websocket: Option<Box<Websocket>>,
    },
}

/// The facts about a request whose head is not complete.
#[derive(Clone, Copy, Default)]
struct Waiting {
    /// Set if a part of the request has arrived, or a TLS handshake is due: the request timeout
    /// runs.
    begun: bool,
    /// Set if requests wait for room in the outbox, and not for the client.
    paused: bool,
    /// The number of bytes of empty lines and blanks since the last request.
    blank: u32,
}

/// The next step with a connection.
pub enum Flow {
    /// There may be more to do in this turn.
    Again,
    /// The turn of the connection is over.
    Leave,
    /// The connection is to be closed at once.
    Close,
    /// A handler is to be called.
    Call(Handler),
}

impl Default for State {
    fn default() -> Self {
        State::Head(Waiting::default())
    }
}

impl State {
    /// Returns the request that is being answered; for a websocket, the request of its handshake.
    fn request(&self) -> Option<&Request> {
        match self {
            State::Head(_) | State::ProxyHeader { .. } | State::Barred(_) => None,
            State::Content { request, .. }
            | State::Deciding(request)
            | State::Looking { request, .. }
            | State::Calling { request, .. }
            | State::Answering(request)
            | State::Broken(request)
            | State::Denying { request, .. }
            | State::Producing { request, .. } => Some(request),
            State::Websocket(websocket) => Some(&websocket.request),
            State::Draining { websocket, .. } | State::Lingering { websocket, .. } => {
                websocket.as_ref().map(|websocket| &*websocket.request)
            }
        }
    }

    /// Returns the websocket, also one that is closing.
    fn websocket(&self) -> Option<&Websocket> {
        match self {
            State::Websocket(websocket) => Some(websocket),
            State::Draining { websocket, .. } | State::Lingering { websocket, .. } => {
                websocket.as_deref()
            }
            _ => None,
        }
    }

    /// Returns the websocket, also one that is closing.
    fn websocket_mut(&mut self) -> Option<&mut Websocket> {
        match self {
            State::Websocket(websocket) => Some(websocket),
            State::Draining { websocket, .. } | State::Lingering { websocket, .. } => {
                websocket.as_deref_mut()
            }
            _ => None,
        }
    }

    /// Returns the number of the CGI program that the connection waits for.
    fn program(&self) -> Option<Number> {
        match self {
            State::Content { recipient, .. } => recipient.program(),
            State::Producing { source, .. } => source.program(),
            _ => None,
        }
    }
}

impl Conn {
    /// Creates a connection for an accepted socket. `number` is that of [`Conn::number`]; `now` is in
    /// milliseconds of the server's clock. `is_proxy` says that the peer is a trusted proxy.
    pub fn new(
        slot: &'static Slot,
        socket: TcpStream,
        peer: Peer,
        is_proxy: bool,
        manner: Manner,
        opening: Opening,
        (number, now): (u32, u32),
    ) -> Self {
        // The TLS handshake has the same time as a request.
        let begun = Waiting { begun: true, ..Waiting::default() };
        let (state, session): (State, Option<Box<Session>>) = match opening {
            Opening::Plain if manner == Manner::Redirect => {
                (State::Barred(Waiting::default()), None)
            }
            Opening::Plain => (State::default(), None),
            Opening::Tls(session) => (State::Head(begun), Some(session)),
            Opening::Barred => (State::Barred(begun), None),
        };
        let mut wire = Wire::new(slot, socket, peer, session, now);
        wire.hears_proxies = is_proxy;
        let state = match state {
            State::Head(waiting) if is_proxy => State::ProxyHeader { waiting, is_barred: false },
            State::Barred(waiting) if is_proxy => State::ProxyHeader { waiting, is_barred: true },
            state => state,
        };
        Self { wire, state, number, since: now, lateness: Lateness::InTime, manner }
    }

    /// Works until the program is to be called, or there is nothing to do for now.
    // Called from one place, several times for each request.
    #[inline(always)]
    pub fn drive(&mut self, cx: &mut Context) -> Flow {
        if self.lateness != Lateness::InTime
            && let Some(flow) = self.take_lateness(cx)
        {
            return flow;
        }
        match &mut self.state {
            State::Head(_) => self.next_head(cx),
            State::Barred(_) => self.turn_down(cx),
            State::ProxyHeader { .. } => self.take_proxy_header(cx),
            State::Content { .. } | State::Deciding(_) | State::Producing { .. } => {
                self.drive_request(cx)
            }
            State::Looking { .. } => self.drive_request(cx),
            State::Denying { until, .. } if time_left(*until, cx.clock.now) > 0 => Flow::Leave,
            State::Denying { .. } => self.drive_request(cx),
            State::Calling { .. } | State::Answering(_) => Flow::Leave,
            State::Broken(_) => Flow::Close,
            State::Websocket(websocket) => {
                let flow = websocket.take_frames(&mut self.wire, cx);
                self.follow(cx, flow)
            }
            State::Draining { .. } => self.drain(cx),
            State::Lingering { .. } => self.discard(cx),
        }
    }

    /// Continues a request, which is moved out of the state.
    fn drive_request(&mut self, cx: &mut Context) -> Flow {
        match std::mem::take(&mut self.state) {
            State::Content { request, recipient } => self.take_content(cx, request, recipient),
            State::Deciding(request) => self.decide_now(cx, request),
            State::Looking { request, search } => self.look_on(cx, request, search),
            State::Producing { request, source } => self.produce(cx, request, source),
            State::Denying { request, .. } => self.deny(cx, request),
            other => {
                self.state = other;
                self.cannot_be(cx, "a request was lost")
            }
        }
    }

    /// Reports a state that cannot be in the error log, and ends the connection.
    #[cold]
    fn cannot_be(&self, cx: &mut Context, what: &'static str) -> Flow {
        debug_assert!(false, "{what}");
        self.wire.complain(cx, what);
        Flow::Close
    }

    /// Enters a state from one that owns nothing any more.
    #[inline]
    fn enter(&mut self, state: State) {
        let before = std::mem::replace(&mut self.state, state);
        debug_assert!(matches!(before, State::Head(_)), "a state is left that owns something");
        // There is nothing to drop, which the compiler would have to find out.
        std::mem::forget(before);
    }

    /// Does the next step with a websocket.
    fn follow(&mut self, cx: &mut Context, flow: WebsocketFlow) -> Flow {
        match flow {
            WebsocketFlow::Again => Flow::Again,
            WebsocketFlow::Leave => Flow::Leave,
            WebsocketFlow::Close => Flow::Close,
            WebsocketFlow::Call(handler) => Flow::Call(handler),
            WebsocketFlow::End => {
                match std::mem::take(&mut self.state) {
                    State::Websocket(mut websocket) => {
                        websocket.drop_partial(cx);
                        let websocket = Some(websocket);
                        self.enter(State::Draining { lingers: true, websocket });
                    }
                    other => {
                        self.state = other;
                        return self.cannot_be(cx, "the end of what is no websocket");
                    }
                }
                if !self.wire.is_current(cx) {
                    self.wire.make_ready(cx);
                }
                Flow::Again
            }
        }
    }

    /// Notes an event of the kernel. Returns true if the connection needs a turn.
    pub fn note_event(&mut self, event: &mio::event::Event) -> bool {
        let wire = &mut self.wire;
        wire.read_closed |= event.is_read_closed();
        wire.readable |= event.is_readable() || event.is_read_closed();
        wire.gone |= event.is_error() || event.is_write_closed();
        let unblocked = event.is_writable() && !wire.writable;
        wire.writable |= event.is_writable();
        // While an answer is given late, nothing is read before it is complete.
        let is_late = matches!(
            self.state,
            State::Answering(_) | State::Denying { .. } | State::Looking { .. }
        );
        let reads = wire.readable && !is_late;
        reads || unblocked || wire.gone
    }

    /// Begins a turn, with the input that was kept. Returns false if the connection is to be
    /// closed.
    #[inline]
    pub fn begin_turn(&mut self, cx: &mut Context) -> bool {
        self.wire.queued = false;
        if let State::Head(waiting) | State::Barred(waiting) = &mut self.state {
            waiting.paused = false;
        }
        // Both directions may be shut. An end that lingers first reads the bytes that have arrived:
        // closing with these unread would be a reset, and would lose bytes on their way to the
        // client.
        if self.wire.gone && !matches!(self.state, State::Lingering { .. }) {
            return false;
        }
        let waiting = std::mem::take(&mut self.wire.input);
        if !waiting.is_empty() {
            cx.input.put(&waiting);
        }
        true
    }

    /// Ends a turn, and keeps the input that is not parsed. Returns false if there is no memory for
    /// it.
    pub fn end_turn(&mut self, cx: &mut Context) -> bool {
        if cx.input.unread.is_empty() && !self.wire.has_partial_record() {
            return true;
        }
        if let State::Head(waiting) | State::Barred(waiting) = &mut self.state
            && !waiting.begun
            && !waiting.paused
        {
            waiting.begun = true;
            self.since = cx.clock.now;
        }
        self.wire.keep_unread(cx)
    }

    /// Returns whether the output can wait for that of other connections.
    pub fn may_wait(&self, cx: &Context) -> bool {
        let has_company = cx.turn.left > 0 || cx.turn.has_waiting();
        let rests = matches!(self.state, State::Head(_) | State::Deciding(_) | State::Websocket(_));
        has_company
            && rests
            && self.wire.registered
            && (1..=MAX_DEFERRED).contains(&self.wire.backlog())
    }

    /// Returns whether the connection waits to share a look at files.
    pub fn is_deciding(&self) -> bool {
        matches!(self.state, State::Deciding(_))
    }

    /// Returns the request that is being answered; for a websocket, the request of its handshake.
    #[cfg(test)]
    pub fn request(&self) -> Option<&Request> {
        self.state.request()
    }

    /// Returns whether the connection is a websocket that is not closing.
    pub fn is_open_websocket(&self) -> bool {
        matches!(self.state, State::Websocket(_))
    }

    /// Returns the last message of a websocket, if it is kept.
    pub fn last_message(&mut self) -> Option<Content> {
        self.state.websocket_mut().map(Websocket::last_message)
    }

    /// Returns whether there may be bytes to send.
    pub fn has_output(&self) -> bool {
        self.wire.out.is_some() || self.wire.is_secure()
    }

    /// Sends as much of the outbox as the socket takes. Returns false if the connection has failed.
    #[inline]
    pub fn flush(&mut self, cx: &mut Context) -> bool {
        let is_last = matches!(self.state, State::Draining { .. });
        let is_well = self.wire.flush(cx, is_last);
        if self.state.request().is_none() {
            self.wire.give_back_outbox(cx);
        }
        is_well
    }

    /// Sends as much as the socket takes, in as many shares as it takes, at the end of the server.
    pub fn flush_all(&mut self, cx: &mut Context) {
        if !self.wire.leave_plain() {
            return;
        }
        loop {
            self.wire.queued = false;
            let before = self.wire.backlog();
            let is_well = self.flush(cx);
            // Where nothing was sent, another attempt would not help.
            if !is_well || !self.wire.writable || self.wire.backlog() >= before {
                return;
            }
        }
    }

    /// Receives behind the unread input, while a request is waited for.
    #[inline]
    fn receive(&mut self, cx: &mut Context) -> Received {
        if !self.wire.is_secure() {
            return self.wire.receive(cx, false);
        }
        self.receive_sealed(cx)
    }

    /// Receives on a connection with TLS, and ends the time of its handshake.
    #[inline(never)]
    fn receive_sealed(&mut self, cx: &mut Context) -> Received {
        let (was_handshaking, before) = (self.wire.is_handshaking(), cx.turn.bytes);
        let received = self.wire.receive(cx, false);
        if let State::Head(waiting) = &mut self.state
            && cx.turn.bytes < before
            && !self.wire.is_handshaking()
            && (was_handshaking || cx.input.unread.is_empty() && !self.wire.has_partial_record())
        {
            // The bytes so far belong to no request.
            waiting.begun = false;
            self.wire.yields = false;
            self.since = cx.clock.now;
        }
        let Received::Refused { in_plain } = received else { return received };
        if !matches!(self.state, State::Head(_)) || !in_plain && self.wire.backlog() > 0 {
            return Received::Lost;
        }
        self.enter(State::Draining { lingers: true, websocket: None });
        cx.input.clear();
        Received::Nothing
    }

    /// Continues work that waited for room in the outbox, after a flush.
    pub fn settle(&mut self, cx: &mut Context) -> Flow {
        if self.wire.backlog() > 0 && !self.wire.writable {
            return Flow::Leave;
        }
        let goes_on = match &self.state {
            State::Draining { .. } => return self.drain(cx),
            State::Producing { source, .. } if source.program().is_none() => {
                // These bytes need not have been in the outbox.
                self.wire.writable && source.makes_output() && !source.awaits_piece()
            }
            State::Producing { .. } | State::Content { .. } => {
                self.state.program().is_some_and(|program| cx.programs.has_output(program))
            }
            _ => false,
        };
        if goes_on {
            self.wire.make_ready(cx);
        }
        Flow::Leave
    }

    /// Hands status and lengths of the answer to the outbox; the line of the access log is written once the
    /// answer is sent.
    fn log_answer(wire: &mut Wire, cx: &mut Context, request: &mut Request) {
        if let Some(entry) = request.log.take() {
            let Request { status, head_len, .. } = *request;
            let out = wire.outbox(cx);
            let end = out.position();
            out.records.push(Record { entry, head_len, end, status });
        }
    }

    /// Ends the connection in the child of a fork. The parent continues and logs it, so that
    /// nothing is undone.
    pub fn end_in_child(&mut self, cx: &mut Context) {
        self.wire.leave_to_parent(cx);
        match std::mem::take(&mut self.state) {
            State::Head(_) | State::ProxyHeader { .. } | State::Barred(_) => {}
            State::Content { request, .. }
            | State::Producing { request, .. }
            | State::Calling { request, .. }
            | State::Denying { request, .. }
            | State::Looking { request, .. }
            | State::Deciding(request)
            | State::Broken(request)
            | State::Answering(request) => cx.recycle(request),
            State::Websocket(websocket)
            | State::Draining { websocket: Some(websocket), .. }
            | State::Lingering { websocket: Some(websocket), .. } => {
                cx.recount(websocket.buffered(), 0);
                cx.recycle(websocket.request);
            }
            State::Draining { .. } | State::Lingering { .. } => {}
        }
        self.wire.end(cx, true);
    }

    /// Ends the connection. The socket closes when the connection is dropped.
    pub fn end(&mut self, cx: &mut Context) {
        let is_cut = self.is_cut();
        match std::mem::take(&mut self.state) {
            State::Head(_) | State::ProxyHeader { .. } | State::Barred(_) => {}
            State::Content { mut request, recipient } => {
                recipient.stop(cx);
                Self::log_answer(&mut self.wire, cx, &mut request);
                cx.recycle(request);
            }
            State::Producing { mut request, source } => {
                source.stop(cx);
                Self::log_answer(&mut self.wire, cx, &mut request);
                cx.recycle(request);
            }
            State::Calling { mut request, answer, .. } => {
                (request.status, request.head_len) = (answer.status, answer.head_len);
                Self::log_answer(&mut self.wire, cx, &mut request);
                cx.spares.keep_answer(answer);
                cx.recycle(request);
            }
            State::Answering(mut request) => {
                if let Some(answer) = self.wire.slot.lock_answer().as_deref() {
                    (request.status, request.head_len) = (answer.status, answer.head_len);
                }
                Self::log_answer(&mut self.wire, cx, &mut request);
                cx.recycle(request);
            }
            State::Denying { mut request, .. }
            | State::Looking { mut request, .. }
            | State::Deciding(mut request)
            | State::Broken(mut request) => {
                Self::log_answer(&mut self.wire, cx, &mut request);
                cx.recycle(request);
            }
            State::Websocket(websocket)
            | State::Draining { websocket: Some(websocket), .. }
            | State::Lingering { websocket: Some(websocket), .. } => {
                cx.recount(websocket.buffered(), 0);
                let mut request = websocket.request;
                Self::log_answer(&mut self.wire, cx, &mut request);
                cx.recycle(request);
            }
            State::Draining { .. } | State::Lingering { .. } => {}
        }
        self.wire.end(cx, is_cut);
    }

    /// Returns whether the end of the connection would cut an answer off.
    fn is_cut(&self) -> bool {
        match &self.state {
            State::Head(_)
            | State::ProxyHeader { .. }
            | State::Barred(_)
            | State::Draining { .. }
            | State::Lingering { .. } => false,
            // An endless answer has no other end. Of one with a length or chunks the client sees that it is cut.
            State::Answering(_) => false,
            State::Websocket(websocket) => websocket.is_calling(),
            State::Content { request, .. }
            | State::Denying { request, .. }
            | State::Looking { request, .. }
            | State::Deciding(request)
            | State::Broken(request) => request.status != 0,
            State::Producing { request, source } => source.makes_output() || request.status != 0,
            State::Calling { .. } => true,
        }
    }
}
