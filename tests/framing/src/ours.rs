//! What the library makes of a stream of requests: the functions that decide on framing, called in the order
//! in which a connection calls them. `served.rs` compares this with real connections.

use mongoose::http::chunked::{Decoder, Step};
use mongoose::http::request::{Expectation, Framing, Head, Outcome, blank_prefix};

/// The default of `max_request_header_bytes`.
const LIMIT: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Read {
    /// There is no further request.
    Nothing,
    /// The head is not complete.
    HalfHead,
    /// The head is complete, and the content is not.
    HalfContent,
    Complete,
    Refused,
}

/// One request.
#[derive(Default)]
pub struct Ours {
    pub head: Head,
    pub content: Vec<u8>,
    /// The offset of the head.
    pub start: usize,
    /// The offset behind the request.
    pub end: usize,
}

impl Ours {
    /// Reads the request that begins at `at`.
    pub fn read(&mut self, stream: &[u8], at: usize) -> Read {
        self.content.clear();
        let blank = blank_prefix(&stream[at..]);
        if blank > LIMIT {
            return Read::Refused;
        }
        self.start = at + blank;
        let rest = &stream[self.start..];
        if rest.is_empty() {
            return Read::Nothing;
        }
        match self.head.parse(rest, LIMIT) {
            Outcome::Partial => return Read::HalfHead,
            Outcome::Refused(_) => return Read::Refused,
            Outcome::Complete => {}
        }
        self.end = self.start + self.head.len;
        match self.head.framing {
            Framing::Empty => Read::Complete,
            Framing::Length(length) => self.counted(stream, length),
            Framing::Chunked => self.chunks(stream),
        }
    }

    fn counted(&mut self, stream: &[u8], length: u64) -> Read {
        let rest = &stream[self.end..];
        if length > rest.len() as u64 {
            return Read::HalfContent;
        }
        self.content.extend_from_slice(&rest[..length as usize]);
        self.end += length as usize;
        Read::Complete
    }

    fn chunks(&mut self, stream: &[u8]) -> Read {
        let mut decoder = Decoder::new();
        loop {
            let rest = &stream[self.end..];
            match decoder.step(rest) {
                Ok(Step::Data { start, end }) => {
                    self.content.extend_from_slice(&rest[start..end]);
                    self.end += end;
                }
                Ok(Step::More) => return Read::HalfContent,
                Ok(Step::End(len)) => {
                    self.end += len;
                    return Read::Complete;
                }
                Err(_) => return Read::Refused,
            }
        }
    }

    pub fn method<'a>(&self, stream: &'a [u8]) -> &'a [u8] {
        stream[self.start..].get(self.head.method.range()).unwrap_or_default()
    }

    pub fn target<'a>(&self, stream: &'a [u8]) -> &'a [u8] {
        stream[self.start..].get(self.head.target.range()).unwrap_or_default()
    }

    pub fn fields<'a>(&self, stream: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.head.pairs(&stream[self.start..])
    }

    /// Whether nothing is read behind this request: the connection ends, or the request is answered by an
    /// error that ends it.
    pub fn is_last(&self, stream: &[u8]) -> bool {
        !self.head.persistent
            || self.head.expects == Expectation::Unknown
            || self.method(stream) == b"CONNECT"
    }
}
