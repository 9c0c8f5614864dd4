//! A WebDAV request as a value, and the response to it: reads its fields, finds its target, and
//! checks its conditions (RFC 9110, section 13; RFC 4918, sections 10.4 and 16).
//!
//! Knows nothing of what a method does, nor of how a response is sent.

use std::io::{self, ErrorKind};

use super::anybody;
use super::conditions::{Current, If};
use super::fields::{BadField, Depth, Location, depth, location, overwrite};
use super::locks::Keys;
use super::multistatus::error;
use super::store::{States, Unreadable};
use super::target::{Target, without_slash};
use super::{Env, status_of};
use crate::files::known::modified_of;
use crate::http::conditional::{self, Outcome, Validators};
use crate::http::request::Head;

/// The fields that a request may have only once.
const SINGLE: [&str; 7] =
    ["depth", "destination", "overwrite", "if", "lock-token", "timeout", "content-range"];

/// The number of bytes of state files that are read to evaluate one If field.
pub const MAX_STATE_BYTES: u64 = 32 << 20;

/// A request, independent of its connection.
#[derive(Debug, Default)]
pub struct MethodCall {
    /// The decoded path.
    pub path: Vec<u8>,
    pub head: Head,
    /// The head as bytes, which `head` points into.
    pub bytes: Vec<u8>,
    pub body: Vec<u8>,
}

/// A response: status, fields with their line ends, and a document of XML.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub fields: Vec<u8>,
    pub body: Option<String>,
    /// Another process holds a lock that is needed: nothing was done, and a later attempt may
    /// succeed.
    pub busy: bool,
    /// A message for the error log that is not sent to the client.
    pub complaint: Option<String>,
}

impl From<u16> for Reply {
    fn from(status: u16) -> Reply {
        Reply { status, fields: Vec::new(), body: None, busy: false, complaint: None }
    }
}

impl From<io::Error> for Reply {
    fn from(error: io::Error) -> Reply {
        let busy = error.kind() == ErrorKind::WouldBlock;
        let status = status_of(&error);
        let complaint = match Unreadable::behind(&error) {
            Some(unreadable) => Some(unreadable.to_string()),
            None => (status >= 500 && !busy).then(|| error.to_string()),
        };
        Reply { busy, complaint, ..status.into() }
    }
}

impl From<BadField> for Reply {
    fn from(_: BadField) -> Reply {
        400.into()
    }
}

impl From<super::xml::Malformed> for Reply {
    fn from(_: super::xml::Malformed) -> Reply {
        400.into()
    }
}

impl Reply {
    /// Returns the response that names a failed precondition of WebDAV (RFC 4918, section 16).
    pub fn failed(status: u16, condition: &str, hrefs: &[&str]) -> Reply {
        Reply { body: Some(error(condition, hrefs)), ..status.into() }
    }

    /// Returns the response that a lock forbids a change, since its token was not submitted.
    pub fn locked(href: &str) -> Reply {
        Reply::failed(423, "lock-token-submitted", &[href])
    }
}

impl MethodCall {
    pub fn method(&self) -> &[u8] {
        self.bytes.get(self.head.method.range()).unwrap_or_default()
    }

    /// Returns the value of the first field of this name.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.head.value(&self.bytes, name)
    }

    /// Refuses a request that repeats a field on which its effect depends.
    pub fn check_fields(&self) -> Result<(), BadField> {
        let is_twice = |name: &&str| {
            let fields = self.head.pairs(&self.bytes);
            fields.filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).count() > 1
        };
        if SINGLE.iter().any(is_twice) { Err(BadField) } else { Ok(()) }
    }

    pub fn depth(&self) -> Result<Depth, BadField> {
        depth(self.field("depth"))
    }

    pub fn overwrite(&self) -> Result<bool, BadField> {
        overwrite(self.field("overwrite"))
    }

    /// Returns the target of the request; 404 if the path cannot name a file, 403 if it is not
    /// anybody's and the request is.
    pub fn target(&self, env: &Env<'_>) -> Result<Target, Reply> {
        let target = Target::look_up(env, &self.path)?.ok_or(Reply::from(404))?;
        if anybody::may_change(env, &target) { Ok(target) } else { Err(403.into()) }
    }

    /// Returns the target that the Destination field names (RFC 4918, section 10.3).
    pub fn destination(&self, env: &Env<'_>) -> Result<Target, Reply> {
        let value = self.field("destination").ok_or(Reply::from(400))?;
        match location(value, self.field("host"))? {
            Location::Elsewhere => Err(502.into()),
            Location::Here(path) => {
                let target = Target::look_up(env, &path)?.ok_or(Reply::from(403))?;
                if anybody::may_change(env, &target) { Ok(target) } else { Err(403.into()) }
            }
        }
    }

    /// Evaluates all conditions of the request. Returns the keys that it submits.
    pub fn conditions(&self, env: &Env<'_>, target: &Target) -> Result<Keys, Reply> {
        let tag = target.etag();
        let validators = target.metadata().map(|meta| Validators {
            // A directory has no entity tag; this one never matches.
            etag: tag.as_deref().unwrap_or("\"\""),
            modified: modified_of(meta),
        });
        if conditional::evaluate(&self.head, &self.bytes, validators) != Outcome::Proceed {
            return Err(412.into());
        }
        self.if_field(env, target, &|states| target.current(env, states))
    }

    /// Evaluates the If field alone, where `current` returns the state of the target. Returns the
    /// keys that the request submits.
    pub fn if_field(
        &self,
        env: &Env<'_>,
        target: &Target,
        current: &dyn Fn(&mut States) -> io::Result<Current>,
    ) -> Result<Keys, Reply> {
        let user = env.user.clone();
        let Some(value) = self.field("if") else { return Ok(Keys { tokens: Vec::new(), user }) };
        let field = If::parse(value, self.field("host"))?;
        let mut states = States::new(env.unix, MAX_STATE_BYTES);
        let holds = field.holds(|path| match path {
            Some(path) if without_slash(path) != target.path => {
                let other = Target::look_up(env, path)?;
                other.map_or(Ok(Current::default()), |other| other.current(env, &mut states))
            }
            _ => current(&mut states),
        })?;
        if holds { Ok(Keys { tokens: field.tokens(), user }) } else { Err(412.into()) }
    }

    /// Evaluates the conditions as [`MethodCall::conditions`] does, and checks that no lock forbids
    /// the change.
    pub fn may_change(
        &self,
        env: &Env<'_>,
        target: &Target,
        membership: bool,
    ) -> Result<Keys, Reply> {
        let keys = self.conditions(env, target)?;
        match target.blocked(env, &keys, membership)? {
            Some(lock) => Err(Reply::locked(&lock.href)),
            None => Ok(keys),
        }
    }
}
