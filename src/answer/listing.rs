//! Pages that list directories, read and written in portions, so that other connections have their
//! turn however large a directory is.
//!
//! Refuses to know whether a directory may be listed, and what a row looks like, which is in
//! `files/listing`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::head::{HTML_TYPE, write_stream_head};
use super::{Begun, Broken, Ended, Progress, Source};
use crate::exchange::context::Context;
use crate::exchange::outbox::Outbox;
use crate::exchange::request::Request;
use crate::files::directory::{Found, Reader};
use crate::files::listing::{self, Entry, Order};
use crate::files::merge::Merge;
use crate::files::page::{self, Parts};
use crate::files::resolve;
use crate::http::outlet::Outlet;

/// The number of names that are read before other connections have their turn.
const NAMES: usize = 256;

/// A directory that is being listed.
pub struct Listing {
    path: PathBuf,
    order: Order,
    parts: &'static Parts,
    rows: Merge,
    stage: Stage,
}

/// The stage of a listing.
enum Stage {
    /// The names are read. The answer begins when all are known.
    Reads(Reader),
    /// The rows are written.
    Writes {
        outlet: Outlet,
        /// A portion of the page.
        portion: Vec<u8>,
    },
}

/// Begins to read a directory. An answer to HEAD is complete without that.
pub fn begin(path: PathBuf, request: &mut Request, out: &mut Outbox, cx: &mut Context) -> Begun {
    let reader = match Reader::open(&path, &cx.files.cache.links) {
        Ok(reader) => reader,
        Err(error) => return Begun::Failed(cx.refusal(request.client, &path, &error)),
    };
    let parts = match cx.options.config.takes_uploads() {
        true => &page::UPLOADS,
        false => &page::PLAIN,
    };
    request.fields.extend_from_slice(parts.policy);
    if request.head.is_head {
        write_head(request, out, cx);
        return Begun::Complete;
    }
    let order = Order::from_query(request.query());
    let stage = Stage::Reads(reader);
    let listing = Listing { path, order, parts, rows: Merge::new(order), stage };
    Begun::Source(Source::Listing(Box::new(listing)))
}

/// Writes the head of the answer.
fn write_head(request: &mut Request, out: &mut Outbox, cx: &mut Context) -> Outlet {
    let date = cx.clock.date();
    let extra = &cx.options.config.extra_headers;
    write_stream_head(request, 200, HTML_TYPE, date, extra, &mut out.bytes)
}

impl Listing {
    /// Reads further names of the directory, or writes the next rows of its page.
    pub fn produce(
        mut self: Box<Self>,
        request: &mut Request,
        out: &mut Outbox,
        cx: &mut Context,
    ) -> Progress {
        let Listing { path, order, parts, rows, stage } = &mut *self;
        if let Stage::Reads(reader) = stage {
            match read_on(reader, path, rows, request, cx) {
                Ok(true) => return Progress::Yields(Source::Listing(self)),
                Ok(false) => {}
                Err(status) => return Progress::Ended(Ended::Failed(status)),
            }
            let mut portion = Vec::new();
            if portion.try_reserve(listing::head_len(&request.path, parts)).is_err() {
                cx.complain_of(request.client, "no memory for a list");
                return Progress::Ended(Ended::Failed(503));
            }
            let outlet = write_head(request, out, cx);
            listing::head(&mut portion, &request.path, *order, parts);
            if rows.is_empty() {
                listing::nothing(&mut portion);
            }
            *stage = Stage::Writes { outlet, portion };
        }
        let written = match stage {
            Stage::Writes { outlet, portion } => {
                write_rows(rows, *order, parts, portion, outlet, out)
            }
            Stage::Reads(_) => Ok(false),
        };
        match written {
            Ok(true) => Progress::Ended(Ended::Complete),
            Ok(false) => Progress::Yields(Source::Listing(self)),
            Err(broken) => Progress::Ended(Ended::Broken(broken)),
        }
    }
}

/// Reads a portion of names. Returns false if there are no more.
fn read_on(
    reader: &mut Reader,
    path: &Path,
    rows: &mut Merge,
    request: &mut Request,
    cx: &mut Context,
) -> Result<bool, u16> {
    cx.look_at_secrets();
    let (config, secrets) = (&cx.options.config, &cx.files.secrets);
    let mut is_hidden = |name: &[u8], found: Found<'_>| {
        let full = path.join(OsStr::from_bytes(name));
        match found {
            None => !resolve::can_be_asked_for(name) || resolve::is_hidden(config, &full),
            Some((meta, is_link)) => secrets.hides_found(&full, meta, is_link),
        }
    };
    let portion = match reader.advance(NAMES, &mut is_hidden) {
        Ok(portion) => portion,
        Err(error) => return Err(cx.refusal(request.client, path, &error)),
    };
    let Some(portion) = portion else { return Ok(false) };
    let weight = portion.iter().map(Entry::weight).sum();
    match rows.add(portion).is_ok() && cx.charge(request, weight) {
        true => Ok(true),
        false => Err(503),
    }
}

/// Returns the end of a list for which there is no memory.
fn no_memory(outlet: Outlet) -> Broken {
    Broken { why: "no memory for a list".into(), resets: outlet == Outlet::ToClose }
}

/// Writes some rows, and the end of the page behind the last. Returns true at the end.
fn write_rows(
    entries: &mut Merge,
    order: Order,
    parts: &Parts,
    portion: &mut Vec<u8>,
    outlet: &mut Outlet,
    out: &mut Outbox,
) -> Result<bool, Broken> {
    let mut rows = 0;
    for entry in entries.by_ref().take(NAMES) {
        if portion.try_reserve(listing::row_len(&entry)).is_err() {
            return Err(no_memory(*outlet));
        }
        listing::row(portion, &entry, order);
        rows += 1;
    }
    let is_last = rows < NAMES;
    let foot = if is_last { listing::head_len(b"", parts) } else { 0 };
    if portion.try_reserve(foot).is_err() {
        return Err(no_memory(*outlet));
    }
    if is_last {
        listing::foot(portion, parts);
    }
    if out.bytes.try_reserve(portion.len() + 32).is_err() {
        return Err(no_memory(*outlet));
    }
    outlet.write(portion, &mut out.bytes);
    portion.clear();
    if is_last {
        outlet.finish(&mut out.bytes);
    }
    Ok(is_last)
}
