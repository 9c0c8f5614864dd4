//! Answers with pages that list directories.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::Server;
use super::connection::Phase;
use super::files::{extend, status_of, write_length};
use super::replies;
use super::step::Flow;
use crate::files::directory::Reader;
use crate::files::listing::{self, Order};
use crate::files::resolve;
use crate::http::status::write_status_line;

/// Names of a directory that are looked at before others have their turn.
const NAMES: usize = 256;

/// A directory that is being read, to be listed.
pub struct Listing {
    reader: Reader,
    path: PathBuf,
    order: Order,
}

impl Server {
    /// Begins to read a directory that is to be listed.
    pub(super) fn begin_listing(&mut self, index: usize, path: PathBuf) -> Flow {
        match Reader::open(&path) {
            Ok(reader) => {
                let Some(conn) = self.conn(index) else { return Flow::Leave };
                conn.phase = Phase::Sending;
                let Some(exchange) = conn.exchange.as_deref_mut() else { return Flow::Leave };
                let query = exchange.shown.query.clone();
                let query = query.and_then(|query| exchange.buf.get(query));
                let order = Order::from_query(query);
                exchange.listing = Some(Box::new(Listing { reader, path, order }));
                Flow::Again
            }
            Err(error) => self.fail(index, status_of(&error)),
        }
    }

    /// Reads on in a directory; once all names are known, answers with the page.
    pub(super) fn send_listing(&mut self, index: usize) -> Flow {
        let config = &self.options.config;
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        let Some(exchange) = conn.exchange.as_deref_mut() else { return Flow::Leave };
        let Some(mut listing) = exchange.listing.take() else { return Flow::Leave };
        let Listing { reader, path, .. } = &mut *listing;
        let mut is_hidden =
            |name: &[u8]| resolve::is_hidden(config, &path.join(OsStr::from_bytes(name)));
        match reader.advance(NAMES, &mut is_hidden) {
            Ok(true) => {
                exchange.listing = Some(listing);
                self.make_ready(index);
                return Flow::Leave;
            }
            Ok(false) => {}
            Err(error) => return self.fail(index, status_of(&error)),
        }
        let mut entries = listing.reader.into_entries();
        listing::sort(&mut entries, listing.order);
        let mut page = Vec::new();
        listing::head(&mut page, &exchange.path, listing.order);
        for entry in &entries {
            listing::row(&mut page, entry);
        }
        listing::foot(&mut page);

        let persistent = exchange.head.persistent && !exchange.last;
        if self.outbox(index).is_none() {
            return Flow::Leave;
        }
        let date = self.clock.date();
        let Some(conn) = self.conns.get_mut(index).and_then(Option::as_mut) else {
            return Flow::Leave;
        };
        let (Some(exchange), Some(out)) = (conn.exchange.as_deref_mut(), conn.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        let out = &mut out.bytes;
        let before = out.len();
        write_status_line(out, 200);
        extend(
            out,
            &[b"Date: ", date.as_bytes(), b"\r\nContent-Type: text/html; charset=utf-8\r\n"],
        );
        write_length(page.len() as u64, out);
        out.extend_from_slice(&self.options.config.extra_headers);
        extend(out, &[b"Connection: ", replies::connection(persistent).as_bytes(), b"\r\n\r\n"]);
        exchange.status = 200;
        exchange.head_len = (out.len() - before) as u64;
        if !exchange.head.is_head {
            out.extend_from_slice(&page);
        }
        self.finish_exchange(index, persistent);
        Flow::Again
    }
}
