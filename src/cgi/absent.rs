//! The stand-in for this room in a library built without CGI: a table in which no program is.
//!
//! Owns nothing. Refuses to know which files are programs: `site` answers them with 403, so that their
//! source is not shown.
#![forbid(unsafe_code)]

/// The head of a program's output.
pub mod header {
    use crate::cgi::table::Number;

    /// The result of parsing a head, as far as pages with includes look at it.
    pub enum Parsed {
        Partial,
        Bad(&'static str),
        Complete(Head),
    }

    pub struct Head {
        pub len: usize,
        _of: Number,
    }

    pub fn parse(_: &[u8], _: bool) -> Parsed {
        Parsed::Partial
    }
}

/// The start of a program.
pub mod launch {
    use std::io;

    /// Returns the status for the client: a program is never run.
    pub fn status_of(_: &io::Error) -> u16 {
        403
    }
}

/// The table of programs.
pub mod table {
    use std::io;

    use mio::{Registry, Token};

    use crate::peer::Peer;

    enum Never {}

    impl Copy for Never {}

    impl Clone for Never {
        fn clone(&self) -> Never {
            *self
        }
    }

    /// The number of a program, of which no value exists.
    #[derive(Clone, Copy)]
    pub struct Number(Never);

    /// The result of an attempt to read a program's output.
    pub enum Output {
        Got(usize),
        Wait,
        End,
    }

    /// The programs: none.
    #[derive(Default)]
    pub struct Programs {
        pub buf: Vec<u8>,
        /// The lines for the error log, of which none ever comes.
        pub complaints: Vec<(Peer, String)>,
    }

    impl Programs {
        pub fn new(_: u32) -> Programs {
            Programs::default()
        }

        pub fn has_room(&self, _: usize) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub fn set_timeout(&mut self, _: u64, _: u32) {}

        /// Returns that nothing is left to be watched.
        pub fn is_watched(&self) -> bool {
            true
        }

        pub fn watch_by(&mut self, _: Option<Registry>) {}

        pub fn is_empty(&self) -> bool {
            true
        }

        pub fn is_busy(&self) -> bool {
            false
        }

        pub fn wait(&self, _: u32) -> Option<u32> {
            None
        }

        pub fn feed(&mut self, id: Number, _: u32) -> bool {
            match id.0 {}
        }

        pub fn takes(&self, id: Number) -> bool {
            match id.0 {}
        }

        pub fn has_output(&self, id: Number) -> bool {
            match id.0 {}
        }

        pub fn name(&self, id: Number) -> String {
            match id.0 {}
        }

        pub fn is_expired(&self, id: Number) -> bool {
            match id.0 {}
        }

        pub fn read(&mut self, id: Number, _: &mut Vec<u8>, _: u32) -> Output {
            match id.0 {}
        }

        pub fn release(&mut self, id: Number, _: bool, _: u32) {
            match id.0 {}
        }

        pub fn note_event(&mut self, _: Token) -> bool {
            false
        }

        pub fn expire(&mut self, _: u32, _: impl FnMut(u32, &Programs) -> bool) {}

        pub fn tend(&mut self, _: u32) {}

        pub fn take_woken(&mut self, _: &mut Vec<u32>) {}

        pub fn forget_all(&mut self) {}

        pub fn end(&mut self, _: u32) {}
    }
}
