//! The renaming of a file or a symbolic link within a file system, to a name that another file may
//! have (`rename(2)`, `renameat2(2)`).
//!
//! Knows nothing of requests, locks or properties, and does not remove the file that was replaced.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;

use super::set_aside::{Held, Kind, dir_of, install, rename};
use super::temporary::{TemporaryDir, fresh_name};
use super::tree::copy_link;

/// Renames a file within a file system. Returns the path of the file that was replaced.
pub fn move_name(from: &Path, place: &Path, replaces: bool) -> io::Result<Option<PathBuf>> {
    let old = install(from, place, replaces)?;
    if old.as_deref() != Some(from) {
        return Ok(old);
    }
    // For a moment, the replaced file has the old name of the source.
    let hidden = fresh_name(dir_of(from));
    if let Err(error) = fs::rename(from, &hidden) {
        rename(from, place, RenameFlags::EXCHANGE)?;
        return Err(error);
    }
    Ok(Some(hidden))
}

/// Moves a symbolic link, so that it leads to the same file as before. Returns the path of the file
/// that was replaced.
pub fn move_link(from: &Path, place: &Path, replaces: bool) -> io::Result<Option<PathBuf>> {
    // The link is made in a hidden directory, which can be locked: of a hidden link no sweep could
    // tell whether it is in use.
    let dir = TemporaryDir::create(dir_of(place))?;
    let made = dir.path.join("link");
    let moved = replace_link(from, &made, place, replaces);
    if matches!(&moved, Ok(Some(old)) if *old == made) {
        return Ok(Some(dir.path));
    }
    let _ = fs::remove_file(made);
    let _ = fs::remove_dir(dir.path);
    moved
}

/// Copies a link to `made`, renames the copy to `place`, and removes the link.
fn replace_link(
    from: &Path,
    made: &Path,
    place: &Path,
    replaces: bool,
) -> io::Result<Option<PathBuf>> {
    copy_link(from, made)?;
    // The link is held first: one that cannot be removed must not replace another file.
    let held = Held::take(from, Kind::Source)?;
    match install(made, place, replaces) {
        Ok(old) => {
            held.remove_file();
            Ok(old)
        }
        Err(error) => {
            let _ = held.put_back();
            Err(error)
        }
    }
}
