//! Access control: which requests need a password, and which files the user may see or change (RFC
//! 9110, section 11).
//!
//! Refuses to know how credentials are checked, which is in the room `auth`.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{Site, Task, without_slash};
use crate::auth::Scheme;
use crate::auth::basic;
use crate::auth::digest::{self, Authentication};
use crate::auth::htpasswd::Ha1;
use crate::auth::nonce::Nonces;
use crate::dav::fields::{Location, location};
use crate::exchange::request::Request;
use crate::exchange::turn::Turn;
use crate::files::cache::{Known, is_absence, is_failure, status_of};
use crate::files::resolve;
use crate::files::store::Store;

/// The lifetime of a nonce of digest authentication, in seconds.
const NONCE_LIFETIME: u64 = 300;

impl Site<'_> {
    /// Checks whether the user may change the file that the path of a request names.
    pub fn may_write(&mut self) -> Result<(), Task> {
        if self.is_foreign() {
            return Err(Task::Reply(403));
        }
        self.request.is_anybodys = self.counts_as_anybody();
        let file = match &self.cx.options.config.dav_auth_file {
            _ if self.request.is_anybodys => None,
            Some(file) => Some(file.clone()),
            None => return Err(self.challenge(false)),
        };
        match &file {
            Some(file) => self.authorise(file, true)?,
            None => self.ask_anybody()?,
        }
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
        match file {
            Some(file) if copies && self.is_guarded(&full, &file) => Err(Task::Reply(403)),
            _ => Ok(()),
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
        let Some(path) = destination(request) else { return false };
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
        let passwords = match self.cx.files.get_passwords(file) {
            _ if self.cx.files.is_asking() => return Err(Task::Reply(500)),
            Ok(known) => known,
            Err(error) if is_absence(&error) && !required => return Ok(()),
            Err(error) => return Err(self.refuse_everybody(file, &error)),
        };
        if self.request.redirections > 0 {
            // The credentials are for another path: the client has to ask for this one itself.
            return Err(redirect_to_target(self.request));
        }
        let Some(authorization) = authorization(self.request) else {
            return Err(self.challenge(false));
        };
        match basic::credentials(&authorization) {
            Some(credentials) if self.takes_basic() => {
                self.authorise_basic(file, &passwords, credentials)
            }
            _ => self.authorise_digest(file, &passwords, &authorization),
        }
    }

    /// Checks credentials of digest authentication by the password file `passwords`.
    fn authorise_digest(
        &mut self,
        file: &Path,
        passwords: &Known,
        authorization: &[u8],
    ) -> Result<(), Task> {
        let now = u64::from(self.cx.clock.now) / 1000;
        let Some(nonces) = made(&mut self.cx.nonces) else { return Err(Task::Reply(503)) };
        let request = &*self.request;
        let signed = digest::Signed { method: request.method(), target: request.target() };
        let nonces = Some(nonces).filter(|_| !request.is_spent);
        let domain = &self.cx.options.config.auth_domain;
        let (turn, files) = (&mut self.cx.turn, &mut self.cx.files);
        let mut users = Users { turn, files, passwords, domain, failure: None };
        let find_ha1 = |user: &[u8]| users.find(user);
        let checked = digest::check(authorization, signed, domain, find_ha1, nonces, now);
        if let Some(error) = users.failure {
            return Err(self.refuse_everybody(file, &error));
        }
        match checked {
            Authentication::Granted { user } => {
                self.grant(user, Scheme::Digest, file);
                Ok(())
            }
            Authentication::Denied => Err(self.challenge(false)),
            Authentication::Stale => Err(self.challenge(true)),
        }
    }

    /// Checks credentials of Basic authentication. A wrong password is answered late. Nor is a
    /// right one looked at while too many answers wait: else a guess would have its result at once.
    fn authorise_basic(
        &mut self,
        file: &Path,
        passwords: &Known,
        credentials: &[u8],
    ) -> Result<(), Task> {
        let (client, now) = (self.request.client, self.cx.clock.now);
        // What was accepted at the head is no guess when its content has come.
        if !self.request.is_spent && self.cx.guesses.may_try(client, now).is_err() {
            return Err(self.put_off_guesses());
        }
        let domain = &self.cx.options.config.auth_domain;
        let (turn, files) = (&mut self.cx.turn, &mut self.cx.files);
        let mut users = Users { turn, files, passwords, domain, failure: None };
        let user = basic::check(credentials, domain, |user| users.find(user));
        if let Some(error) = users.failure {
            return Err(self.refuse_everybody(file, &error));
        }
        if let Some(user) = user {
            self.grant(user, Scheme::Basic, file);
            return Ok(());
        }
        match self.cx.guesses.note(client, now) {
            Ok(until) => Err(match self.challenge(false) {
                Task::Reply(401) => Task::Deny { until },
                task => task,
            }),
            Err(_) => Err(self.put_off_guesses()),
        }
    }

    /// Returns the answer to a client that has sent too many wrong passwords (RFC 6585, section 4).
    fn put_off_guesses(&mut self) -> Task {
        self.request.fields.extend_from_slice(b"Retry-After: 1\r\n");
        Task::Reply(429)
    }

    /// Notes that the user of the request is in the password file.
    fn grant(&mut self, user: Vec<u8>, scheme: Scheme, file: &Path) {
        let request = &mut *self.request;
        request.log_user(&user);
        (request.user, request.scheme) = (user, scheme);
        request.granted = Some(file.to_owned());
        request.is_spent = true;
    }

    /// Returns whether Basic authentication is offered and accepted on the connection.
    fn takes_basic(&self) -> bool {
        self.cx.options.config.enable_basic_auth.holds(self.request.is_secure)
    }

    /// Returns whether the user may see a file, as far as its password file says.
    pub fn may_see(&mut self, full: &Path) -> Result<bool, (PathBuf, io::Error)> {
        let file = resolve::password_file(&self.cx.options.config, full, false);
        self.is_open(&file).map_err(|error| (file, error))
    }

    /// Returns whether a password file is one that the request has passed already, or none. It is an
    /// error that the file system fails, so that nobody knows.
    pub fn is_open(&mut self, file: &Path) -> io::Result<bool> {
        if self.request.granted.as_deref() == Some(file) {
            return Ok(true);
        }
        match self.cx.files.get(file) {
            // The request is decided anew.
            Err(_) if self.cx.files.is_asking() => Ok(false),
            Err(error) if is_absence(&error) => Ok(true),
            Err(error) if is_failure(&error) => Err(error),
            Ok(_) | Err(_) => Ok(false),
        }
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

    /// Returns the answer 401, with a challenge for each scheme, in fields of their own: old clients
    /// do not find the second one in a list. Some take the first one that they know, so that the
    /// stronger one comes first (RFC 9110, section 11.6.1).
    fn challenge(&mut self, stale: bool) -> Task {
        let now = u64::from(self.cx.clock.now) / 1000;
        let Some(nonces) = made(&mut self.cx.nonces) else { return Task::Reply(503) };
        let nonce = nonces.issue(now);
        let takes_basic = self.takes_basic();
        let (fields, domain) = (&mut self.request.fields, &self.cx.options.config.auth_domain);
        digest::challenge(fields, domain, &nonce, stale);
        if takes_basic {
            basic::challenge(fields, domain);
        }
        Task::Reply(401)
    }
}

/// Returns the path that the Destination field names on this server.
pub(super) fn destination(request: &Request) -> Option<Vec<u8>> {
    let head = request.head_bytes();
    let destination = request.head.value(head, "destination").unwrap_or_default();
    match location(destination, request.head.value(head, "host")) {
        Ok(Location::Here(path)) => Some(path),
        Ok(Location::Elsewhere) | Err(_) => None,
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

/// Returns the nonces of the server, which are made when the first password is needed. `None` means
/// that the kernel gives no random numbers.
fn made(nonces: &mut Option<Nonces>) -> Option<&mut Nonces> {
    if nonces.is_none() {
        *nonces = Nonces::new(NONCE_LIFETIME).ok();
    }
    nonces.as_mut()
}

/// Returns the value of the Authorization field. Of two fields it is unclear which one counts.
pub(super) fn authorization(request: &Request) -> Option<Vec<u8>> {
    let mut fields = request
        .head
        .pairs(request.head_bytes())
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"authorization"))
        .map(|(_, value)| value);
    let (Some(authorization), None) = (fields.next(), fields.next()) else { return None };
    Some(authorization.to_vec())
}

/// The users in a password file, of whom one is looked for.
struct Users<'a> {
    turn: &'a mut Turn,
    files: &'a mut Store,
    passwords: &'a Known,
    domain: &'a str,
    /// The reason why the file could not be read.
    failure: Option<io::Error>,
}

impl Users<'_> {
    /// Returns the hash of a user.
    fn find(&mut self, user: &[u8]) -> Option<Ha1> {
        match self.files.find_password(self.passwords, self.domain.as_bytes(), user) {
            Ok(search) => {
                self.turn.spend_on_reading(search.read);
                search.found
            }
            Err(error) => {
                self.failure = Some(error);
                None
            }
        }
    }
}
