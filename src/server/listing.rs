//! Answers with pages that list directories, read and sent in portions, so that others have their
//! turn however large a directory is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::connection::{Conn, NO_REQUEST, Phase};
use super::context::Context;
use super::files::status_of;
use super::step::Flow;
use super::streams::Stream;
use crate::files::directory::{Found, Reader};
use crate::files::listing::{self, Entry, Order};
use crate::files::merge::Merge;
use crate::files::resolve;
use crate::http::outlet::Outlet;

/// Names of a directory that are looked at before others have their turn.
const NAMES: usize = 256;

/// A directory that is being listed.
pub struct Listing {
    /// Present until all names are known, which is when the answer begins.
    reader: Option<Reader>,
    path: PathBuf,
    order: Order,
    rows: Merge,
    outlet: Outlet,
    /// A portion of the page.
    portion: Vec<u8>,
}

impl Conn {
    /// Begins to read a directory that is to be listed.
    pub(super) fn begin_listing(&mut self, cx: &mut Context, path: PathBuf) -> Flow {
        let reader = match Reader::open(&path) {
            Ok(reader) => reader,
            Err(error) => return self.fail(cx, status_of(&error)),
        };
        let Some(exchange) = self.exchange.as_deref_mut() else { return Flow::Leave };
        self.phase = Phase::Sending;
        let query = exchange.shown.query.clone();
        let query = query.and_then(|query| exchange.buf.get(query));
        let order = Order::from_query(query);
        let listing = Listing {
            // The answer to HEAD says nothing of what is in there.
            reader: Some(reader).filter(|_| !exchange.head.is_head),
            path,
            order,
            rows: Merge::new(order),
            outlet: Outlet::Nothing,
            portion: Vec::new(),
        };
        exchange.stream = Some(Box::new(Stream::Listing(listing)));
        if exchange.head.is_head {
            return self.begin_rows(cx);
        }
        Flow::Again
    }

    /// Reads on in a directory, or sends the next rows of its page.
    pub(super) fn send_listing(&mut self, cx: &mut Context) -> Flow {
        cx.look_at_secrets();
        let (config, secrets) = (&cx.options.config, &cx.files.secrets);
        let exchange = self.exchange.as_deref_mut();
        let Some(listing) = exchange.and_then(|exchange| Stream::listing(&mut exchange.stream))
        else {
            return Flow::Leave;
        };
        let Listing { reader, path, rows, .. } = listing;
        let Some(open) = reader else { return self.send_rows(cx) };
        let mut is_hidden = |name: &[u8], found: Found<'_>| {
            let full = path.join(OsStr::from_bytes(name));
            match found {
                None => !resolve::can_be_asked_for(name) || resolve::is_hidden(config, &full),
                Some((meta, is_link)) => secrets.hides_found(&full, meta, is_link),
            }
        };
        match open.advance(NAMES, &mut is_hidden) {
            Ok(Some(portion)) => {
                let weight = portion.iter().map(Entry::weight).sum();
                if rows.add(portion).is_err() || !self.charge(cx, weight) {
                    return self.abandon_listing(cx, 503);
                }
                self.make_ready(cx);
                Flow::Leave
            }
            Ok(None) => {
                *reader = None;
                self.begin_rows(cx)
            }
            Err(error) => self.abandon_listing(cx, status_of(&error)),
        }
    }

    fn abandon_listing(&mut self, cx: &mut Context, status: u16) -> Flow {
        if let Some(exchange) = self.exchange.as_deref_mut() {
            exchange.stream = None;
        }
        self.fail(cx, status)
    }

    /// Sends the head of the answer, and the page up to the first row.
    fn begin_rows(&mut self, cx: &mut Context) -> Flow {
        let Some(outlet) = self.begin_stream(cx, 200, "text/html; charset=utf-8") else {
            return Flow::Leave;
        };
        let Some(exchange) = self.exchange.as_deref_mut() else {
            return self.cannot_be(cx, NO_REQUEST);
        };
        if exchange.head.is_head {
            let persistent = exchange.head.persistent && !exchange.last;
            self.finish_exchange(cx, persistent);
            return Flow::Again;
        }
        let Some(listing) = Stream::listing(&mut exchange.stream) else { return Flow::Leave };
        listing.outlet = outlet;
        listing::head(&mut listing.portion, &exchange.path, listing.order);
        self.send_rows(cx)
    }

    /// Sends some rows; behind the last one the end of the page.
    fn send_rows(&mut self, cx: &mut Context) -> Flow {
        let (Some(exchange), Some(out)) = (self.exchange.as_deref_mut(), self.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        let Some(listing) = Stream::listing(&mut exchange.stream) else { return Flow::Leave };
        let persistent = exchange.head.persistent && !exchange.last;
        let mut rows = 0;
        for entry in listing.rows.by_ref().take(NAMES) {
            listing::row(&mut listing.portion, &entry);
            rows += 1;
        }
        let is_last = rows < NAMES;
        if is_last {
            listing::foot(&mut listing.portion);
        }
        let portion = &mut listing.portion;
        if out.bytes.try_reserve(portion.len() + 32).is_err() {
            return Flow::Close;
        }
        listing.outlet.write(portion, &mut out.bytes);
        portion.clear();
        if is_last {
            listing.outlet.finish(&mut out.bytes);
        }
        if is_last {
            self.finish_exchange(cx, persistent);
            return Flow::Again;
        }
        self.make_ready(cx);
        Flow::Leave
    }
}
