//! One stream of requests, read by both. Where both accept, they have to agree.

use mongoose::http::request::Framing;

use crate::ours::{Ours, Read};
use crate::regular::is_behind_head;
use crate::second::{COMPLETE, INCOMPLETE, Message, REFUSED, Second};

/// What the two do not agree on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    Border,
    Method,
    Target,
    Version,
    Framing,
    Content,
    Fields,
    KeepAlive,
    /// One refuses a regular request.
    Refused,
}

/// A difference that is known and right. The list is short, and each has its reason.
pub struct Exception {
    pub name: &'static str,
    what: What,
    applies: fn(&Pair<'_>) -> bool,
}

pub const EXCEPTIONS: &[Exception] = &[
    // RFC 9112, section 9.3: `close` ends the connection, whatever else the field says, also for a client of
    // HTTP/1.0.
    Exception {
        name: "close ends the connection",
        what: What::KeepAlive,
        applies: |pair| !pair.ours.head.persistent && pair.has_line(b"connection:", is_close),
    },
    // RFC 9110, section 5.6.3: a tab is white space; llhttp takes it for a part of the option.
    Exception {
        name: "a tab around `keep-alive`",
        what: What::KeepAlive,
        applies: |pair| pair.ours.head.minor == 0 && pair.has_line(b"connection:", has_tab),
    },
    // The same around `chunked`. llhttp refuses that, but where the client asks for another protocol it does
    // not look, and takes the rest for that protocol.
    Exception {
        name: "a tab around the coding of a request for an upgrade",
        what: What::Framing,
        applies: |pair| pair.theirs.upgrade != 0 && pair.has_line(b"transfer-encoding:", has_tab),
    },
    // RFC 9110, section 6.5.1: a trailer field is not taken for one of the head.
    Exception {
        name: "Connection in a trailer section",
        what: What::KeepAlive,
        applies: |pair| {
            let message = &pair.stream[pair.ours.start..pair.ours.end];
            pair.ours.head.persistent && is_behind_head(message, b"connection")
        },
    },
    // RFC 9112, appendix C.2.2: Proxy-Connection is no field of HTTP. llhttp obeys it.
    Exception {
        name: "Proxy-Connection",
        what: What::KeepAlive,
        applies: |pair| pair.has_field(b"proxy-connection"),
    },
    // RFC 9113, section 3.4: the first line of HTTP/2. llhttp pauses there; here PRI is a method as any other.
    Exception {
        name: "PRI",
        what: What::Border,
        applies: |pair| pair.ours.method(pair.stream) == b"PRI",
    },
    // RFC 9110, section 9.3.6: what follows the head of CONNECT is not content. Here the request is refused,
    // and nothing behind it is read.
    Exception {
        name: "content of CONNECT",
        what: What::Framing,
        applies: |pair| pair.ours.method(pair.stream) == b"CONNECT",
    },
];

/// One request as both see it.
pub struct Pair<'a> {
    pub stream: &'a [u8],
    pub ours: &'a Ours,
    pub read: Read,
    pub second: &'a Second,
    pub theirs: &'a Message,
}

impl Pair<'_> {
    fn has_field(&self, name: &[u8]) -> bool {
        self.ours.fields(self.stream).any(|(one, _)| one.eq_ignore_ascii_case(name))
    }

    /// Whether a line begins so, and `is` of the rest of it.
    fn has_line(&self, start: &[u8], is: fn(&[u8]) -> bool) -> bool {
        // With the white space around the value, which belongs to no span.
        let end = self.ours.start + self.ours.head.len;
        let mut lines = self.stream[self.ours.start..end].split(|byte| *byte == b'\n');
        lines.any(|line| match line.split_at_checked(start.len()) {
            Some((name, value)) => name.eq_ignore_ascii_case(start) && is(value),
            None => false,
        })
    }
}

fn has_tab(value: &[u8]) -> bool {
    value.contains(&b'\t')
}

fn is_close(value: &[u8]) -> bool {
    let mut options = value.split(|byte| *byte == b',');
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// How many requests were read in which way.
#[derive(Default, Clone)]
pub struct Tally {
    pub made: u64,
    pub both_accept: u64,
    pub with_content: u64,
    pub in_chunks: u64,
    pub refused_by_both: u64,
    pub refused_by_ours: u64,
    pub refused_by_second: u64,
    pub both_wait: u64,
    pub exceptions: [u64; EXCEPTIONS.len()],
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.made += other.made;
        self.both_accept += other.both_accept;
        self.with_content += other.with_content;
        self.in_chunks += other.in_chunks;
        self.refused_by_both += other.refused_by_both;
        self.refused_by_ours += other.refused_by_ours;
        self.refused_by_second += other.refused_by_second;
        self.both_wait += other.both_wait;
        for (sum, more) in self.exceptions.iter_mut().zip(&other.exceptions) {
            *sum += more;
        }
    }
}

/// Reads a stream by both. Fails with what they do not agree on in which request.
pub fn compare(
    stream: &[u8],
    is_regular: bool,
    ours: &mut Ours,
    second: &mut Second,
    tally: &mut Tally,
) -> Result<(), (What, usize)> {
    second.requests(stream);
    let mut at = 0;
    for index in 0.. {
        let read = ours.read(stream, at);
        let Some(theirs) = second.messages().get(index) else {
            // They have seen blank bytes at most.
            return match read {
                Read::Complete | Read::HalfContent => Err((What::Border, index)),
                Read::Nothing | Read::HalfHead | Read::Refused => Ok(()),
            };
        };
        match (read, theirs.outcome) {
            (Read::Refused, _) | (_, REFUSED) if is_regular => return Err((What::Refused, index)),
            (Read::Refused, REFUSED) => {
                tally.refused_by_both += 1;
                return Ok(());
            }
            (Read::Refused, _) => {
                tally.refused_by_ours += 1;
                return Ok(());
            }
            (_, REFUSED) => {
                tally.refused_by_second += 1;
                return Ok(());
            }
            (Read::Nothing | Read::HalfHead, INCOMPLETE) => {
                tally.both_wait += 1;
                return Ok(());
            }
            _ => {}
        }
        let pair = Pair { stream, ours, read, second, theirs };
        if let Some(what) = differences(&pair) {
            match EXCEPTIONS.iter().position(|one| one.what == what && (one.applies)(&pair)) {
                Some(known) => {
                    tally.exceptions[known] += 1;
                    return Ok(());
                }
                None => return Err((what, index)),
            }
        }
        if read == Read::HalfContent {
            tally.both_wait += 1;
            return Ok(());
        }
        tally.both_accept += 1;
        tally.with_content += u64::from(!ours.content.is_empty());
        tally.in_chunks += u64::from(ours.head.framing == Framing::Chunked);
        if ours.is_last(stream) {
            return Ok(());
        }
        at = ours.end;
    }
    Ok(())
}

fn differences(pair: &Pair<'_>) -> Option<What> {
    let Pair { stream, ours, read, second, theirs } = *pair;
    let is_complete = read == Read::Complete;
    let is_connect = ours.method(stream) == b"CONNECT";
    if !is_connect && is_complete != (theirs.outcome == COMPLETE)
        || matches!(read, Read::Nothing | Read::HalfHead)
    {
        return Some(What::Border);
    }
    if ours.method(stream) != theirs.method.of(stream) {
        return Some(What::Method);
    }
    if ours.target(stream) != theirs.target.of(stream) {
        return Some(What::Target);
    }
    if theirs.major != 1 || ours.head.minor != theirs.minor {
        return Some(What::Version);
    }
    let framing = match (theirs.chunked != 0, theirs.has_length != 0) {
        (true, _) => Framing::Chunked,
        (false, true) if theirs.length > 0 => Framing::Length(theirs.length),
        _ => Framing::Empty,
    };
    if ours.head.framing != framing {
        return Some(What::Framing);
    }
    if !are_same(ours.fields(stream), second.fields(theirs)) {
        return Some(What::Fields);
    }
    // What is behind a CONNECT is not HTTP to the one, and is not read by the other.
    if is_complete && !is_connect {
        if ours.content != second.content(theirs) {
            return Some(What::Content);
        }
        if ours.end != theirs.end as usize {
            return Some(What::Border);
        }
        if ours.head.persistent != (theirs.keep_alive != 0) {
            return Some(What::KeepAlive);
        }
    }
    None
}

fn are_same<'a, 'b>(
    ours: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    mut theirs: impl Iterator<Item = (&'b [u8], &'b [u8])>,
) -> bool {
    for (name, value) in ours {
        let Some((other_name, other)) = theirs.next() else { return false };
        // White space around a value is no part of it; llhttp leaves what stands behind it.
        if name != other_name || value != other.trim_ascii() {
            return false;
        }
    }
    theirs.next().is_none()
}
