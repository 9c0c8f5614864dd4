//! The stand-in for `dav` and `uploads` in a library built without WebDAV: its methods are known, and
//! allowed nowhere.
//!
//! Owns the methods that are left, as the Allow field lists them (RFC 9110, section 10.2.1).

use super::{Place, Site, Task};
use crate::dav::method::Reply;
use crate::dav::work::Work;
use crate::options::Config;

/// The largest length of the document in a request, in bytes.
pub const MAX_DOCUMENT: usize = 1024 * 1024;

/// Returns whether a method changes files: none does.
pub fn writes(_: &[u8]) -> bool {
    false
}

/// Returns whether this is a method of WebDAV.
pub fn is_left_out(method: &[u8]) -> bool {
    let methods: [&[u8]; 9] = [
        b"PUT",
        b"DELETE",
        b"MKCOL",
        b"COPY",
        b"MOVE",
        b"PROPFIND",
        b"PROPPATCH",
        b"LOCK",
        b"UNLOCK",
    ];
    methods.contains(&method)
}

/// Appends the Allow field.
pub fn write_allow(out: &mut Vec<u8>, _: &Config, _: &[u8]) {
    out.extend_from_slice(b"Allow: GET, HEAD, POST, OPTIONS\r\n");
}

/// Appends no field that tells clients of WebDAV.
pub fn write_classes(_: &mut Vec<u8>, _: &Config) {}

impl Site<'_> {
    pub fn decide_dav(&mut self) -> Task {
        self.wrong_method()
    }

    pub fn check_dav_early(&mut self, work: Box<Work>) -> Task {
        Task::Dav(work)
    }

    pub fn take_reply(&mut self, reply: Reply) -> u16 {
        reply.of_none()
    }

    pub fn is_foreign(&self) -> bool {
        false
    }

    pub(super) fn is_form(&self, _: &Place) -> bool {
        false
    }

    pub(super) fn decide_form(&mut self) -> Task {
        self.wrong_method()
    }

    pub fn counts_as_anybody(&mut self) -> bool {
        false
    }

    pub fn ask_anybody(&mut self) -> Result<(), Task> {
        Err(self.wrong_method())
    }
}
