//! Decisions about WebDAV methods (RFC 4918): which exist, which content they take, and their
//! answers to the access rules.
//!
//! Refuses to know how a method does its work, which is in the room `dav`.

use super::{Site, Task};
use crate::dav::Env;
use crate::dav::method::{self, Reply};
use crate::dav::upload::Upload;
use crate::dav::work::Work;
use crate::exchange::request::Document;
use crate::http::request::Framing;
use crate::http::status::reason;
use crate::options::Config;

/// The largest length of the document in a request, in bytes.
pub const MAX_DOCUMENT: usize = 1024 * 1024;

/// The methods that read, as the Allow field lists them.
const READING: &str = "GET, HEAD, POST, OPTIONS, PROPFIND";
/// The methods that write.
const WRITING: [&str; 8] =
    ["PUT", "DELETE", "MKCOL", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK"];

/// The methods that write of which anybody may make use, where anybody may write. Locks and
/// properties are not among them: nobody could be told to remove them.
const ANYBODYS: [&str; 4] = ["PUT", "DELETE", "MKCOL", "MOVE"];

/// Returns whether anybody may use a method, where anybody may write.
pub fn is_anybodys(method: &[u8]) -> bool {
    ANYBODYS.iter().any(|known| known.as_bytes() == method)
}

/// Returns the methods that write and can succeed.
fn writing(config: &Config) -> &'static [&'static str] {
    match &config.dav_auth_file {
        Some(_) => &WRITING,
        None if config.lets_anybody_write() => &ANYBODYS,
        None => &[],
    }
}

/// Returns whether a method changes files.
pub fn writes(method: &[u8]) -> bool {
    WRITING.iter().any(|known| known.as_bytes() == method)
}

/// Appends the Allow field. `except` is a method that does not fit this resource.
pub fn write_allow(out: &mut Vec<u8>, config: &Config, except: &[u8]) {
    out.extend_from_slice(b"Allow: ");
    out.extend_from_slice(READING.as_bytes());
    for method in writing(config) {
        if method.as_bytes() != except {
            out.extend_from_slice(b", ");
            out.extend_from_slice(method.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

impl Site<'_> {
    /// Decides about a request for WebDAV whose user has been accepted.
    pub fn decide_dav(&mut self) -> Task {
        self.cx.look_at_secrets();
        let request = &mut *self.request;
        let is_long =
            matches!(request.head.framing, Framing::Length(len) if len > MAX_DOCUMENT as u64);
        let call = method::MethodCall {
            path: request.path.clone(),
            head: request.head.clone(),
            bytes: request.head_bytes().to_vec(),
            body: Vec::new(),
        };
        if call.method() != b"PUT" {
            if is_long {
                return Task::Reply(413);
            }
            return Task::Dav(Box::new(Work::new(call)));
        }
        let cx = &mut *self.cx;
        let (config, secrets) = (&cx.options.config, &cx.files.secrets);
        let env = Env::of(request.writer(), config, secrets, cx.clock.unix);
        match Upload::begin(call, &env, &mut cx.sweeper) {
            Ok(upload) => Task::Put(Box::new(upload)),
            Err(reply) => Task::Reply(self.take_reply(reply)),
        }
    }

    /// Returns the work, or the refusal in which it would end whatever the content is.
    pub fn check_dav_early(&mut self, work: Box<Work>) -> Task {
        let (config, secrets) = (&self.cx.options.config, &self.cx.files.secrets);
        let env = Env::of(self.request.writer(), config, secrets, self.cx.clock.unix);
        match work.refusal(&env) {
            Some(reply) => Task::Reply(self.take_reply(reply)),
            None => Task::Dav(work),
        }
    }

    /// Puts fields and document of an answer into the request, and returns its status.
    pub fn take_reply(&mut self, reply: Reply) -> u16 {
        let request = &mut *self.request;
        let method = request.method().to_vec();
        if reply.status == 405 {
            write_allow(&mut request.fields, &self.cx.options.config, &method);
        }
        request.fields.extend_from_slice(&reply.fields);
        request.document = reply.body.map(Document::Xml);
        let failed = reply.status >= 500 && reply.status != 502;
        if failed || reply.complaint.is_some() {
            let (method, reason) = (String::from_utf8_lossy(&method), reason(reply.status));
            let why = reply.complaint.map(|why| format!(": {why}")).unwrap_or_default();
            let what = format!("{method} failed: {} {reason}{why}", reply.status);
            self.cx.complain_of(self.request.client, &what);
        }
        reply.status
    }
}
