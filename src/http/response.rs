//! The response that a program writes, raw or through the `mg_send` family (RFC 9112, section 6).
//!
//! Owns where the response ends and whether the connection can stay open: raw bytes are passed on
//! as they stand, and read just as far as that takes. Knows no socket, and of the request only
//! [`RequestFacts`]. `raw_head` reads heads, and `built_head` writes them.

pub use super::built_head::RequestFacts;
use super::built_head::{BuiltHead, Ending};
use super::chunked::{Decoder, Step};
use super::raw_head::{Facts, find_end, may_be_head};
use super::request::is_token_byte;
use super::status::forbids_content;

/// The longest raw head in bytes that is remembered for the next response.
const MAX_RECENT: usize = 512;

/// One response that is being written.
#[derive(Debug, Default)]
pub struct Answer {
    request: RequestFacts,
    state: State,
    /// The handler has returned: further bytes are written late.
    late: bool,
    /// The status of the final head; 0 before it.
    pub status: u16,
    /// The number of bytes of all heads that were passed on.
    pub head_len: u64,
    /// The status of a built head that the program gives none.
    default_status: u16,
    /// A mistake of the program, for the error log.
    fault: Option<&'static str>,
    /// The raw head that was read last, and its facts: programs write the same head again and
    /// again. Both stay when the next response begins.
    recent: Vec<u8>,
    /// Bytes that other threads wrote while the handler ran.
    held: Vec<Vec<u8>>,
    recent_facts: Option<Facts>,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing is written, or only 1xx heads.
    #[default]
    Start,
    /// A raw head is not complete: its bytes so far.
    Head(Vec<u8>),
    /// The `mg_send` family builds the head, which is not passed on yet.
    Built(BuiltHead),
    /// The built head is passed on; data becomes chunks, or is passed on as it stands.
    Data { chunked: bool, persistent: bool },
    /// Raw content of known length.
    Length { left: u64, persistent: bool },
    /// Raw content in chunks that the program writes itself.
    Chunks { decoder: Decoder, persistent: bool },
    /// Raw content that ends with the connection; endless if its media type has no end.
    Unframed { endless: bool },
    /// The response is complete.
    Complete { persistent: bool },
    /// A piece is missing of which the program cannot know: the response is never complete, and nothing more
    /// of it is taken.
    Cut { chunked: bool },
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Written {
    Taken,
    Refused,
}

/// The progress of a response when its handler has returned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Completion {
    /// Nothing was written.
    Silent,
    /// The response has begun and is to be continued.
    Open,
    Complete {
        persistent: bool,
    },
    /// A piece is missing. `shows`: the client sees that from the framing, whatever follows.
    Cut {
        shows: bool,
    },
}

impl Answer {
    /// Creates a response of which nothing is written yet.
    pub fn new(request: RequestFacts, default_status: u16) -> Self {
        let mut answer = Self::default();
        answer.begin(request, default_status);
        answer
    }

    /// Begins the next response in place of this one. `default_status` is the status of a built
    /// head for which the program calls no `mg_send_status`.
    pub fn begin(&mut self, request: RequestFacts, default_status: u16) {
        self.request = request;
        self.default_status = default_status;
        self.state = State::Start;
        self.late = false;
        self.status = 0;
        self.head_len = 0;
        self.fault = None;
        self.held.clear();
    }

    /// Keeps bytes of another thread until the handler has returned.
    pub fn hold(&mut self, bytes: Vec<u8>) {
        self.held.push(bytes);
    }

    /// Takes the bytes of other threads that were kept, in their order.
    pub fn write_held(&mut self, out: &mut Vec<u8>) {
        for bytes in std::mem::take(&mut self.held) {
            self.write(&bytes, out);
        }
    }

    /// Returns whether the connection may stay open if the response is complete, else `None`.
    pub fn complete(&self) -> Option<bool> {
        match self.state {
            State::Complete { persistent } => Some(persistent),
            _ => None,
        }
    }

    /// Takes the last mistake of the program since the previous call.
    pub fn take_fault(&mut self) -> Option<&'static str> {
        self.fault.take()
    }

    /// Takes raw bytes and appends to `out` those of them that are to be sent.
    pub fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Written {
        if bytes.is_empty() {
            return Written::Taken;
        }
        if out.try_reserve(bytes.len() + 64).is_err() {
            return Written::Refused;
        }
        if let State::Start = self.state {
            return self.raw(bytes, out);
        }
        if let State::Complete { .. } = self.state {
            if self.late || bytes.starts_with(b"HTTP/") {
                return Written::Refused;
            }
            self.fault = Some("the handler wrote beyond the end of its answer");
            return Written::Taken;
        }
        if let State::Cut { .. } = self.state {
            return Written::Refused;
        }
        if let State::Built(built) = &mut self.state {
            self.state = State::Head(built.take_bytes());
        }
        let empty = self.request.head_only || forbids_content(self.status);
        if let State::Data { .. } = self.state
            && empty
        {
            self.fault = Some("data for an answer that cannot have content");
            return Written::Taken;
        }
        if let State::Data { chunked: true, persistent } = self.state {
            self.state = State::Chunks { decoder: Decoder::new(), persistent };
        } else if let State::Data { .. } = self.state {
            self.state = State::Unframed { endless: false };
        }
        self.raw(bytes, out)
    }

    /// Follows raw bytes to the end of the response.
    fn raw(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Written {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Start => match self.read_head(bytes) {
                    Some((end, facts)) => {
                        let (head, rest) = bytes.split_at(end);
                        self.head(head, facts, out);
                        bytes = rest;
                    }
                    None if may_be_head(bytes) => {
                        let mut head = Vec::new();
                        if head.try_reserve(bytes.len().max(256)).is_err() {
                            return Written::Refused;
                        }
                        head.extend_from_slice(bytes);
                        self.state = State::Head(head);
                        return Written::Taken;
                    }
                    None => self.state = State::Unframed { endless: false },
                },
                State::Head(_) => match self.continue_head(bytes, out) {
                    Some(rest) => bytes = rest,
                    None => return Written::Refused,
                },
                State::Length { left, persistent } => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    out.extend_from_slice(&bytes[..take]);
                    *left -= take as u64;
                    bytes = &bytes[take..];
                    if *left == 0 {
                        self.state = State::Complete { persistent: *persistent };
                    }
                }
                State::Chunks { decoder, persistent } => match decoder.step(bytes) {
                    Ok(Step::Data { end, .. }) => {
                        out.extend_from_slice(&bytes[..end]);
                        bytes = &bytes[end..];
                    }
                    Ok(Step::More) => {
                        out.extend_from_slice(bytes);
                        bytes = &[];
                    }
                    Ok(Step::End(end)) => {
                        out.extend_from_slice(&bytes[..end]);
                        bytes = &bytes[end..];
                        self.state = State::Complete { persistent: *persistent };
                    }
                    Err(_) => {
                        self.fault = Some("the handler wrote malformed chunks");
                        self.state = State::Unframed { endless: false };
                    }
                },
                State::Unframed { .. } => {
                    out.extend_from_slice(bytes);
                    bytes = &[];
                }
                State::Complete { .. } => {
                    self.fault = Some("the handler wrote beyond the end of its answer");
                    bytes = &[];
                }
                State::Built(_) | State::Data { .. } | State::Cut { .. } => {
                    debug_assert!(false, "`write` leaves these states before raw bytes");
                    return Written::Refused;
                }
            }
        }
        Written::Taken
    }

    /// Adds bytes to a raw head whose start came before. Returns the bytes behind the head, which
    /// are none if it is still not complete; `None` if there is no memory.
    #[inline]
    fn continue_head<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
        let State::Head(head) = &mut self.state else {
            debug_assert!(false, "no raw head has begun");
            return None;
        };
        head.try_reserve(bytes.len()).ok()?;
        let before = head.len();
        head.extend_from_slice(bytes);
        let mut head = std::mem::take(head);
        if let Some(end) = find_end(&head, before.saturating_sub(3)) {
            head.truncate(end);
            let facts = Facts::read(&head).and_then(|(_, facts)| facts);
            self.head(&head, facts, out);
            return Some(&bytes[end.saturating_sub(before)..]);
        }
        if may_be_head(&head) {
            self.state = State::Head(head);
        } else {
            out.extend_from_slice(&head);
            self.state = State::Unframed { endless: false };
        }
        Some(&[])
    }

    /// Reads the head at the start of `bytes` as [`Facts::read`] does.
    fn read_head(&mut self, bytes: &[u8]) -> Option<(usize, Option<Facts>)> {
        // The bytes behind a head do not change its meaning, so that the same bytes state the same.
        if self.recent_facts.is_some() && bytes.starts_with(&self.recent) {
            return Some((self.recent.len(), self.recent_facts));
        }
        let (end, facts) = Facts::read(bytes)?;
        self.recent_facts = None;
        self.recent.clear();
        if end <= MAX_RECENT && self.recent.try_reserve(end).is_ok() {
            self.recent.extend_from_slice(&bytes[..end]);
            self.recent_facts = facts;
        }
        Some((end, facts))
    }

    /// Passes on a complete raw head and decides on the framing behind it.
    fn head(&mut self, head: &[u8], facts: Option<Facts>, out: &mut Vec<u8>) {
        let Some(facts) = facts else {
            out.extend_from_slice(head);
            self.state = State::Unframed { endless: false };
            return;
        };
        if facts.status == 101 {
            // From here on the program speaks a protocol of its own.
            self.status = 101;
            self.head_len += head.len() as u64;
            out.extend_from_slice(head);
            self.state = State::Unframed { endless: false };
            return;
        }
        if facts.status < 200 {
            // RFC 9110, section 15.2: a client of HTTP/1.0 does not know interim responses.
            if self.request.chunks {
                self.head_len += head.len() as u64;
                out.extend_from_slice(head);
                // A client that does not find the end of this head does not find the next one either.
                self.request.persistent &= facts.persists[1];
            }
            self.state = State::Start;
            return;
        }
        self.head_len += head.len() as u64;
        out.extend_from_slice(head);
        self.status = facts.status;
        let persistent =
            self.request.persistent && facts.persists[usize::from(self.request.chunks)];
        self.state = if self.request.head_only || forbids_content(facts.status) {
            State::Complete { persistent }
        } else if facts.chunked {
            State::Chunks { decoder: Decoder::new(), persistent }
        } else {
            match facts.length {
                Some(0) => State::Complete { persistent },
                Some(left) => State::Length { left, persistent },
                None => State::Unframed { endless: facts.endless },
            }
        };
    }

    /// Returns the head that is being built, and begins it where nothing is written yet.
    fn built(&mut self) -> Option<&mut BuiltHead> {
        if let State::Start = self.state {
            let status = self.default_status;
            self.state = State::Built(BuiltHead::new(status));
        }
        match &mut self.state {
            State::Built(built) => Some(built),
            State::Cut { .. } => None,
            _ => {
                self.fault = Some("mg_send_status or mg_send_header after the head was sent");
                None
            }
        }
    }

    /// Begins a head of the `mg_send` family. Returns whether `status` was taken.
    pub fn send_status(&mut self, status: u16) -> bool {
        if !matches!(self.state, State::Start) {
            self.fault = Some("mg_send_status after the answer was begun");
            return false;
        }
        self.state = State::Built(BuiltHead::new(status));
        true
    }

    /// Adds a field to the head of the `mg_send` family, unless it is malformed.
    pub fn send_header(&mut self, name: &[u8], value: &[u8]) {
        let name = name.trim_ascii();
        let name = name.strip_suffix(b":").unwrap_or(name).trim_ascii_end();
        if name.is_empty() || !name.iter().all(is_token_byte) {
            self.fault = Some("mg_send_header: not a field name; the field is dropped");
            return;
        }
        if value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
            self.fault = Some("mg_send_header: line break in a value; the field is dropped");
            return;
        }
        if let Some(built) = self.built() {
            built.append(name, value);
        }
    }

    /// Sends content through the `mg_send` family: as a chunk, or as it stands to a client of
    /// HTTP/1.0. Empty data ends the head and, after the handler has returned, the response.
    pub fn send_data(&mut self, data: &[u8], out: &mut Vec<u8>) -> Written {
        if out.try_reserve(data.len() + 256).is_err() {
            self.cut_off();
            return Written::Refused;
        }
        if let State::Start | State::Built(_) = self.state {
            self.end_built_head(true, out);
        }
        match self.state {
            State::Data { chunked, persistent } => {
                if self.request.head_only || forbids_content(self.status) {
                    if !data.is_empty() {
                        self.fault = Some("data for an answer that cannot have content");
                    }
                } else if !data.is_empty() {
                    if chunked {
                        write_chunk_size(out, data.len());
                    }
                    out.extend_from_slice(data);
                    if chunked {
                        out.extend_from_slice(b"\r\n");
                    }
                }
                if self.late && data.is_empty() {
                    self.end_data(chunked, persistent, out);
                }
                Written::Taken
            }
            State::Cut { .. } => Written::Refused,
            _ => {
                self.fault = Some("mg_send_data after raw bytes or the end of the answer");
                Written::Refused
            }
        }
    }

    /// Notes that a piece of the `mg_send` family was refused. The program is not told, so that the response
    /// must not pass for a whole one. Returns false where such a piece would not have been part of it.
    #[cold]
    pub fn cut_off(&mut self) -> bool {
        let chunked = match self.state {
            State::Start | State::Built(_) => self.request.chunks,
            State::Data { chunked, .. } => chunked,
            _ => return false,
        };
        self.state = State::Cut { chunked };
        self.fault = Some("no room for what mg_send_data adds to an answer, which is cut off");
        true
    }

    /// Returns whether a piece is missing.
    pub fn is_cut(&self) -> bool {
        matches!(self.state, State::Cut { .. })
    }

    /// Appends the last chunk where there are chunks, and completes the response.
    fn end_data(&mut self, chunked: bool, persistent: bool, out: &mut Vec<u8>) {
        if chunked && !self.request.head_only && !forbids_content(self.status) {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        self.state = State::Complete { persistent };
    }

    /// Passes on the built head, with the framing that fits the content that follows.
    fn end_built_head(&mut self, content_follows: bool, out: &mut Vec<u8>) {
        let built = match std::mem::take(&mut self.state) {
            State::Built(built) => built,
            _ => BuiltHead::new(self.default_status),
        };
        let before = out.len();
        self.status = built.status();
        let Ending { chunked, persistent } = built.write(self.request, content_follows, out);
        self.head_len += (out.len() - before) as u64;
        self.state = if content_follows {
            State::Data { chunked, persistent }
        } else {
            State::Complete { persistent }
        };
    }

    /// Notes that the handler has returned. Completes the response, unless its framing lets the
    /// program continue it later.
    pub fn handler_returned(&mut self, out: &mut Vec<u8>) -> Completion {
        self.late = true;
        match &mut self.state {
            State::Start => return Completion::Silent,
            State::Head(head) => {
                out.extend_from_slice(head);
                self.state = State::Complete { persistent: false };
            }
            State::Built(_) => self.end_built_head(false, out),
            State::Data { chunked, persistent } => {
                let (chunked, persistent) = (*chunked, *persistent);
                self.end_data(chunked, persistent, out);
            }
            State::Unframed { endless: false } => {
                self.state = State::Complete { persistent: false };
            }
            State::Unframed { endless: true }
            | State::Length { .. }
            | State::Chunks { .. }
            | State::Complete { .. }
            | State::Cut { .. } => {}
        }
        match self.state {
            State::Complete { persistent } => Completion::Complete { persistent },
            State::Cut { chunked } => Completion::Cut { shows: chunked },
            _ => Completion::Open,
        }
    }
}

/// Appends the line in front of the data of a chunk (RFC 9112, section 7.1).
fn write_chunk_size(out: &mut Vec<u8>, len: usize) {
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(len >> (place * 4)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn raw_bytes_behind_data_are_not_sent_where_there_is_no_content() {
        for (head_only, status) in [(true, 200), (false, 204), (false, 304)] {
            let request = RequestFacts { head_only, chunks: true, persistent: true };
            let (mut answer, mut out) = (Answer::new(request, status), Vec::new());
            assert_eq!(answer.send_data(b"a", &mut out), Written::Taken);
            assert_eq!(answer.write(b"1\r\nb\r\n", &mut out), Written::Taken);
            assert!(answer.take_fault().is_some());
            assert_eq!(
                answer.handler_returned(&mut out),
                Completion::Complete { persistent: true }
            );
            assert!(out.ends_with(b"\r\n\r\n") && find_end(&out, 0) == Some(out.len()));
        }
    }

    fn end_of(request: RequestFacts, fields: &str) -> Completion {
        let (mut answer, mut out) = (Answer::new(request, 200), Vec::new());
        answer.write(format!("HTTP/1.1 200 OK\r\n{fields}\r\nabc").as_bytes(), &mut out);
        answer.handler_returned(&mut out)
    }

    #[test]
    fn an_answer_whose_end_clients_may_see_elsewhere_is_the_last() {
        let request = RequestFacts { chunks: true, persistent: true, ..RequestFacts::default() };
        for fields in [
            "Content-Length: 2\r\nContent-Length: 3\r\n",
            "Content-Length: x\r\nContent-Length: 2\r\n",
            "Content-Length: 2\r\nTransfer-Encoding: gzip\r\n",
            "Content-Length: 2\r\nContent-Length: 2\r\n",
            "Content-Length: 2\r\n 3\r\n",
            "Content-Length: 2\r\nA: \rb\r\n",
            "Content-Length: 2\r\nA\r\n",
            "Content-Length: 2\r\n: a\r\n",
            "Content-Length: 2\r\nA: \0\r\n",
            "Content-Length: 2\t\r\n",
            "Content-Length: 2\r\nConnection:\tkeep-alive\r\n",
        ] {
            assert_ne!(
                end_of(request, fields),
                Completion::Complete { persistent: true },
                "{fields}"
            );
        }
        for fields in [
            "Content-Length: 3\r\n",
            "Content-Length: 3\r\nContent-Type:\ttext/html\r\nA: b\tc\r\n",
        ] {
            assert_eq!(
                end_of(request, fields),
                Completion::Complete { persistent: true },
                "{fields}"
            );
        }
        // The client takes the response for an interim one and waits for another.
        let (mut answer, mut out) = (Answer::new(request, 200), Vec::new());
        assert!(answer.send_status(102));
        assert_eq!(answer.handler_returned(&mut out), Completion::Complete { persistent: false });
    }

    proptest! {
        /// A remembered head makes no difference.
        #[test]
        fn an_answer_that_was_another_before_is_as_good_as_a_new_one(
            written in proptest::collection::vec(
                (
                    proptest::sample::select(vec![
                        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
                        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\r\n",
                        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n",
                        "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n",
                        "HTTP/1.1 100 Continue\r\n\r\n",
                        "HTTP/1.1 200 OK\r\n\r\n",
                        "HTTP/1.1 204 No Content\n\n",
                        "HTTP/x\r\n\r\n",
                        "",
                    ]),
                    "[a\r\n]{0,3}",
                    any::<(bool, bool, bool)>(),
                ),
                1..8,
            ),
        ) {
            let mut used = Answer::default();
            for (head, content, (head_only, chunks, persistent)) in written {
                let request = RequestFacts { head_only, chunks, persistent };
                let mut new = Answer::new(request, 200);
                used.begin(request, 200);
                let (mut by_used, mut by_new) = (Vec::new(), Vec::new());
                for bytes in [head.as_bytes(), content.as_bytes()] {
                    let taken = used.write(bytes, &mut by_used);
                    prop_assert_eq!(taken, new.write(bytes, &mut by_new));
                }
                let completion = used.handler_returned(&mut by_used);
                prop_assert_eq!(completion, new.handler_returned(&mut by_new));
                prop_assert_eq!(by_used, by_new);
                prop_assert_eq!((used.status, used.head_len), (new.status, new.head_len));
                prop_assert_eq!(used.take_fault(), new.take_fault());
            }
        }
    }
}
