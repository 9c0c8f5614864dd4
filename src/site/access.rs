//! Access control: which requests need a password, and which files the user may see or change (RFC
//! 7616).
//!
//! Refuses to know how credentials are computed, which is in `auth/digest`.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::{Site, Task, without_slash};
use crate::auth::digest::{self, Authentication};
use crate::auth::htpasswd::Ha1;
use crate::auth::nonce::Nonces;
use crate::dav::fields::{Location, location};
use crate::exchange::request::Request;
use crate::files::cache::{Known, is_absence, is_failure, status_of};
use crate::files::resolve;

/// The lifetime of a nonce of digest authentication, in seconds.
const NONCE_LIFETIME: u64 = 300;

impl Site<'_> {
    /// Checks whether the user may change the file that the path of a request names.
    pub fn may_write(&mut self) -> Result<(), Task> {
        let Some(file) = self.cx.options.config.dav_auth_file.clone() else {
            return Err(self.challenge(false));
        };
        self.authorise(&file, true)?;
        let request = &mut *self.request;
        let method = request.method();
        let copies = matches!(method, b"COPY" | b"MOVE");
        let target = request.target();
        if target.contains(&b'#') {
            // As elsewhere, the target would be cut off at a `#` that was not escaped, and another
            // file would be lost.
            return Err(Task::Reply(400));
        }
        let path = request.path.clone();
        let Some(full) = resolve::full_path(&self.cx.options.config, &path) else {
            return Err(Task::Reply(404));
        };
        self.cx.look_at_secrets();
        if resolve::is_hidden(&self.cx.options.config, &full)
            || self.cx.files.secrets.hides_at(&full)
        {
            return Err(Task::Reply(404));
        }
        match copies && self.is_guarded(&full, &file) {
            true => Err(Task::Reply(403)),
            false => Ok(()),
        }
    }

    /// Returns whether the user may change a file but not read it, so that a copy elsewhere would
    /// reveal it. A collection takes its password file along.
    fn is_guarded(&mut self, full: &Path, changes: &Path) -> bool {
        let full = without_slash(full.to_owned());
        if self.cx.options.config.global_auth_file.is_some() || full.is_dir() {
            return false;
        }
        let passwords = resolve::password_file(&self.cx.options.config, &full, false);
        if passwords == changes || self.stays_in_directory() {
            return false;
        }
        match self.cx.files.get(&passwords) {
            Ok(reading) => !self.is_known_to_both(changes, &reading),
            Err(error) => !is_absence(&error),
        }
    }

    /// Returns whether the user whom the password file `granting` has accepted has the same
    /// password in `other`.
    fn is_known_to_both(&mut self, granting: &Path, other: &Known) -> bool {
        let Ok(granting) = self.cx.files.get(granting) else { return false };
        let domain = self.cx.options.config.auth_domain.as_bytes();
        let request = &*self.request;
        let (turn, files) = (&mut self.cx.turn, &mut self.cx.files);
        let mut hash = |file: &Known| {
            let search = files.find_password(file, domain, &request.user).ok()?;
            turn.spend_on_reading(search.read);
            search.found
        };
        hash(&granting).is_some_and(|known| hash(other) == Some(known))
    }

    /// Returns whether the Destination lies in the same directory as the path of the request.
    fn stays_in_directory(&mut self) -> bool {
        let request = &mut *self.request;
        let head = request.head_bytes();
        let destination = request.head.value(head, "destination").unwrap_or_default();
        let host = request.head.value(head, "host");
        let Ok(Location::Here(path)) = location(destination, host) else { return false };
        let directory = |path: &[u8]| {
            let path = path.strip_suffix(b"/").unwrap_or(path);
            memchr::memrchr(b'/', path).map(|slash| path[..slash].to_vec())
        };
        directory(&path) == directory(&request.path)
    }

    /// Checks that the password file holds the user of the request. If there is no such file and
    /// none is `required`, every request passes.
    pub fn authorise(&mut self, file: &Path, required: bool) -> Result<(), Task> {
        if self.request.granted.as_deref() == Some(file) {
            return Ok(());
        }
        let passwords = match self.cx.files.get(file) {
            Ok(known) => known,
            Err(error) if is_absence(&error) && !required => return Ok(()),
            Err(error) => return Err(self.refuse_everybody(file, &error)),
        };
        let now = u64::from(self.cx.clock.now) / 1000;
        if self.cx.nonces.is_none() {
            self.cx.nonces = Nonces::new(NONCE_LIFETIME).ok();
        }
        let Some(nonces) = self.cx.nonces.as_mut() else { return Err(Task::Reply(503)) };
        let request = &mut *self.request;
        if request.redirections > 0 {
            // The credentials are for another path: the client has to ask for this one itself.
            return Err(redirect_to_target(request));
        }
        let domain = &self.cx.options.config.auth_domain;
        let (turn, files) = (&mut self.cx.turn, &mut self.cx.files);
        let mut failure = None;
        let find_ha1 = |user: &[u8]| match files.find_password(&passwords, domain.as_bytes(), user)
        {
            Ok(search) => {
                turn.spend_on_reading(search.read);
                search.found
            }
            Err(error) => {
                failure = Some(error);
                None
            }
        };
        let checked = check_credentials(request, find_ha1, domain, nonces, now);
        if let Some(error) = failure {
            return Err(self.refuse_everybody(file, &error));
        }
        match checked {
            Authentication::Granted { user } => {
                request.log_user(&user);
                request.user = user;
                request.granted = Some(file.to_owned());
                request.is_spent = true;
                Ok(())
            }
            Authentication::Denied => Err(self.challenge(false)),
            Authentication::Stale => Err(self.challenge(true)),
        }
    }

    /// Returns whether the user may see a file, as far as its password file says.
    pub fn may_see(&mut self, full: &Path) -> bool {
        let file = resolve::password_file(&self.cx.options.config, full, false);
        if self.request.granted.as_ref() == Some(&file) {
            return true;
        }
        self.cx.files.get(&file).is_err_and(|error| is_absence(&error))
    }

    /// Refuses every user, since the password file cannot be read. The user is not asked for
    /// another password where that is no more than a failure of the moment.
    fn refuse_everybody(&mut self, file: &Path, error: &io::Error) -> Task {
        let name = crate::log::shown(file);
        let why = match error.kind() {
            ErrorKind::InvalidInput => "it leads to no file".to_owned(),
            _ => error.to_string(),
        };
        self.cx
            .complain_of(self.request.client, &format!("cannot read passwords from {name}: {why}"));
        match is_failure(error) {
            true => Task::Reply(status_of(error)),
            false => self.challenge(false),
        }
    }

    /// Returns the answer 401, with a challenge.
    fn challenge(&mut self, stale: bool) -> Task {
        let now = u64::from(self.cx.clock.now) / 1000;
        if self.cx.nonces.is_none() {
            self.cx.nonces = Nonces::new(NONCE_LIFETIME).ok();
        }
        let Some(nonces) = self.cx.nonces.as_mut() else { return Task::Reply(503) };
        let nonce = nonces.issue(now);
        let mut field = Vec::new();
        digest::challenge(&mut field, &self.cx.options.config.auth_domain, &nonce, stale);
        self.request.fields.extend_from_slice(&field);
        Task::Reply(401)
    }
}

/// Redirects the client to the path to which a CGI program has redirected the request.
fn redirect_to_target(request: &mut Request) -> Task {
    let target = request.target().to_vec();
    for part in [b"Location: ", &*target, b"\r\n"] {
        request.fields.extend_from_slice(part);
    }
    Task::Reply(302)
}

/// Checks the credentials of a request.
fn check_credentials(
    request: &Request,
    find_ha1: impl FnOnce(&[u8]) -> Option<Ha1>,
    domain: &str,
    nonces: &mut Nonces,
    now: u64,
) -> Authentication {
    let head = request.head_bytes();
    let mut fields = request
        .head
        .pairs(head)
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"authorization"))
        .map(|(_, value)| value);
    // Of two fields it is unclear which one counts.
    let (Some(authorization), None) = (fields.next(), fields.next()) else {
        return Authentication::Denied;
    };
    let signed = digest::Signed {
        method: head.get(request.head.method.range()).unwrap_or_default(),
        target: head.get(request.head.target.range()).unwrap_or_default(),
    };
    let nonces = Some(nonces).filter(|_| !request.is_spent);
    digest::check(authorization, signed, domain, find_ha1, nonces, now)
}
