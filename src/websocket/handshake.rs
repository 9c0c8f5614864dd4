//! The opening handshake (RFC 6455, section 4.2): whether a request asks for a websocket, whether
//! its handshake is valid, and the response that switches protocols.
//!
//! Knows no handlers: the caller finds the one that matches the request.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode::RequireCanonical;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest, Sha1};

use super::deflate::Deflate;
use crate::http::request::{Framing, Head, tokens};

/// The suffix of the key before it is hashed (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Base64 that also accepts keys in which the unused last bits are not zero, as some clients send
/// them.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(RequireCanonical),
);

/// The decision about a handshake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Negotiation<'a> {
    Accept {
        /// The value of Sec-WebSocket-Key, for `write_response`.
        key: &'a [u8],
        protocol: Option<&'a str>,
        deflate: Option<Deflate>,
    },
    /// The status of the refusal. A response with 426 must have `Sec-WebSocket-Version: 13`.
    Refuse(u16),
}

/// Returns whether a request asks for a websocket, by a valid handshake or not. `bytes` holds the
/// head.
pub fn wants_websocket(head: &Head, bytes: &[u8]) -> bool {
    // Nearly all requests have no Upgrade field, and should not pay for a longer check.
    bytes.get(head.method.range()) == Some(b"GET") && lists(head, bytes, "upgrade", "websocket")
}

/// Checks the handshake of a request for which `wants_websocket` holds. `protocols` are the
/// subprotocols of the server; the first one that the client names is chosen.
pub fn negotiate<'a>(
    head: &Head,
    bytes: &'a [u8],
    protocols: &'a [String],
    deflate_allowed: bool,
) -> Negotiation<'a> {
    if head.minor == 0
        || head.framing != Framing::Empty
        || !lists(head, bytes, "connection", "upgrade")
    {
        return Negotiation::Refuse(400);
    }
    match only(head, bytes, "sec-websocket-version") {
        Some(b"13") => {}
        Some(_) => return Negotiation::Refuse(426),
        None => return Negotiation::Refuse(400),
    }
    let Some(key) = only(head, bytes, "sec-websocket-key").filter(|key| is_key(key)) else {
        return Negotiation::Refuse(400);
    };
    Negotiation::Accept {
        key,
        protocol: values(head, bytes, "sec-websocket-protocol")
            .flat_map(tokens)
            .find_map(|offer| protocols.iter().find(|p| p.as_bytes() == offer))
            .map(String::as_str),
        deflate: if deflate_allowed {
            Deflate::negotiate(values(head, bytes, "sec-websocket-extensions"))
        } else {
            None
        },
    }
}

/// Appends the response that makes a connection a websocket.
pub fn write_response(
    out: &mut Vec<u8>,
    key: &[u8],
    protocol: Option<&str>,
    deflate: Option<&Deflate>,
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    let encoded = BASE64.encode_slice(digest, &mut accept);
    debug_assert!(encoded == Ok(accept.len()), "20 bytes become 28 characters");
    out.extend_from_slice(&accept[..encoded.unwrap_or(0)]);
    if let Some(protocol) = protocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(protocol.as_bytes());
    }
    if let Some(deflate) = deflate {
        out.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
        deflate.write(out);
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Returns the values of all fields called `name`, in lower case.
fn values<'a>(head: &Head, bytes: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    head.fields.iter().filter_map(move |field| {
        let same = field.name.len as usize == name.len()
            && bytes.get(field.name.range())?.eq_ignore_ascii_case(name.as_bytes());
        same.then(|| bytes.get(field.value.range())).flatten()
    })
}

/// Returns the value of a field, unless the request has two of them.
fn only<'a>(head: &Head, bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut values = values(head, bytes, name);
    let value = values.next().map(<[u8]>::trim_ascii);
    if values.next().is_some() {
        return None;
    }
    value
}

/// Returns whether a list field has `token` among its members.
fn lists(head: &Head, bytes: &[u8], name: &str, token: &str) -> bool {
    values(head, bytes, name)
        .flat_map(tokens)
        .any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

/// Returns whether the key is 16 bytes in base64, which are 24 characters (RFC 6455, section 4.1).
fn is_key(key: &[u8]) -> bool {
    let mut nonce = [0; 18];
    key.len() == 24 && BASE64.decode_slice(key, &mut nonce) == Ok(16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::Outcome;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn parse(text: &str) -> Head {
        let mut head = Head::default();
        assert_eq!(head.parse(text.as_bytes(), 16384), Outcome::Complete);
        head
    }

    fn request(fields: &str) -> String {
        format!("GET /chat HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    }

    fn good(more: &str) -> String {
        request(&format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {KEY}\r\n{more}"
        ))
    }

    #[test]
    fn the_answer_is_that_of_the_rfc() {
        let text = good("");
        let head = parse(&text);
        let Negotiation::Accept { key, protocol: None, deflate: None } =
            negotiate(&head, text.as_bytes(), &[], true)
        else {
            panic!("refused");
        };
        let mut out = Vec::new();
        write_response(&mut out, key, Some("chat"), None);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             Sec-WebSocket-Protocol: chat\r\n\r\n"
        );
    }

    #[test]
    fn a_get_whose_upgrade_fields_list_websocket_asks_for_one() {
        let cases = [
            ("GET", "Upgrade: websocket\r\n", true),
            ("GET", "UPGRADE:  WebSocket \r\n", true),
            ("GET", "Upgrade: h2c, websocket\r\n", true),
            ("GET", "Upgrade: h2c\r\nUpgrade: websocket\r\n", true),
            ("GET", "", false),
            ("GET", "Upgrade: websockets\r\n", false),
            ("GET", "Upgrade: web socket\r\n", false),
            ("GET", "Upgrade: h2c\r\n", false),
            ("GET", "X-Upgrade: websocket\r\n", false),
            ("POST", "Upgrade: websocket\r\n", false),
            ("HEAD", "Upgrade: websocket\r\n", false),
        ];
        for (method, fields, wanted) in cases {
            let text = format!("{method} / HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(wants_websocket(&parse(&text), text.as_bytes()), wanted, "{text:?}");
        }
    }

    #[test]
    fn requests_and_what_becomes_of_them() {
        let whole = good("");
        let cases: &[(String, u16)] = &[
            (whole.clone(), 101),
            (whole.replace("Connection: U", "connection: keep-alive, u"), 101),
            (whole.replace("Connection: U", "Connection: x\r\nConnection: u"), 101),
            (good("Content-Length: 0\r\n"), 101),
            // The unused last bits of this key are not zero.
            (whole.replace("ZQ==", "ZR=="), 101),
            (whole.replace("HTTP/1.1", "HTTP/1.0"), 400),
            (whole.replace("Connection: Upgrade\r\n", ""), 400),
            (whole.replace("Connection: Upgrade", "Connection: close"), 400),
            (whole.replace("Sec-WebSocket-Version: 13\r\n", ""), 400),
            (good("Sec-WebSocket-Version: 13\r\n"), 400),
            (whole.replace("Version: 13", "Version: 8"), 426),
            (whole.replace("Version: 13", "Version: 8, 13"), 426),
            (whole.replace("Version: 13", "Version: 013"), 426),
            (whole.replace("Version: 13", "Version: 14"), 426),
            (whole.replace("Version: 13", "Version:"), 426),
            (whole.replace(KEY, ""), 400),
            (whole.replace(KEY, "dGhlIHNhbXBsZSBub25jZQ"), 400),
            (whole.replace(KEY, "dGhlIHNhbXBsZSBub25jZSE="), 400),
            (whole.replace(KEY, "dGhlIHNhbXBsZSBub25jZSEh"), 400),
            (whole.replace(KEY, "dGhlIHNhbXBsZSBub25jZQ=*"), 400),
            (whole.replace(KEY, "dGhlIHNhbXBsZSBub25j===="), 400),
            (whole.replace(KEY, "dGhlIHNhbXBsZSBub2 jZQ=="), 400),
            (whole.replace("Sec-WebSocket-Key", "X-Key"), 400),
            (good(&format!("Sec-WebSocket-Key: {KEY}\r\n")), 400),
            (good("Content-Length: 1\r\n"), 400),
            (good("Transfer-Encoding: chunked\r\n"), 400),
        ];
        for (text, expected) in cases {
            let status = match negotiate(&parse(text), text.as_bytes(), &[], false) {
                Negotiation::Accept { .. } => 101,
                Negotiation::Refuse(status) => status,
            };
            assert_eq!(status, *expected, "{text:?}");
        }
    }

    #[test]
    fn the_first_subprotocol_that_both_know_is_chosen() {
        let known: Vec<String> = ["chat", "superchat"].map(String::from).to_vec();
        let cases = [
            ("", None),
            ("Sec-WebSocket-Protocol: superchat, chat\r\n", Some("superchat")),
            ("Sec-WebSocket-Protocol: x,chat,superchat\r\n", Some("chat")),
            ("Sec-WebSocket-Protocol: x\r\nsec-websocket-protocol: chat\r\n", Some("chat")),
            ("Sec-WebSocket-Protocol: Chat, chats, \r\n", None),
        ];
        for (fields, expected) in cases {
            let text = good(fields);
            let Negotiation::Accept { protocol, .. } =
                negotiate(&parse(&text), text.as_bytes(), &known, false)
            else {
                panic!("refused: {text:?}");
            };
            assert_eq!(protocol, expected, "{text:?}");
        }
    }

    #[test]
    fn compression_is_negotiated_only_where_it_is_allowed() {
        let text = good("Sec-WebSocket-Extensions: x-other, permessage-deflate\r\n");
        for allowed in [false, true] {
            let Negotiation::Accept { key, deflate, .. } =
                negotiate(&parse(&text), text.as_bytes(), &[], allowed)
            else {
                panic!("refused");
            };
            let mut out = Vec::new();
            write_response(&mut out, key, None, deflate.as_ref());
            let out = String::from_utf8(out).unwrap();
            assert_eq!(
                out.contains("\r\nSec-WebSocket-Extensions: permessage-deflate"),
                allowed && cfg!(feature = "deflate"),
                "{out:?}"
            );
        }
    }
}
