//! Decisions about CGI programs (RFC 3875): which files are programs, and whether one may be run.
//!
//! Refuses to know processes, which are in the room `cgi`.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::{Site, Task, is_lua_page};
use crate::cgi::launch::status_of;
use crate::files::cache::Entry;
use crate::files::patience::Trail;
use crate::files::resolve;
use crate::http::request::Framing;

/// A CGI program that is to answer a request.
pub struct Script {
    pub file: PathBuf,
    /// The part of the request's path that leads to the program, and the rest of the path.
    pub name: Vec<u8>,
    pub info: Vec<u8>,
    /// Set if the length of the content is known before it arrives. Else the content is kept until
    /// it is complete.
    pub knows_length: bool,
}

impl Site<'_> {
    /// Returns the program that a path leads through, and the rest of the path.
    /// `trail` is what a helper has found out about the path.
    pub fn program_on_the_way(
        &mut self,
        full: &Path,
        trail: Option<&Trail>,
    ) -> Option<(PathBuf, Vec<u8>)> {
        let (file, rest) = match trail {
            Some(trail) => trail.split.clone()?,
            None => resolve::split_at_file(full)?,
        };
        if trail.is_none() && !matches!(self.cx.files.bar(&file), Ok(false)) {
            return None;
        }
        let path = &self.request.path;
        let name = path.strip_suffix(rest.as_slice()).unwrap_or(path).to_vec();
        resolve::matches(&self.cx.options.config.cgi_pattern, &file, &name).then_some((file, rest))
    }

    /// Returns the program at `full`, if there is one. `found` is the result of looking for the
    /// file.
    pub fn script(
        &mut self,
        full: &Path,
        info: Vec<u8>,
        page: &[u8],
        found: &io::Result<Entry>,
    ) -> Option<Script> {
        let is_file = match found {
            Ok(_) => true,
            // The file may be executable without being readable.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let links = &self.cx.files.cache.links;
                match self.cx.files.trail(full) {
                    Some(trail) => trail.is_file,
                    None => links.metadata(full).is_ok_and(|meta| meta.is_file()),
                }
            }
            Err(_) => !info.is_empty(),
        };
        if !is_file {
            return None;
        }
        let request = &*self.request;
        let path = request.path.strip_suffix(info.as_slice()).unwrap_or(&request.path);
        let name = match page {
            b"" => Cow::Borrowed(path),
            page => Cow::Owned([path, page].concat()),
        };
        // A Lua page is not a program, whatever the pattern says.
        if is_lua_page(full) || !resolve::matches(&self.cx.options.config.cgi_pattern, full, &name)
        {
            return None;
        }
        let knows_length = request.head.framing != Framing::Chunked;
        Some(Script { file: full.to_owned(), name: name.into_owned(), info, knows_length })
    }

    /// Decides on the answer of a program.
    pub fn decide_script(&mut self, script: Script, reads: bool) -> Task {
        if !reads {
            return self.wrong_method();
        }
        if !self.cx.options.config.cgi_runs {
            return Task::Reply(403);
        }
        match self.may_run(&script.file) {
            Ok(()) => Task::Run(Box::new(script)),
            Err(error) => Task::Reply(self.put_off(status_of(&error))),
        }
    }

    /// Returns the status for a program that could not be started. If a later attempt may succeed,
    /// the client is told to repeat the request.
    pub fn put_off(&mut self, status: u16) -> u16 {
        if status == 503 {
            self.request.fields.extend_from_slice(b"Retry-After: 1\r\n");
        }
        status
    }

    /// Checks whether a program may be run at all. The most common reason for a failure should be
    /// known before the client sends content.
    pub fn may_run(&mut self, file: &Path) -> io::Result<()> {
        self.cx
            .programs
            .has_room(self.cx.options.config.max_cgi_processes)
            .inspect_err(|error| self.complain_of_file(file, error))?;
        if self.cx.options.config.cgi_interpreter.is_some() {
            return Ok(());
        }
        let allowed = accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS);
        allowed.map_err(io::Error::from).inspect_err(|error| self.complain_of_file(file, error))
    }

    /// Reports a program that cannot be run in the error log.
    fn complain_of_file(&mut self, file: &Path, error: &io::Error) {
        let name = crate::log::shown(file);
        self.cx.complain_of(self.request.client, &format!("cannot run {name}: {error}"));
    }
}
