//! Connections of a port whose letter is `r`: each request is answered at its head with 308 (RFC
//! 9110, section 15.4.9), and the address of the same resource on the port that speaks TLS. Nothing
//! else of the server can be reached here.
//!
//! Refuses to know which port that is.

use super::wire::Received;
use super::{Conn, Flow, State};
use crate::exchange::context::Context;
use crate::exchange::request::Request;
use crate::http::request::{Outcome, blank_prefix};
use crate::http::uri;

/// The port of the scheme `https`, which an address need not name.
const HTTPS: u16 = 443;

impl Conn {
    /// Looks for a request, and answers it. The connection ends with the answer.
    #[cold]
    pub(super) fn redirect_next(&mut self, cx: &mut Context) -> Flow {
        let limit = cx.options.config.max_request_header_bytes;
        let blank = blank_prefix(cx.input.bytes());
        if blank > limit {
            return self.refuse_redirected(cx, 431, false);
        }
        let text = cx.input.unread.start + blank..cx.input.unread.end;
        if !text.is_empty() {
            cx.input.unread.start = text.start;
            match cx.input.head.parse(&cx.input.buf[text], limit) {
                Outcome::Complete => return self.redirect(cx),
                Outcome::Refused(status) => return self.refuse_redirected(cx, status, true),
                Outcome::Partial => {}
            }
        }
        match self.receive(cx) {
            Received::Bytes => Flow::Again,
            Received::Nothing => Flow::Leave,
            Received::End | Received::Lost | Received::Refused { .. } => Flow::Close,
        }
    }

    /// Answers a request whose head is complete.
    fn redirect(&mut self, cx: &mut Context) -> Flow {
        self.state = State::default();
        let Some(mut request) = self.take_head(cx) else { return Flow::Close };
        request.is_last = true;
        let heard = match self.wire.hears_proxies {
            true => self.hear_proxies(cx, &mut request),
            false => Ok(()),
        };
        let status = match (cx.secure_port, request.locate(), heard) {
            (_, _, Err(status)) => status,
            // The list of ports has changed since the client connected.
            (None, _, _) => 503,
            (_, false, _) => 400,
            (Some(port), true, _) => match secure_address(&request, port) {
                Some(address) => {
                    for part in [b"Location: ", &address[..], b"\r\nCache-Control: no-store\r\n"] {
                        request.fields.extend_from_slice(part);
                    }
                    308
                }
                None => 400,
            },
        };
        self.reply(cx, request, status)
    }

    /// Answers input that is not a valid request, without the program's error handler.
    fn refuse_redirected(&mut self, cx: &mut Context, status: u16, parsed: bool) -> Flow {
        let handler = cx.error_handler.take();
        let flow = self.refuse(cx, status, parsed);
        cx.error_handler = handler;
        flow
    }
}

/// Returns the address of the requested resource on the secure port, with path and query as the
/// client wrote them. `None` if the request does not name its host, or no resource.
fn secure_address(request: &Request, port: u16) -> Option<Vec<u8>> {
    let host = request.head.value(request.head_bytes(), "host")?;
    // The field is valid, so that the last colon behind the brackets begins the port.
    let name_end = host.iter().rposition(|byte| *byte == b']').map_or(0, |at| at + 1);
    let colon = host[name_end..].iter().position(|byte| *byte == b':');
    let name = &host[..colon.map_or(host.len(), |at| name_end + at)];
    let target = uri::split_target(request.target()).ok()?;
    if name.is_empty() || !target.path.starts_with(b"/") || request.method() == b"CONNECT" {
        return None;
    }
    let mut address = [b"https://", name].concat();
    if port != HTTPS {
        address.extend_from_slice(format!(":{port}").as_bytes());
    }
    address.extend_from_slice(target.path);
    if let Some(query) = target.query {
        address.push(b'?');
        address.extend_from_slice(query);
    }
    Some(address)
}
