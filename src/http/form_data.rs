//! Form uploads that arrive in pieces: `multipart/form-data` content (RFC 7578, and RFC 2046, section
//! 5.1), read without ever being held as a whole.
//!
//! Owns where a part begins and ends. How the names of a part are read is in `multipart`, which reads
//! content that is complete. Knows nothing of what becomes of the parts.

use std::cell::Cell;
use std::collections::TryReserveError;

use memchr::memmem;

use super::multipart::{disposition, parameter, unescaped};

/// The longest boundary in bytes, and the longest fields of a part.
const MAX_BOUNDARY: usize = 256;
const MAX_FIELDS: usize = 16 * 1024;

/// What comes next in the content.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A part begins. It is a file where there is a file name, which may hold any bytes and is no safe
    /// path; it is empty where none was chosen.
    Begin {
        name: Vec<u8>,
        file_name: Option<Vec<u8>>,
    },
    Data(&'a [u8]),
    End,
}

/// The reason why the content is not read any further.
#[derive(Debug, PartialEq, Eq)]
pub enum Problem<E> {
    Malformed,
    Memory,
    /// The error of whom the events are told.
    Told(E),
}

impl<E> From<TryReserveError> for Problem<E> {
    fn from(_: TryReserveError) -> Problem<E> {
        Problem::Memory
    }
}

/// The content, as far as it has arrived.
#[derive(Debug)]
pub struct FormData {
    /// A line end, two hyphens, and the boundary.
    delimiter: Vec<u8>,
    /// What has arrived and cannot be understood without what follows.
    held: Vec<u8>,
    /// Set if `held` was left as it is, since enough had begun and ended.
    is_behind: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In front of the first boundary, where anything may stand.
    Preamble,
    /// The fields of a part, from the line end in front of them.
    Fields,
    /// Its data. So many bytes in front of it still belong to the fields: the delimiter of a part
    /// without data may begin with their line end.
    Data { skip: usize },
    /// Behind the last boundary, where anything may stand.
    Over,
}

/// A boundary line, if there is one.
enum Boundary {
    /// None begins before this place.
    None(usize),
    /// What follows may end a boundary line that begins here, or may not.
    Unclear(usize),
    /// One begins at the first place, and its line ends at the second.
    Next(usize, usize),
    /// The last one begins here.
    Last(usize),
}

/// Returns the boundary that a Content-Type field names, if its type is `multipart/form-data`.
pub fn boundary(content_type: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b';', content_type)?;
    let is_form = content_type[..end].trim_ascii().eq_ignore_ascii_case(b"multipart/form-data");
    let boundary = parameter(content_type, b"boundary").filter(|_| is_form)?;
    let fits = (1..=MAX_BOUNDARY).contains(&boundary.len());
    (fits && !boundary.iter().any(u8::is_ascii_control)).then_some(boundary)
}

impl FormData {
    pub fn new(boundary: &[u8]) -> FormData {
        // The first boundary need not stand behind a line end.
        FormData {
            delimiter: [b"\r\n--", boundary].concat(),
            held: b"\r\n".to_vec(),
            is_behind: false,
            state: State::Preamble,
        }
    }

    /// Returns whether the last boundary has arrived.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Returns whether there is content of which nothing was told yet.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Takes a piece of the content, and tells what is in it, until so many parts have begun and ended as
    /// `limit` says: the rest waits for the next call. Returns how many have.
    pub fn take<E>(
        &mut self,
        piece: &[u8],
        limit: usize,
        tell: &mut dyn FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<usize, Problem<E>> {
        if self.is_over() {
            return Ok(0);
        }
        let told = Cell::new(0);
        let mut tell = |event: Event<'_>| {
            told.set(told.get() + usize::from(!matches!(event, Event::Data(_))));
            tell(event)
        };
        let mut held = std::mem::take(&mut self.held);
        held.try_reserve(piece.len())?;
        held.extend_from_slice(piece);
        let mut at = 0;
        self.is_behind = true;
        while told.get() < limit {
            let Some(len) = self.step(&held[at..], &mut tell)? else {
                self.is_behind = false;
                break;
            };
            at += len;
        }
        self.is_behind &= !self.is_over();
        held.drain(..at);
        self.held = held;
        Ok(told.get())
    }

    /// Understands the beginning of `rest`. Returns its length; `None` if more has to arrive.
    fn step<E>(
        &mut self,
        rest: &[u8],
        tell: &mut dyn FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<Option<usize>, Problem<E>> {
        match self.state {
            State::Over => Ok(None),
            State::Fields => self.begin_part(rest, tell),
            State::Preamble => Ok(match self.find_boundary(rest) {
                Boundary::None(len) | Boundary::Unclear(len) => Some(len).filter(|len| *len > 0),
                Boundary::Next(_, end) => {
                    self.state = State::Fields;
                    Some(end)
                }
                Boundary::Last(_) => {
                    self.state = State::Over;
                    Some(rest.len())
                }
            }),
            State::Data { skip } => {
                let found = self.find_boundary(rest);
                let (Boundary::None(end)
                | Boundary::Unclear(end)
                | Boundary::Next(end, _)
                | Boundary::Last(end)) = found;
                if let Some(data) = rest.get(skip..end).filter(|data| !data.is_empty()) {
                    tell(Event::Data(data)).map_err(Problem::Told)?;
                }
                match found {
                    Boundary::None(_) | Boundary::Unclear(_) if end <= skip => return Ok(None),
                    Boundary::None(_) | Boundary::Unclear(_) => {
                        self.state = State::Data { skip: 0 };
                        return Ok(Some(end));
                    }
                    Boundary::Next(..) => self.state = State::Fields,
                    Boundary::Last(_) => self.state = State::Over,
                }
                tell(Event::End).map_err(Problem::Told)?;
                match found {
                    Boundary::Next(_, end) => Ok(Some(end)),
                    _ => Ok(Some(rest.len())),
                }
            }
        }
    }

    /// Reads the fields of a part.
    fn begin_part<E>(
        &mut self,
        rest: &[u8],
        tell: &mut dyn FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<Option<usize>, Problem<E>> {
        let Some(len) = memmem::find(rest, b"\r\n\r\n") else {
            return if rest.len() > MAX_FIELDS { Err(Problem::Malformed) } else { Ok(None) };
        };
        let fields = &rest[..len];
        if len > MAX_FIELDS || memmem::find(fields, &self.delimiter).is_some() {
            return Err(Problem::Malformed);
        }
        let disposition = disposition(fields).unwrap_or_default();
        let text = |name| parameter(disposition, name).map(unescaped);
        let name = text(b"name".as_slice()).unwrap_or_default();
        tell(Event::Begin { name, file_name: text(b"filename") }).map_err(Problem::Told)?;
        self.state = State::Data { skip: 2 };
        Ok(Some(len + 2))
    }

    /// Finds the next boundary line.
    fn find_boundary(&self, rest: &[u8]) -> Boundary {
        for at in memmem::find_iter(rest, &self.delimiter) {
            let behind = &rest[at + self.delimiter.len()..];
            let blanks = behind.iter().take_while(|byte| b" \t".contains(byte)).count();
            match &behind[blanks..] {
                _ if behind.starts_with(b"--") => return Boundary::Last(at),
                [b'\r', b'\n', ..] => {
                    return Boundary::Next(at, at + self.delimiter.len() + blanks);
                }
                [] | [b'\r'] if blanks <= MAX_BOUNDARY => return Boundary::Unclear(at),
                [b'-'] if blanks == 0 => return Boundary::Unclear(at),
                // Data that looks like a boundary, such as a longer one of a form in this part.
                _ => {}
            }
        }
        // The beginning of a delimiter may be all that has arrived of it.
        let window = rest.len().saturating_sub(self.delimiter.len() - 1);
        let begins = |at: &usize| self.delimiter.starts_with(&rest[*at..]);
        let start = memchr::memchr_iter(b'\r', &rest[window..]).map(|at| window + at).find(begins);
        Boundary::None(start.unwrap_or(rest.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns what is told of content that comes in pieces, without where the pieces are cut, and
    /// whether it is over.
    fn told(pieces: &[&[u8]]) -> Result<(String, bool), Problem<()>> {
        let (mut text, mut form) = (String::new(), FormData::new(b"x"));
        for piece in pieces {
            let mut tell = |event: Event<'_>| {
                text += &match event {
                    Event::Begin { name, file_name } => {
                        let file = file_name.map(|file| format!("={}", file.escape_ascii()));
                        format!("[{}{}:", name.escape_ascii(), file.unwrap_or_default())
                    }
                    Event::Data(data) => data.escape_ascii().to_string(),
                    Event::End => "]".to_owned(),
                };
                Ok::<(), ()>(())
            };
            // One after the other is the same as all at once.
            form.take(piece, 0, &mut tell)?;
            while form.is_behind() {
                form.take(b"", 1, &mut tell)?;
            }
        }
        Ok((text, form.is_over()))
    }

    const NAME: &str = "Content-Disposition: form-data; name=a";

    #[test]
    fn content_in_any_pieces_is_told_of_as_it_stands() {
        let file = "content-disposition: form-data; name=\"f\"; filename=\"b%22 c\\\"d\"";
        let table = [
            (format!("--x\r\n{NAME}\r\n\r\ndata\r\n--x--"), "[a:data]", true),
            (format!("--x\r\n{NAME}\r\n\r\ndata\r\n--x--\r\nmore\r\n--x\r\n"), "[a:data]", true),
            (format!("--x\r\n{file}\r\nX: y\r\n\r\n1\r\n--x--"), "[f=b\\\" c\\\"d:1]", true),
            (format!("--x\r\n{NAME}; filename=\"\"\r\n\r\n\r\n--x--"), "[a=:]", true),
            (format!("--x\r\n{NAME}\r\n\r\n--x\r\n{NAME}\r\n\r\n\r\n--x--"), "[a:][a:]", true),
            ("--x\r\n\r\ndata\r\n--x--".to_owned(), "[:data]", true),
            (format!("preamble\r\n--x \t\r\n{NAME}\r\n\r\n1\r\n--x--"), "[a:1]", true),
            (format!("\r\n--x\r\n{NAME}\r\n\r\n1\r\n--x--"), "[a:1]", true),
            (
                format!("--x\r\n{NAME}\r\n\r\n\r\n--xy\r\n--x-\r\n--\r\r\n--x--"),
                "[a:\\r\\n--xy\\r\\n--x-\\r\\n--\\r]",
                true,
            ),
            (format!("--x\r\n{NAME}\r\n\r\ndata"), "[a:data", false),
            (format!("--x\r\n{NAME}\r\n\r\ndata\r\n--x\r\n"), "[a:data]", false),
            (format!("--x\r\n{NAME}"), "", false),
            ("--x--".to_owned(), "", true),
            ("".to_owned(), "", false),
        ];
        for (content, text, is_over) in &table {
            let content = content.as_bytes();
            let expected = Ok(((*text).to_owned(), *is_over));
            for split in 0..=content.len() {
                let (one, other) = content.split_at(split);
                assert_eq!(told(&[one, other]), expected, "{} {split}", content.escape_ascii());
            }
            let bytes: Vec<&[u8]> = content.chunks(1).collect();
            assert_eq!(told(&bytes), expected, "{}", content.escape_ascii());
        }
    }

    #[test]
    fn what_is_malformed_is_refused_and_little_is_held() {
        let long = format!("--x\r\n{}", "A: b\r\n".repeat(MAX_FIELDS));
        for content in [&long, "--x\r\nA: b\r\n--x\r\n\r\ndata\r\n--x--"] {
            assert_eq!(told(&[content.as_bytes()]), Err(Problem::Malformed));
        }
        let mut form = FormData::new(b"x");
        let mut none = |_: Event<'_>| Ok::<(), ()>(());
        form.take(format!("--x\r\n{NAME}\r\n\r\n").as_bytes(), 9, &mut none).expect("fields");
        for piece in [b"\r\n--\r\n-\r".as_slice(), &[b'a'; 10_000], &[b'\r'; 10_000]] {
            form.take(piece, 9, &mut none).expect("data");
            assert!(form.held.len() < 8, "{}", form.held.len());
        }
        let told = form.take(b"\r\n--x--", 9, &mut |_| Err("no"));
        assert_eq!(told, Err(Problem::Told("no")));
    }

    #[test]
    fn the_boundary_is_that_of_a_form() {
        let table: [(&[u8], Option<&[u8]>); 8] = [
            (b"multipart/form-data; boundary=abc", Some(b"abc")),
            (b"Multipart/Form-Data ; charset=x; Boundary=\"a b\"", Some(b"a b")),
            (b"multipart/form-data; boundary=", None),
            (b"multipart/form-data", None),
            (b"multipart/form-data; boundary=\"a\x01\"", None),
            (b"multipart/mixed; boundary=abc", None),
            (b"text/plain; boundary=abc", None),
            (b"", None),
        ];
        for (field, expected) in table {
            assert_eq!(boundary(field), expected, "{}", field.escape_ascii());
        }
        let long = format!("multipart/form-data; boundary={}", "b".repeat(MAX_BOUNDARY + 1));
        assert_eq!(boundary(long.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn pieces_tell_the_same_as_the_whole(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "\r\n--x", "--x", "\r\n", "--", "\r", " ", "-", "a", NAME, "\r\n\r\n",
            ]), 0..24),
            size in 1..9usize,
        ) {
            let whole = pieces.concat();
            let parts: Vec<&[u8]> = whole.as_bytes().chunks(size).collect();
            prop_assert_eq!(told(&parts), told(&[whole.as_bytes()]));
        }
    }
}
