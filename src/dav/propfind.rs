//! The method PROPFIND (RFC 4918, section 9.1): the properties of a resource, and of the members of
//! a directory.
//!
//! Decides which members a client may see. Knows nothing of the values of properties (`properties`)
//! nor of when the client takes the response.

use std::fs::{self, DirEntry, Metadata, ReadDir};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::bodies::{Wanted, propfind};
use super::fields::{Depth, escape_path};
use super::locks::Lock;
use super::method::{MethodCall, Reply};
use super::multistatus::Multistatus;
use super::properties::{Resource, answer};
use super::store::{self, Member, State};
use super::target::{Target, locks_on};
use super::{Env, is_failure, known};
use crate::files::cache::is_absence;
use crate::files::resolve;

/// The cost of a directory entry, in units of the budget.
const COST: usize = 4;
/// The length at which a piece of the response is complete, in bytes. Its last entry may make it
/// longer.
const PIECE: usize = 64 * 1024;

/// The largest number of directories inside each other that are reported: each of them is open until
/// its last member was reported.
const MAX_LEVELS: usize = 64;

/// A PROPFIND under way. Its response is taken in pieces, so that it takes no more memory for a
/// larger directory.
#[derive(Debug)]
pub struct Propfind {
    wanted: Wanted,
    document: Multistatus,
    /// The directories that are being reported, each a member of the one before it.
    levels: Vec<Level>,
    /// Whether the members of the members are reported as well.
    is_deep: bool,
}

/// A directory whose members are being reported.
#[derive(Debug)]
struct Level {
    /// The decoded path as clients know it, and that in the file system.
    path: Vec<u8>,
    full: PathBuf,
    /// The path without symbolic links in it.
    home: Option<PathBuf>,
    rest: ReadDir,
    /// The stored properties and locks of the entries of the directory.
    state: State,
    /// The locks of depth infinity that were taken on the directory; for the first one also those
    /// above it.
    deep: Vec<Lock>,
}

impl Propfind {
    /// Reports the resource itself. Returns a value that reports its members, if the request asks
    /// for them.
    pub fn begin(request: &MethodCall, env: &Env<'_>) -> Result<Result<Propfind, Reply>, Reply> {
        let depth = request.depth()?;
        let wanted = propfind(&request.body)?;
        let target = request.target(env)?;
        Propfind::check(env, &target, depth)?;
        let Some(meta) = target.metadata() else { return Err(404.into()) };
        let behind = target.home.as_ref().filter(|_| target.is_link);
        let (mut state, mut locks) = (State::default(), Vec::new());
        let is_guarded =
            behind.map(|home| asks_for_another_password(env, &home.dir)).transpose()?;
        if is_guarded != Some(true) {
            // A state that may not be read is no reason to hide the other properties.
            state = known(target.state(env))?.unwrap_or_default();
            locks = known(target.locks(env))?.unwrap_or_default();
        }
        let name = target.home.as_ref().map_or(&b""[..], |home| &home.name);
        let dead = state.member(name).map(|member| &member.properties);
        let resource =
            Resource { path: &target.path, meta, full: &target.full, locks: &locks, dead };
        let mut document = Multistatus::new();
        document.properties(&target.href(), &answer(env, &resource, &wanted));
        let lists = depth != Depth::Zero && env.config.enable_directory_listing;
        if !target.is_dir() || !lists {
            return Ok(Err(Reply { body: Some(document.finish()), ..207.into() }));
        }
        let rest = env.links.read_dir(&target.full)?;
        let deep = locks.into_iter().filter(|lock| lock.deep).collect();
        let home = target.home.map(|home| home.dir);
        let level = Level { path: target.path, full: target.full, home, rest, state, deep };
        let is_deep = depth == Depth::Infinity;
        Ok(Ok(Propfind { wanted, document, levels: vec![level], is_deep }))
    }

    /// Checks that the target exists and that the depth is allowed.
    pub fn check(env: &Env<'_>, target: &Target, depth: Depth) -> Result<(), Reply> {
        if target.metadata().is_none() {
            return Err(404.into());
        }
        if depth == Depth::Infinity && target.is_dir() && !env.config.dav_depth_infinity {
            return Err(Reply::failed(403, "propfind-finite-depth", &[]));
        }
        Ok(())
    }

    /// Reports more entries, up to a piece of the response. Returns true once all were reported.
    pub fn advance(&mut self, env: &Env<'_>, budget: &mut usize) -> io::Result<bool> {
        while *budget > 0 && self.document.len() < PIECE {
            *budget = budget.saturating_sub(COST);
            let Some(level) = self.levels.last_mut() else { return Ok(true) };
            let entry = match level.rest.next() {
                Some(Ok(entry)) => entry,
                // A list without some of its members would look as if they were gone.
                Some(Err(error)) => return Err(error),
                None => {
                    self.levels.pop();
                    continue;
                }
            };
            self.document.reserve(PIECE)?;
            let cost = self.report(env, &entry)?;
            *budget = budget.saturating_sub(cost);
        }
        Ok(self.levels.is_empty())
    }

    /// Takes the next piece of the response.
    pub fn take(&mut self) -> String {
        self.document.take()
    }

    /// Takes the last piece of the response.
    pub fn end(&mut self) -> String {
        std::mem::take(&mut self.document).finish()
    }

    /// Returns the memory that is needed for what is known of the directories, in bytes.
    pub fn weight(&self) -> usize {
        self.levels.iter().map(|level| level.state.weight()).sum()
    }

    /// Reports an entry of the last directory. Returns the cost of reading its stored properties.
    fn report(&mut self, env: &Env<'_>, entry: &DirEntry) -> io::Result<usize> {
        let Some(level) = self.levels.last() else { return Ok(0) };
        let name = entry.file_name();
        let full = level.full.join(&name);
        let can_be_asked_for = resolve::can_be_asked_for(name.as_bytes());
        if !can_be_asked_for || resolve::is_hidden(env.config, &full) {
            return Ok(0);
        }
        let Some(meta) = known(entry.metadata())? else { return Ok(0) };
        let mut path = level.path.clone();
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        if meta.is_symlink() {
            if env.links.bar(&full)? {
                return Ok(0);
            }
            let target = Target::at(&path, &full)?;
            return if target.is_secret(env) { Ok(0) } else { self.report_link(env, &target) };
        }
        if env.secrets.hides_found(&full, &meta, false) {
            return Ok(0);
        }
        if meta.is_dir() {
            return self.report_dir(env, &path, full, &meta);
        }
        if meta.is_file() {
            let member = level.state.member(name.as_bytes()).cloned();
            self.write(env, &path, &full, &meta, member.as_ref(), None);
        }
        Ok(0)
    }

    /// Reports a directory, and with an infinite depth its members next.
    fn report_dir(
        &mut self,
        env: &Env<'_>,
        path: &[u8],
        full: PathBuf,
        meta: &Metadata,
    ) -> io::Result<usize> {
        let is_guarded = asks_for_another_password(env, &full)?;
        let state = match is_guarded {
            true => State::default(),
            false => known(store::load(&full, env.unix))?.unwrap_or_default(),
        };
        self.write(env, path, &full, meta, state.member(b""), None);
        let cost = state.cost();
        // A pattern may match the path with a slash behind it, by which the members are asked for.
        if !self.is_deep || is_guarded || resolve::is_hidden(env.config, &full.join("")) {
            return Ok(cost);
        }
        if self.levels.len() >= MAX_LEVELS {
            let mut href = String::new();
            escape_path(path, &mut href);
            href.push('/');
            // What is below it has to be asked for on its own.
            self.document.status(&href, 507);
            return Ok(cost);
        }
        // The members of one that may not be read are nobody's business.
        let Some(rest) = known(env.links.read_dir(&full))? else { return Ok(cost) };
        let own = state.member(b"").into_iter().flat_map(|member| &member.locks);
        let deep = own.filter(|lock| lock.deep).cloned().collect();
        let above = self.levels.last().and_then(|level| level.home.as_ref());
        let home = above.zip(full.file_name()).map(|(above, name)| above.join(name));
        self.levels.push(Level { path: path.to_vec(), full, home, rest, state, deep });
        Ok(cost + COST)
    }

    /// Reports the file that a symbolic link leads to. Its state is stored beside that file. The
    /// members of a directory behind a link are not reported: it may lead to where it lies.
    fn report_link(&mut self, env: &Env<'_>, target: &Target) -> io::Result<usize> {
        let (Some(meta), Some(home)) = (target.metadata(), &target.home) else { return Ok(0) };
        let here = self.levels.last().and_then(|level| level.home.as_ref());
        let is_here = here.is_some_and(|here| *here == home.dir);
        let (mut state, mut locks) = (State::default(), Vec::new());
        if is_here || !asks_for_another_password(env, &home.dir)? {
            state = known(target.state(env))?.unwrap_or_default();
            locks = known(locks_on(env, &home.dir, &home.name))?.unwrap_or_default();
        }
        let member = state.member(&home.name);
        self.write(env, &target.path, &target.full, meta, member, Some(locks));
        Ok(state.cost())
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
        let deep = self.levels.iter().flat_map(|level| level.deep.iter().cloned());
        let locks = locks.unwrap_or_else(|| deep.chain(own).collect());
        let dead = member.map(|member| &member.properties);
        let resource = Resource { path, meta, full, locks: &locks, dead };
        let mut href = String::new();
        escape_path(path, &mut href);
        if meta.is_dir() {
            href.push('/');
        }
        self.document.properties(&href, &answer(env, &resource, &self.wanted));
    }
}

/// Returns whether a directory has a password file of its own, whose password the client that lists
/// the parent may not have. Of such a directory only the name and the metadata are reported.
fn asks_for_another_password(env: &Env<'_>, dir: &Path) -> io::Result<bool> {
    if env.config.global_auth_file.is_some() {
        return Ok(false);
    }
    let passwords = resolve::password_file(env.config, dir, true);
    match fs::symlink_metadata(passwords) {
        Err(error) if is_absence(&error) => Ok(false),
        Err(error) if is_failure(&error) => Err(error),
        Ok(_) | Err(_) => Ok(true),
    }
}
