//! A look at one file: what it is, its content if that is short, and what an error says about it. Follows
//! `stat(2)` and `open(2)`.
//!
//! Owns when a file counts as unchanged. Refuses to know who looks, and for how long the result holds.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use super::devices::Devices;
use super::known::Content;
use super::links::Links;

/// The number of attempts to read a file that changes while it is read.
const READ_ATTEMPTS: usize = 3;

/// The metadata that must be equal for a file to count as unchanged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Identity {
    pub dev: u64,
    ino: u64,
    size: u64,
    modified: (i64, i64),
    /// The time of the last change of the inode, which permissions change as well, and which cannot
    /// be set back.
    changed: (i64, i64),
}

impl Identity {
    pub fn of(meta: &Metadata) -> Identity {
        Identity {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Returns whether a change after `now` is certain to have another time. The clocks of file
    /// systems advance in steps: of some milliseconds, or of seconds where the fraction is always
    /// zero.
    pub fn is_settled(&self, now: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed.max(self.modified);
        let Ok(seconds) = u64::try_from(seconds) else {
            return true;
        };
        let step = match nanoseconds {
            0 => Duration::from_secs(2),
            _ => Duration::from_millis(100),
        };
        let Ok(now) = now.duration_since(UNIX_EPOCH) else {
            return false;
        };
        let change = Duration::new(seconds, u32::try_from(nanoseconds).unwrap_or(0));
        change.checked_add(step).is_some_and(|settled| settled < now)
    }
}

/// A file that has just been read.
#[derive(Debug)]
pub struct Loaded {
    pub content: Content,
    /// The metadata that the content belongs to.
    pub meta: Metadata,
    pub is_link: bool,
    /// Whether a later change of the file is certain to show in the metadata.
    pub settled: bool,
    /// Whether the file system is one that answers at once.
    pub is_local: bool,
}

/// Reads a file. The content of one that is larger than `small` stays in the file.
pub fn load(path: &Path, small: u64, links: &Links, devices: &Devices) -> io::Result<Loaded> {
    // FIFOs and devices are never opened: that could block, or have side effects.
    let mut meta = fs::symlink_metadata(path)?;
    let is_link = meta.is_symlink();
    if is_link || links.has_barrier() {
        meta = match links.metadata(path) {
            Err(error) if is_absence(&error) => return Err(io::ErrorKind::InvalidInput.into()),
            found => found?,
        };
    }
    check_kind(&meta)?;
    let mut file = links.open(path)?;
    // A daemon that has closed its descriptors 0 to 2 may open others in their place.
    if file.as_raw_fd() < 3 {
        file = File::from(rustix::io::fcntl_dupfd_cloexec(&file, 3)?);
    }
    let is_local = devices.find(meta.dev(), &file);
    for _ in 0..READ_ATTEMPTS {
        let now = SystemTime::now();
        let meta = file.metadata()?;
        check_kind(&meta)?;
        let settled = Identity::of(&meta).is_settled(now);
        if meta.len() > small {
            return Ok(Loaded { content: Content::Open(file), meta, is_link, settled, is_local });
        }
        let mut bytes = vec![0; meta.len() as usize];
        let whole = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        if whole && Identity::of(&file.metadata()?) == Identity::of(&meta) {
            return Ok(Loaded { content: Content::Bytes(bytes), meta, is_link, settled, is_local });
        }
    }
    // The file keeps changing. When it is sent, its length is checked again.
    let meta = file.metadata()?;
    Ok(Loaded { content: Content::Open(file), meta, is_link, settled: false, is_local })
}

fn check_kind(meta: &Metadata) -> io::Result<()> {
    if meta.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if meta.is_file() {
        return Ok(());
    }
    // The path is not free: another kind of file must not count as an absent password file.
    Err(io::ErrorKind::InvalidInput.into())
}

/// Returns whether an error says that no file has the name.
pub fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Returns the status for a file that cannot be opened. A file is missing only if the file system
/// says so: where it fails, clients must not believe that the file is gone, and caches must not
/// keep that.
pub fn status_of(error: &io::Error) -> u16 {
    match error.kind() {
        io::ErrorKind::PermissionDenied => 403,
        // `InvalidInput` is no regular file; see `Cache::get`.
        io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::InvalidInput => 404,
        _ => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::LOOP | Errno::NAMETOOLONG | Errno::NXIO) => 404,
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => 503,
            _ => 500,
        },
    }
}

/// Returns whether an error is a failure of the file system or of the machine, which says nothing
/// about the file.
pub fn is_failure(error: &io::Error) -> bool {
    status_of(error) >= 500
}

/// Returns whether an error says that there are no more descriptors.
pub fn is_exhaustion(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}
