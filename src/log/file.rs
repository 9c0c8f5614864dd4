//! A file to which whole lines are appended, perhaps by several processes (POSIX `open` with
//! `O_APPEND`, `write`).
//!
//! The file is opened when its path is set, and held: later the path may be out of reach, for lack
//! of rights or of descriptors. Writing never blocks, and lines that cannot be written are counted.
//! Refuses to know what the lines say.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf, absolute};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// The largest number of bytes that wait to be written.
const MAX_UNWRITTEN: usize = 64 * 1024;
/// The number of bytes that a pipe takes whole or not at all (POSIX: at least 512; Linux: 4096).
const PIPE_BUF: usize = 4096;

/// A file to which lines are appended.
#[derive(Default)]
pub struct LogFile {
    /// The path, made absolute so that it stays the same when the program changes its directory.
    path: Option<PathBuf>,
    open: Option<Open>,
    /// The second in which the path was last checked.
    checked: Option<u64>,
    /// The whole lines that wait for [`LogFile::flush`].
    waiting: Vec<u8>,
    /// The rest of a line whose beginning is in the file.
    rest: Vec<u8>,
    /// The present trouble with the file.
    trouble: Option<Trouble>,
    /// The number of lines that were not written and not reported yet.
    lost: u64,
    /// The second in which lost lines were last reported.
    told: u64,
}

/// A reason why lines cannot be written, or why another file than that of the path holds them.
struct Trouble {
    why: String,
    /// Set if lines can be written all the same.
    is_mild: bool,
    is_told: bool,
}

impl LogFile {
    /// Writes to `path` from now on; with `None`, writes nowhere. Lines that wait still go to the
    /// old file. A path that cannot be opened is tried again later.
    pub fn set_path(&mut self, path: Option<&Path>, now: u64) {
        self.flush(now);
        // Without a working directory the path is taken as it is.
        let path = path.map(|path| absolute(path).unwrap_or_else(|_| path.to_path_buf()));
        *self = Self { path, ..Self::default() };
        self.make_ready(now);
    }

    /// Returns whether a path is set.
    pub fn is_on(&self) -> bool {
        self.path.is_some()
    }

    /// Returns device and inode of the file that is open.
    pub fn identity(&self) -> Option<(u64, u64)> {
        self.open.as_ref().map(|open| open.identity)
    }

    /// Returns the metadata of the file that is open.
    pub fn metadata(&self) -> Option<fs::Metadata> {
        self.open.as_ref()?.file.as_ref()?.metadata().ok()
    }

    /// Forgets the lines that wait, in the child of a fork, since the parent writes them. The file
    /// stays open: the child may not be allowed to open it again.
    pub fn forget_waiting(&mut self) {
        self.waiting = Vec::new();
        self.rest = Vec::new();
        self.lost = 0;
    }

    /// Takes a line in parts, of which the last ends in a line feed, to write it together with
    /// others.
    pub fn add(&mut self, parts: &[&[u8]], now: u64) {
        let len = parts.iter().map(|part| part.len()).sum();
        if self.waiting.len() + len > MAX_UNWRITTEN {
            self.flush(now);
        }
        if self.path.is_none() {
            return;
        }
        if self.waiting.try_reserve(len).is_err() {
            self.lost += 1;
            return;
        }
        for part in parts {
            self.waiting.extend_from_slice(part);
        }
    }

    /// Writes the lines that wait.
    #[inline]
    pub fn flush(&mut self, now: u64) {
        if self.waiting.is_empty() {
            return;
        }
        let mut lines = std::mem::take(&mut self.waiting);
        self.append(&lines, now);
        lines.clear();
        self.waiting = lines;
    }

    /// Appends whole lines at once. `now` is the wall-clock second.
    pub fn append(&mut self, lines: &[u8], now: u64) {
        if self.path.is_none() {
            return;
        }
        if !self.make_ready(now) {
            self.lost += count_lines(lines);
            return;
        }
        let rest = std::mem::take(&mut self.rest);
        let mut at = 0;
        let mut result = self.put(&rest, &mut at);
        if result.is_err() {
            self.rest = rest.get(at..).unwrap_or_default().to_vec();
            self.lost += count_lines(lines);
        } else {
            at = 0;
            result = self.put(lines, &mut at);
            if result.is_err() {
                let left = lines.get(at..).unwrap_or_default();
                let is_cut = at > 0 && lines.get(at - 1) != Some(&b'\n');
                let (cut, whole) = left.split_at(if is_cut { line_len(left) } else { 0 });
                self.rest = cut.to_vec();
                self.lost += count_lines(whole);
            }
        }
        match result {
            Ok(()) if self.trouble.as_ref().is_some_and(|trouble| !trouble.is_mild) => {
                self.trouble = None;
            }
            Ok(()) => {}
            Err(error) => {
                if matches!(error, Errno::PIPE | Errno::BADF) {
                    // The pipe has no reader any more, or the descriptor is no longer ours: the
                    // file is opened anew.
                    self.open = None;
                    self.rest = Vec::new();
                }
                self.note_trouble(format!("lines are lost: {}", io::Error::from(error)), false);
            }
        }
    }

    /// Returns whether [`LogFile::tend`] has something to do.
    pub fn needs_care(&self, now: u64) -> bool {
        let is_missing = self.open.is_none() && self.path.is_some() && self.checked != Some(now);
        is_missing || self.has_news(now)
    }

    /// Tries again to open a file that is not open.
    pub fn tend(&mut self, now: u64) {
        if self.open.is_none() {
            self.make_ready(now);
        }
    }

    fn has_news(&self, now: u64) -> bool {
        let has_lost = self.lost > 0 && self.told != now;
        self.trouble.as_ref().map_or(has_lost, |trouble| !trouble.is_told)
    }

    /// Returns what is to be reported of this log: a new trouble, once, and after its end the
    /// number of lost lines. `itself` says that the report will stand in this very log.
    pub fn take_news(&mut self, itself: bool, now: u64) -> Option<String> {
        if !self.has_news(now) {
            return None;
        }
        let path = super::shown(self.path.as_ref()?);
        match &mut self.trouble {
            None => {
                self.told = now;
                Some(format!("{path}: {} lines were lost", std::mem::take(&mut self.lost)))
            }
            // A log that is not open cannot report about itself.
            Some(trouble) if itself && !trouble.is_mild => None,
            Some(trouble) => {
                trouble.is_told = true;
                Some(format!("{path}: {}", trouble.why))
            }
        }
    }

    fn note_trouble(&mut self, why: String, is_mild: bool) {
        if self.trouble.as_ref().is_none_or(|old| old.is_mild && !is_mild) {
            self.trouble = Some(Trouble { why, is_mild, is_told: false });
        }
    }

    /// Returns whether the file is open. Checks the descriptor each time, and the path once a
    /// second.
    fn make_ready(&mut self, now: u64) -> bool {
        let Some(path) = &self.path else { return false };
        if self.open.as_ref().is_some_and(|open| !open.is_valid()) {
            // A daemon has closed the descriptor.
            self.open = None;
            self.checked = None;
        }
        if self.checked == Some(now) {
            return self.open.is_some();
        }
        self.checked = Some(now);
        let there = fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
        if there.is_some() && there == self.identity() {
            // Any trouble with the path is over.
            self.trouble = self.trouble.take().filter(|trouble| !trouble.is_mild);
            return true;
        }
        match Open::new(path) {
            Ok(open) => {
                if Some(open.identity) != self.identity() {
                    self.lost += u64::from(!self.rest.is_empty());
                    self.rest = Vec::new();
                }
                self.open = Some(open);
                self.trouble = None;
            }
            Err(error) if self.open.is_some() => {
                let why = format!("cannot be opened again, and the old file goes on: {error}");
                self.note_trouble(why, true);
            }
            Err(error) => self.note_trouble(format!("cannot be opened: {error}"), false),
        }
        self.open.is_some()
    }

    /// Writes `bytes` from `at` on, and advances `at`.
    fn put(&self, bytes: &[u8], at: &mut usize) -> Result<(), Errno> {
        let Some(Open { file: Some(file), is_pipe, .. }) = &self.open else {
            return if bytes.is_empty() { Ok(()) } else { Err(Errno::BADF) };
        };
        while let Some(left) = bytes.get(*at..).filter(|left| !left.is_empty()) {
            if *is_pipe && has_no_reader(file) {
                return Err(Errno::PIPE);
            }
            let piece = if *is_pipe { left.get(..whole_lines(left)).unwrap_or(left) } else { left };
            match rustix::io::write(file, piece) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => *at += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The open file, with the properties that tell it from others.
struct Open {
    /// The file; absent only while it is dropped.
    file: Option<File>,
    identity: (u64, u64),
    is_pipe: bool,
}

impl Open {
    fn new(path: &Path) -> io::Result<Open> {
        // A FIFO without a reader must not block the server, and a terminal must not become its
        // controlling terminal.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o644).custom_flags(flags.bits() as i32);
        let mut file = options.open(path)?;
        if file.as_raw_fd() <= 2 {
            // A daemon closes the standard descriptors, and text that is printed there would go
            // into the log.
            file = File::from(rustix::io::fcntl_dupfd_cloexec(&file, 3)?);
        }
        let meta = file.metadata()?;
        let is_pipe = std::os::unix::fs::FileTypeExt::is_fifo(&meta.file_type());
        Ok(Open { identity: (meta.dev(), meta.ino()), file: Some(file), is_pipe })
    }

    /// Returns whether the descriptor still is the file that was opened.
    fn is_valid(&self) -> bool {
        #[allow(clippy::unnecessary_cast, reason = "other widths on other systems")]
        let is_same =
            |stat: rustix::fs::Stat| (stat.st_dev as u64, stat.st_ino as u64) == self.identity;
        match self.file.as_ref().map(rustix::fs::fstat) {
            Some(Ok(stat)) => is_same(stat),
            // It is open, and its file system fails.
            Some(Err(error)) => error != Errno::BADF,
            None => false,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_valid()
            && let Some(file) = self.file.take()
        {
            // The number may belong to a file of the program by now.
            let _ = file.into_raw_fd();
        }
    }
}

/// Returns whether writing to a pipe would raise SIGPIPE, for which the program may have a handler.
fn has_no_reader(file: &File) -> bool {
    let mut polled = [PollFd::new(file, PollFlags::OUT)];
    let answered = rustix::event::poll(&mut polled, Some(&Timespec::default())).is_ok();
    answered && polled[0].revents().contains(PollFlags::ERR)
}

/// Returns the length of the first line.
fn line_len(lines: &[u8]) -> usize {
    memchr::memchr(b'\n', lines).map_or(lines.len(), |at| at + 1)
}

/// Returns the length of as many lines as a pipe takes whole, and of at least one.
fn whole_lines(lines: &[u8]) -> usize {
    if lines.len() <= PIPE_BUF {
        return lines.len();
    }
    let end = lines.get(..PIPE_BUF).and_then(|start| memchr::memrchr(b'\n', start));
    end.map_or_else(|| line_len(lines), |at| at + 1)
}

fn count_lines(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("log-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    #[test]
    fn lines_wait_for_each_other_but_not_for_ever() {
        let path = place("wait");
        let written = || fs::read_to_string(&path).unwrap_or_default();
        let mut log = LogFile::default();
        log.add(&[b"nowhere\n"], 1);
        log.set_path(Some(&path), 1);
        assert!(path.exists() && log.identity().is_some());
        log.add(&[b"o", b"ne\n"], 1);
        log.add(&[b"two\n"], 1);
        assert_eq!(written(), "");
        log.flush(1);
        log.flush(1);
        assert_eq!(written(), "one\ntwo\n");
        // In the child of a fork, the parent has these lines, too.
        log.add(&[b"three\n"], 1);
        log.forget_waiting();
        log.flush(1);
        assert_eq!(written(), "one\ntwo\n");
        log.add(&[b"four\n"], 1);
        log.set_path(None, 1);
        assert_eq!(written(), "one\ntwo\nfour\n");
        log.set_path(Some(&path), 1);
        for _ in 0..MAX_UNWRITTEN / 2 {
            log.add(&[b"12345\n"], 1);
            assert!(log.waiting.len() <= MAX_UNWRITTEN);
        }
        log.flush(1);
        assert_eq!(written().matches("12345\n").count(), MAX_UNWRITTEN / 2);
        assert_eq!(log.take_news(false, 2), None);
        fs::remove_file(&path).expect("the log");
    }

    #[test]
    fn what_is_out_of_reach_is_told_once_and_the_old_file_goes_on() {
        let folder = place("folder");
        let _ = fs::remove_dir_all(&folder);
        let path = folder.join("log");
        let mut log = LogFile::default();
        log.set_path(Some(&path), 1);
        assert!(log.is_on() && log.identity().is_none());
        let told = log.take_news(false, 1).expect("it is told");
        assert!(told.starts_with(path.to_str().expect("text")), "{told}");
        assert!(told.contains(": cannot be opened: "), "{told}");
        log.append(b"one\ntwo\n", 1);
        log.append(b"three\n", 2);
        assert_eq!(log.take_news(false, 2), None);
        fs::create_dir(&folder).expect("a folder");
        // The path is not tried again in the same second.
        log.append(b"four\n", 2);
        assert!(log.needs_care(3) && !path.exists());
        log.tend(3);
        assert!(path.exists());
        assert_eq!(log.take_news(true, 3), Some(format!("{}: 4 lines were lost", path.display())));
        log.append(b"five\n", 3);
        // The path is gone, but no line is lost.
        let other = place("other");
        fs::rename(&path, &other).expect("a rename");
        fs::remove_dir(&folder).expect("an empty folder");
        for second in 4..9 {
            log.append(b"more\n", second);
        }
        assert_eq!(fs::read_to_string(&other).expect("it"), "five\nmore\nmore\nmore\nmore\nmore\n");
        let told = log.take_news(true, 9).expect("the log can say it of itself");
        assert!(told.contains("the old file goes on"), "{told}");
        log.append(b"more\n", 10);
        assert_eq!(log.take_news(true, 10), None);
        fs::create_dir(&folder).expect("a folder");
        log.append(b"new\n", 11);
        assert_eq!(fs::read_to_string(&path).expect("it"), "new\n");
        assert_eq!(log.take_news(false, 11), None);
        fs::remove_file(&other).expect("the old log");
        fs::remove_dir_all(&folder).expect("the folder");
    }

    fn make_fifo(path: &Path) {
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).expect("a FIFO");
    }

    #[test]
    fn a_pipe_that_is_full_gets_whole_lines_or_none() {
        let path = place("fifo");
        make_fifo(&path);
        let mut log = LogFile::default();
        log.set_path(Some(&path), 1);
        assert!(log.take_news(false, 1).expect("no reader yet").contains("cannot be opened"));
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
        let mut reader = options.open(&path).expect("a reader");
        let mut read = || {
            let (mut all, mut buf) = (Vec::new(), [0; 65536]);
            while let Ok(count @ 1..) = reader.read(&mut buf) {
                all.extend_from_slice(&buf[..count]);
            }
            all
        };
        // These are longer than a pipe takes at once, and longer than a pipe can hold.
        for (second, len) in [(2, 30), (3, 1000), (4, 4095), (5, 4096), (6, 9_999), (7, 150_000)] {
            let line = [vec![b'x'; len - 1], vec![b'\n']].concat();
            let (mut sent, mut text) = (0, Vec::new());
            for _ in 0..3 {
                for _ in 0..200_000 / len + 2 {
                    log.append(&line.repeat(3), second);
                    sent += 3;
                }
                text.extend(read());
            }
            // The file gets the end of a line that was begun.
            while !log.rest.is_empty() {
                log.append(b"", second);
                text.extend(read());
            }
            let count = text.split_inclusive(|byte| *byte == b'\n').count();
            assert!(text.split_inclusive(|byte| *byte == b'\n').all(|found| found == line));
            assert!(count > 0 && count < sent, "{count} of {sent}");
            assert_eq!(log.lost as usize + count, sent, "{len}");
            log.append(b"", second);
            assert!(log.take_news(true, second).expect("told").ends_with(" lines were lost"));
        }
        // The pipe loses its reader, and gets another one.
        drop(reader);
        log.append(b"lost\n", 8);
        assert!(log.identity().is_none());
        log.append(b"lost\n", 9);
        let mut reader = options.open(&path).expect("a reader");
        log.append(b"found\n", 10);
        let mut buf = [0; 100];
        assert_eq!(reader.read(&mut buf).expect("a line"), 6);
        assert!(log.take_news(true, 10).expect("told").ends_with(": 2 lines were lost"));
        fs::remove_file(&path).expect("the FIFO");
    }
}
