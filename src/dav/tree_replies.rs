//! The responses to requests that failed for a part of a tree: multi-status documents that name the
//! members in question (RFC 4918, sections 9.6.1, 9.8.5 and 9.9.4).
//!
//! Knows nothing of how a tree is removed or copied.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::fields::escape_path;
use super::method::Reply;
use super::multistatus::Multistatus;
use super::status_of;
use super::target::Target;
use super::tree::Uncopied;
use crate::http::status::reason;
use crate::log::shown;

/// Returns the response to a tree that cannot be copied.
pub fn refused(source: &Target, uncopied: &Uncopied) -> Reply {
    let inside = uncopied.inside.as_os_str();
    match status_of(&uncopied.error) {
        // The file vanished while its directory was copied. A tree without it has never existed.
        404 => failures(source, &[(inside.as_bytes().to_vec(), 409)]),
        status @ (403 | 409) => failures(source, &[(inside.as_bytes().to_vec(), status)]),
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

/// Returns the response that names the files that could not be removed.
pub fn failures(target: &Target, failures: &[(Vec<u8>, u16)]) -> Reply {
    if let [(inside, status)] = failures
        && inside.is_empty()
    {
        return (*status).into();
    }
    let mut document = Multistatus::new();
    for (inside, status) in failures {
        let mut href = target.href();
        escape_path(inside, &mut href);
        document.status(&href, *status);
    }
    let failed = failures.iter().find(|(_, status)| *status >= 500);
    let complaint = failed.map(|(inside, status)| {
        let path = Path::new(OsStr::from_bytes(inside));
        format!("{status} {} for {}", reason(*status), shown(path))
    });
    Reply { body: Some(document.finish()), complaint, ..207.into() }
}
