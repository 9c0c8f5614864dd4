//! What the library logs, on the way to the terminal or to standard error: the logs are pipes, from which
//! a thread each reads lines.
//!
//! Owns how a line looks to people. Refuses to know how lines come to be.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// The longest line of a log that is read, in bytes.
const MAX_LINE: u64 = 64 << 10;
/// The time for the last lines: a terminal may be stopped, and a pipe may have a reader that does not read.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Where the lines go.
#[derive(Clone, Copy)]
pub enum To {
    /// Lines of the access log, as people like to read them.
    Terminal { in_colour: bool },
    /// Lines of the error log.
    StandardError,
}

/// A log whose lines are shown.
pub struct Relay {
    pipe: OwnedFd,
    /// Broken off when the thread ends.
    thread: Receiver<()>,
}

impl Relay {
    pub fn begin(to: To) -> io::Result<Relay> {
        let (reader, pipe) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (lives, thread) = channel();
        std::thread::Builder::new().spawn(move || {
            show(reader, to);
            drop(lives);
        })?;
        Ok(Relay { pipe, thread })
    }

    /// The path for the option of the log.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.pipe.as_raw_fd())
    }

    /// Shows the lines that were written, if they are taken. The library must have closed the log before.
    pub fn end(self) {
        let Relay { pipe, thread } = self;
        drop(pipe);
        // Nothing is ever sent: it ends with the thread, or with the time.
        let _ = thread.recv_timeout(LAST_LINES);
    }
}

fn show(reader: OwnedFd, to: To) {
    let mut reader = BufReader::new(File::from(reader));
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut part = io::Read::take(&mut reader, MAX_LINE);
        if !part.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            return;
        }
        // A terminal that does not take the line has no use for it.
        let _ = match to {
            To::StandardError => io::stderr().write_all(&line),
            To::Terminal { in_colour } => {
                let mut out = io::stdout().lock();
                out.write_all(for_people(&line, in_colour).as_bytes()).and_then(|()| out.flush())
            }
        };
    }
}

/// A line of the access log with the time, the client, the user, the request and the status, and with the number
/// of bytes.
fn for_people(line: &[u8], in_colour: bool) -> String {
    // The library escapes what a terminal would obey.
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end();
    parts(line).map_or_else(
        || format!("{line}\n"),
        |(time, client, user, request, status, bytes)| {
            let user = if user == "-" { String::new() } else { format!(" {user}") };
            let (colour, end) = match in_colour {
                true => (colour(status), "\x1b[0m"),
                false => ("", ""),
            };
            format!("{time} {client}{user} {colour}{status}{end} {request} {bytes}\n")
        },
    )
}

/// The parts of a line in Combined Log Format.
fn parts(line: &str) -> Option<(&str, &str, &str, &str, &str, &str)> {
    let (client, rest) = line.split_once(" - ")?;
    let (user, rest) = rest.split_once(" [")?;
    let (date, rest) = rest.split_once("] \"")?;
    let (_, time) = date.split_once(':')?;
    let time = time.split(' ').next()?;
    // A quote within has a backslash before it.
    let bytes = rest.as_bytes();
    let mut at = 0;
    while *bytes.get(at)? != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    let (request, rest) = (rest.get(..at)?, rest.get(at + 1..)?);
    let request = request.rsplit_once(" HTTP/").map_or(request, |(request, _)| request);
    let mut rest = rest.trim_start().split(' ');
    Some((time, client, user, request, rest.next()?, rest.next()?))
}

/// The colour of a status by its class.
fn colour(status: &str) -> &'static str {
    match status.as_bytes().first() {
        Some(b'2') => "\x1b[32m",
        Some(b'3') => "\x1b[36m",
        Some(b'4') => "\x1b[33m",
        Some(b'5') => "\x1b[31m",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_people_has_what_they_look_for() {
        let table = [
            (
                r#"10.0.0.7 - - [28/Nov/2026:01:43:19 +0000] "GET /a HTTP/1.1" 200 17 "-" "curl/8""#,
                "01:43:19 10.0.0.7 200 GET /a 17\n",
            ),
            (
                r#"::1 - joe [28/Nov/2026:01:43:19 +0000] "GET /a\"b\\ HTTP/1.1" 404 0 "\" 200 1" "-""#,
                "01:43:19 ::1 joe 404 GET /a\\\"b\\\\ 0\n",
            ),
            (
                r#"1.2.3.4 - - [28/Nov/2026:01:43:19 +0000] "-" 400 16 "-" "-""#,
                "01:43:19 1.2.3.4 400 - 16\n",
            ),
            ("no such line", "no such line\n"),
            (
                r#"1.2.3.4 - - [28/Nov/2026:01:43:19 +0000] "GET \"#,
                "1.2.3.4 - - [28/Nov/2026:01:43:19 +0000] \"GET \\\n",
            ),
        ];
        for (line, expected) in table {
            assert_eq!(for_people(format!("{line}\n").as_bytes(), false), expected, "{line}");
        }
        let coloured = for_people(table[0].0.as_bytes(), true);
        assert_eq!(coloured, "01:43:19 10.0.0.7 \x1b[32m200\x1b[0m GET /a 17\n");
    }
}
