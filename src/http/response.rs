//! The answer to a request as the program writes it, raw or through the `mg_send` family
//! (RFC 9112, section 6). Raw bytes are passed on as they stand; they are read just far enough to
//! know where the answer ends and whether the connection can stay open.

use super::chunked::{Decoder, Step};
use super::request::{decimal, tokens};
use super::status::{forbids_content, write_status_line};

/// A raw head longer than this is taken for a body without a head.
const MAX_HEAD: usize = 1 << 20;
/// A head longer than this is not remembered.
const MAX_RECENT: usize = 512;

/// What of the request decides how its answer ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// The answer to HEAD has no content.
    pub head_only: bool,
    /// HTTP/1.1, so that chunks are understood.
    pub chunks: bool,
    /// The client allows another request.
    pub persistent: bool,
}

/// One answer in the making.
#[derive(Debug, Default)]
pub struct Answer {
    asked: Asked,
    state: State,
    /// The handler has returned: what is written now is written late.
    late: bool,
    /// Status of the final head; 0 until there is one.
    pub status: u16,
    /// Bytes of heads that were passed on.
    pub head_len: u64,
    default_status: u16,
    fault: Option<&'static str>,
    /// The raw head that was read last, and what it said: programs write the same one again and
    /// again. It stays when the answer is begun anew.
    recent: Vec<u8>,
    recent_facts: Option<Facts>,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing is written, or only 1xx heads.
    #[default]
    Start,
    /// A raw head whose end has not come.
    Head(Vec<u8>),
    /// Made by the `mg_send` family; its head is not out.
    Built(Built),
    /// The head made by the `mg_send` family is out; data becomes chunks, or goes out plain.
    Data { chunked: bool, persistent: bool },
    /// Raw content of known length.
    Length { left: u64, persistent: bool },
    /// Raw content in chunks of the program's own.
    Chunks { decoder: Decoder, persistent: bool },
    /// Raw content that ends with the connection; endless if its type says so.
    Unframed { endless: bool },
    /// All is written.
    Complete { persistent: bool },
}

/// A field of the program's that the library has a say in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum OwnField {
    Length,
    Coding,
    Connection,
}

#[derive(Debug, Default)]
struct Built {
    head: Vec<u8>,
    /// Where in `head` the program's own fields are that may have to be left out.
    fields: Vec<(OwnField, std::ops::Range<usize>)>,
    named_close: bool,
    named_keep_alive: bool,
    status: u16,
}

/// Whether a write was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Written {
    Taken,
    Refused,
}

/// Where an answer stands when its handler has returned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Standing {
    /// Nothing was written.
    Silent,
    /// Begun and to be continued.
    Open,
    Complete {
        persistent: bool,
    },
}

impl Answer {
    /// An answer of which nothing is written yet.
    pub fn new(asked: Asked, default_status: u16) -> Self {
        let mut answer = Self::default();
        answer.begin(asked, default_status);
        answer
    }

    /// Makes it an answer of which nothing is written yet. `default_status` is that of the
    /// `mg_send` family.
    pub fn begin(&mut self, asked: Asked, default_status: u16) {
        self.asked = asked;
        self.default_status = default_status;
        self.state = State::Start;
        self.late = false;
        self.status = 0;
        self.head_len = 0;
        self.fault = None;
    }

    /// Whether it is complete, and if so whether the connection may stay open.
    pub fn complete(&self) -> Option<bool> {
        match self.state {
            State::Complete { persistent } => Some(persistent),
            _ => None,
        }
    }

    /// Whether the program has written anything.
    pub fn is_untouched(&self) -> bool {
        matches!(self.state, State::Start) && self.head_len == 0
    }

    /// What the program did wrong since the last call.
    pub fn take_fault(&mut self) -> Option<&'static str> {
        self.fault.take()
    }

    /// Takes raw bytes and appends to `out` what is to be sent of them.
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
        if let State::Built(built) = &mut self.state {
            self.state = State::Head(std::mem::take(&mut built.head));
        }
        let empty = self.asked.head_only || forbids_content(self.status);
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
                State::Head(head) => {
                    if head.try_reserve(bytes.len()).is_err() {
                        return Written::Refused;
                    }
                    let before = head.len();
                    head.extend_from_slice(bytes);
                    let mut head = std::mem::take(head);
                    match find_head_end(&head, before.saturating_sub(3)) {
                        Some(end) => {
                            bytes = &bytes[end.saturating_sub(before)..];
                            head.truncate(end);
                            let facts = Facts::read(&head).and_then(|(_, facts)| facts);
                            self.head(&head, facts, out);
                        }
                        None if may_be_head(&head) => {
                            self.state = State::Head(head);
                            return Written::Taken;
                        }
                        None => {
                            out.extend_from_slice(&head);
                            self.state = State::Unframed { endless: false };
                            return Written::Taken;
                        }
                    }
                }
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
                State::Built(_) | State::Data { .. } => return Written::Refused,
            }
        }
        Written::Taken
    }

    /// What the head at the start of `bytes` says, as [`Facts::read`] does.
    fn read_head(&mut self, bytes: &[u8]) -> Option<(usize, Option<Facts>)> {
        // A head that is known ends where it says: nothing behind it can change what it means.
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

    /// Passes on a complete raw head and decides what follows it.
    fn head(&mut self, head: &[u8], facts: Option<Facts>, out: &mut Vec<u8>) {
        let Some(facts) = facts else {
            out.extend_from_slice(head);
            self.state = State::Unframed { endless: false };
            return;
        };
        if facts.status == 101 {
            // The program speaks a protocol of its own from here on.
            self.status = 101;
            self.head_len += head.len() as u64;
            out.extend_from_slice(head);
            self.state = State::Unframed { endless: false };
            return;
        }
        if facts.status < 200 {
            // RFC 9110, section 15.2: a client of HTTP/1.0 does not know interim answers.
            if self.asked.chunks {
                self.head_len += head.len() as u64;
                out.extend_from_slice(head);
            }
            self.state = State::Start;
            return;
        }
        self.head_len += head.len() as u64;
        out.extend_from_slice(head);
        self.status = facts.status;
        let persistent = self.asked.persistent && facts.persists[usize::from(self.asked.chunks)];
        self.state = if self.asked.head_only || forbids_content(facts.status) {
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

    fn built(&mut self) -> Option<&mut Built> {
        if let State::Start = self.state {
            let status = self.default_status;
            self.state = State::Built(Built::new(status));
        }
        match &mut self.state {
            State::Built(built) => Some(built),
            _ => {
                self.fault = Some("mg_send_status or mg_send_header after the head was sent");
                None
            }
        }
    }

    /// Begins an answer of the `mg_send` family. Returns whether `status` was taken.
    pub fn send_status(&mut self, status: u16) -> bool {
        if !matches!(self.state, State::Start) {
            self.fault = Some("mg_send_status after the answer was begun");
            return false;
        }
        self.state = State::Built(Built::new(status));
        true
    }

    /// Adds a field to the head of the `mg_send` family.
    pub fn send_header(&mut self, name: &[u8], value: &[u8]) {
        let name = name.trim_ascii();
        let name = name.strip_suffix(b":").unwrap_or(name).trim_ascii_end();
        let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        if name.is_empty() || !name.iter().all(is_token) {
            self.fault = Some("mg_send_header: not a field name; the field is dropped");
            return;
        }
        if value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
            self.fault = Some("mg_send_header: line break in a value; the field is dropped");
            return;
        }
        let Some(built) = self.built() else { return };
        if built.head.try_reserve(name.len() + value.len() + 4).is_err() {
            return;
        }
        let start = built.head.len();
        built.head.extend_from_slice(name);
        built.head.extend_from_slice(b": ");
        built.head.extend_from_slice(value);
        built.head.extend_from_slice(b"\r\n");
        let own = match name.len() {
            10 if name.eq_ignore_ascii_case(b"connection") => OwnField::Connection,
            14 if name.eq_ignore_ascii_case(b"content-length") => OwnField::Length,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => OwnField::Coding,
            _ => return,
        };
        built.fields.push((own, start..built.head.len()));
        if own == OwnField::Connection {
            for token in tokens(value) {
                built.named_close |= token.eq_ignore_ascii_case(b"close");
                built.named_keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        }
    }

    /// Sends content through the `mg_send` family: a chunk, or plain to a client of HTTP/1.0.
    /// Empty data ends the head and, after the handler has returned, the answer.
    pub fn send_data(&mut self, data: &[u8], out: &mut Vec<u8>) -> Written {
        if out.try_reserve(data.len() + 256).is_err() {
            return Written::Refused;
        }
        if let State::Start | State::Built(_) = self.state {
            self.end_built_head(true, out);
        }
        match self.state {
            State::Data { chunked, persistent } => {
                if self.asked.head_only || forbids_content(self.status) {
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
            _ => {
                self.fault = Some("mg_send_data after raw bytes or the end of the answer");
                Written::Refused
            }
        }
    }

    fn end_data(&mut self, chunked: bool, persistent: bool, out: &mut Vec<u8>) {
        if chunked && !self.asked.head_only && !forbids_content(self.status) {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        self.state = State::Complete { persistent };
    }

    /// Writes the head of the `mg_send` family, with the framing that fits what follows.
    fn end_built_head(&mut self, data_follows: bool, out: &mut Vec<u8>) {
        let built = match std::mem::take(&mut self.state) {
            State::Built(built) => built,
            _ => Built::new(self.default_status),
        };
        let before = out.len();
        self.status = built.status;
        let chunked = data_follows && self.asked.chunks;
        let content = !forbids_content(built.status);

        // The answer to HEAD keeps the length that the program says: nothing contradicts it.
        let has = |own| built.fields.iter().any(|(field, _)| *field == own);
        let keeps_framing = self.asked.head_only
            && !data_follows
            && (has(OwnField::Length) || has(OwnField::Coding));
        // A client of HTTP/1.0 waits for the end unless there is a length.
        let has_length = || content && !data_follows && !(keeps_framing && has(OwnField::Coding));
        let persistent = self.asked.persistent
            && !built.named_close
            && built.status >= 200
            && (self.asked.chunks || has_length());
        let adds_close = !persistent && !built.named_close;
        let adds_keep_alive = persistent && !self.asked.chunks && !built.named_keep_alive;
        let mut at = 0;
        for (field, place) in built.fields {
            let stays = match field {
                OwnField::Length | OwnField::Coding => keeps_framing,
                OwnField::Connection => !adds_close,
            };
            if !stays {
                out.extend_from_slice(built.head.get(at..place.start).unwrap_or_default());
                at = place.end;
            }
        }
        out.extend_from_slice(built.head.get(at..).unwrap_or_default());
        if content && !keeps_framing {
            if chunked {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            } else if !data_follows {
                out.extend_from_slice(b"Content-Length: 0\r\n");
            }
        }
        if adds_close {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        if adds_keep_alive {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        self.head_len += (out.len() - before) as u64;
        self.state = if data_follows {
            State::Data { chunked, persistent }
        } else {
            State::Complete { persistent }
        };
    }

    /// The handler has returned: what it left unfinished is finished, unless it goes on later.
    pub fn handler_returned(&mut self, out: &mut Vec<u8>) -> Standing {
        self.late = true;
        match &mut self.state {
            State::Start => return Standing::Silent,
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
            | State::Complete { .. } => {}
        }
        match self.state {
            State::Complete { persistent } => Standing::Complete { persistent },
            _ => Standing::Open,
        }
    }
}

impl Built {
    fn new(status: u16) -> Self {
        let mut head = Vec::with_capacity(192);
        write_status_line(&mut head, status);
        Self { head, status, ..Self::default() }
    }
}

fn write_chunk_size(out: &mut Vec<u8>, len: usize) {
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(len >> (place * 4)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether bytes without a head's end may still turn out to be a head.
fn may_be_head(bytes: &[u8]) -> bool {
    let shown = bytes.len().min(5);
    bytes[..shown] == b"HTTP/"[..shown] && bytes.len() <= MAX_HEAD
}

/// The offset behind the empty line; programs are seen to end lines with a bare LF.
fn find_head_end(bytes: &[u8], from: usize) -> Option<usize> {
    if !bytes.starts_with(b"HTTP/") {
        return None;
    }
    memchr::memchr_iter(b'\n', bytes.get(from..)?).find_map(|at| {
        let next = from + at + 1;
        match bytes.get(next..)? {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        }
    })
}

/// What a raw head says about its answer.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    status: u16,
    http11: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    endless: bool,
    /// Whether it lets the connection stay open, for a client of HTTP/1.0 and for one of HTTP/1.1.
    persists: [bool; 2],
}

impl Facts {
    /// Reads a head from the start of `bytes`: where it ends, and what it says, if its first line
    /// is understood. `None` without an end or a beginning.
    fn read(bytes: &[u8]) -> Option<(usize, Option<Self>)> {
        if !bytes.starts_with(b"HTTP/") {
            return None;
        }
        let mut at = line_end(bytes)? + 1;
        let mut facts = Self::of_status_line(&bytes[..at]);
        loop {
            let rest = bytes.get(at..)?;
            let end = line_end(rest)?;
            let line = &rest[..end];
            at += end + 1;
            match line {
                [] | [b'\r'] => {
                    if let Some(facts) = &mut facts {
                        facts.conclude();
                    }
                    return Some((at, facts));
                }
                line => {
                    if let Some(facts) = &mut facts {
                        facts.see(line);
                    }
                }
            }
        }
    }

    fn of_status_line(line: &[u8]) -> Option<Self> {
        let (b"HTTP/", [major, dot, minor, b' ', code @ ..]) = line.split_at_checked(5)? else {
            return None;
        };
        let [hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', ..] = code else {
            return None;
        };
        let digit = |byte: &u8| u16::from(byte - b'0');
        Some(Self {
            status: digit(hundreds) * 100 + digit(tens) * 10 + digit(ones),
            http11: [*major, *dot, *minor] == *b"1.1",
            ..Self::default()
        })
    }

    /// All fields are seen. RFC 9112, section 9.3: a client of HTTP/1.0 takes the connection for
    /// closed unless it is told otherwise, and without a length it waits for the end.
    fn conclude(&mut self) {
        let persists = self.http11 && !self.close;
        let has_length = self.length.is_some() && !self.chunked;
        self.persists = [persists && self.keep_alive && has_length, persists];
    }

    /// Takes notice of one header field.
    fn see(&mut self, line: &[u8]) {
        // Few fields matter, and their first letters tell them from most others.
        if !matches!(line.first(), Some(b'C' | b'c' | b'T' | b't')) {
            return;
        }
        if let Some(value) = value_of(line, b"Content-Length") {
            let length = decimal(value);
            // Clients would disagree about where such an answer ends.
            self.close |= length.is_none();
            self.close |= self.length.is_some() && self.length != length;
            self.length = length;
        } else if let Some(value) = value_of(line, b"Content-Type") {
            let is_a = |name: &[u8]| {
                let (found, rest) = value.split_at_checked(name.len()).unwrap_or_default();
                found.eq_ignore_ascii_case(name) && matches!(rest, [] | [b';' | b' ' | b'\t', ..])
            };
            self.endless |= is_a(b"text/event-stream") || is_a(b"multipart/x-mixed-replace");
        } else if let Some(value) = value_of(line, b"Connection") {
            for token in tokens(value) {
                self.close |= token.eq_ignore_ascii_case(b"close");
                self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if let Some(value) = value_of(line, b"Transfer-Encoding") {
            self.chunked =
                tokens(value).last().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
            self.close |= !self.chunked;
        }
    }
}

/// The value of a field line whose name is `name`, which is given in its usual spelling.
fn value_of<'a, const N: usize>(line: &'a [u8], name: &[u8; N]) -> Option<&'a [u8]> {
    let (found, [b':', value @ ..]) = line.split_first_chunk::<N>()? else { return None };
    // Nearly all programs spell it so, and that takes few instructions to see.
    (found == name || found.eq_ignore_ascii_case(name)).then(|| value.trim_ascii())
}

/// The place of the first LF. Field lines are short: eight bytes at a time cost less than setting
/// up a wider search.
fn line_end(bytes: &[u8]) -> Option<usize> {
    const LOW: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = LOW << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        // Zero where the byte is LF; the lowest bit that is then found is never a false one.
        let word = u64::from_le_bytes(*word) ^ (LOW * u64::from(b'\n'));
        let hits = word.wrapping_sub(LOW) & !word & HIGH;
        if hits != 0 {
            return Some(place * 8 + hits.trailing_zeros() as usize / 8);
        }
        if place == 15 {
            let behind = 128;
            return Some(behind + memchr::memchr(b'\n', &bytes[behind..])?);
        }
    }
    let at = rest.iter().position(|byte| *byte == b'\n')?;
    Some(words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn raw_bytes_behind_data_are_not_sent_where_there_is_no_content() {
        for (head_only, status) in [(true, 200), (false, 204), (false, 304)] {
            let asked = Asked { head_only, chunks: true, persistent: true };
            let (mut answer, mut out) = (Answer::new(asked, status), Vec::new());
            assert_eq!(answer.send_data(b"a", &mut out), Written::Taken);
            assert_eq!(answer.write(b"1\r\nb\r\n", &mut out), Written::Taken);
            assert!(answer.take_fault().is_some());
            assert_eq!(answer.handler_returned(&mut out), Standing::Complete { persistent: true });
            assert!(out.ends_with(b"\r\n\r\n") && find_head_end(&out, 0) == Some(out.len()));
        }
    }

    #[test]
    fn line_ends_are_found_wherever_they_are() {
        for len in 0..300 {
            let mut bytes = vec![b'\x0b'; len];
            assert_eq!(line_end(&bytes), None);
            for at in (0..len).rev() {
                bytes[at] = b'\n';
                assert_eq!(line_end(&bytes), Some(at));
            }
        }
    }

    #[test]
    fn an_answer_whose_end_clients_may_see_elsewhere_is_the_last() {
        let asked = Asked { chunks: true, persistent: true, ..Asked::default() };
        for fields in [
            "Content-Length: 2\r\nContent-Length: 3\r\n",
            "Content-Length: x\r\nContent-Length: 2\r\n",
            "Content-Length: 2\r\nTransfer-Encoding: gzip\r\n",
        ] {
            let (mut answer, mut out) = (Answer::new(asked, 200), Vec::new());
            answer.write(format!("HTTP/1.1 200 OK\r\n{fields}\r\nabc").as_bytes(), &mut out);
            let standing = answer.handler_returned(&mut out);
            assert_ne!(standing, Standing::Complete { persistent: true }, "{fields}");
        }
        // The client takes it for an interim answer and waits for another.
        let (mut answer, mut out) = (Answer::new(asked, 200), Vec::new());
        assert!(answer.send_status(102));
        assert_eq!(answer.handler_returned(&mut out), Standing::Complete { persistent: false });
    }

    proptest! {
        /// What is known of the heads before makes no difference.
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
                let asked = Asked { head_only, chunks, persistent };
                let mut new = Answer::new(asked, 200);
                used.begin(asked, 200);
                let (mut by_used, mut by_new) = (Vec::new(), Vec::new());
                for bytes in [head.as_bytes(), content.as_bytes()] {
                    let taken = used.write(bytes, &mut by_used);
                    prop_assert_eq!(taken, new.write(bytes, &mut by_new));
                }
                let standing = used.handler_returned(&mut by_used);
                prop_assert_eq!(standing, new.handler_returned(&mut by_new));
                prop_assert_eq!(by_used, by_new);
                prop_assert_eq!((used.status, used.head_len), (new.status, new.head_len));
                prop_assert_eq!(used.take_fault(), new.take_fault());
            }
        }
    }
}
