//! The stand-in for this room in a library built without WebDAV: types of which no value can exist, so
//! that the compiler removes the code that uses them.
//!
//! Owns nothing. Refuses to know methods: `site` answers all of them with 405.
#![forbid(unsafe_code)]

use crate::files::secrets::Secrets;
use crate::options::Config;

/// What no value exists of. The types below hold one in private, which spares those who match on them
/// warnings of code that is never reached.
#[derive(Debug)]
enum Never {}

/// The one who would ask for a change.
pub struct Writer<'a> {
    pub user: &'a [u8],
    pub is_anybody: bool,
}

/// The surroundings of a request, of which nothing is looked at.
pub struct Env;

impl Env {
    pub fn of(_: Writer<'_>, _: &Config, _: &Secrets, _: u64) -> Env {
        Env
    }
}

pub mod fields {
    /// A URI that names no resource.
    pub struct BadField;

    /// The resource that a URI names.
    pub enum Location {
        Here(Vec<u8>),
        Elsewhere,
    }

    /// Parses no URI: no method has a Destination.
    pub fn location(_: &[u8], _: Option<&[u8]>) -> Result<Location, BadField> {
        Err(BadField)
    }
}

pub mod form {
    use super::method::Reply;
    use super::sweeping::Sweeper;
    use super::{Env, Never};

    /// A form that brings files, of which no value exists.
    #[derive(Debug)]
    pub struct Form(Never);

    /// What would have become of the files.
    #[derive(Debug, Default)]
    pub struct Outcome {
        pub stored: usize,
        pub failed: Vec<(Vec<u8>, u16)>,
        pub unnamed: usize,
    }

    impl Outcome {
        pub fn status(&self) -> Option<u16> {
            None
        }
    }

    impl Form {
        pub fn is_behind(&self) -> bool {
            match self.0 {}
        }

        pub fn write(
            &mut self,
            _: &[u8],
            _: usize,
            _: &dyn Fn() -> Env,
            _: &mut Sweeper,
        ) -> Result<usize, Reply> {
            match self.0 {}
        }

        pub fn advance(&mut self, _: &Env, _: &mut usize) -> Result<bool, Reply> {
            match self.0 {}
        }

        pub fn give_up(&mut self, _: u16) -> Outcome {
            match self.0 {}
        }

        pub fn outcome(&mut self) -> Outcome {
            match self.0 {}
        }
    }
}

pub mod method {
    use super::Never;

    /// The answer of a method, of which no value exists.
    #[derive(Debug)]
    pub struct Reply {
        pub status: u16,
        never: Never,
    }

    impl Reply {
        pub fn of_none(self) -> u16 {
            match self.never {}
        }
    }
}

pub mod propfind {
    use std::io;

    use super::{Env, Never};

    /// A directory that is reported, of which no value exists.
    #[derive(Debug)]
    pub struct Propfind(Never);

    impl Propfind {
        pub fn advance(&mut self, _: &Env, _: &mut usize) -> io::Result<bool> {
            match self.0 {}
        }

        pub fn take(&mut self) -> String {
            match self.0 {}
        }

        pub fn end(&mut self) -> String {
            match self.0 {}
        }

        pub fn weight(&self) -> usize {
            match self.0 {}
        }
    }
}

pub mod sweeping {
    /// The removals that are left to do: none.
    #[derive(Debug, Default)]
    pub struct Sweeper(());

    impl Sweeper {
        pub fn is_idle(&self) -> bool {
            true
        }

        pub fn tidy(&mut self, _: usize) {}
    }
}

pub mod upload {
    use super::method::Reply;
    use super::{Env, Never};

    /// A PUT, of which no value exists.
    #[derive(Debug)]
    pub struct Upload(Never);

    impl Upload {
        pub fn write(&mut self, _: &[u8]) -> Result<(), Reply> {
            match self.0 {}
        }

        pub fn advance(&mut self, _: &Env, _: &mut usize) -> Result<Option<Reply>, Reply> {
            match self.0 {}
        }
    }
}

pub mod work {
    use super::method::Reply;
    use super::propfind::Propfind;
    use super::sweeping::Sweeper;
    use super::{Env, Never};

    /// Any other method, of which no value exists.
    #[derive(Debug)]
    pub struct Work(Never);

    /// The result of a request.
    #[derive(Debug)]
    pub enum Outcome {
        Reply(Reply),
        Begun(Box<Propfind>),
    }

    impl Work {
        pub fn body(&mut self) -> &mut Vec<u8> {
            match self.0 {}
        }

        pub fn advance(&mut self, _: &Env, _: &mut Sweeper, _: usize) -> Option<Outcome> {
            match self.0 {}
        }

        pub fn abandon(self, _: &mut Sweeper) {
            match self.0 {}
        }

        pub fn is_deep_lock(&self) -> bool {
            match self.0 {}
        }
    }
}
