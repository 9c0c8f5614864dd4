//! Answers that a program writes itself, in pieces, to a request of some kind. The library reads their
//! heads to know whether the connection can stay open; an independent client has to find the end of the
//! answer where the library goes on, and nowhere else where it closes or waits.

use mongoose::http::response::{Answer, Completion, RequestFacts};

use crate::grammar::{Framed, Writer};
use crate::random::Random;
use crate::regular;
use crate::second::{COMPLETE, INCOMPLETE, Message, REFUSED, Second};

/// The answer to the request behind.
pub const NEXT: &[u8] = b"HTTP/1.1 299 Next\r\nContent-Length: 4\r\n\r\nnext";

const STATUSES: &[&str] = &[
    "200 OK",
    "200 OK",
    "200 OK",
    "404 Not Found",
    "204 No Content",
    "304 Not Modified",
    "206 Partial Content",
    "500 a b",
    "302 Found",
];
const ODD_STATUSES: &[&str] = &[
    "100 Continue",
    "102 Processing",
    "103 Early Hints",
    "199 x",
    "101 Switching Protocols",
    "200",
    "200 ",
    "2000 OK",
    "20 OK",
    "abc OK",
    "099 x",
    "600 x",
    "999 x",
    "200OK",
    "200\tOK",
    " 200 OK",
    "200 \u{e9}",
    "200 a\0b",
    "200 a\rb",
    "000 x",
    "-200 OK",
    "205 Reset Content",
    "200\u{a0}OK",
    "200\x0bOK",
];
const ODD_VERSIONS: &[&str] = &[
    "HTTP/1.0",
    "HTTP/1.0",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/0.9",
    "http/1.1",
    "HTTP/1.10",
    "HTTP/11.1",
    "HTTP/1.",
    "HTTP",
    "ICY",
    "HTTP/1.1\t",
    "HTTP/a.b",
    " HTTP/1.1",
    "HTTP/1,1",
    "",
];
const TYPES: &[&str] = &[
    "text/plain",
    "text/event-stream",
    "multipart/x-mixed-replace;boundary=a",
    "text/event-streams",
    "text/html; charset=utf-8",
];

/// One answer, and the request it belongs to.
#[derive(Default)]
pub struct Written {
    pub request: RequestFacts,
    pub bytes: Vec<u8>,
    /// Where the pieces end.
    pub cuts: Vec<usize>,
    /// The pieces from this one on are written when the handler has returned.
    pub late: usize,
    /// The library has told the program of a mistake.
    pub fault: Option<&'static str>,
}

impl Written {
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.cuts.iter().map(move |end| {
            let piece = &self.bytes[start..*end];
            start = *end;
            piece
        })
    }

    fn has_bad_chunks(&self) -> bool {
        self.fault.is_some_and(|fault| fault.contains("malformed chunks"))
    }

    pub fn write(&mut self, random: &mut Random) {
        self.request = RequestFacts {
            head_only: random.once_in(6),
            chunks: !random.once_in(8),
            persistent: !random.once_in(8),
        };
        self.bytes.clear();
        let oddity = random.pick(&[0, 6, 12, 24, 48]);
        let mut writer = Writer { random, out: &mut self.bytes, oddity };
        if writer.is_odd() && writer.random.once_in(2) {
            writer.text("HTTP/1.1 100 Continue\r\n\r\n");
        }
        writer.answer();
        if oddity > 6 && random.once_in(4) {
            Writer { random, out: &mut self.bytes, oddity }.damage(0);
        }
        if random.once_in(50) {
            self.bytes.truncate(random.below(self.bytes.len() + 1));
        }
        self.cuts.clear();
        for _ in 0..random.below(4) {
            self.cuts.push(random.below(self.bytes.len() + 1));
        }
        self.cuts.push(self.bytes.len());
        self.cuts.sort_unstable();
        self.late = if random.once_in(4) { random.below(self.cuts.len()) } else { self.cuts.len() };
    }
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { request, bytes, cuts, late, .. } = self;
        write!(f, "{} (cut at {cuts:?}, late from {late}, {request:?})", bytes.escape_ascii())
    }
}

impl Writer<'_> {
    fn answer(&mut self) {
        match self.is_odd() {
            true => self.pick(ODD_VERSIONS),
            false => self.text("HTTP/1.1"),
        }
        self.text(" ");
        match self.is_odd() {
            true => self.pick(ODD_STATUSES),
            false => self.pick(STATUSES),
        }
        self.end_line();
        let framed =
            self.random.pick(&[Framed::Not, Framed::Length, Framed::Length, Framed::Chunks]);
        let place = self.out.len();
        let len = match framed {
            Framed::Not | Framed::Length => self.content(),
            Framed::Chunks => {
                self.chunks();
                self.out.len() - place
            }
        };
        let behind = self.out.len();
        if self.random.once_in(3) {
            self.plain_field();
        }
        self.framing(framed, len);
        if self.random.once_in(8) {
            self.connection();
        }
        if self.random.once_in(4) {
            self.field("Content-Type", TYPES, TYPES);
        }
        if self.random.once_in(4) {
            self.plain_field();
        }
        self.end_line();
        self.out[place..].rotate_left(behind - place);
        if self.is_odd() {
            self.content();
        }
    }
}

/// What the library does when the program has written all that it will write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// Nothing was written.
    Silent,
    /// The next answer follows.
    Keeps,
    /// The connection ends behind what was written.
    Closes,
    /// More has to come.
    Waits,
}

/// How the client's view differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Odds {
    /// The connection goes on, and the client does not find the end, or finds it elsewhere.
    KeptUnseen,
    /// The connection goes on, and the client takes the answer for none.
    KeptRefused,
    /// The connection goes on, and the client thinks it ends.
    KeptClosed,
    /// The connection ends, and the client sees another answer in what was sent.
    Split,
    /// The connection ends without need.
    Closed,
    /// The client has the whole answer, and the next request waits for more.
    Waits,
}

/// A difference that is known and right.
pub struct Exception {
    pub name: &'static str,
    odds: &'static [Odds],
    applies: fn(&Written, &[u8]) -> bool,
}

/// Each with its reason. What is sent is handed to `applies`.
pub const EXCEPTIONS: &[Exception] = &[
    // RFC 9112, section 9.6: to close is always right. Where the head or the chunks are not of the grammar, or
    // framing is stated in other than its plain forms, the library does not count on what a client finds.
    Exception {
        name: "an irregular answer ends the connection",
        odds: &[Odds::Closed],
        applies: |written, _| !regular::is_regular(&written.bytes) || written.has_bad_chunks(),
    },
    // The program's own bytes are passed on as they stand, and nothing else comes behind them. Where its head
    // is not of the grammar, or its chunks are not, clients may find anything in them.
    Exception {
        name: "an irregular answer holds what the program has put there",
        odds: &[Odds::Split, Odds::Waits],
        applies: |written, _| !regular::is_regular(&written.bytes) || written.has_bad_chunks(),
    },
    // RFC 9112, section 2.2: a recipient may take LF alone for the end of a line. llhttp does so behind some
    // fields and refuses it behind others; programs that write it have always been served.
    Exception {
        name: "LF alone ends a line",
        odds: &[Odds::KeptRefused],
        applies: |_, sent| regular::has_bare_lf(sent),
    },
    // RFC 9112, section 7.1.1: blanks may stand around extensions, and all extensions are ignored. RFC 9110,
    // section 6.5.1: what trailer fields say of framing is ignored. llhttp refuses some of both, and closes.
    Exception {
        name: "blanks and extensions behind the size of a chunk, trailer fields that frame",
        odds: &[Odds::KeptRefused],
        applies: |_, sent| !regular::has_plain_chunks(sent),
    },
    // RFC 9110, section 6.5.1: a trailer field is not taken for one of the head. llhttp obeys these there, and
    // closes, which does no harm.
    Exception {
        name: "Connection and Transfer-Encoding in a trailer section",
        odds: &[Odds::KeptClosed],
        applies: |_, sent| {
            let fields: [&[u8]; 2] = [b"connection", b"transfer-encoding"];
            fields.iter().any(|name| regular::is_behind_head(sent, name))
        },
    },
    // RFC 9112, appendix C.2.2: Proxy-Connection is no field of HTTP. llhttp obeys it, and closes.
    Exception {
        name: "Proxy-Connection",
        odds: &[Odds::KeptClosed, Odds::KeptUnseen],
        applies: |_, sent| {
            sent.windows(16).any(|word| word.eq_ignore_ascii_case(b"proxy-connection"))
        },
    },
];

#[derive(Default, Clone)]
pub struct Tally {
    pub made: u64,
    pub kept: u64,
    pub closed: u64,
    pub waits: u64,
    pub refused_by_client: u64,
    pub exceptions: [u64; EXCEPTIONS.len()],
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.made += other.made;
        self.kept += other.kept;
        self.closed += other.closed;
        self.waits += other.waits;
        self.refused_by_client += other.refused_by_client;
        for (sum, more) in self.exceptions.iter_mut().zip(&other.exceptions) {
            *sum += more;
        }
    }
}

/// Lets the library take an answer. What it sends is appended to `out`.
pub fn take(written: &mut Written, answer: &mut Answer, out: &mut Vec<u8>) -> End {
    answer.begin(written.request, 200);
    let (mut completion, mut fault) = (None, None);
    for (index, piece) in written.pieces().enumerate() {
        if index == written.late {
            completion = Some(answer.handler_returned(out));
        }
        if completion.is_none_or(|completion| completion == Completion::Open) {
            answer.write(piece, out);
            fault = fault.or(answer.take_fault());
        }
    }
    written.fault = fault;
    let completion = match completion {
        None => answer.handler_returned(out),
        Some(completion) => completion,
    };
    match (completion, answer.complete()) {
        (Completion::Silent, _) => End::Silent,
        (_, Some(true)) => End::Keeps,
        (_, Some(false)) => End::Closes,
        (_, None) => End::Waits,
    }
}

/// Whether the client agrees with the end of the answer in `out`, to which it may append, or differs from it
/// in a way that is known.
pub fn judge(
    written: &Written,
    end: End,
    out: &mut Vec<u8>,
    second: &mut Second,
    tally: &mut Tally,
) -> Result<(), Odds> {
    tally.made += 1;
    let Err(odds) = agree(written, end, out, second, tally) else { return Ok(()) };
    let applies = |one: &Exception| one.odds.contains(&odds) && (one.applies)(written, out);
    let known = EXCEPTIONS.iter().position(applies).ok_or(odds)?;
    tally.exceptions[known] += 1;
    Ok(())
}

fn agree(
    written: &Written,
    end: End,
    out: &mut Vec<u8>,
    second: &mut Second,
    tally: &mut Tally,
) -> Result<(), Odds> {
    let heads = u32::from(written.request.head_only);
    let len = out.len();
    match end {
        End::Silent => return Ok(()),
        End::Keeps => out.extend_from_slice(NEXT),
        End::Closes | End::Waits => {}
    }
    let messages = second.responses(out, end == End::Closes, heads);
    let is_final = |message: &&Message| {
        message.outcome != COMPLETE || message.status / 100 != 1 || message.status == 101
    };
    let interim = messages.iter().take_while(|message| !is_final(message)).count();
    let Some(last) = messages.get(interim) else {
        // Nothing, or interim answers alone.
        tally.closed += u64::from(end == End::Closes);
        tally.waits += u64::from(end == End::Waits);
        return if end == End::Keeps { Err(Odds::KeptUnseen) } else { Ok(()) };
    };
    if last.status == 101 {
        return if end == End::Keeps { Err(Odds::KeptUnseen) } else { Ok(()) };
    }
    if last.outcome == REFUSED {
        tally.refused_by_client += 1;
        return if end == End::Keeps { Err(Odds::KeptRefused) } else { Ok(()) };
    }
    match end {
        End::Silent => {}
        End::Keeps => {
            tally.kept += 1;
            if last.outcome == INCOMPLETE || last.end as usize != len {
                return Err(Odds::KeptUnseen);
            }
            if last.keep_alive == 0 {
                return Err(Odds::KeptClosed);
            }
            let next = messages.get(interim + 1);
            if next.is_none_or(|next| next.outcome != COMPLETE || next.status != 299) {
                return Err(Odds::KeptUnseen);
            }
        }
        End::Closes => {
            tally.closed += 1;
            if last.outcome == COMPLETE && last.keep_alive != 0 {
                if (last.end as usize) < len {
                    return Err(Odds::Split);
                }
                if written.request.persistent && written.request.chunks {
                    return Err(Odds::Closed);
                }
            }
        }
        End::Waits => {
            tally.waits += 1;
            if last.outcome == COMPLETE {
                return Err(Odds::Waits);
            }
        }
    }
    Ok(())
}
