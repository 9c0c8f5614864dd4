//! Password files: lines `user:domain:hash`, where the hash is A1 of RFC 7616, section 3.4.2: the
//! MD5 of `user:domain:password`.
//!
//! Owns how such a file is changed: by `rename`, so that a reader always finds the old file or the
//! new one, and under `flock`, so that two writers do not lose each other's changes. Knows nothing
//! of requests.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// The mark that editors of some systems write in front of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// MD5 of `user:domain:password`, as lower-case hexadecimal digits.
pub type Ha1 = [u8; 32];

/// Returns the lines of a password file, without a byte order mark in front of them.
pub fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file).split(|&b| b == b'\n')
}

/// Finds the hash of a user in the bytes of a password file. Malformed lines are skipped. All lines
/// are looked at, so that the time does not tell whether there is such a user.
pub fn find_ha1(file: &[u8], domain: &[u8], user: &[u8]) -> Option<Ha1> {
    // A name with a colon would be ambiguous within a line.
    if user.is_empty() || user.contains(&b':') {
        return None;
    }
    lines(file).fold(None, |found, line| found.or(hash_in(line, domain, user)))
}

/// Returns the hash in a line, if it is one of this user in this domain.
pub fn hash_in(line: &[u8], domain: &[u8], user: &[u8]) -> Option<Ha1> {
    let line = line.strip_prefix(user)?.strip_prefix(b":")?;
    let hash = line.strip_prefix(domain)?.strip_prefix(b":")?;
    let hash = Ha1::try_from(hash.trim_ascii_end()).ok()?;
    let is_hash = hash.iter().all(u8::is_ascii_hexdigit);
    is_hash.then(|| hash.map(|digit| digit.to_ascii_lowercase()))
}

/// Computes the MD5 of the joined parts, in lower-case hexadecimal digits.
pub fn md5_hex(parts: &[&[u8]]) -> [u8; 32] {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    let mut hex = [0; 32];
    for (digits, byte) in hex.chunks_exact_mut(2).zip(md5.finalize()) {
        digits[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        digits[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    hex
}

/// Adds the user to the file, or changes the password, or deletes the user if `password` is `None`.
///
/// All other lines stay byte for byte, and the file keeps its mode. A file that does not exist is
/// created if there is a user to add. The call may wait for another writer.
pub fn modify(file: &Path, domain: &[u8], user: &[u8], password: Option<&[u8]>) -> io::Result<()> {
    if !is_name(domain) || !is_name(user) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // If the name is a symbolic link, its target is replaced and not the link.
    let file = match fs::canonicalize(file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_path_buf(),
        Err(error) => return Err(error),
    };
    let folder = lock_folder(&file)?;
    let (old, metadata) = match fs::metadata(&file) {
        Ok(metadata) if metadata.is_file() => (fs::read(&file)?, Some(metadata)),
        Ok(_) => return Err(io::ErrorKind::InvalidInput.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
        Err(error) => return Err(error),
    };
    let new = with_user(&old, domain, user, password);
    if new != old {
        replace(&file, &new, metadata.as_ref())?;
        // Without this a crash could restore the old password.
        folder.sync_all()?;
    }
    Ok(())
}

/// Returns whether a line can hold this name.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.iter().any(|b| b":\r\n\0".contains(b))
}

/// Opens and locks the folder of `file`; the lock lasts until the folder is closed. The lock is not
/// on the file, since each change replaces the file by another one.
fn lock_folder(file: &Path) -> io::Result<File> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = File::open(folder)?;
    let lock = || rustix::fs::flock(&folder, FlockOperation::LockExclusive);
    match rustix::io::retry_on_intr(lock) {
        // Some network file systems cannot lock folders. There a reader still finds no half change,
        // but two writers may lose one.
        Ok(()) | Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP) => Ok(folder),
        Err(error) => Err(error.into()),
    }
}

/// Returns the text of the file after the change.
fn with_user(old: &[u8], domain: &[u8], user: &[u8], password: Option<&[u8]>) -> Vec<u8> {
    let key = [user, b":", domain, b":"].concat();
    let hash = password.map(|password| md5_hex(&[&key, password]));
    let mut new = Vec::with_capacity(old.len() + key.len() + 35);
    let mut found = false;
    let lines = old.strip_prefix(BYTE_ORDER_MARK).unwrap_or(old);
    new.extend_from_slice(&old[..old.len() - lines.len()]);
    for line in lines.split_inclusive(|&b| b == b'\n') {
        if !line.starts_with(&key) {
            new.extend_from_slice(line);
            continue;
        }
        // If a user has two lines, the old password must not stay in the second one.
        if let Some(hash) = &hash {
            let end = line.len() - line.trim_ascii_end().len();
            new.extend_from_slice(&key);
            new.extend_from_slice(hash);
            new.extend_from_slice(&line[line.len() - end..]);
            found = true;
        }
    }
    if let (Some(hash), false) = (&hash, found) {
        let first = lines.split_inclusive(|&b| b == b'\n').next().unwrap_or_default();
        let end: &[u8] = if first.ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
        if !lines.is_empty() && !lines.ends_with(b"\n") {
            new.extend_from_slice(end);
        }
        new.extend_from_slice(&key);
        new.extend_from_slice(hash);
        new.extend_from_slice(end);
    }
    new
}

/// Writes the text to a new file beside `file`, and renames the new one to `file`.
fn replace(file: &Path, text: &[u8], old: Option<&fs::Metadata>) -> io::Result<()> {
    let (temporary, new) = create_beside(file, old.is_some())?;
    let result = fill(new, text, old).and_then(|()| fs::rename(&temporary, file));
    if result.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Writes text, owner and mode of the new file, and waits until they are on the disk.
fn fill(new: File, text: &[u8], old: Option<&fs::Metadata>) -> io::Result<()> {
    // A daemon may print to its descriptors 0 to 2 although it has closed them, so that the file
    // must not get one of these numbers.
    let mut high = File::from(rustix::io::fcntl_dupfd_cloexec(&new, 3)?);
    drop(new);
    high.write_all(text)?;
    if let Some(old) = old {
        take_over(&high, old)?;
    }
    high.sync_all()
}

/// Gives the new file the owner and the mode of the old one. Only root can change the owner; other
/// users keep the mode alone.
fn take_over(new: &File, old: &fs::Metadata) -> io::Result<()> {
    let made = new.metadata()?;
    if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
        let _ = fchown(new, Some(old.uid()), Some(old.gid()));
    }
    new.set_permissions(fs::Permissions::from_mode(old.mode() & 0o7777))
}

/// Creates a file whose name begins with that of `file`, so that a pattern that hides `file` hides
/// both. With `private` only its owner can read it, until it gets the mode of the file that it
/// replaces.
fn create_beside(file: &Path, private: bool) -> io::Result<(PathBuf, File)> {
    let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut random = [0; 8];
    rustix::io::retry_on_intr(|| {
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
    })?;
    let mut temporary = name.to_os_string();
    temporary.push(format!(".{:016x}", u64::from_ne_bytes(random)));
    let temporary = file.with_file_name(temporary);
    let new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(if private { 0o600 } else { 0o666 })
        .open(&temporary)?;
    Ok((temporary, new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_folder::Folder;
    use std::os::unix::fs::symlink;

    fn line(user: &str, domain: &str, password: &str) -> String {
        let joined = format!("{user}:{domain}:{password}");
        let hash = String::from_utf8(md5_hex(&[joined.as_bytes()]).to_vec()).unwrap();
        format!("{user}:{domain}:{hash}")
    }

    #[test]
    fn the_hash_is_that_of_all_parts_joined() {
        // RFC 1321, section A.5, and A1 of the example in RFC 7616, section 3.9.1.
        let table: &[(&[&[u8]], &str)] = &[
            (&[], "d41d8cd98f00b204e9800998ecf8427e"),
            (&[b""], "d41d8cd98f00b204e9800998ecf8427e"),
            (&[b"abc"], "900150983cd24fb0d6963f7d28e17f72"),
            (&[b"a", b"", b"bc"], "900150983cd24fb0d6963f7d28e17f72"),
            (
                &[b"Mufasa", b":", b"http-auth@example.org", b":", b"Circle of Life"],
                "3d78807defe7de2157e2b0b6573a855f",
            ),
        ];
        for &(parts, expected) in table {
            assert_eq!(md5_hex(parts), expected.as_bytes(), "{expected}");
        }
    }

    #[test]
    fn only_the_lines_of_the_user_change() {
        let joe = line("joe", "d", "new");
        let table = [
            ("", Some("new"), format!("{joe}\n")),
            ("joe:d:old\n", Some("new"), format!("{joe}\n")),
            ("joe:d:old\r\nx\r\n", Some("new"), format!("{joe}\r\nx\r\n")),
            ("joe:d:old", Some("new"), joe.clone()),
            (
                "ann:d:1\n\n# x\r\njoe:d:old\n\t",
                Some("new"),
                format!("ann:d:1\n\n# x\r\n{joe}\n\t"),
            ),
            ("ann:d:1", Some("new"), format!("ann:d:1\n{joe}\n")),
            (
                "joe:e:1\njoe2:d:1\n joe:d:1\n",
                Some("new"),
                format!("joe:e:1\njoe2:d:1\n joe:d:1\n{joe}\n"),
            ),
            ("joe:d:1\nx\njoe:d:2\n", Some("new"), format!("{joe}\nx\n{joe}\n")),
            ("", None, String::new()),
            ("ann:d:1\njoe:d:old\n", None, "ann:d:1\n".to_owned()),
            ("joe:d:1\nann:d:1\njoe:d:2\n", None, "ann:d:1\n".to_owned()),
            ("joe:e:1\nann:d:1", None, "joe:e:1\nann:d:1".to_owned()),
            // Files as an editor of Windows writes them.
            ("\u{feff}joe:d:old\r\n", Some("new"), format!("\u{feff}{joe}\r\n")),
            ("\u{feff}joe:d:old\r\nann:d:1", None, "\u{feff}ann:d:1".to_owned()),
            ("\u{feff}ann:d:1\r\n", Some("new"), format!("\u{feff}ann:d:1\r\n{joe}\r\n")),
            ("ann:d:1\r\nbob:d:2", Some("new"), format!("ann:d:1\r\nbob:d:2\r\n{joe}\r\n")),
            ("\u{feff}", Some("new"), format!("\u{feff}{joe}\n")),
            ("x\n\u{feff}joe:d:old\n", None, "x\n\u{feff}joe:d:old\n".to_owned()),
        ];
        for (old, password, new) in table {
            let changed = with_user(old.as_bytes(), b"d", b"joe", password.map(str::as_bytes));
            assert_eq!(
                changed.escape_ascii().to_string(),
                new.as_bytes().escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn users_are_added_changed_and_deleted_in_the_file() {
        let folder = Folder::new();
        let file = folder.0.join(".htpasswd");
        let steps = [
            ("joe", Some("1"), line("joe", "d", "1") + "\n"),
            ("ann", Some("2"), line("joe", "d", "1") + "\n" + &line("ann", "d", "2") + "\n"),
            ("joe", Some("3"), line("joe", "d", "3") + "\n" + &line("ann", "d", "2") + "\n"),
            ("joe", None, line("ann", "d", "2") + "\n"),
            ("joe", None, line("ann", "d", "2") + "\n"),
            ("ann", None, String::new()),
        ];
        for (user, password, text) in steps {
            modify(&file, b"d", user.as_bytes(), password.map(str::as_bytes)).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text, "{user} {password:?}");
            assert_eq!(folder.names(), [".htpasswd"]);
        }
    }

    #[test]
    fn the_file_keeps_its_mode() {
        let folder = Folder::new();
        let file = folder.0.join("passwords");
        for mode in [0o600, 0o640, 0o666] {
            fs::write(&file, "x\n").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            modify(&file, b"d", b"joe", Some(b"x")).unwrap();
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, mode);
        }
    }

    #[test]
    fn a_link_still_leads_to_the_file() {
        let folder = Folder::new();
        let (file, link) = (folder.0.join("file"), folder.0.join("link"));
        fs::write(&file, "").unwrap();
        symlink("file", &link).unwrap();
        modify(&link, b"d", b"joe", Some(b"x")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), line("joe", "d", "x") + "\n");
    }

    #[test]
    fn names_that_no_line_can_hold_leave_the_file_untouched() {
        let folder = Folder::new();
        let file = folder.0.join("file");
        for bad in [&b""[..], b"a:b", b":", b"a\n", b"\ra", b"a\0b"] {
            for (domain, user) in [(bad, &b"ok"[..]), (b"ok", bad)] {
                for password in [Some(&b"x"[..]), None] {
                    let error = modify(&file, domain, user, password).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
                }
            }
        }
        assert!(folder.names().is_empty());
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_leaves_nothing_behind() {
        let folder = Folder::new();
        fs::create_dir(folder.0.join("dir")).unwrap();
        for name in ["dir", "missing/file", ""] {
            let file = folder.0.join(name);
            assert!(modify(&file, b"d", b"joe", Some(b"x")).is_err(), "{name}");
        }
        assert!(modify(Path::new(""), b"d", b"joe", Some(b"x")).is_err());
        assert_eq!(folder.names(), ["dir"]);
    }

    #[test]
    fn deleting_from_a_missing_file_makes_none() {
        let folder = Folder::new();
        modify(&folder.0.join("file"), b"d", b"joe", None).unwrap();
        assert!(folder.names().is_empty());
    }

    #[test]
    fn writers_do_not_lose_each_others_changes() {
        let folder = Folder::new();
        let file = folder.0.join("file");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let file = &file;
                scope.spawn(move || {
                    for n in 0..10 {
                        let user = format!("user{writer}-{n}");
                        modify(file, b"d", user.as_bytes(), Some(b"x")).unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 40);
        assert_eq!(folder.names(), ["file"]);
    }
}
