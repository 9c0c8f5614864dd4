//! The content that is added at the end of a file in place, in portions, under a lock on the file
//! (`flock(2)`). What was added is cut off again unless all of it was accepted.
//!
//! So the rest of a long file costs no more than its own length. Knows nothing of requests, nor of
//! whether the file may be changed.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::temporary::{above_standard, check_size};
use super::tree::{FILE_PIECE, FILE_PIECE_COST};
use crate::long_files::LongFile;

/// Content that is being added to the end of a file.
#[derive(Debug)]
pub struct Appending {
    file: LongFile,
    /// The length of the file as it was.
    start: u64,
    /// The number of bytes that are still to be added.
    left: u64,
    /// Whether some were added that have not been accepted.
    is_dirty: bool,
    /// The process that began it: a child of a fork has a copy of this value, and must leave the
    /// file alone.
    process: u32,
}

/// Opens a file to whose end content may be added in place. Returns `None` for one that has to be
/// replaced as a whole: other names of it must keep the old content, a program must not be changed,
/// and the process may lack the right to write to it.
pub fn open(path: &Path) -> Option<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    let file = above_standard(opened.ok()?).ok()?;
    let meta = file.metadata().ok()?;
    let fits = meta.is_file() && meta.nlink() == 1 && meta.mode() & 0o7111 == 0;
    fits.then_some(file)
}

/// The kind of an error which says that the file is not as it was.
pub const CHANGED: ErrorKind = ErrorKind::InvalidData;

impl Appending {
    /// Begins to add `len` bytes of `from` to the file, which must be as `old` describes it. An
    /// error of the kind `WouldBlock` says that other content is being added to it.
    pub fn begin(file: &File, old: &Metadata, from: &File, len: u64) -> io::Result<Appending> {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            // Some network file systems have no locks. There two servers may disturb each other.
            Ok(()) | Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let now = file.metadata()?;
        if (now.len(), now.mtime(), now.mtime_nsec()) != (old.len(), old.mtime(), old.mtime_nsec())
        {
            return Err(CHANGED.into());
        }
        let start = old.len();
        check_size(start.saturating_add(len))?;
        let file = LongFile::new(file.try_clone()?);
        (&*file).seek(SeekFrom::Start(start))?;
        let mut from = from;
        from.seek(SeekFrom::Start(0))?;
        let process = std::process::id();
        Ok(Appending { file, start, left: len, is_dirty: false, process })
    }

    /// Adds more of the content of `from`. Returns true once all was added.
    pub fn advance(&mut self, from: &File, budget: &mut usize) -> io::Result<bool> {
        while self.left > 0 && *budget > 0 {
            *budget = budget.saturating_sub(FILE_PIECE_COST);
            let len = self.left.min(FILE_PIECE as u64);
            self.is_dirty = true;
            // The kernel copies the bytes, and shares the blocks if the file system can.
            let count = io::copy(&mut from.take(len), &mut &*self.file)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.left = self.left.saturating_sub(count);
        }
        Ok(self.left == 0)
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Accepts what was added.
    pub fn settle(mut self) {
        self.is_dirty = false;
    }
}

impl Drop for Appending {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        if self.is_dirty {
            let _ = self.file.set_len(self.start);
        }
        // The descriptor may have copies, which would keep the lock.
        let _ = rustix::fs::flock(&*self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::Folder;
    use std::fs;
    use std::io::Write as _;

    #[test]
    fn what_was_not_accepted_is_cut_off_again() {
        let folder = Folder::new();
        let (path, part) = (folder.0.join("a"), folder.0.join("part"));
        fs::write(&path, "old").unwrap();
        fs::write(&part, "x".repeat(2 * FILE_PIECE)).unwrap();
        let from = File::open(&part).unwrap();
        let file = open(&path).unwrap();
        let len = 2 * FILE_PIECE as u64;
        let begin = |file: &File| Appending::begin(file, &fs::metadata(&path).unwrap(), &from, len);
        let mut appending = begin(&file).unwrap();
        assert!(!appending.advance(&from, &mut 1).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().len(), 3 + FILE_PIECE as u64);
        let other = open(&path).unwrap();
        assert_eq!(begin(&other).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(appending);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let mut appending = begin(&other).unwrap();
        while !appending.advance(&from, &mut 1).unwrap() {}
        appending.settle();
        assert_eq!(fs::metadata(&path).unwrap().len(), 3 + len);
    }

    #[test]
    fn a_file_that_has_changed_meanwhile_is_left_alone() {
        let folder = Folder::new();
        let path = folder.0.join("a");
        fs::write(&path, "old").unwrap();
        let (file, old) = (open(&path).unwrap(), fs::metadata(&path).unwrap());
        File::options().append(true).open(&path).unwrap().write_all(b"er").unwrap();
        let error = Appending::begin(&file, &old, &file, 1).unwrap_err();
        assert_eq!(error.kind(), CHANGED);
        assert_eq!(fs::read(&path).unwrap(), b"older");
    }

    #[test]
    fn only_a_plain_file_of_one_name_is_changed_in_place() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let folder = Folder::new();
        let path = folder.0.join("a");
        fs::write(&path, "").unwrap();
        symlink("a", folder.0.join("link")).unwrap();
        assert!(open(&path).is_some() && open(&folder.0.join("link")).is_none());
        assert!(open(&folder.0).is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o744)).unwrap();
        assert!(open(&path).is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::hard_link(&path, folder.0.join("b")).unwrap();
        assert!(open(&path).is_none());
    }
}
