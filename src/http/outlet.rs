//! The content of a response that is sent while it is produced (RFC 9112, sections 6 and 7.1).
//!
//! Owns the framing of such content. Knows neither the source of the content nor the socket.

use super::request::Head;
use super::status::forbids_content;

/// The framing of the content, and how much of it is still to come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outlet {
    /// No content, as in the response to HEAD.
    Nothing,
    /// Content of which this number of bytes is still to come.
    Length(u64),
    Chunks,
    /// Content that ends with the connection: HTTP/1.0 knows no chunks.
    ToClose,
}

impl Outlet {
    /// Chooses the framing for a response with this status; `length` is that of the content, if it
    /// is known.
    pub fn choose(request: &Head, status: u16, length: Option<u64>) -> Outlet {
        match length {
            _ if request.is_head || forbids_content(status) => Outlet::Nothing,
            Some(length) => Outlet::Length(length),
            None if request.minor == 1 => Outlet::Chunks,
            None => Outlet::ToClose,
        }
    }

    /// Appends a piece of content to `out`, without the bytes that exceed the length.
    pub fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        match self {
            Outlet::Nothing => {}
            Outlet::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
                out.extend_from_slice(&piece[..take]);
                *left -= take as u64;
            }
            // An empty chunk would end the content.
            Outlet::Chunks if piece.is_empty() => {}
            Outlet::Chunks => {
                out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
            }
            Outlet::ToClose => out.extend_from_slice(piece),
        }
    }

    /// Returns whether further content would not be sent.
    pub fn is_full(self) -> bool {
        matches!(self, Outlet::Nothing | Outlet::Length(0))
    }

    /// Ends the content. Returns false if it is shorter than its length.
    pub fn finish(self, out: &mut Vec<u8>) -> bool {
        if self == Outlet::Chunks {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        !matches!(self, Outlet::Length(1..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_delimited_as_the_client_understands_it() {
        let table = [
            (false, 1, 200, None, "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", true),
            (false, 0, 200, None, "abc", true),
            (false, 1, 200, Some(3), "abc", true),
            (false, 0, 200, Some(2), "ab", true),
            (false, 1, 200, Some(4), "abc", false),
            (true, 1, 200, None, "", true),
            (true, 1, 200, Some(9), "", true),
            (false, 1, 204, None, "", true),
            (false, 1, 304, Some(5), "", true),
        ];
        for (is_head, minor, status, length, wanted, whole) in table {
            let head = Head { is_head, minor, ..Head::default() };
            let mut outlet = Outlet::choose(&head, status, length);
            let mut out = Vec::new();
            for piece in ["ab", "", "c"] {
                outlet.write(piece.as_bytes(), &mut out);
            }
            assert_eq!(outlet.finish(&mut out), whole);
            assert_eq!(String::from_utf8_lossy(&out), wanted);
        }
    }
}
