//! Who may change what listings show (`enable_uploads`): which requests count as those of anybody,
//! and which come from pages of other origins.
//!
//! Refuses to know what anybody may change in a directory, which is in `dav/anybody`.

use std::path::{Path, PathBuf};

use super::access::{authorization, destination};
use super::{Place, Site, Task, dav, without_slash};
use crate::auth::{basic, digest};
use crate::dav::form::Form;
use crate::dav::{Env, anybody};
use crate::exchange::request::Request;
use crate::files::resolve;
use crate::http::form_data;
use crate::http::origin;
use crate::http::request::Framing;

impl Site<'_> {
    /// Returns whether a page of another origin may have made the request. Where there are no
    /// uploads, pages have no business with files, and programs answer for what they let in.
    pub fn is_foreign(&self) -> bool {
        let request = &*self.request;
        let is_https = request.is_https();
        self.cx.options.config.enable_uploads
            && origin::is_foreign(&request.head, request.head_bytes(), is_https)
    }

    /// Returns whether the request brings files to a directory that is listed, by the form of the
    /// page that lists it.
    pub(super) fn is_form(&self, place: &Place) -> bool {
        let config = &self.cx.options.config;
        place.is_dir
            && config.takes_uploads()
            && self.request.method() == b"POST"
            && self.request.path.ends_with(b"/")
            && boundary_of(self.request).is_some()
            && anybody::is_listed(config, &place.full)
    }

    /// Decides on a form.
    pub(super) fn decide_form(&mut self) -> Task {
        if let Err(task) = self.may_write() {
            return task;
        }
        let request = &*self.request;
        let Some(boundary) = boundary_of(request) else { return Task::Reply(400) };
        let announced = match request.head.framing {
            Framing::Length(len) => len,
            Framing::Chunked | Framing::Empty => 0,
        };
        let (config, secrets) = (&self.cx.options.config, &self.cx.files.secrets);
        let env = Env::of(request.writer(), config, secrets, self.cx.clock.unix);
        match Form::begin(&request.path, boundary, announced, &env) {
            Ok(form) => Task::Form(Box::new(form)),
            Err(reply) => Task::Reply(self.take_reply(reply)),
        }
    }

    /// Returns whether the request is one that anybody may make, and does not come from a user of
    /// `dav_auth_file`, who may do more.
    pub fn counts_as_anybody(&mut self) -> bool {
        let method = self.request.method();
        let is_anybodys = dav::is_anybodys(method) || method == b"POST";
        if !is_anybodys || !self.cx.options.config.lets_anybody_write() {
            return false;
        }
        let Some(file) = self.cx.options.config.dav_auth_file.clone() else { return true };
        !self.names_user_of(&file)
    }

    /// Returns whether the credentials of the request name a user of a password file. They are not
    /// checked: that would count as an attempt.
    fn names_user_of(&mut self, file: &Path) -> bool {
        let Some(authorization) = authorization(self.request) else { return false };
        let user = match basic::credentials(&authorization) {
            Some(credentials) => basic::user(credentials),
            None => digest::user(&authorization),
        };
        let (Some(user), Ok(known)) = (user, self.cx.files.get(file)) else { return false };
        let domain = self.cx.options.config.auth_domain.as_bytes();
        let Ok(search) = self.cx.files.find_password(&known, domain, &user) else { return true };
        self.cx.turn.spend_on_reading(search.read);
        search.found.is_some()
    }

    /// Checks that anybody may see the directories that a request changes: one with a password is
    /// changed by who has it.
    pub fn ask_anybody(&mut self) -> Result<(), Task> {
        let config = &self.cx.options.config;
        let is_required = config.global_auth_file.is_some();
        let Some(full) = resolve::full_path(config, &self.request.path) else {
            return Err(Task::Reply(404));
        };
        let is_dir = self.request.method() == b"POST";
        let (full, other) = (self.guard_of(&full, is_dir), self.place_of_destination());
        self.authorise(&full, is_required)?;
        let Some(file) = other else { return Ok(()) };
        match self.is_open(&file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Task::Reply(403)),
            Err(error) => Err(Task::Reply(self.cx.refusal(self.request.client, &file, &error))),
        }
    }

    /// Returns the password file of the directory that a MOVE moves to.
    fn place_of_destination(&self) -> Option<PathBuf> {
        let path = destination(self.request).filter(|_| self.request.method() == b"MOVE")?;
        let full = resolve::full_path(&self.cx.options.config, &path)?;
        Some(self.guard_of(&full, false))
    }

    /// Returns the password file of the directory that holds `full`, or that it is.
    fn guard_of(&self, full: &Path, is_dir: bool) -> PathBuf {
        match is_dir {
            true => resolve::password_file(&self.cx.options.config, full, true),
            false => {
                let full = without_slash(full.to_owned());
                resolve::password_file(&self.cx.options.config, &full, false)
            }
        }
    }
}

/// Returns the boundary of the form that is the content of a request.
fn boundary_of(request: &Request) -> Option<&[u8]> {
    form_data::boundary(request.head.value(request.head_bytes(), "content-type")?)
}
