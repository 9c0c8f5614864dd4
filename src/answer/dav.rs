//! Answers of WebDAV methods, whose work is done in portions, turn by turn (RFC 4918).
//!
//! Owns how much is done in a turn. Refuses to know the methods themselves, which are in the room
//! `dav`.

use super::head::{XML_TYPE, write_stream_head};
use super::{Broken, Ended, Progress, Source};
use crate::dav::Env;
use crate::dav::method::Reply;
use crate::dav::propfind::Propfind;
use crate::dav::upload::Upload;
use crate::dav::work::{Outcome, Work};
use crate::exchange::context::{Context, WORK_PER_TURN};
use crate::exchange::outbox::Outbox;
use crate::exchange::request::Request;
use crate::http::outlet::Outlet;
use crate::site::Site;
use crate::site::dav::{MAX_DOCUMENT, writes};

/// An answer to PROPFIND that is sent as the directory is read.
pub struct PropfindAnswer {
    propfind: Box<Propfind>,
    outlet: Outlet,
    /// The memory that is counted for what is known of the directories, in bytes.
    charged: usize,
}

/// Keeps a piece of the document in a request, within the limits.
pub fn take_document(
    work: &mut Work,
    piece: &[u8],
    request: &mut Request,
    cx: &mut Context,
) -> Result<(), u16> {
    let body = work.body();
    if piece.len() > MAX_DOCUMENT - body.len().min(MAX_DOCUMENT) {
        return Err(413);
    }
    if !cx.charge(request, piece.len()) {
        return Err(503);
    }
    body.try_reserve(piece.len()).map_err(|_| 503u16)?;
    body.extend_from_slice(piece);
    Ok(())
}

/// Does the next portion of a method's work. `read_closed` says that the client has shut its sending
/// side.
pub fn work_on(
    mut work: Box<Work>,
    request: &mut Request,
    out: &mut Outbox,
    cx: &mut Context,
    read_closed: bool,
) -> Progress {
    cx.look_at_secrets();
    if read_closed && work.is_deep_lock() {
        // The client would not learn the token of the lock, which could last for days.
        return Progress::Ended(Ended::Broken(Broken::silently()));
    }
    let env = Env::of(request.writer(), &cx.options.config, &cx.files.secrets, cx.clock.unix);
    let outcome = work.advance(&env, &mut cx.sweeper, WORK_PER_TURN);
    // The work may have changed files that were looked at before.
    cx.files.look_again();
    match outcome {
        None => Progress::Yields(Source::Work(work)),
        Some(Outcome::Reply(reply)) => end_work(reply, request, cx),
        Some(Outcome::Begun(propfind)) => begin_propfind(propfind, request, out, cx),
    }
}

/// Does the next portion of the end of an upload.
pub fn store(mut upload: Box<Upload>, request: &mut Request, cx: &mut Context) -> Progress {
    cx.look_at_secrets();
    let env = Env::of(request.writer(), &cx.options.config, &cx.files.secrets, cx.clock.unix);
    let outcome = upload.advance(&env, &mut { WORK_PER_TURN });
    // The upload may have changed files that were looked at before.
    cx.files.look_again();
    match outcome {
        Ok(None) => Progress::Yields(Source::Upload(upload)),
        Ok(Some(reply)) | Err(reply) => end_work(reply, request, cx),
    }
}

/// Ends a method's work with its answer.
fn end_work(reply: Reply, request: &mut Request, cx: &mut Context) -> Progress {
    if writes(request.method()) {
        // A removed file takes space on the disk while it is open.
        cx.files.cache.close_files();
    }
    Progress::Ended(Ended::Failed(Site { request, cx }.take_reply(reply)))
}

/// Sends the head of the answer for a large directory, and its first piece.
fn begin_propfind(
    mut propfind: Box<Propfind>,
    request: &mut Request,
    out: &mut Outbox,
    cx: &mut Context,
) -> Progress {
    let charged = propfind.weight();
    if !cx.charge(request, charged) {
        return Progress::Ended(Ended::Failed(503));
    }
    let date = cx.clock.date();
    let extra = &cx.options.config.extra_headers;
    let outlet = write_stream_head(request, 207, XML_TYPE, date, extra, &mut out.bytes);
    let piece = propfind.take();
    let mut answer = PropfindAnswer { propfind, outlet, charged };
    match answer.send(&piece, out) {
        true => Progress::Yields(Source::Propfind(Box::new(answer))),
        false => Progress::Ended(Ended::Broken(Broken::silently())),
    }
}

impl PropfindAnswer {
    /// Sends the next piece of the answer.
    pub fn produce(
        mut self: Box<Self>,
        request: &mut Request,
        out: &mut Outbox,
        cx: &mut Context,
    ) -> Progress {
        cx.look_at_secrets();
        let env = Env::of(request.writer(), &cx.options.config, &cx.files.secrets, cx.clock.unix);
        let (piece, is_last) = match self.propfind.advance(&env, &mut { WORK_PER_TURN }) {
            Ok(true) => (self.propfind.end(), true),
            Ok(false) => (self.propfind.take(), false),
            Err(error) => {
                let why = format!("cannot tell of a directory: {error}").into();
                let resets = self.outlet == Outlet::ToClose;
                return Progress::Ended(Ended::Broken(Broken { why, resets }));
            }
        };
        let more = self.propfind.weight().saturating_sub(self.charged);
        self.charged += more;
        if !cx.charge(request, more) || !self.send(&piece, out) {
            return Progress::Ended(Ended::Broken(Broken::silently()));
        }
        if !is_last {
            return Progress::Yields(Source::Propfind(self));
        }
        self.outlet.finish(&mut out.bytes);
        Progress::Ended(Ended::Complete)
    }

    /// Sends a piece. Returns false if there is no memory for it.
    fn send(&mut self, piece: &str, out: &mut Outbox) -> bool {
        if out.bytes.try_reserve(piece.len() + 64).is_err() {
            return false;
        }
        self.outlet.write(piece.as_bytes(), &mut out.bytes);
        true
    }
}
