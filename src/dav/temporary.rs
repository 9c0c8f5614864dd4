//! Files and directories that clients cannot see until they are complete. Owns the hidden names
//! that begin with [`PREFIX`]; knows nothing of what is written to the files. Follows `open(2)`,
//! `linkat(2)`, `rename(2)` and `flock(2)`.
//!
//! A new file has no name until it is complete (`O_TMPFILE`), so that a process which is killed
//! leaves nothing behind. A file that is to replace another has a hidden name for the moment before
//! it is renamed. A process holds a lock (`flock`) on each hidden name that it has made: hidden
//! names without a lock are swept away (see [`super::set_aside::Sweep`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::long_files::{self, LongFile};

/// The start of the names of temporary files and directories; hidden like all of `STATE`.
pub const PREFIX: &str = ".mongoose-dav.";
const NAME_ATTEMPTS: usize = 16;

/// A file that is being written.
#[derive(Debug)]
pub struct Temporary {
    file: LongFile,
    dir: PathBuf,
    /// The hidden name; `None` for a file without a name.
    name: Option<PathBuf>,
    /// The process that made it: a child of a fork has a copy of this value, and must leave the
    /// file alone.
    process: u32,
}

impl Temporary {
    /// Creates an empty file that is to get a name in the directory `dir`.
    pub fn create(dir: &Path) -> io::Result<Temporary> {
        match Temporary::nameless(dir)? {
            Some(temporary) => Ok(temporary),
            None => Temporary::named(dir),
        }
    }

    /// Creates a file without a name. Returns `None` where the file system does not support that.
    fn nameless(dir: &Path) -> io::Result<Option<Temporary>> {
        // Its name will be linked by way of /proc.
        if !Path::new("/proc/self/fd").exists() {
            return Ok(None);
        }
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(dir, flags, Mode::from_raw_mode(0o666)) {
            Ok(fd) => {
                let file = above_standard(File::from(fd))?;
                Ok(Some(Temporary::new(file, dir, None)))
            }
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates a file with a hidden name, and locks it.
    fn named(dir: &Path) -> io::Result<Temporary> {
        for _ in 0..NAME_ATTEMPTS {
            let name = fresh_name(dir);
            let made = OpenOptions::new().read(true).write(true).create_new(true).open(&name);
            let file = match made {
                Ok(file) => above_standard(file)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            };
            if lock(&file) != Owner::Theirs {
                return Ok(Temporary::new(file, dir, Some(name)));
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    fn new(file: File, dir: &Path, name: Option<PathBuf>) -> Temporary {
        Temporary {
            file: LongFile::new(file),
            dir: dir.to_path_buf(),
            name,
            process: std::process::id(),
        }
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name. With `replace`, a file that has the name is replaced.
    pub fn publish(mut self, target: &Path, replace: bool) -> io::Result<()> {
        match (&self.name, replace) {
            (None, _) => match self.link(target) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && replace => {}
                result => return result,
            },
            (Some(name), false) => return fs::hard_link(name, target),
            (Some(_), true) => {}
        }
        for _ in 0..NAME_ATTEMPTS {
            if let Some(name) = &self.name {
                let _old = long_files::hold(target);
                fs::rename(name, target)?;
                self.name = None;
                return Ok(());
            }
            let name = fresh_name(&self.dir);
            // The lock comes before the name, so that no sweep takes the file for an abandoned one.
            lock(&self.file);
            match self.link(&name) {
                Ok(()) => self.name = Some(name),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Gives the file a name (`linkat(2)`).
    fn link(&self, name: &Path) -> io::Result<()> {
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        rustix::fs::linkat(CWD, own, CWD, name, AtFlags::SYMLINK_FOLLOW)?;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(name) = &self.name
            && self.process == std::process::id()
        {
            let _ = fs::remove_file(name);
        }
    }
}

/// A directory that is being filled, or one that is about to be removed. Its content is not removed
/// with this value: that may be a large tree, and a sweep finds it.
#[derive(Debug)]
pub struct TemporaryDir {
    pub path: PathBuf,
    _held: File,
}

impl TemporaryDir {
    /// Creates an empty directory with a hidden name in `dir`.
    pub fn create(dir: &Path) -> io::Result<TemporaryDir> {
        TemporaryDir::of_kind(dir, PREFIX)
    }

    /// Creates an empty directory in `dir` whose hidden name begins with `prefix`.
    pub fn of_kind(dir: &Path, prefix: &str) -> io::Result<TemporaryDir> {
        for _ in 0..NAME_ATTEMPTS {
            let path = fresh(dir, prefix);
            match create_private_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // A sweep may have removed it before the lock is taken.
            let held = match File::open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => {
                    opened.and_then(above_standard).inspect_err(|_| drop(fs::remove_dir(&path)))?
                }
            };
            let is_there = path.try_exists().inspect_err(|_| drop(fs::remove_dir(&path)))?;
            if lock(&held) != Owner::Theirs && is_there {
                return Ok(TemporaryDir { path, _held: held });
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }
}

/// Creates a directory that other users cannot read before it gets its final mode.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// Returns a hidden name in `dir` that is random, and so most likely not in use.
pub fn fresh_name(dir: &Path) -> PathBuf {
    fresh(dir, PREFIX)
}

fn fresh(dir: &Path, prefix: &str) -> PathBuf {
    dir.join(format!("{prefix}{:032x}", u128::from_ne_bytes(random_bytes())))
}

/// Returns random bytes that cannot be predicted.
pub fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    // The kernel can only refuse before it has any randomness, early in its own start.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes
}

/// The process that a hidden name belongs to.
#[derive(Clone, Copy, PartialEq)]
pub enum Owner {
    Ours,
    Theirs,
    /// The file system supports no locks, as some network file systems. There nothing is swept.
    Unknown,
}

/// Locks a hidden file or directory until it is closed.
pub fn lock(file: &File) -> Owner {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Owner::Ours,
        Err(Errno::AGAIN) => Owner::Theirs,
        Err(_) => Owner::Unknown,
    }
}

/// Checks whether this process may write a file of `len` bytes. Beyond its limit the kernel would
/// end it by SIGXFSZ.
pub fn check_size(len: u64) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if len > limit => Err(Errno::FBIG.into()),
        _ => Ok(()),
    }
}

/// Checks whether the file system of the directory `dir` may have room for `len` bytes more. Some
/// do not tell; there a write finds out.
pub fn check_room(dir: &Path, len: u64) -> io::Result<()> {
    match rustix::fs::statvfs(dir) {
        Ok(space) if space.f_blocks > 0 && len > space.f_bfree.saturating_mul(space.f_frsize) => {
            Err(Errno::NOSPC.into())
        }
        _ => Ok(()),
    }
}

/// Opens a regular file for reading. A FIFO or device is not waited for, and is refused.
pub fn open_file(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let file = above_standard(OpenOptions::new().read(true).custom_flags(flags).open(path)?)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(ErrorKind::InvalidInput.into()),
    }
}

/// Moves a descriptor above 2: a daemon that has closed its descriptors 0 to 2 may still print to
/// them.
pub fn above_standard(file: File) -> io::Result<File> {
    if file.as_raw_fd() > 2 {
        return Ok(file);
    }
    Ok(File::from(rustix::io::fcntl_dupfd_cloexec(&file, 3)?))
}

#[cfg(test)]
mod tests {
    use super::super::set_aside::sweep;
    use super::*;
    use crate::test_folder::Folder;
    use std::io::Write as _;

    #[test]
    fn a_file_has_no_name_before_it_is_complete() {
        let folder = Folder::new();
        let temporary = Temporary::create(&folder.0).unwrap();
        temporary.file().write_all(b"new").unwrap();
        assert!(folder.names().is_empty());
        let target = folder.0.join("a");
        temporary.publish(&target, false).unwrap();
        let second = Temporary::create(&folder.0).unwrap();
        assert_eq!(second.publish(&target, false).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&target).unwrap(), b"new");
        Temporary::create(&folder.0).unwrap().publish(&target, true).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"");
        assert_eq!(folder.names(), ["a"]);
    }

    #[test]
    fn a_file_that_must_have_a_name_has_a_hidden_one() {
        let folder = Folder::new();
        let target = folder.0.join("a");
        for text in ["one", "two"] {
            let temporary = Temporary::named(&folder.0).unwrap();
            temporary.file().write_all(text.as_bytes()).unwrap();
            assert!(folder.names()[0].starts_with(PREFIX));
            sweep(&folder.0).unwrap();
            temporary.publish(&target, true).unwrap();
            assert_eq!(fs::read(&target).unwrap(), text.as_bytes());
            assert_eq!(folder.names(), ["a"]);
        }
        drop(Temporary::named(&folder.0).unwrap());
        let third = Temporary::named(&folder.0).unwrap();
        assert_eq!(third.publish(&target, false).unwrap_err().kind(), ErrorKind::AlreadyExists);
        Temporary::named(&folder.0).unwrap().publish(&folder.0.join("b"), false).unwrap();
        assert_eq!(folder.names(), ["a", "b"]);
    }

    #[test]
    fn what_somebody_holds_is_not_swept() {
        let folder = Folder::new();
        let held = TemporaryDir::create(&folder.0).unwrap();
        let left = fresh_name(&folder.0);
        fs::create_dir(&left).unwrap();
        fs::write(fresh_name(&folder.0), "left").unwrap();
        fs::write(folder.0.join("a"), "").unwrap();
        std::os::unix::fs::symlink("a", fresh_name(&folder.0)).unwrap();
        // Directories are renamed first, so that a process that has just made one sees that it is
        // gone.
        let swept = sweep(&folder.0).unwrap();
        assert!(swept.len() == 1 && swept[0].exists() && !left.exists(), "{swept:?}");
        assert_eq!(folder.names().len(), 4);
        assert!(held.path.exists());
        let path = held.path.clone();
        drop(held);
        let swept = sweep(&folder.0).unwrap();
        assert!(swept.len() == 2 && swept.iter().all(|path| path.exists()), "{swept:?}");
        assert!(!path.exists());
    }
}
