//! The access log (Combined Log Format) and the error log. Each `write` appends whole lines, so that
//! several processes may share a file; a file that was renamed away is opened anew.

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
    /// Whole lines that wait for [`LogFile::flush`].
    waiting: Vec<u8>,
}

/// More than this does not wait.
const MAX_WAITING: usize = 64 * 1024;

impl LogFile {
    /// Writes to `path` from now on; `None` writes nowhere. What waits still goes to the old file.
    pub fn set_path(&mut self, path: Option<&Path>, now: u64) {
        self.flush(now);
        *self = Self { path: path.map(Path::to_path_buf), ..Self::default() };
    }

    /// Whether lines go anywhere.
    pub fn is_on(&self) -> bool {
        self.path.is_some()
    }

    /// Device and inode of the file that is open.
    pub fn identity(&self) -> Option<(u64, u64)> {
        self.file.as_ref().map(|_| self.identity)
    }

    /// What is known of it.
    pub fn metadata(&self) -> Option<std::fs::Metadata> {
        self.file.as_ref()?.metadata().ok()
    }

    /// Closes the file and forgets what waits; the next line opens it again.
    pub fn close(&mut self) {
        self.file = None;
        self.waiting = Vec::new();
    }

    /// Takes a line in parts, the last of which ends in a line feed, to be written with others.
    pub fn add(&mut self, parts: &[&[u8]], now: u64) {
        let len = parts.iter().map(|part| part.len()).sum();
        if self.waiting.len() + len > MAX_WAITING {
            self.flush(now);
        }
        if self.path.is_none() || self.waiting.try_reserve(len).is_err() {
            return;
        }
        for part in parts {
            self.waiting.extend_from_slice(part);
        }
    }

    /// Writes the lines that wait.
    pub fn flush(&mut self, now: u64) {
        if self.waiting.is_empty() {
            return;
        }
        let mut lines = std::mem::take(&mut self.waiting);
        self.append(&lines, now);
        lines.clear();
        self.waiting = lines;
    }

    /// Appends `line`, which ends in a line feed, at once. `now` is the wall-clock second.
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
    /// As [`timestamp`] writes it.
    pub time: &'a str,
    /// Empty where the request line was not understood.
    pub method: &'a [u8],
    pub target: &'a [u8],
    pub minor: u8,
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
}

impl Request<'_> {
    /// The line without status and byte count, and where these belong.
    pub fn format(&self) -> (Vec<u8>, usize) {
        let values = [self.referer, self.user_agent];
        let len = values.iter().flatten().map(|value| value.len()).sum::<usize>();
        let mut line = Vec::with_capacity(self.target.len() + len + 128);
        write_address(&mut line, self.peer);
        line.extend_from_slice(b" - ");
        match self.user {
            Some(user) => escape(&mut line, user, true),
            None => line.push(b'-'),
        }
        line.extend_from_slice(b" [");
        line.extend_from_slice(self.time.as_bytes());
        line.extend_from_slice(b"] \"");
        if self.method.is_empty() {
            line.extend_from_slice(b"-\" ");
        } else {
            escape(&mut line, self.method, false);
            line.push(b' ');
            escape(&mut line, self.target, false);
            let version = if self.minor == 0 { b" HTTP/1.0\" " } else { b" HTTP/1.1\" " };
            line.extend_from_slice(version);
        }

        let status_at = line.len();
        for value in values {
            line.extend_from_slice(b" \"");
            match value {
                Some(value) if !value.is_empty() => escape(&mut line, value, false),
                _ => line.push(b'-'),
            }
            line.push(b'"');
        }
        line.push(b'\n');
        (line, status_at)
    }
}

fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mut number = itoa::Buffer::new();
            for (place, byte) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(number.format(byte).as_bytes());
            }
        }
        address => out.extend_from_slice(address.to_string().as_bytes()),
    }
}

/// Appends `text` so that it can neither end its quotes nor its line.
fn escape(out: &mut Vec<u8>, text: &[u8], space: bool) {
    let is_plain = |byte: &u8| match byte {
        b'"' | b'\\' => false,
        b' ' => !space,
        byte => (0x21..=0x7e).contains(byte),
    };
    if text.iter().all(is_plain) {
        out.extend_from_slice(text);
        return;
    }
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
    fn lines_wait_for_each_other_but_not_for_ever() {
        let path = std::env::temp_dir().join(format!("log-test-{}", std::process::id()));
        let written = || std::fs::read_to_string(&path).unwrap_or_default();
        let mut log = LogFile::default();
        log.add(&[b"nowhere\n"], 1);
        log.set_path(Some(&path), 1);
        log.add(&[b"o", b"ne\n"], 1);
        log.add(&[b"two\n"], 1);
        assert_eq!(written(), "");
        log.flush(1);
        log.flush(1);
        assert_eq!(written(), "one\ntwo\n");
        // As in the child of a fork, whose parent has these lines, too.
        log.add(&[b"three\n"], 1);
        log.close();
        log.flush(1);
        assert_eq!(written(), "one\ntwo\n");
        log.add(&[b"four\n"], 1);
        log.set_path(None, 1);
        assert_eq!(written(), "one\ntwo\nfour\n");
        log.set_path(Some(&path), 1);
        for _ in 0..MAX_WAITING / 2 {
            log.add(&[b"12345\n"], 1);
            assert!(log.waiting.len() <= MAX_WAITING);
        }
        log.flush(1);
        assert_eq!(written().matches("12345\n").count(), MAX_WAITING / 2);
        std::fs::remove_file(&path).expect("the log");
    }

    #[test]
    fn a_line_cannot_be_forged() {
        let request = Request {
            peer: "::ffff:10.1.2.3".parse().expect("an address"),
            user: Some(b"a b\n"),
            time: &timestamp(0),
            method: b"GET",
            target: b"/\"x\\\x01\xff",
            minor: 1,
            referer: None,
            user_agent: Some(b"a\"\r\nb"),
        };
        let (line, status_at) = request.format();
        let (prefix, suffix) = line.split_at(status_at);
        let expected: &[u8] = b"10.1.2.3 - a\\x20b\\x0a [01/Jan/1970:00:00:00 +0000] \
            \"GET /\\\"x\\\\\\x01\\xff HTTP/1.1\" ";
        assert_eq!(prefix, expected);
        assert_eq!(suffix, b" \"-\" \"a\\\"\\x0d\\x0ab\"\n");
    }
}
