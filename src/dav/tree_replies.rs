//! The responses to requests that failed for a part of a tree: multi-status documents that name the
//! members in question (RFC 4918, sections 9.6.1, 9.8.5 and 9.9.4).
//!
//! Knows nothing of how a tree is removed or copied.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::fields::escape_path;
use super::method::Reply;
use super::multistatus::Multistatus;
use super::status_of;
use super::target::Target;
use super::tree::{Failure, Uncopied};
use crate::log::shown;

/// Returns the response to a tree that cannot be copied.
pub fn refused(source: &Target, uncopied: &Uncopied) -> Reply {
    let inside = uncopied.inside.as_os_str();
    match status_of(&uncopied.error) {
        // The file vanished while its directory was copied. A tree without it has never existed.
        404 => of_member(source, inside.as_bytes(), 409),
        status @ (403 | 409) => of_member(source, inside.as_bytes(), status),
        status => {
            let complaint = Some(format!("{}: {}", shown(&uncopied.inside), uncopied.error));
            Reply { complaint, ..status.into() }
        }
    }
}

/// Returns the response that names the locked resources inside of a tree.
pub fn locked_inside(hrefs: &[String]) -> Reply {
    let mut document = Multistatus::new();
    hrefs.iter().for_each(|href| document.status(href, 423));
    Reply { body: Some(document.finish()), ..207.into() }
}

/// Returns the response that gives one member of the target, or itself, a status.
fn of_member(target: &Target, inside: &[u8], status: u16) -> Reply {
    if inside.is_empty() {
        return status.into();
    }
    let mut document = Multistatus::new();
    document.status(&href_of(target, inside), status);
    Reply { body: Some(document.finish()), ..207.into() }
}

/// Returns the response that names the files that could not be removed.
pub fn failures(target: &Target, failures: &[Failure]) -> Reply {
    let failed = failures.iter().find(|failure| failure.status() >= 500);
    let complaint = failed.map(|Failure { inside, error }| match inside.is_empty() {
        true => error.to_string(),
        false => format!("{}: {error}", shown(OsStr::from_bytes(inside))),
    });
    if let [failure] = failures
        && failure.inside.is_empty()
    {
        return Reply { complaint, ..failure.status().into() };
    }
    let mut document = Multistatus::new();
    for failure in failures {
        document.status(&href_of(target, &failure.inside), failure.status());
    }
    Reply { body: Some(document.finish()), complaint, ..207.into() }
}

fn href_of(target: &Target, inside: &[u8]) -> String {
    let mut href = target.href();
    escape_path(inside, &mut href);
    href
}
