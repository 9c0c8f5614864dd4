//! A WebDAV request and its progress, for all methods but PUT (RFC 4918, section 9). The work is
//! done in portions, each with a budget of about as many calls of the file system.
//!
//! Decides which method runs, and when it waits or is given up. Knows nothing of what a method
//! does, nor of the connection that the request came by.

use super::Env;
use super::deletion::Delete;
use super::lock_method::{self, DeepLock};
use super::method::{MethodCall, Reply};
use super::mkcol;
use super::patience::Patience;
use super::propfind::Propfind;
use super::proppatch;
use super::sweeping::Sweeper;
use super::transfer::Transfer;

/// A request and its progress.
#[derive(Debug)]
pub struct Work {
    request: MethodCall,
    stage: Stage,
    /// The present wait for another process that changes the same properties.
    patience: Patience,
}

/// The method that is under way.
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
    pub fn new(request: MethodCall) -> Work {
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
            b"PROPFIND" => Propfind::check(env, &target, request.depth()?),
            b"PROPPATCH" => {
                proppatch::home(&target)?;
                request.may_change(env, &target, false).map(drop)
            }
            b"MKCOL" => {
                mkcol::home(&target)?;
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
                // The work went on, so that the next wait is another one.
                Ok(None) => self.patience = Patience::default(),
            }
        }
        None
    }

    /// Gives up the work, since its connection has ended.
    pub fn abandon(mut self, sweeper: &mut Sweeper) {
        self.give_up(sweeper);
    }

    /// Undoes what has been done, or leaves it to the sweeper.
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

    /// Begins the method of the request.
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
        if !sweeper.has_swept() {
            // What a process that has ended held here is put back first.
            return Ok(None);
        }
        let begun = match request.method() {
            b"PROPFIND" => Propfind::begin(request, env)?.map(|p| Stage::Propfind(Box::new(p))),
            b"PROPPATCH" => Err(proppatch::proppatch(request, env)?),
            b"MKCOL" => Err(mkcol::mkcol(request, env)?),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dav::set_aside::{Held, Kind};
    use crate::http::request::Head;
    use crate::options::Config;
    use crate::test_folder::Folder;
    use std::fs;

    #[test]
    fn each_wait_for_another_process_has_its_own_time() {
        let folder = Folder::new();
        for name in ["d/x/z", "d/y"] {
            fs::create_dir_all(folder.0.join(name)).unwrap();
        }
        let config = Config { document_root: Some(folder.0.clone()), ..Config::default() };
        let bytes = b"DELETE /d HTTP/1.1\r\n\r\n".to_vec();
        let mut head = Head::default();
        head.parse(&bytes, bytes.len());
        let request = MethodCall { path: b"/d".to_vec(), head, bytes, body: Vec::new() };
        let (mut work, mut sweeper) = (Work::new(request), Sweeper::default());
        let hold = |name: &str| Held::take(&folder.0.join(name), Kind::Source).unwrap();
        let held = hold("d/x");
        assert!(work.advance(&Env::new(&config, 100), &mut sweeper, 50).is_none(), "it waits");
        held.put_back().unwrap();
        // The directory itself is searched, and nothing of what is in it.
        assert!(work.advance(&Env::new(&config, 101), &mut sweeper, 1).is_none());
        let held = [hold("d/x/z")];
        assert!(work.advance(&Env::new(&config, 110), &mut sweeper, 50).is_none(), "once more");
        let end = work.advance(&Env::new(&config, 121), &mut sweeper, 50);
        assert!(matches!(end, Some(Outcome::Reply(Reply { status: 503, .. }))), "{end:?}");
        drop(held);
        assert!(folder.0.join("d/y").exists());
    }
}
