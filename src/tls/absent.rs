//! The stand-in for `engine` and `identity` in a library built without TLS: types of which no value
//! can exist, so that the compiler removes the code that uses them.
//!
//! Owns the refusal of certificates. Knows no protocol.

use super::records::Records;
use super::setup::{Pem, Setup};
use super::{Refusal, Taken};

/// A certificate and its key, of which no value exists.
#[derive(Clone)]
pub enum Certificate {}

impl Certificate {
    pub fn load(option: &str, _: &Pem<'_>) -> Result<Certificate, Refusal> {
        Err(Refusal::not_built(option))
    }
}

/// Authorities, of which no value exists.
#[derive(Clone)]
pub enum Authorities {}

impl Authorities {
    pub fn load(option: &str, _: &Pem<'_>) -> Result<Authorities, Refusal> {
        Err(Refusal::not_built(option))
    }
}

/// What new connections share, of which no value exists.
pub enum Identity {}

impl Identity {
    pub fn new(_: &Setup) -> Result<Identity, Refusal> {
        Err(Refusal::not_built("TLS"))
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

    pub fn peer_certificate(&self) -> Option<&[u8]> {
        match *self {}
    }
}
