//! A WebDAV request and its progress, for all methods but PUT (RFC 4918, section 9). The work is
//! done in portions, each with a budget of about as many calls of the file system.
//!
//! Performs MKCOL and PROPPATCH itself, and leaves the other methods to files of their own. Knows
//! nothing of the connection that the request came by.

use std::fs;

use super::Env;
use super::bodies::{Change, propertyupdate};
use super::deletion::Delete;
use super::lock_method::{self, DeepLock};
use super::multistatus::{Multistatus, write_name};
use super::patience::Patience;
use super::properties::is_protected;
use super::propfind::Propfind;
use super::request::{Reply, Request};
use super::store::{self, Properties};
use super::sweeping::Sweeper;
use super::target::{Home, Kind, Target};
use super::transfer::Transfer;
use super::xml::Name;

/// The largest size of one dead property, and of all dead properties of a resource, in bytes.
const MAX_PROPERTY: usize = 64 * 1024;
const MAX_PROPERTIES: usize = 1024 * 1024;
/// The largest number of dead properties of one resource.
const MAX_NUMBER: usize = 4096;

/// A request and its progress.
#[derive(Debug)]
pub struct Work {
    request: Request,
    stage: Stage,
    /// The wait for another process that changes the same properties.
    patience: Patience,
}

#[derive(Debug)]
enum Stage {
    Start,
    Propfind(Box<Propfind>),
    Lock(Box<DeepLock>),
    Transfer(Box<Transfer>),
    Delete(Box<Delete>),
}

/// The result of a request.
#[derive(Debug)]
pub enum Outcome {
    Reply(Reply),
    /// A response with status 207 of which only the beginning is known: its pieces are taken as
    /// they are sent.
    Begun(Box<Propfind>),
}

/// The result of one portion: the response, once there is one.
type Progress = Result<Option<Reply>, Reply>;

impl Work {
    pub fn new(request: Request) -> Work {
        Work { request, stage: Stage::Start, patience: Patience::default() }
    }

    /// Returns the content of the request, to which bytes are appended until work begins.
    pub fn body(&mut self) -> &mut Vec<u8> {
        &mut self.request.body
    }

    /// Returns the response if the head of the request alone shows that it is refused. Changes
    /// nothing, and leaves all other checks to the work itself.
    pub fn refusal(&self, env: &Env<'_>) -> Option<Reply> {
        self.check_head(env).err().filter(|reply| !reply.busy)
    }

    /// Checks all that the head of the request decides.
    fn check_head(&self, env: &Env<'_>) -> Result<(), Reply> {
        let request = &self.request;
        request.check_fields()?;
        let target = request.target(env)?;
        match request.method() {
            b"PROPFIND" => Propfind::check(&target, request.depth()?),
            b"PROPPATCH" => {
                writable_home(&target)?;
                request.may_change(env, &target, false).map(drop)
            }
            b"MKCOL" => {
                vacant_home(&target)?;
                request.may_change(env, &target, true).map(drop)
            }
            b"LOCK" => request.conditions(env, &target).map(drop),
            b"DELETE" | b"COPY" | b"MOVE" if !target.exists() => Err(404.into()),
            _ => Ok(()),
        }
    }

    /// Does the next portion. Returns the result once there is one. `budget` bounds the portion: it
    /// is about the number of calls of the file system.
    pub fn advance(
        &mut self,
        env: &Env<'_>,
        sweeper: &mut Sweeper,
        mut budget: usize,
    ) -> Option<Outcome> {
        while budget > 0 {
            if !sweeper.advance(&mut budget) {
                return None;
            }
            let progress = match &mut self.stage {
                Stage::Start => self.start(env, sweeper),
                Stage::Propfind(_) => return Some(self.report(env, &mut budget)),
                Stage::Lock(lock) => lock.advance(env, &mut budget),
                Stage::Transfer(transfer) => transfer.advance(&self.request, env, &mut budget),
                Stage::Delete(delete) => delete.advance(&self.request, env, &mut budget),
            };
            match progress {
                Err(reply) if reply.busy => {
                    if self.patience.lasts(env.unix) {
                        return None;
                    }
                    self.give_up(sweeper);
                    return Some(Outcome::Reply(reply));
                }
                Ok(Some(reply)) | Err(reply) => return Some(Outcome::Reply(reply)),
                Ok(None) => {}
            }
        }
        None
    }

    /// Gives up the work, since its connection has ended.
    pub fn abandon(mut self, sweeper: &mut Sweeper) {
        self.give_up(sweeper);
    }

    fn give_up(&mut self, sweeper: &mut Sweeper) {
        match std::mem::replace(&mut self.stage, Stage::Start) {
            Stage::Transfer(transfer) => transfer.abandon(sweeper),
            Stage::Delete(delete) => delete.abandon(sweeper),
            Stage::Start | Stage::Propfind(_) | Stage::Lock(_) => {}
        }
    }

    /// Returns whether this is a LOCK that still searches a tree for conflicting locks.
    pub fn is_deep_lock(&self) -> bool {
        matches!(self.stage, Stage::Lock(_))
    }

    /// Reports a directory. Returns the whole response, if it is short.
    fn report(&mut self, env: &Env<'_>, budget: &mut usize) -> Outcome {
        match std::mem::replace(&mut self.stage, Stage::Start) {
            Stage::Propfind(mut propfind) => match propfind.advance(env, budget) {
                Ok(true) => Outcome::Reply(Reply { body: Some(propfind.end()), ..207.into() }),
                Ok(false) => Outcome::Begun(propfind),
                Err(error) => Outcome::Reply(error.into()),
            },
            _ => {
                debug_assert!(false, "a directory is reported in another stage");
                Outcome::Reply(500.into())
            }
        }
    }

    fn start(&mut self, env: &Env<'_>, sweeper: &mut Sweeper) -> Progress {
        let request = &self.request;
        request.check_fields()?;
        if let Ok(target) = request.target(env) {
            match &target.home {
                Some(home) => sweeper.visit(&home.dir, env.unix),
                // A parent directory may be held by a process that has ended.
                None => {
                    let above = target.full.ancestors().find(|path| path.is_dir());
                    above.into_iter().for_each(|dir| sweeper.visit(dir, env.unix));
                }
            }
        }
        let begun = match request.method() {
            b"PROPFIND" => Propfind::begin(request, env)?.map(|p| Stage::Propfind(Box::new(p))),
            b"PROPPATCH" => Err(proppatch(request, env)?),
            b"MKCOL" => Err(mkcol(request, env)?),
            b"DELETE" => Delete::begin(request, env)?.map(|delete| Stage::Delete(Box::new(delete))),
            b"LOCK" => lock_method::lock(request, env)?.map(|lock| Stage::Lock(Box::new(lock))),
            b"UNLOCK" => Err(lock_method::unlock(request, env)?),
            method @ (b"COPY" | b"MOVE") => {
                let transfer = Transfer::begin(request, env, sweeper, method == b"MOVE")?;
                Ok(Stage::Transfer(Box::new(transfer)))
            }
            _ => Err(405.into()),
        };
        match begun {
            Ok(stage) => {
                self.stage = stage;
                Ok(None)
            }
            Err(reply) => Ok(Some(reply)),
        }
    }
}

/// Returns where the state of an existing target is stored.
fn writable_home(target: &Target) -> Result<&Home, Reply> {
    target.home.as_ref().filter(|_| target.exists()).ok_or_else(|| 404.into())
}

/// Returns where a directory can be made that does not exist yet.
fn vacant_home(target: &Target) -> Result<&Home, Reply> {
    if !matches!(target.kind, Kind::Missing) {
        return Err(405.into());
    }
    target.home.as_ref().ok_or_else(|| 409.into())
}

fn mkcol(request: &Request, env: &Env<'_>) -> Result<Reply, Reply> {
    let target = request.target(env)?;
    if !request.body.is_empty() {
        return Err(415.into());
    }
    let Home { dir, name } = vacant_home(&target)?;
    request.may_change(env, &target, true)?;
    let _lock = store::lock_if_possible(dir)?;
    fs::create_dir(&target.full)?;
    store::forget(dir, env.unix, name);
    Ok(201.into())
}

fn proppatch(request: &Request, env: &Env<'_>) -> Result<Reply, Reply> {
    let target = request.target(env)?;
    let Home { dir, name } = writable_home(&target)?;
    let changes = propertyupdate(&request.body)?;
    request.may_change(env, &target, false)?;
    let state = target.state(env)?;
    let mut properties =
        state.member(name).map(|member| member.properties.clone()).unwrap_or_default();
    let mut total = properties.iter().map(|(_, value)| value.len()).sum();
    let mut stats = vec![
        (200, String::new(), None),
        (403, String::new(), Some("cannot-modify-protected-property")),
        (507, String::new(), None),
    ];
    for change in &changes {
        let (name, status) = check_change(change, &properties, total);
        if let Some((_, names, _)) = stats.iter_mut().find(|(known, ..)| *known == status) {
            write_name(names, name);
        }
        if status == 200 {
            let (before, after) = apply(change, &mut properties);
            total = total + after - before;
        }
    }
    if stats[1..].iter().all(|(_, names, _)| names.is_empty()) {
        store::update(dir, env.unix, &mut |state| {
            let properties = &mut state.member_mut(name).properties;
            for change in &changes {
                apply(change, properties);
            }
        })?;
    } else {
        // Either all changes are made or none is (RFC 4918, section 9.2).
        stats[0].0 = 424;
    }
    stats.retain(|(_, names, _)| !names.is_empty());
    let mut document = Multistatus::new();
    document.properties(&target.href(), &stats);
    Ok(Reply { body: Some(document.finish()), ..207.into() })
}

/// Returns the name of the property and the status of its change, where `total` is the size of all
/// properties so far, in bytes.
fn check_change<'a>(change: &'a Change, properties: &Properties, total: usize) -> (&'a Name, u16) {
    let (name, len) = match change {
        Change::Set(name, value) => (name, value.len()),
        Change::Remove(name) => (name, 0),
    };
    let known = properties.get(name);
    let others = total - known.map_or(0, String::len).min(total);
    let is_new = known.is_none() && matches!(change, Change::Set(..));
    let status = match len {
        _ if is_protected(name) => 403,
        _ if len > MAX_PROPERTY || others + len > MAX_PROPERTIES => 507,
        _ if is_new && properties.len() >= MAX_NUMBER => 507,
        _ => 200,
    };
    (name, status)
}

/// Makes a change. Returns the size of the property before and after it, in bytes.
fn apply(change: &Change, properties: &mut Properties) -> (usize, usize) {
    let (before, after) = match change {
        Change::Set(name, value) => (properties.insert(name.clone(), value.clone()), value.len()),
        Change::Remove(name) => (properties.remove(name), 0),
    };
    (before.map_or(0, |value| value.len()), after)
}
