//! Connections from trusted proxies: the header of the PROXY protocol that may stand before all
//! else, and the fields of requests that name the client.
//!
//! The header is looked at where it lies, in the socket, and taken out alone: what reads the bytes
//! behind it, a TLS session or the parser of requests, finds them as if it had never been there.
//! Refuses to know how headers and fields are read, which is in `http/proxy_header` and
//! `http/forwarded`.

use super::heads::log_entry;
use super::wire::Received;
use super::{Conn, Flow, Manner, State, Waiting};
use crate::exchange::context::Context;
use crate::exchange::request::Request;
use crate::http::forwarded::{self, Told, Unlike};
use crate::http::proxy_header::{self, Outcome};
use crate::peer::Peer;

impl Conn {
    /// Takes the header of the PROXY protocol, if the connection begins with one.
    #[cold]
    pub(super) fn take_proxy_header(&mut self, cx: &mut Context) -> Flow {
        let bytes = match self.wire.peek(cx, proxy_header::MAX_LEN) {
            Ok(bytes) => bytes,
            Err(Received::Nothing) => return Flow::Leave,
            Err(_) => return Flow::Close,
        };
        match proxy_header::parse(cx.input.buf.get(bytes).unwrap_or_default()) {
            Outcome::Absent => self.begin_conversation(cx),
            Outcome::Partial => self.await_proxy_header(cx),
            Outcome::Broken(why) => {
                self.wire.complain(cx, &format!("PROXY: {why}"));
                Flow::Close
            }
            Outcome::Complete { len, client } => {
                if !self.wire.skip(cx, len) {
                    return Flow::Close;
                }
                if let Some(client) = client
                    && !self.speak_for(cx, client)
                {
                    return Flow::Close;
                }
                self.begin_conversation(cx)
            }
        }
    }

    /// Waits for the rest of a header, within the time of a request.
    fn await_proxy_header(&mut self, cx: &mut Context) -> Flow {
        if self.wire.read_closed {
            self.wire.complain(cx, "PROXY: the connection ended within the header");
            return Flow::Close;
        }
        // The bytes stay in the socket. The kernel announces further ones all the same.
        self.wire.readable = false;
        if let State::ProxyHeader { waiting, .. } = &mut self.state
            && !waiting.begun
        {
            waiting.begun = true;
            self.since = cx.clock.now;
        }
        Flow::Leave
    }

    /// Makes `client` the peer of the connection. Returns false if it may not connect.
    fn speak_for(&mut self, cx: &mut Context, client: Peer) -> bool {
        self.wire.peer = client;
        self.wire.slot.show_peer(client);
        let config = &cx.options.config;
        self.wire.hears_proxies =
            config.trusted_proxies.as_ref().is_some_and(|trusted| trusted.contains(client));
        config.access_control_list.as_ref().is_none_or(|acl| acl.allows(client))
    }

    /// Begins what the connection would have begun with without a header.
    fn begin_conversation(&mut self, cx: &mut Context) -> Flow {
        let State::ProxyHeader { is_barred, .. } = self.state else {
            return self.cannot_be(cx, "a header is taken in another state");
        };
        self.since = cx.clock.now;
        // The TLS handshake has the same time as a request.
        let begun = self.wire.is_secure() || is_barred && self.manner != Manner::Redirect;
        let waiting = Waiting { begun, ..Waiting::default() };
        self.state = match is_barred {
            true => State::Barred(waiting),
            false => State::Head(waiting),
        };
        Flow::Again
    }

    /// Returns whether the word of the peer about its clients counts.
    pub(super) fn is_believed(&self, cx: &Context) -> bool {
        let trusted = cx.options.config.trusted_proxies.as_ref();
        self.wire.hears_proxies && trusted.is_some_and(|trusted| trusted.contains(self.wire.peer))
    }

    /// Finds out for whom a trusted proxy sends a request, and shows that client. Returns the
    /// status with which the request is refused as an error.
    #[cold]
    pub(super) fn hear_proxies(
        &mut self,
        cx: &mut Context,
        request: &mut Request,
    ) -> Result<(), u16> {
        let Some(trusted) = &cx.options.config.trusted_proxies else {
            // An earlier request may have shown a client that is not believed any more.
            self.wire.slot.show_peer(self.wire.peer);
            return Ok(());
        };
        let fields = request.head.pairs(request.head_bytes());
        let told = forwarded::read(fields, self.wire.peer, trusted);
        let told = match told {
            Ok(told) => told,
            Err(Unlike) => {
                self.wire.slot.show_peer(self.wire.peer);
                self.wire.complain(cx, "Forwarded and X-Forwarded-* contradict each other");
                return Err(400);
            }
        };
        let Told { client, is_https } = told;
        self.wire.slot.show_peer(client);
        request.told_https = is_https;
        if client == self.wire.peer {
            return Ok(());
        }
        request.client = client;
        if request.log.is_some() {
            request.log = Some(log_entry(&mut self.wire, cx, request));
        }
        // Other clients may share the connection, and a proxy takes a close for a fault of the
        // server: this one gets an answer.
        let acl = cx.options.config.access_control_list.as_ref();
        if acl.is_some_and(|acl| !acl.allows(client)) { Err(403) } else { Ok(()) }
    }
}
