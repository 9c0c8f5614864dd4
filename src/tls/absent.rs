//! The stand-in for `engine` in a library built without TLS: types of which no value can exist, so
//! that the compiler removes the code that uses them.
//!
//! Owns the refusal of the option `ssl_certificate`. Knows no protocol.

use std::path::Path;

use super::records::Records;
use super::{Refusal, Taken};

/// A certificate and its key, of which no value exists.
pub enum Identity {}

impl Identity {
    pub fn load(_: &Path) -> Result<Identity, Refusal> {
        let detail = "ssl_certificate: this library was built without TLS".to_owned();
        Err(Refusal { sentence: c"TLS is not built into this library", detail })
    }

    pub fn begin(&self) -> Option<Engine> {
        match *self {}
    }
}

/// One side of a connection, of which no value exists.
pub enum Engine {}

impl Engine {
    pub fn take(
        &mut self,
        _: &mut [u8],
        _: &mut Vec<u8>,
        _: impl FnMut(&[u8]),
    ) -> Result<(Taken, bool), String> {
        match *self {}
    }

    pub fn seal(&mut self, _: &mut [u8], _: &[u8], _: &mut Records) -> Result<(), String> {
        match *self {}
    }

    pub fn seal_end(&mut self, _: &mut [u8], _: &mut Records) {
        match *self {}
    }
}
