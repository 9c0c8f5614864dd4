//! Which look at a file may take long, and the way around it: what lies on a file system of another machine
//! or of a program is asked by a helper. What the kernel has in its caches tells which that is.
//! Follows `openat2(2)` (`RESOLVE_CACHED`) and `statx(2)` (`AT_STATX_DONT_SYNC`).
//!
//! A request that has to wait is decided anew when the answers have come, and finds them here. Each was
//! looked for after the request had come, for this request or for another that waits as well. Refuses to
//! know who carries questions and answers, and who waits.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use super::devices::Devices;
use super::known::{Content, Entry};
use super::links::Links;
use super::load::{Identity, Loaded, is_absence, load};
use super::resolve::split_at_file;
use super::secrets::FileId;
use crate::helpers::Closer;

/// The largest number of names on a path that are brought into the caches of the kernel by one request.
const MAX_STEPS: usize = 64;

/// What a helper is asked.
#[derive(Debug)]
pub enum Question {
    File(Box<Inquiry>),
    /// Bytes of a file that is being sent.
    Piece(Entry, Range<u64>),
}

/// A question about the file at a path.
#[derive(Debug)]
pub struct Inquiry {
    pub path: PathBuf,
    /// The largest size of a file whose content is wanted.
    small: u64,
    /// What is known of the file from before.
    previous: Option<(Entry, Identity)>,
    links: Links,
    devices: Devices,
}

/// What a helper answers.
#[derive(Debug)]
pub enum Answer {
    File(Box<Report>),
    Piece(io::Result<Vec<u8>>),
}

/// The answer to an [`Inquiry`].
#[derive(Debug)]
pub struct Report {
    pub path: PathBuf,
    pub found: io::Result<Looked>,
    trail: Trail,
    device: Option<(u64, bool)>,
}

/// A file that a helper has looked at.
#[derive(Debug)]
pub enum Looked {
    /// It is what it was.
    Same(Entry, Identity),
    New(Box<Loaded>),
}

/// What else has to be known of a place, to decide whether it may be seen.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// The file that cannot be read.
    pub id: Option<FileId>,
    /// Where a symbolic link leads to; `None` if the path is none, or it leads nowhere.
    pub end: Option<PathBuf>,
    pub is_link: bool,
    /// Whether it is a regular file that may be followed to.
    pub is_file: bool,
    /// The file that the path leads through, without a link that is not followed, and the rest.
    pub split: Option<(PathBuf, Vec<u8>)>,
    /// Whether a link that is not followed is on the way to the directory.
    pub is_barred: bool,
}

/// What a helper has found, as often as it is asked for.
#[derive(Clone, Debug)]
pub struct Finding {
    pub file: Result<Entry, Trouble>,
    pub trail: Arc<Trail>,
}

impl Finding {
    /// Returns what is told where a helper has failed.
    pub fn failed() -> Finding {
        let file = Err(Trouble::from(&io::Error::from(Errno::IO)));
        Finding { file, trail: Arc::default() }
    }
}

/// An error that can be told more than once.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    kind: ErrorKind,
    errno: Option<i32>,
}

impl From<&io::Error> for Trouble {
    fn from(error: &io::Error) -> Trouble {
        Trouble { kind: error.kind(), errno: error.raw_os_error() }
    }
}

impl From<Trouble> for io::Error {
    fn from(trouble: Trouble) -> io::Error {
        match trouble.errno {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => trouble.kind.into(),
        }
    }
}

/// What was found for one request, by path.
pub type Findings = Vec<(PathBuf, Finding)>;

/// What the kernel answers from its caches.
enum Cached {
    /// What is at the path lies on this device, and may be a symbolic link.
    Found { dev: u64, is_link: bool },
    /// An answer about the path, as that there is nothing.
    Error(Errno),
    /// The answer is not in the caches.
    Unknown,
    /// The kernel cannot answer so, or not now.
    Unable,
}

/// Asks the kernel what is at a path, without waiting for a file system.
fn ask_caches(path: &Path, follows: bool) -> Cached {
    let way = OFlags::PATH | OFlags::CLOEXEC;
    let way = if follows { way } else { way | OFlags::NOFOLLOW };
    let found = match rustix::fs::openat2(CWD, path, way, Mode::empty(), ResolveFlags::CACHED) {
        Ok(found) => found,
        Err(Errno::AGAIN) => return Cached::Unknown,
        Err(
            error @ (Errno::NOENT
            | Errno::NOTDIR
            | Errno::ACCESS
            | Errno::LOOP
            | Errno::NAMETOOLONG),
        ) => return Cached::Error(error),
        Err(_) => return Cached::Unable,
    };
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    match rustix::fs::statx(found, "", flags, StatxFlags::TYPE) {
        Ok(meta) => {
            let kind = FileType::from_raw_mode(meta.stx_mode.into());
            let dev = rustix::fs::makedev(meta.stx_dev_major, meta.stx_dev_minor);
            Cached::Found { dev, is_link: kind == FileType::Symlink }
        }
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => Cached::Unable,
        Err(error) => Cached::Error(error),
    }
}

/// What becomes of a look at a path.
#[derive(Debug)]
pub enum Way {
    /// The file system answers at once.
    Direct,
    /// It has answered: nothing can be had there.
    Refused(io::Error),
    /// It may take long.
    Long,
}

/// The present request's patience, and what is known about file systems.
#[derive(Debug, Default)]
pub struct Patience {
    /// Set while a request is decided that can wait.
    is_on: bool,
    asked: Vec<Question>,
    findings: Findings,
    pub devices: Devices,
    /// What closes files of slow file systems.
    pub closer: Option<Arc<dyn Closer>>,
}

impl Patience {
    /// Begins to decide about a request that can wait, of which this was found.
    #[inline]
    pub fn begin(&mut self, findings: Findings) {
        debug_assert!(self.asked.is_empty(), "a question is left");
        self.is_on = self.closer.is_some();
        if !findings.is_empty() {
            self.findings = findings;
        }
    }

    /// Ends that. Returns what has to be asked before it can be decided.
    #[inline]
    pub fn end(&mut self) -> Option<(Vec<Question>, Findings)> {
        self.is_on = false;
        match self.asked.is_empty() && self.findings.is_empty() {
            true => None,
            false => self.take(),
        }
    }

    #[cold]
    fn take(&mut self) -> Option<(Vec<Question>, Findings)> {
        let found = std::mem::take(&mut self.findings);
        (!self.asked.is_empty()).then(|| (std::mem::take(&mut self.asked), found))
    }

    /// Returns whether the present request has to wait, so that nothing that is decided about it counts.
    #[inline]
    pub fn is_asking(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Has the present request wait for the file system in the loop.
    #[inline]
    pub fn give_up(&mut self) {
        self.is_on = false;
    }

    /// Does the same until [`Patience::resume`] is given what this returns.
    #[inline]
    pub fn pause(&mut self) -> bool {
        std::mem::take(&mut self.is_on)
    }

    #[inline]
    pub fn resume(&mut self, is_on: bool) {
        self.is_on = is_on;
    }

    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Returns what a helper has found at a path for the present request.
    #[inline]
    pub fn finding(&self, path: &Path) -> Option<&Finding> {
        let is_it = |(known, _): &&(PathBuf, Finding)| known.as_os_str() == path.as_os_str();
        self.findings.iter().find(is_it).map(|(_, finding)| finding)
    }

    /// Returns what a look at a path would be, as far as the kernel can tell at once. What it has not in its
    /// caches of a local disk is brought there.
    pub fn way_to(&mut self, path: &Path) -> Way {
        // Each step brings one name.
        for _ in 0..MAX_STEPS {
            let mut cached = ask_caches(path, false);
            if let Cached::Found { dev, is_link: true } = cached
                && self.is_local(dev)
            {
                cached = match ask_caches(path, true) {
                    // What to think of a link that leads nowhere is for the look to say.
                    Cached::Error(_) => return Way::Direct,
                    Cached::Unknown => return Way::Long,
                    cached => cached,
                };
            }
            match cached {
                Cached::Found { dev, .. } if self.is_local(dev) => return Way::Direct,
                Cached::Found { .. } => return Way::Long,
                Cached::Error(error) => return Way::Refused(error.into()),
                Cached::Unable => return Way::Direct,
                Cached::Unknown => {}
            }
            let Some(missing) = self.first_missing(path) else { return Way::Long };
            // With a slash behind it a link would be followed.
            let missing = without_slashes(missing);
            let _ = fs::symlink_metadata(missing);
            match ask_caches(missing, false) {
                // Some file systems of disks are never asked so, as FAT.
                Cached::Unknown | Cached::Unable => return Way::Direct,
                Cached::Found { is_link: true, .. } if missing.as_os_str() != path.as_os_str() => {
                    match ask_caches(missing, true) {
                        Cached::Found { dev, .. } if self.is_local(dev) => {}
                        Cached::Found { .. } | Cached::Unknown => return Way::Long,
                        Cached::Error(_) | Cached::Unable => return Way::Direct,
                    }
                }
                Cached::Found { .. } | Cached::Error(_) => {}
            }
        }
        Way::Long
    }

    fn is_local(&mut self, dev: u64) -> bool {
        self.devices.look_up(dev) == Some(true)
    }

    /// Returns the first name on a path that the kernel has not in its caches, if the directory above it is
    /// local.
    fn first_missing<'a>(&mut self, path: &'a Path) -> Option<&'a Path> {
        let mut missing = path;
        for above in path.ancestors().skip(1) {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            match ask_caches(above, true) {
                Cached::Found { dev, .. } => return self.is_local(dev).then_some(missing),
                Cached::Unknown => missing = above,
                Cached::Error(_) | Cached::Unable => return None,
            }
        }
        None
    }

    /// Has a helper look at a path.
    pub fn ask(
        &mut self,
        path: &Path,
        small: u64,
        previous: Option<(Entry, Identity)>,
        links: &Links,
    ) {
        let is_it = |question: &Question| matches!(question, Question::File(other) if other.path.as_os_str() == path.as_os_str());
        if self.asked.iter().any(is_it) {
            return;
        }
        self.asked.push(Question::File(Box::new(Inquiry {
            path: path.to_owned(),
            small,
            // Content that may have changed without a trace is read again, and so is what is wanted whole.
            previous: previous
                .filter(|(known, _)| known.is_settled && (known.len > small || !known.is_open())),
            links: links.clone(),
            devices: self.devices.clone(),
        })));
    }

    /// Notes what a report says about file systems.
    pub fn note(&mut self, report: &Report) {
        if let Some((dev, is_local)) = report.device {
            self.devices.note(dev, is_local);
        }
    }
}

impl Report {
    /// Returns what is told of the place besides the file.
    pub fn take_trail(&mut self) -> Arc<Trail> {
        Arc::new(std::mem::take(&mut self.trail))
    }
}

impl Question {
    /// Finds the answer, which may take long.
    pub fn answer(self) -> Answer {
        match self {
            Question::File(inquiry) => Answer::File(Box::new(inquiry.report())),
            Question::Piece(known, range) => Answer::Piece(read_piece(&known, range)),
        }
    }
}

impl Inquiry {
    fn report(self) -> Report {
        let found = self.look();
        let trail = self.trail(&found);
        let device = self.device(&found);
        Report { path: self.path, found, trail, device }
    }

    fn look(&self) -> io::Result<Looked> {
        if let Some((known, identity)) = &self.previous
            && self.links.metadata(&self.path).is_ok_and(|meta| Identity::of(&meta) == *identity)
        {
            return Ok(Looked::Same(known.clone(), *identity));
        }
        Ok(Looked::New(Box::new(load(&self.path, self.small, &self.links, &self.devices)?)))
    }

    fn trail(&self, found: &io::Result<Looked>) -> Trail {
        let path = &self.path;
        let mut trail = Trail::default();
        let (is_readable, is_dir) = match found {
            Ok(Looked::Same(known, _)) => {
                trail.is_link = known.is_link;
                (true, false)
            }
            Ok(Looked::New(loaded)) => {
                trail.is_link = loaded.is_link;
                (true, false)
            }
            Err(error) => (false, error.kind() == ErrorKind::IsADirectory),
        };
        if let Err(error) = found
            && !is_dir
            && !is_absence(error)
            && let Ok(meta) = fs::metadata(path)
        {
            trail.id = (!meta.is_dir()).then(|| FileId::of(&meta));
            trail.is_link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
            trail.is_file = self.links.metadata(path).is_ok_and(|meta| meta.is_file());
        }
        if trail.is_link {
            trail.end = fs::canonicalize(path).ok();
        }
        if found.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotADirectory) {
            let is_open = |(file, _): &(PathBuf, _)| matches!(self.links.bar(file), Ok(false));
            trail.split = split_at_file(path).filter(is_open);
        }
        if !is_readable && self.links.has_barrier() {
            let dir = if is_dir { path } else { path.parent().unwrap_or(path) };
            trail.is_barred = matches!(self.links.bar(dir), Ok(true));
        }
        trail
    }

    /// Returns the device of the file, and whether it is local.
    fn device(&self, found: &io::Result<Looked>) -> Option<(u64, bool)> {
        match found {
            Ok(Looked::New(loaded)) => Some((loaded.meta.dev(), loaded.is_local)),
            Ok(Looked::Same(..)) => None,
            Err(error) if is_absence(error) => None,
            Err(_) => place_of(&self.path, &self.devices),
        }
    }
}

/// Returns a path without the slashes at its end.
fn without_slashes(path: &Path) -> &Path {
    let mut bytes = path.as_os_str().as_bytes();
    while let [rest @ .., b'/'] = bytes
        && !rest.is_empty()
    {
        bytes = rest;
    }
    Path::new(OsStr::from_bytes(bytes))
}

/// Returns the device of a place, and whether it is local.
fn place_of(path: &Path, devices: &Devices) -> Option<(u64, bool)> {
    let way = OFlags::PATH | OFlags::CLOEXEC;
    let place = File::from(rustix::fs::open(path, way, Mode::empty()).ok()?);
    let dev = place.metadata().ok()?.dev();
    Some((dev, devices.find(dev, &place)))
}

/// Reads bytes of a file, as many as there are, after comparing it with its known metadata.
fn read_piece(known: &Entry, range: Range<u64>) -> io::Result<Vec<u8>> {
    if !known.is_unchanged()? {
        return Err(ErrorKind::InvalidData.into());
    }
    let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
    let mut piece = Vec::new();
    piece.try_reserve_exact(len)?;
    match &known.content {
        Content::Bytes(bytes) => {
            let start = usize::try_from(range.start).unwrap_or(usize::MAX);
            let end = start.saturating_add(len);
            piece.extend_from_slice(bytes.get(start..end).unwrap_or_default());
        }
        Content::Open(file) => {
            piece.resize(len, 0);
            let count = file.read_at(&mut piece, range.start)?;
            piece.truncate(count);
        }
    }
    match piece.is_empty() {
        true => Err(ErrorKind::UnexpectedEof.into()),
        false => Ok(piece),
    }
}
