//! One client, and what goes on with it: its wire, and the state of its conversation. RFC 9112 and RFC 6455.
//!
//! A connection that is looked at gets what it may use, the [`Context`] of its server. Refuses to know other
//! connections, the event queue and the listening socket.

mod answers;
mod barred;
mod calls;
mod closing;
mod content;
mod heads;
mod messages;
mod timeouts;
mod websocket;
mod wire;

use std::net::SocketAddr;

use mio::net::TcpStream;

pub use self::messages::Piece;
use self::websocket::Then;
pub use self::websocket::Websocket;
pub use self::wire::{Received, Wire};
use crate::abi::Handler;
use crate::answer::{Plan, Source};
use crate::exchange::context::Context;
use crate::exchange::outbox::Record;
use crate::exchange::request::Request;
use crate::http::response::Answer;
use crate::shared::slots::{Content, Slot};
use crate::tls::Session;
use crate::tls::port::Opening;

/// Longer output is sent at once, and not together with that of others: it would drive other things out of the
/// processor's caches.
const MAX_WAITING: usize = 4 * 1024;

/// A connection.
pub struct Conn {
    pub wire: Wire,
    state: State,
    /// Tells it from others that are kept where it is kept.
    pub number: u32,
    /// Milliseconds of the server's clock: the start of the request, or of lingering.
    since: u32,
    /// The request took too long.
    timed_out: bool,
}

/// The state of a conversation. An idle one is in `Head`, and owns no buffer.
enum State {
    /// It waits for a request, or for the rest of its head.
    Head(Waiting),
    /// It waits for a request that must not be served: TLS is to be spoken here, and cannot be.
    Barred(Waiting),
    /// It takes in the content of a request.
    Content {
        request: Box<Request>,
        recipient: Recipient,
    },
    /// The request is complete, and waits for those of others to share a look at files with them.
    Deciding(Box<Request>),
    /// A handler of the program's runs.
    Calling {
        request: Box<Request>,
        answer: Box<Answer>,
        purpose: Purpose,
    },
    /// The handler has returned, its answer is not complete. That lies in the slot.
    Answering(Box<Request>),
    /// The library makes the answer, in portions.
    Producing {
        request: Box<Request>,
        source: Source,
    },
    /// Its answer cannot be completed: it is about to end.
    Broken(Box<Request>),
    Websocket(Box<Websocket>),
    /// The last answer goes out; then the connection ends. `lingers`: its end must not lose the answer to
    /// unread input. It may have been a websocket.
    Draining {
        lingers: bool,
        websocket: Option<Box<Websocket>>,
    },
    /// The last answer is out and the sending side shut; input is discarded, so that no reset
    /// takes the answer from the client.
    Lingering {
        discarded: u32,
        websocket: Option<Box<Websocket>>,
    },
}

/// What is known of a request that has not come.
#[derive(Clone, Copy, Default)]
struct Waiting {
    /// Part of it has arrived, or a handshake of TLS is due: the request timeout runs.
    begun: bool,
    /// Requests wait for room in the outbox, not for the client.
    paused: bool,
    /// Empty lines and blanks since the last request, in bytes.
    blank: u32,
}

/// Who gets the content of a request.
enum Recipient {
    Handler(Handler),
    Plan(Box<Plan>),
}

/// What a handler is called for.
#[derive(Clone, Copy)]
enum Purpose {
    Request,
    /// An error, for the error handler. The output behind `mark` bytes of the outbox can be dropped.
    Error {
        status: u16,
        mark: u32,
    },
}

/// How it goes on with a connection.
pub enum Flow {
    /// There may be more to do in this turn.
    Again,
    /// It is done for this turn.
    Leave,
    /// It ends at once.
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
    /// The request that is being answered; of a websocket, the one that opened it.
    fn request(&self) -> Option<&Request> {
        match self {
            State::Head(_) | State::Barred(_) => None,
            State::Content { request, .. }
            | State::Deciding(request)
            | State::Calling { request, .. }
            | State::Answering(request)
            | State::Broken(request)
            | State::Producing { request, .. } => Some(request),
            State::Websocket(websocket) => Some(&websocket.request),
            State::Draining { websocket, .. } | State::Lingering { websocket, .. } => {
                websocket.as_ref().map(|websocket| &*websocket.request)
            }
        }
    }

    fn websocket(&self) -> Option<&Websocket> {
        match self {
            State::Websocket(websocket) => Some(websocket),
            State::Draining { websocket, .. } | State::Lingering { websocket, .. } => {
                websocket.as_deref()
            }
            _ => None,
        }
    }

    fn websocket_mut(&mut self) -> Option<&mut Websocket> {
        match self {
            State::Websocket(websocket) => Some(websocket),
            State::Draining { websocket, .. } | State::Lingering { websocket, .. } => {
                websocket.as_deref_mut()
            }
            _ => None,
        }
    }

    /// The number of the program that it waits for.
    fn program(&self) -> Option<usize> {
        match self {
            State::Content { recipient: Recipient::Plan(plan), .. } => plan.program(),
            State::Producing { source, .. } => source.program(),
            _ => None,
        }
    }
}

impl Conn {
    /// A connection that was accepted. `number`: see [`Conn::number`].
    pub fn new(
        slot: &'static Slot,
        socket: TcpStream,
        peer: SocketAddr,
        opening: Opening,
        number: u32,
        now: u32,
    ) -> Self {
        // The handshake is to be over in the time that a request has.
        let begun = Waiting { begun: true, ..Waiting::default() };
        let (state, session): (State, Option<Box<Session>>) = match opening {
            Opening::Plain => (State::default(), None),
            Opening::Tls(session) => (State::Head(begun), Some(session)),
            Opening::Barred => (State::Barred(begun), None),
        };
        let wire = Wire::new(slot, socket, peer, session, now);
        Self { wire, state, number, since: now, timed_out: false }
    }

    /// Works until the program is to be called, or there is nothing to do for now.
    // Called from one place, several times for each request.
    #[inline(always)]
    pub fn drive(&mut self, cx: &mut Context) -> Flow {
        if std::mem::take(&mut self.timed_out) {
            return self.time_out(cx);
        }
        match &mut self.state {
            State::Head(_) => self.next_head(cx),
            State::Barred(_) => self.turn_down(cx),
            State::Content { .. } | State::Deciding(_) | State::Producing { .. } => {
                self.drive_request(cx)
            }
            State::Calling { .. } | State::Answering(_) => Flow::Leave,
            State::Broken(_) => Flow::Close,
            State::Websocket(websocket) => {
                let then = websocket.take_frames(&mut self.wire, cx);
                self.follow(cx, then)
            }
            State::Draining { .. } => self.drain(cx),
            State::Lingering { .. } => self.discard(cx),
        }
    }

    /// Goes on with a request, which its state hands over.
    fn drive_request(&mut self, cx: &mut Context) -> Flow {
        match std::mem::take(&mut self.state) {
            State::Content { request, recipient } => self.take_content(cx, request, recipient),
            State::Deciding(request) => self.decide_now(cx, request),
            State::Producing { request, source } => self.produce(cx, request, source),
            other => {
                self.state = other;
                self.cannot_be(cx, "a request was lost")
            }
        }
    }

    /// Notes a fault of the library's own in the error log, and ends the connection.
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
        // There is nothing to be dropped, which the compiler would have to find out.
        std::mem::forget(before);
    }

    /// Does as a websocket wants.
    fn follow(&mut self, cx: &mut Context, then: Then) -> Flow {
        match then {
            Then::Again => Flow::Again,
            Then::Leave => Flow::Leave,
            Then::Close => Flow::Close,
            Then::Call(handler) => Flow::Call(handler),
            Then::End => {
                match std::mem::take(&mut self.state) {
                    State::Websocket(mut websocket) => {
                        websocket.end(cx);
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

    /// Notes an event of the kernel. True if the connection is to be looked at.
    pub fn note_event(&mut self, event: &mio::event::Event) -> bool {
        let wire = &mut self.wire;
        wire.read_closed |= event.is_read_closed();
        wire.readable |= event.is_readable() || event.is_read_closed();
        wire.gone |= event.is_error() || event.is_write_closed();
        let unblocked = event.is_writable() && !wire.writable;
        wire.writable |= event.is_writable();
        // While an answer is given late, nothing is read: that follows when it is complete.
        let reads = wire.readable && !matches!(self.state, State::Answering(_));
        reads || unblocked || wire.gone
    }

    /// Begins its turn, with the input that it has kept. False if it is to be closed.
    pub fn begin_turn(&mut self, cx: &mut Context) -> bool {
        self.wire.queued = false;
        if let State::Head(waiting) | State::Barred(waiting) = &mut self.state {
            waiting.paused = false;
        }
        // Both ends have said that they send no more, perhaps: bytes that have come are read before it is
        // closed, or that would be a reset, and bytes on their way to the client would be lost.
        if self.wire.gone && !matches!(self.state, State::Lingering { .. }) {
            return false;
        }
        let waiting = std::mem::take(&mut self.wire.input);
        if !waiting.is_empty() {
            cx.input.put(&waiting);
        }
        true
    }

    /// Ends its turn: keeps the input that it has not parsed. False if there is no memory for it.
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

    /// Whether its output can wait for that of others.
    pub fn may_wait(&self, cx: &Context) -> bool {
        let has_company = cx.turn.left > 0 || cx.turn.has_waiting();
        let rests = matches!(self.state, State::Head(_) | State::Deciding(_) | State::Websocket(_));
        has_company
            && rests
            && self.wire.registered
            && (1..=MAX_WAITING).contains(&self.wire.backlog())
    }

    /// Whether it waits for others, to share a look at files with them.
    pub fn is_deciding(&self) -> bool {
        matches!(self.state, State::Deciding(_))
    }

    /// The request that is being answered; of a websocket, the one that opened it.
    pub fn request(&self) -> Option<&Request> {
        self.state.request()
    }

    /// Whether it is a websocket that is not closing.
    pub fn is_open_websocket(&self) -> bool {
        matches!(self.state, State::Websocket(_))
    }

    /// The last message of a websocket, where it is kept.
    pub fn last_message(&mut self) -> Option<Content> {
        self.state.websocket_mut().map(Websocket::last_message)
    }

    /// Whether it has something to send outside its own turn.
    pub fn has_output(&self) -> bool {
        self.wire.out.is_some() || self.wire.is_secure()
    }

    /// Sends as much of the outbox as the socket takes. False if the connection has failed.
    #[inline]
    pub fn flush(&mut self, cx: &mut Context) -> bool {
        let is_last = matches!(self.state, State::Draining { .. });
        let is_well = self.wire.flush(cx, is_last);
        if self.state.request().is_none() {
            self.wire.give_back_outbox(cx);
        }
        is_well
    }

    /// Receives behind the unread input.
    #[inline]
    fn receive(&mut self, cx: &mut Context) -> Received {
        if !self.wire.is_secure() {
            return self.wire.receive(cx, false);
        }
        self.receive_sealed(cx)
    }

    #[inline(never)]
    fn receive_sealed(&mut self, cx: &mut Context) -> Received {
        let was_handshaking = self.wire.is_handshaking();
        let awaits_content = matches!(self.state, State::Content { .. });
        let received = self.wire.receive(cx, awaits_content);
        if let State::Head(waiting) = &mut self.state
            && !self.wire.is_handshaking()
            && (was_handshaking || cx.input.unread.is_empty() && !self.wire.has_partial_record())
        {
            // Bytes that came so far belonged to no request.
            waiting.begun = false;
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

    /// Goes on with what waited for room in the outbox, after a flush.
    pub fn settle(&mut self, cx: &mut Context) -> Flow {
        if self.wire.backlog() > 0 && !self.wire.writable {
            return Flow::Leave;
        }
        let goes_on = match &self.state {
            State::Draining { .. } => return self.drain(cx),
            State::Producing { source, .. } if source.program().is_none() => {
                // Its bytes need not have been in the outbox.
                self.wire.writable && source.makes_output()
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

    /// Hands the state of the current answer to the access log, which writes it when it is sent.
    fn log_answer(wire: &mut Wire, cx: &mut Context, request: &mut Request) {
        if let Some(entry) = request.log.take() {
            let Request { status, head_len, .. } = *request;
            let out = wire.outbox(cx);
            let end = out.position();
            out.records.push(Record { entry, head_len, end, status });
        }
    }

    /// Ends it in the child of a fork: the parent goes on with it, and logs it. Nothing is undone.
    pub fn end_in_child(&mut self, cx: &mut Context) {
        self.wire.leave_to_parent(cx);
        match std::mem::take(&mut self.state) {
            State::Head(_) | State::Barred(_) => {}
            State::Content { request, .. }
            | State::Producing { request, .. }
            | State::Calling { request, .. }
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

    /// Ends it: what is left of it is a socket that closes when this is dropped.
    pub fn end(&mut self, cx: &mut Context) {
        let is_cut = self.is_cut();
        match std::mem::take(&mut self.state) {
            State::Head(_) | State::Barred(_) => {}
            State::Content { mut request, recipient } => {
                if let Recipient::Plan(plan) = recipient {
                    plan.stop(cx);
                }
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
                if let Some(answer) = self.wire.slot.answer().as_deref() {
                    (request.status, request.head_len) = (answer.status, answer.head_len);
                }
                Self::log_answer(&mut self.wire, cx, &mut request);
                cx.recycle(request);
            }
            State::Deciding(mut request) | State::Broken(mut request) => {
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

    /// Whether its end would cut an answer off.
    fn is_cut(&self) -> bool {
        match &self.state {
            State::Head(_)
            | State::Barred(_)
            | State::Draining { .. }
            | State::Lingering { .. } => false,
            // It has no other end.
            State::Answering(_) => false,
            State::Websocket(websocket) => websocket.is_calling(),
            State::Content { request, .. } | State::Deciding(request) | State::Broken(request) => {
                request.status != 0
            }
            State::Producing { request, source } => source.makes_output() || request.status != 0,
            State::Calling { .. } => true,
        }
    }
}
