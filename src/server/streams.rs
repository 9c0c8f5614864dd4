//! Answers of the library's own whose length is not known when they begin.

use super::connection::Conn;
use super::context::Context;
use super::dav::Telling;
use super::files::extend;
use super::listing::Listing;
use super::replies;
use super::sending::reset_on_close;
use super::step::Flow;
use crate::http::outlet::Outlet;
use crate::http::status::write_status_line;

/// Such an answer, of which the rest is made when there is room for it.
pub enum Stream {
    Listing(Listing),
    Telling(Telling),
}

impl Stream {
    pub fn listing(stream: &mut Option<Box<Stream>>) -> Option<&mut Listing> {
        match stream.as_deref_mut() {
            Some(Stream::Listing(listing)) => Some(listing),
            _ => None,
        }
    }

    pub fn telling(stream: &mut Option<Box<Stream>>) -> Option<&mut Telling> {
        match stream.as_deref_mut() {
            Some(Stream::Telling(telling)) => Some(telling),
            _ => None,
        }
    }
}

impl Conn {
    /// Writes the head of such an answer, and decides how its content is delimited.
    pub(super) fn begin_stream(
        &mut self,
        cx: &mut Context,
        status: u16,
        media_type: &str,
    ) -> Option<Outlet> {
        self.outbox(cx);
        let date = cx.clock.date();
        let conn = &mut *self;
        let (exchange, out) = (conn.exchange.as_deref_mut()?, conn.out.as_deref_mut()?);
        // HTTP/1.0 knows no chunks.
        exchange.last |= exchange.head.minor == 0;
        let persistent = exchange.head.persistent && !exchange.last;
        let out = &mut out.bytes;
        let before = out.len();
        write_status_line(out, status);
        extend(out, &[b"Date: ", date.as_bytes(), b"\r\n"]);
        extend(out, &[b"Content-Type: ", media_type.as_bytes(), b"\r\n"]);
        if exchange.head.minor == 1 {
            extend(out, &[b"Transfer-Encoding: chunked\r\n"]);
        }
        extend(out, &[b"Connection: ", replies::connection(persistent).as_bytes(), b"\r\n"]);
        extend(out, &[&cx.options.config.extra_headers, b"\r\n"]);
        exchange.status = status;
        exchange.head_len = (out.len() - before) as u64;
        Some(Outlet::choose(&exchange.head, status, None))
    }

    /// The rest of it cannot be sent: the client is to see that.
    pub(super) fn cut_off(&mut self, cx: &mut Context, outlet: Outlet, why: &str) -> Flow {
        if let Some(conn) = Some(&mut *self).filter(|_| outlet == Outlet::ToClose) {
            reset_on_close(&conn.socket);
        }
        self.complain(cx, why);
        Flow::Close
    }

    /// Counts bytes that the answer needs against the limit of the server, until it is complete.
    /// False if that is reached.
    pub(super) fn charge(&mut self, cx: &mut Context, len: usize) -> bool {
        let left = cx.options.config.max_buffered_bytes.saturating_sub(cx.buffered);
        let Some(exchange) = self.exchange.as_deref_mut().filter(|_| len <= left) else {
            return false;
        };
        exchange.charged += len;
        cx.buffered += len;
        true
    }
}
