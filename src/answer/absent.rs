//! The stand-in for `program` in a library built without CGI: a type of which no value can exist, so that
//! the compiler removes the code that uses it.
//!
//! Owns the refusal of programs in pages with includes.

use std::path::Path;

use super::{Ended, Progress};
use crate::cgi::table::Number;
use crate::exchange::context::Context;
use crate::exchange::outbox::Outbox;
use crate::exchange::request::Request;
use crate::site::Script;

/// The reason for which a part of a page is missing.
const NOT_BUILT: &str = "a program, and this library was built without CGI";

enum Never {}

/// A CGI program that answers a request, of which no value exists.
pub struct Gateway(Never);

/// The result of moving output.
pub enum Moved {
    Waits,
    More,
    Ended(Ended),
}

impl Gateway {
    pub fn start(_: &Script, _: &mut Request, _: &mut Context) -> Result<Box<Gateway>, u16> {
        Err(403)
    }

    pub fn program(&self) -> Number {
        match self.0 {}
    }

    pub fn give(&mut self, _: &[u8], _: &mut Context) -> Result<(), u16> {
        match self.0 {}
    }

    pub fn give_all(&mut self, _: &mut Request, _: &mut Context) {
        match self.0 {}
    }

    pub fn end_content(&mut self, _: &mut Context) {
        match self.0 {}
    }

    #[expect(clippy::boxed_local, reason = "the caller has a box, as of the one in `program`")]
    pub fn produce(self: Box<Self>, _: &mut Request, _: &mut Outbox, _: &mut Context) -> Progress {
        match self.0 {}
    }

    pub fn move_output(&mut self, _: &mut Request, _: &mut Outbox, _: &mut Context) -> Moved {
        match self.0 {}
    }

    pub fn stop(&self, _: &mut Context) {
        match self.0 {}
    }
}

pub fn start_included(
    _: &Path,
    _: &[u8],
    _: &[u8],
    _: &[u8],
    _: &mut Request,
    _: &mut Context,
) -> Result<Number, &'static str> {
    Err(NOT_BUILT)
}

pub fn start_command(
    _: &Path,
    _: &[u8],
    _: &Path,
    _: &mut Request,
    _: &mut Context,
) -> Result<Number, &'static str> {
    Err(NOT_BUILT)
}
