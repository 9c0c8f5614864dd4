//! PROPFIND (RFC 4918 section 9.1).

use std::fs::{self, DirEntry, Metadata, ReadDir};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::Env;
use super::bodies::{Wanted, propfind};
use super::fields::{Depth, escape_path};
use super::locks::Lock;
use super::multistatus::Multistatus;
use super::properties::{Resource, answer};
use super::request::{Reply, Request};
use super::store::{self, Member, State};
use super::target::{Target, locks_on};
use crate::files::cache::is_absence;
use crate::files::resolve;

/// What an entry costs of a portion.
const COST: usize = 4;
/// A piece of the answer is complete when it is as long; its last entry may make it longer.
const PIECE: usize = 64 * 1024;

/// A PROPFIND under way. Its answer is taken in pieces, so that it takes no more memory however
/// large a directory is.
#[derive(Debug)]
pub struct Propfind {
    target: Target,
    wanted: Wanted,
    document: Multistatus,
    rest: ReadDir,
    /// What is known of the entries of the directory.
    state: State,
    /// Locks that reach down to every entry.
    deep: Vec<Lock>,
}

impl Propfind {
    /// Tells of the resource itself. Goes on with what is in it where that is asked for.
    pub fn begin(request: &Request, env: &Env<'_>) -> Result<Result<Propfind, Reply>, Reply> {
        let depth = request.depth()?;
        let wanted = propfind(&request.body)?;
        let target = request.target(env)?;
        Propfind::judge(&target, depth)?;
        let Some(meta) = target.metadata() else { return Err(404.into()) };
        let behind = target.home.as_ref().filter(|_| target.is_link);
        let (mut state, mut locks) = (State::default(), Vec::new());
        if behind.is_none_or(|home| !asks_for_another_password(env, &home.dir)) {
            // What cannot be read is not known, and no reason to hide the rest.
            state = target.state(env).unwrap_or_default();
            locks = target.locks(env).unwrap_or_default();
        }
        let name = target.home.as_ref().map_or(&b""[..], |home| &home.name);
        let dead = state.member(name).map(|member| &member.properties);
        let resource = Resource { meta, full: &target.full, locks: &locks, dead };
        let mut document = Multistatus::new();
        document.properties(&target.href(), &answer(env, &resource, &wanted));
        let lists = depth == Depth::One && env.config.enable_directory_listing;
        if !target.is_dir() || !lists {
            return Ok(Err(Reply { body: Some(document.finish()), ..207.into() }));
        }
        let rest = fs::read_dir(&target.full)?;
        let deep = locks.into_iter().filter(|lock| lock.deep).collect();
        Ok(Ok(Propfind { target, wanted, document, rest, state, deep }))
    }

    /// Whether it can be told of.
    pub fn judge(target: &Target, depth: Depth) -> Result<(), Reply> {
        if target.metadata().is_none() {
            return Err(404.into());
        }
        if depth == Depth::Infinity && target.is_dir() {
            return Err(Reply::failed(403, "propfind-finite-depth", &[]));
        }
        Ok(())
    }

    /// Tells of more entries, up to a piece of the answer; true once all were told of.
    pub fn advance(&mut self, env: &Env<'_>, budget: &mut usize) -> io::Result<bool> {
        while *budget > 0 && self.document.len() < PIECE {
            *budget = budget.saturating_sub(COST);
            let Some(entry) = self.rest.next() else { return Ok(true) };
            self.document.reserve(PIECE)?;
            let cost = self.tell(env, &entry?);
            *budget = budget.saturating_sub(cost);
        }
        Ok(false)
    }

    /// The next piece of the answer.
    pub fn take(&mut self) -> String {
        self.document.take()
    }

    /// Its last piece.
    pub fn end(&mut self) -> String {
        std::mem::take(&mut self.document).finish()
    }

    /// Bytes of memory that it takes until the end.
    pub fn weight(&self) -> usize {
        self.state.weight()
    }

    /// Tells of an entry; what it costs to know more of it than its name.
    fn tell(&mut self, env: &Env<'_>, entry: &DirEntry) -> usize {
        let name = entry.file_name();
        let full = self.target.full.join(&name);
        let can_be_asked_for = resolve::can_be_asked_for(name.as_bytes());
        if !can_be_asked_for || resolve::is_hidden(env.config, &full) {
            return 0;
        }
        let Ok(meta) = entry.metadata() else { return 0 };
        let mut path = self.target.path.clone();
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        if meta.is_symlink() {
            let target = Target::at(&path, &full);
            return if target.is_secret(env) { 0 } else { self.tell_of_link(env, &target) };
        }
        if env.secrets.hides_found(&full, &meta, false) {
            return 0;
        }
        if meta.is_dir() {
            let state = match asks_for_another_password(env, &full) {
                true => State::default(),
                false => store::load(&full, env.unix).unwrap_or_default(),
            };
            self.write(env, &path, &full, &meta, state.member(b""), None);
            return state.cost();
        }
        if meta.is_file() {
            let member = self.state.member(name.as_bytes()).cloned();
            self.write(env, &path, &full, &meta, member.as_ref(), None);
        }
        0
    }

    /// Of what is behind a link: its state is kept where it is.
    fn tell_of_link(&mut self, env: &Env<'_>, target: &Target) -> usize {
        let (Some(meta), Some(home)) = (target.metadata(), &target.home) else { return 0 };
        let is_here = self.target.home.as_ref().is_some_and(|here| here.dir == home.dir);
        let (mut state, mut locks) = (State::default(), Vec::new());
        if is_here || !asks_for_another_password(env, &home.dir) {
            state = target.state(env).unwrap_or_default();
            locks = locks_on(env, &home.dir, &home.name).unwrap_or_default();
        }
        let member = state.member(&home.name);
        self.write(env, &target.path, &target.full, meta, member, Some(locks));
        state.cost()
    }

    fn write(
        &mut self,
        env: &Env<'_>,
        path: &[u8],
        full: &Path,
        meta: &Metadata,
        member: Option<&Member>,
        locks: Option<Vec<Lock>>,
    ) {
        let own = member.into_iter().flat_map(|member| member.locks.iter().cloned());
        let locks = locks.unwrap_or_else(|| self.deep.iter().cloned().chain(own).collect());
        let dead = member.map(|member| &member.properties);
        let resource = Resource { meta, full, locks: &locks, dead };
        let mut href = String::new();
        escape_path(path, &mut href);
        if meta.is_dir() {
            href.push('/');
        }
        self.document.properties(&href, &answer(env, &resource, &self.wanted));
    }
}

/// Whether reading in a directory takes a password that who lists the one above need not have. Of
/// such a directory that one shows the name only, and what can be seen from outside.
fn asks_for_another_password(env: &Env<'_>, dir: &Path) -> bool {
    if env.config.global_auth_file.is_some() {
        return false;
    }
    let passwords = resolve::password_file(env.config, dir, true);
    !fs::symlink_metadata(passwords).is_err_and(|error| is_absence(&error))
}
