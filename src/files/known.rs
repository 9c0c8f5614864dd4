//! The description of a file: its content or an open descriptor, and the fields that describe it
//! (RFC 9110, section 8).
//!
//! Owns the entity tag and the date of a file. Knows nothing of how long the description stays
//! correct.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::secrets::FileId;
use crate::helpers::Closer;
use crate::long_files::{self, LONG};

/// The last second of the year 9999: a date of HTTP has four digits for the year (RFC 9110, section
/// 5.6.7).
pub const LAST_DATE: u64 = 253_402_300_799;
/// The memory that an entry takes besides its content, in bytes, roughly.
const ENTRY_COST: usize = 512;
/// The usual length of the fields that describe a file, in bytes.
const FIELDS: usize = 160;

/// A shared description of a file. It is cheap to clone, and stays usable while a response is still
/// sent from it.
pub type Entry = Arc<Known>;

/// A regular file as it was when it was looked at.
#[derive(Debug)]
pub struct Known {
    pub content: Content,
    pub len: u64,
    /// Seconds since 1970, as Last-Modified shows them.
    pub modified: u64,
    /// The time of the last modification, in seconds and nanoseconds: if it or the length differs,
    /// bytes read now do not belong to those read before.
    pub stamp: (i64, i64),
    /// The time of the last change of the inode, and whether another change is certain to show in these
    /// times.
    pub changed: (i64, i64),
    pub is_settled: bool,
    /// The identity of the file, and whether a symbolic link led to it.
    pub id: FileId,
    pub is_link: bool,
    /// What closes the file, if its file system may take long to answer.
    pub closer: Option<Arc<dyn Closer>>,
    /// `Last-Modified`, `Etag`, `Content-Type`, `Content-Length`, in this order.
    fields: Vec<u8>,
    etag: Range<usize>,
    /// The offsets in `fields` at which `Content-Type` and `Content-Length` begin.
    type_at: usize,
    length_at: usize,
    media_type: String,
}

/// The place of the bytes of a file.
#[derive(Debug)]
pub enum Content {
    Bytes(Vec<u8>),
    /// An open file, which is read by position (`pread(2)`), since several responses share it.
    Open(File),
}

impl Drop for Known {
    fn drop(&mut self) {
        if (self.len >= LONG || self.closer.is_some())
            && let Content::Open(file) =
                std::mem::replace(&mut self.content, Content::Bytes(Vec::new()))
        {
            match &self.closer {
                Some(closer) => closer.close(file),
                // It may be the last descriptor of a file that was removed.
                None => long_files::close(file),
            }
        }
    }
}

impl Known {
    /// Returns all fields that describe the whole file.
    pub fn fields(&self) -> &[u8] {
        &self.fields
    }

    /// Returns `Last-Modified`, `Etag` and `Content-Type`, for a response with one range.
    pub fn fields_but_length(&self) -> &[u8] {
        &self.fields[..self.length_at]
    }

    /// Returns `Last-Modified` and `Etag`, for 304, several ranges, or another media type.
    pub fn validator_fields(&self) -> &[u8] {
        &self.fields[..self.type_at]
    }

    /// Returns `Last-Modified`.
    pub fn date_field(&self) -> &[u8] {
        let end = self.etag.start - "Etag: ".len();
        &self.fields[..end]
    }

    /// Returns the entity tag, in quotes.
    #[inline]
    pub fn etag(&self) -> &str {
        let etag = std::str::from_utf8(&self.fields[self.etag.clone()]);
        debug_assert!(etag.is_ok(), "an entity tag that is not ASCII text");
        etag.unwrap_or_default()
    }

    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Returns whether the file is unchanged, so that bytes read now belong to those read before.
    pub fn is_unchanged(&self) -> io::Result<bool> {
        let Content::Open(file) = &self.content else { return Ok(true) };
        let meta = file.metadata()?;
        Ok(meta.len() == self.len && (meta.mtime(), meta.mtime_nsec()) == self.stamp)
    }

    pub(super) fn new(
        content: Content,
        meta: &Metadata,
        is_link: bool,
        is_settled: bool,
        media_type: &str,
    ) -> Known {
        let modified = modified_of(meta);
        let date = http_date(modified);
        let len = meta.len();
        let mut fields = String::with_capacity(FIELDS);
        fields.extend(["Last-Modified: ", &date, "\r\nEtag: "]);
        let etag_at = fields.len();
        fields.push_str(&entity_tag(meta));
        let etag = etag_at..fields.len();
        fields.push_str("\r\n");
        let type_at = fields.len();
        fields.extend(["Content-Type: ", media_type, "\r\n"]);
        let length_at = fields.len();
        let mut digits = itoa::Buffer::new();
        fields.extend(["Content-Length: ", digits.format(len), "\r\n"]);
        Known {
            content,
            len,
            modified,
            stamp: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            is_settled,
            id: FileId::of(meta),
            is_link,
            closer: None,
            fields: fields.into_bytes(),
            etag,
            type_at,
            length_at,
            media_type: media_type.to_owned(),
        }
    }

    /// Returns whether its file system may take long to answer.
    pub fn is_slow(&self) -> bool {
        self.closer.is_some()
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.content, Content::Open(_))
    }

    pub(super) fn cost(&self, path: &OsStr) -> usize {
        let content = match &self.content {
            Content::Bytes(bytes) => bytes.capacity(),
            Content::Open(_) => 0,
        };
        ENTRY_COST + path.len() + self.fields.len() + content
    }
}

/// Returns the time of the last modification in seconds since 1970, bounded to what a date of HTTP
/// can express.
pub fn modified_of(meta: &Metadata) -> u64 {
    u64::try_from(meta.mtime()).unwrap_or(0).min(LAST_DATE)
}

/// Formats seconds since 1970 as a date of HTTP (RFC 9110, section 5.6.7).
pub fn http_date(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.min(LAST_DATE)))
}

/// Returns the entity tag of a file, in quotes. It is a strong one: two contents of the same length
/// differ in the fraction of a second, if the file system stores that.
pub fn entity_tag(meta: &Metadata) -> String {
    let (seconds, len) = (modified_of(meta), meta.len());
    match meta.mtime_nsec() {
        0 => format!("\"{seconds:x}.{len}\""),
        fraction => format!("\"{seconds:x}-{fraction:x}.{len}\""),
    }
}
