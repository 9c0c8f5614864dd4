//! The stand-in for `unpacked` in a library built without compression: a file that is stored compressed
//! only is refused to clients that do not accept it so.

use super::{Begun, Progress};
use crate::exchange::context::Context;
use crate::exchange::outbox::Outbox;
use crate::exchange::request::Request;
use crate::files::representation::Representation;

enum Never {}

/// A file that is being unpacked, of which no value exists.
pub struct Unpacked(Never);

/// Refuses the file (RFC 9110, section 15.5.7).
pub fn begin(_: &Representation, _: &mut Request, _: &mut Outbox, _: &mut Context) -> Begun {
    Begun::Failed(406)
}

impl Unpacked {
    #[expect(clippy::boxed_local, reason = "the caller has a box, as of the one in `unpacked`")]
    pub fn produce(self: Box<Self>, _: &mut Outbox, _: &mut Context) -> Progress {
        match self.0 {}
    }
}
