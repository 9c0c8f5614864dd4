//! WebDAV, classes 1 and 2 (RFC 4918): the effects of its methods on files, and their responses.
//!
//! Knows nothing of sockets. Takes requests as values, works on the file system in bounded
//! portions, and returns responses as values.
#![forbid(unsafe_code)]

pub mod anybody;
pub mod appending;
pub mod bodies;
pub mod conditions;
pub mod deletion;
pub mod fields;
pub mod form;
pub mod lock_log;
pub mod lock_method;
pub mod locks;
pub mod method;
pub mod mkcol;
pub mod multistatus;
pub mod patience;
pub mod properties;
pub mod propfind;
pub mod proppatch;
pub mod renaming;
pub mod set_aside;
pub mod sorted;
pub mod stamp;
pub mod store;
pub mod sweeping;
pub mod target;
pub mod temporary;
pub mod transfer;
pub mod transfer_rules;
pub mod tree;
pub mod tree_replies;
pub mod upload;
pub mod work;
pub mod xml;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use rustix::io::Errno;

use crate::files::links::Links;
use crate::files::secrets::Secrets;
use crate::options::Config;

/// The one who asks for a change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writer<'a> {
    /// The name of the authenticated user; empty where the client did not authenticate.
    pub user: &'a [u8],
    pub is_anybody: bool,
}

/// The surroundings of a request that its processing depends on.
pub struct Env<'a> {
    pub config: &'a Config,
    /// Seconds since 1970.
    pub unix: u64,
    /// The name of the authenticated user; empty where the client did not authenticate.
    pub user: Vec<u8>,
    /// Whether the client is nobody in particular, whom less is allowed (see [`anybody`]).
    pub is_anybody: bool,
    /// The document root, without symbolic links in its path.
    pub root: Option<PathBuf>,
    /// Files that are hidden because options name them.
    pub secrets: &'a Secrets,
    /// The symbolic links that are followed.
    pub links: Links,
}

impl<'a> Env<'a> {
    /// Creates the surroundings of a request of `writer`.
    pub fn of(writer: Writer<'_>, config: &'a Config, secrets: &'a Secrets, unix: u64) -> Env<'a> {
        let root = config.document_root.as_ref().and_then(|root| fs::canonicalize(root).ok());
        let Writer { user, is_anybody } = writer;
        let links = Links::of(config);
        Env { config, unix, user: user.to_vec(), is_anybody, root, secrets, links }
    }

    /// Creates the surroundings of a request where no options name files.
    #[cfg(test)]
    pub fn new(config: &'a Config, unix: u64) -> Env<'a> {
        static NO_SECRETS: Secrets = Secrets::new();
        Env::of(Writer::default(), config, &NO_SECRETS, unix)
    }
}

/// Returns whether an error says nothing about a file: the file system or the machine failed, and may
/// know better in a moment.
pub fn is_failure(error: &io::Error) -> bool {
    let cause = store::Unreadable::behind(error).map_or(error, store::Unreadable::cause);
    cause.raw_os_error().is_some() && status_of(cause) >= 500
}

/// Returns what was found, or `None` where the file system says that there is nothing, or nothing for
/// this process. That the file system fails stays an error.
pub fn known<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_failure(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Returns the status that reports an error of the file system to the client.
pub fn status_of(error: &io::Error) -> u16 {
    if let Some(unreadable) = store::Unreadable::behind(error) {
        return status_of(unreadable.cause());
    }
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => 507,
        Some(
            Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY | Errno::BUSY | Errno::XDEV,
        ) => 403,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => 503,
        Some(Errno::NAMETOOLONG) => 414,
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => 404,
        Some(Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR) => 409,
        _ => match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => 404,
            ErrorKind::PermissionDenied => 403,
            ErrorKind::OutOfMemory | ErrorKind::WouldBlock => 503,
            _ => 500,
        },
    }
}
