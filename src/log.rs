//! The access log (Combined Log Format) and the error log. One `write` a line, so that several
//! processes may share a file; a file that was renamed away is opened anew.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file that lines are appended to.
#[derive(Default)]
pub struct LogFile {
    path: Option<PathBuf>,
    file: Option<File>,
    identity: (u64, u64),
    /// The second in which the path was last compared with the open file.
    checked: u64,
}

impl LogFile {
    /// Writes to `path` from now on; `None` writes nowhere.
    pub fn set_path(&mut self, path: Option<&Path>) {
        *self = Self { path: path.map(Path::to_path_buf), ..Self::default() };
    }

    /// Whether lines go anywhere.
    pub fn is_on(&self) -> bool {
        self.path.is_some()
    }

    /// Closes the file; the next line opens it again.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Appends `line`, which ends in a line feed. `now` is the wall-clock second.
    pub fn append(&mut self, line: &[u8], now: u64) {
        let Some(path) = &self.path else { return };
        if self.checked != now {
            self.checked = now;
            let there = std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
            if there.map_or(true, |there| there != self.identity) {
                self.file = None;
            }
        }
        if self.file.is_none() {
            let opened = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
            let opened = opened.and_then(|file| Ok((file.metadata()?, file)));
            let Ok((meta, file)) = opened else { return };
            self.identity = (meta.dev(), meta.ino());
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            // A log that cannot be written must not stop the server, and there is nobody to tell.
            let _ = file.write_all(line);
        }
    }
}

/// The parts of an access log line that are known when a request has arrived.
pub struct Request<'a> {
    pub peer: IpAddr,
    pub user: Option<&'a [u8]>,
    pub unix: u64,
    /// Empty where the request line was not understood.
    pub method: &'a [u8],
    pub target: &'a [u8],
    pub minor: u8,
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
}

impl Request<'_> {
    /// The line up to the status, and what follows the byte count.
    pub fn format(&self) -> (Vec<u8>, Vec<u8>) {
        let mut prefix = Vec::with_capacity(self.target.len() + 96);
        prefix.extend_from_slice(self.peer.to_canonical().to_string().as_bytes());
        prefix.extend_from_slice(b" - ");
        match self.user {
            Some(user) => escape(&mut prefix, user, true),
            None => prefix.push(b'-'),
        }
        prefix.extend_from_slice(b" [");
        prefix.extend_from_slice(timestamp(self.unix).as_bytes());
        prefix.extend_from_slice(b"] \"");
        if self.method.is_empty() {
            prefix.extend_from_slice(b"-\" ");
        } else {
            escape(&mut prefix, self.method, false);
            prefix.push(b' ');
            escape(&mut prefix, self.target, false);
            let version = if self.minor == 0 { b" HTTP/1.0\" " } else { b" HTTP/1.1\" " };
            prefix.extend_from_slice(version);
        }

        let mut suffix = Vec::with_capacity(64);
        for value in [self.referer, self.user_agent] {
            suffix.extend_from_slice(b" \"");
            match value {
                Some(value) if !value.is_empty() => escape(&mut suffix, value, false),
                _ => suffix.push(b'-'),
            }
            suffix.push(b'"');
        }
        suffix.push(b'\n');
        (prefix, suffix)
    }
}

/// Appends `text` so that it can neither end its quotes nor its line.
fn escape(out: &mut Vec<u8>, text: &[u8], space: bool) {
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b' ' if space => out.extend_from_slice(b"\\x20"),
            0x20..=0x7e => out.push(*byte),
            _ => {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
                out.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
}

/// `23/Nov/2026:06:17:14 +0000`
pub fn timestamp(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = civil(days);
    let names =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let name = names.get(month as usize - 1).copied().unwrap_or("Jan");
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{day:02}/{name}/{year}:{hour:02}:{minute:02}:{:02} +0000", second % 60)
}

/// Year, month and day of a day since 1970 in the Gregorian calendar, counted in cycles of 400
/// years that begin in March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (cycle, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let date = of_year - (153 * from_march + 2) / 5 + 1;
    (cycle * 400 + year + u64::from(month <= 2), month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_follow_the_calendar() {
        for (unix, text) in [
            (0, "01/Jan/1970:00:00:00 +0000"),
            (951_782_399, "28/Feb/2000:23:59:59 +0000"),
            (951_782_400, "29/Feb/2000:00:00:00 +0000"),
            (951_868_800, "01/Mar/2000:00:00:00 +0000"),
            (1_795_414_634, "23/Nov/2026:06:17:14 +0000"),
            (4_107_542_400, "01/Mar/2100:00:00:00 +0000"),
        ] {
            assert_eq!(timestamp(unix), text);
        }
    }

    #[test]
    fn a_line_cannot_be_forged() {
        let request = Request {
            peer: "::ffff:10.1.2.3".parse().expect("an address"),
            user: Some(b"a b\n"),
            unix: 0,
            method: b"GET",
            target: b"/\"x\\\x01\xff",
            minor: 1,
            referer: None,
            user_agent: Some(b"a\"\r\nb"),
        };
        let (prefix, suffix) = request.format();
        let expected: &[u8] = b"10.1.2.3 - a\\x20b\\x0a [01/Jan/1970:00:00:00 +0000] \
            \"GET /\\\"x\\\\\\x01\\xff HTTP/1.1\" ";
        assert_eq!(prefix, expected);
        assert_eq!(suffix, b" \"-\" \"a\\\"\\x0d\\x0ab\"\n");
    }
}
