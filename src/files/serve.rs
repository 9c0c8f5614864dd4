//! From a request path to what is served for it: a file, a redirection or an error.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::mime::media_type;
use crate::options::Config;
use crate::pattern::matched_len;

/// The last second of the year 9999: HTTP dates have four digits for the year.
const LAST_DATE: u64 = 253_402_300_799;

/// What lies behind a path.
pub enum Found {
    File(OpenFile),
    /// A directory that was asked for without its slash.
    Directory,
    /// The status that says why there is nothing to send.
    Status(u16),
}

/// A regular file, ready to be read.
pub struct OpenFile {
    pub file: File,
    pub len: u64,
    /// Seconds since 1970.
    pub modified: u64,
    /// The same as an HTTP date.
    pub last_modified: String,
    /// The entity tag, in its quotes.
    pub etag: String,
    /// Size and time of the last change.
    pub state: (u64, i64, i64),
    pub media_type: String,
}

/// Finds what `path`, which is decoded and begins with `/`, stands for.
pub fn find(config: &Config, path: &[u8]) -> Found {
    let Some(root) = &config.document_root else {
        return Found::Status(404);
    };
    if path.first() != Some(&b'/') {
        return Found::Status(404);
    }
    let mut full = root.as_os_str().as_bytes().to_vec();
    full.extend_from_slice(path);
    let full = PathBuf::from(OsStr::from_bytes(&full));
    if is_hidden(config, &full) {
        return Found::Status(404);
    }
    let meta = match std::fs::metadata(&full) {
        Ok(meta) => meta,
        Err(error) => return Found::Status(status_of(&error)),
    };
    if !meta.is_dir() {
        // A trailing slash names a directory, which this is not: the system has refused it.
        return open(config, &full, &meta);
    }
    if !path.ends_with(b"/") {
        return Found::Directory;
    }
    for name in &config.index_files {
        let index = full.join(name);
        if is_hidden(config, &index) {
            continue;
        }
        if let Ok(meta) = std::fs::metadata(&index)
            && meta.is_file()
        {
            return open(config, &index, &meta);
        }
    }
    Found::Status(403)
}

fn open(config: &Config, path: &Path, meta: &Metadata) -> Found {
    // FIFOs and devices are never opened: that could block, or do something.
    if !meta.is_file() {
        return Found::Status(404);
    }
    let flags = (rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits() as i32;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let opened = opened.and_then(|file| Ok((file.metadata()?, file)));
    match opened {
        Ok((meta, file)) if meta.is_file() => {
            let modified = u64::try_from(meta.mtime()).unwrap_or(0).min(LAST_DATE);
            let time = UNIX_EPOCH + Duration::from_secs(modified);
            let name = path.as_os_str().as_bytes();
            Found::File(OpenFile {
                file,
                len: meta.len(),
                modified,
                last_modified: httpdate::fmt_http_date(time),
                etag: format!("\"{modified:x}.{}\"", meta.len()),
                state: (meta.size(), meta.mtime(), meta.mtime_nsec()),
                media_type: media_type(name, &config.extra_mime_types).to_owned(),
            })
        }
        Ok(_) => Found::Status(404),
        Err(error) => Found::Status(status_of(&error)),
    }
}

/// Hidden names are as good as absent. Password files always are.
fn is_hidden(config: &Config, full: &Path) -> bool {
    let bytes = full.as_os_str().as_bytes();
    let mut names = bytes.split(|b| *b == b'/').filter(|name| !name.is_empty());
    let name = names.next_back().unwrap_or_default();
    // Also what a change of such a file, cut short, has left beside it.
    if name.len() >= 9 && name[..9].eq_ignore_ascii_case(b".htpasswd") {
        return true;
    }
    config.hide_files_patterns.as_ref().is_some_and(|pattern| {
        [name, bytes]
            .iter()
            .any(|text| matched_len(pattern.as_bytes(), text).is_some_and(|len| len > 0))
    })
}

fn status_of(error: &io::Error) -> u16 {
    match error.kind() {
        io::ErrorKind::PermissionDenied => 403,
        _ => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => 503,
            _ => 404,
        },
    }
}
