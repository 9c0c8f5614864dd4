//! A small websocket client: it sends the frames it is given, good or bad, and shows those that
//! come back.

use super::server::PATIENT;
use super::{Client, Program, shown};

/// The example of RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A connection whose handshake has succeeded.
pub struct Websocket {
    pub client: Client,
    /// Status line and header fields of the answer.
    pub head: String,
}

/// A frame of the server.
#[derive(Debug, PartialEq)]
pub struct Frame {
    /// FIN, the reserved bits and the opcode.
    pub first_byte: u8,
    pub payload: Vec<u8>,
}

/// A running `tests/programs/websocket.c`, which prints events and does what messages tell it to.
pub struct WebsocketServer {
    pub program: Program,
    pub port: u16,
}

impl WebsocketServer {
    /// Starts it on a free port; `args` are options (`name=value`) and switches. It pings nobody
    /// unless it is told to, since a slow machine would else see pings anywhere.
    pub fn start(args: &[&str]) -> WebsocketServer {
        let all = [&["websocket_ping_interval_ms=0"], &PATIENT[..], args].concat();
        let mut program = Program::start("websocket.c", &all);
        let port = program.port();
        WebsocketServer { program, port }
    }

    /// Opens a websocket at `target`.
    #[track_caller]
    pub fn open(&self, target: &str) -> Websocket {
        Websocket::open(self.port, target)
    }

    /// Opens a websocket that the program keeps under `key`.
    pub fn open_kept(&mut self, key: &str) -> Websocket {
        let mut socket = self.open(&format!("/events?{key}"));
        socket.text(&format!("do keep {key}"));
        self.expect_line(&format!("kept {key}"));
        socket
    }

    /// Lets another thread than the one that polls carry out a step.
    pub fn tell(&mut self, step: &str) -> &mut WebsocketServer {
        self.program.tell(step);
        self
    }

    /// Waits for a line of the program.
    pub fn expect_line(&mut self, line: &str) -> &mut WebsocketServer {
        self.program.expect_line(line);
        self
    }

    /// Lets another thread carry out a step, and waits for the line that it prints.
    pub fn step(&mut self, step: &str, line: &str) -> &mut WebsocketServer {
        self.tell(step).expect_line(line)
    }

    /// The lines that were printed since nobody waited for them, without `EVENT `.
    pub fn events(&mut self) -> Vec<String> {
        self.step("say so far", "so far");
        let lines = self.program.unclaimed_lines();
        lines.iter().map(|line| line.trim_start_matches("EVENT ").to_owned()).collect()
    }

    /// The server still echoes, and ends cleanly.
    #[track_caller]
    pub fn stop(self) {
        self.open("/echo").text("alive").expect_text("alive");
        self.program.stop();
    }
}

/// A good handshake for `target` with these fields more.
pub fn handshake(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    )
}

/// A client's frame, masked.
pub fn frame(first_byte: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = header(first_byte, payload.len() as u64);
    bytes.reserve(payload.len());
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The header of a client's frame, with its mask.
pub fn header(first_byte: u8, len: u64) -> Vec<u8> {
    let mut bytes = vec![first_byte];
    match len {
        0..126 => bytes.push(0x80 | len as u8),
        126..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(len.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

/// The payload of a Close frame.
pub fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

impl Websocket {
    /// Opens a websocket at `target`.
    #[track_caller]
    pub fn open(port: u16, target: &str) -> Websocket {
        Websocket::open_with(port, target, "")
    }

    /// Opens a websocket with these header fields more.
    #[track_caller]
    pub fn open_with(port: u16, target: &str, fields: &str) -> Websocket {
        let mut client = Client::connect(port);
        client.send(handshake(target, fields));
        Websocket::begin(client)
    }

    /// Reads the answer to a handshake.
    #[track_caller]
    pub fn begin(mut client: Client) -> Websocket {
        let head = client.take_through("\r\n\r\n");
        let start = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n"
        );
        assert!(head.starts_with(&start), "{head}");
        Websocket { client, head }
    }

    /// Opens a websocket through a proxy, which writes the fields in its own way.
    #[track_caller]
    pub fn open_through_proxy(port: u16, target: &str) -> Websocket {
        let mut client = Client::connect(port);
        client.send(handshake(target, ""));
        let head = client.take_through("\r\n\r\n");
        let accept = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("Sec-WebSocket-Accept").then_some(value)
        });
        assert!(head.starts_with("HTTP/1.1 101 ") && accept == Some(ACCEPT), "{head}");
        Websocket { client, head }
    }

    /// Sends bytes as they stand.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Websocket {
        self.client.send(bytes);
        self
    }

    /// Sends a frame.
    pub fn frame(&mut self, first_byte: u8, payload: impl AsRef<[u8]>) -> &mut Websocket {
        self.send(frame(first_byte, payload))
    }

    /// Sends a text message.
    pub fn text(&mut self, text: &str) -> &mut Websocket {
        self.frame(0x81, text)
    }

    /// Reads one frame, which must be in the shortest form and unmasked.
    #[track_caller]
    pub fn next(&mut self) -> Frame {
        let bytes = self.client.take(2);
        let &[first_byte, len] = &bytes[..] else { panic!("no frame, but {}", shown(&bytes)) };
        let len = match len {
            0..126 => usize::from(len),
            126 => {
                let bytes = self.client.take(2).try_into().expect("two bytes of length");
                let len = u16::from_be_bytes(bytes);
                assert!(len >= 126, "a length of {len} in two bytes");
                usize::from(len)
            }
            127 => {
                let bytes = self.client.take(8).try_into().expect("eight bytes of length");
                let len = u64::from_be_bytes(bytes);
                assert!(len >= 65536, "a length of {len} in eight bytes");
                len as usize
            }
            _ => panic!("a masked frame: {first_byte:02x} {len:02x}"),
        };
        let payload = self.client.take(len);
        assert_eq!(payload.len(), len, "the frame is cut");
        Frame { first_byte, payload }
    }

    /// The next frame is this one.
    #[track_caller]
    pub fn expect(&mut self, first_byte: u8, payload: impl AsRef<[u8]>) -> &mut Websocket {
        let (found, payload) = (self.next(), payload.as_ref());
        assert!(
            found.first_byte == first_byte && found.payload == payload,
            "expected {first_byte:02x} {}\ngot {:02x} {}",
            shown(&payload[..payload.len().min(300)]),
            found.first_byte,
            shown(&found.payload[..found.payload.len().min(300)]),
        );
        self
    }

    /// The next frame is a text message, this one.
    #[track_caller]
    pub fn expect_text(&mut self, text: &str) -> &mut Websocket {
        self.expect(0x81, text)
    }

    /// A Close frame with this code comes, and then the end.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) {
        self.expect(0x88, code.to_be_bytes());
        self.client.expect_closed();
    }
}
