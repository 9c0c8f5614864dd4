//! What stands for the protocol in a library that was built without it: nothing can be made.

use std::path::Path;

use super::{Refusal, Taken};

/// Of this there is none.
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

/// Nor of this.
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

    pub fn seal(&mut self, _: &mut [u8], _: &[u8], _: &mut Vec<u8>) -> Result<(), String> {
        match *self {}
    }

    pub fn seal_end(&mut self, _: &mut [u8], _: &mut Vec<u8>) {
        match *self {}
    }
}
