//! Answers with files: conditions, ranges, heads.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use rustix::io::Errno;

use super::connection::{Conn, Phase};
use super::context::Context;
use super::random_token;
use super::replies;
use super::sending::FileBody;
use super::step::Flow;
use crate::files::cache::Content;
use crate::files::representation::Representation;
use crate::http::conditional::{self, Outcome, Validators};
use crate::http::range::{self, Multipart, Ranges};
use crate::http::status::write_status_line;

impl Conn {
    /// Sends a file, the ranges that are asked for, or word that the client has it already.
    pub(super) fn begin_file(&mut self, cx: &mut Context, file: Representation) -> Flow {
        self.outbox(cx);
        let date = cx.clock.date();
        let (Some(exchange), Some(out)) = (self.exchange.as_deref_mut(), self.out.as_deref_mut())
        else {
            return Flow::Leave;
        };
        let head = &exchange.head;
        let bytes = exchange.buf.get(..head.len).unwrap_or_default();
        let etag = file.etag();
        let known = &file.known;
        let validators = Validators { etag: &etag, modified: known.modified };
        let outcome = conditional::evaluate(head, bytes, Some(validators));
        if outcome == Outcome::PreconditionFailed {
            return self.fail(cx, 412);
        }
        let is_get = bytes.get(head.method.range()) == Some(b"GET");
        let ranges = match head.value(bytes, "range") {
            Some(value) if is_get && conditional::ranges_count(head, bytes, validators) => {
                range::parse(value, known.len)
            }
            _ => Ranges::Whole,
        };
        if outcome == Outcome::Proceed && ranges == Ranges::Unsatisfiable {
            range::unsatisfied_range(known.len, &mut exchange.fields);
            return self.fail(cx, 416);
        }

        let persistent = exchange.persists(outcome != Outcome::NotModified);
        let extra = &cx.options.config.extra_headers;
        let out = &mut out.bytes;
        let before = out.len();
        let begin = |status, out: &mut Vec<u8>| {
            write_status_line(out, status);
            extend(out, &[b"Date: ", date.as_bytes(), b"\r\n"]);
        };
        let connection = replies::connection(persistent).as_bytes();
        let end = |out: &mut Vec<u8>| {
            extend(out, &[b"Connection: ", connection, b"\r\nAccept-Ranges: bytes\r\n"]);
        };
        let mut more = VecDeque::new();
        let mut tail = Vec::new();
        let mut first = 0..0;
        exchange.status = match ranges {
            _ if outcome == Outcome::NotModified => {
                begin(304, out);
                file.write_validators(out);
                extend(out, &[b"Connection: ", connection, b"\r\n"]);
                304
            }
            Ranges::Whole | Ranges::Unsatisfiable => {
                begin(200, out);
                file.write_fields(out);
                end(out);
                first = 0..known.len;
                200
            }
            Ranges::One(range) => {
                begin(206, out);
                file.write_fields_but_length(out);
                write_length(range.end - range.start, out);
                end(out);
                range::content_range(&range, known.len, out);
                first = range;
                206
            }
            Ranges::Several(ranges) => {
                let boundary = random_token();
                let media_type = file.media_type();
                let parts = Multipart { boundary: &boundary, media_type, len: known.len };
                begin(206, out);
                file.write_validators(out);
                parts.content_type(out);
                write_length(parts.content_length(&ranges), out);
                end(out);
                for (place, range) in ranges.into_iter().enumerate() {
                    let mut head = Vec::new();
                    parts.part_head(&range, place == 0, &mut head);
                    more.push_back((head, range));
                }
                parts.end(&mut tail);
                206
            }
        };
        file.write_form(exchange.status != 304, out);
        extend(out, &[extra, b"\r\n"]);
        exchange.head_len = (out.len() - before) as u64;
        let has_content = !first.is_empty() || !more.is_empty();
        if exchange.head.is_head || !has_content {
            self.finish_exchange(cx, persistent);
            return Flow::Again;
        }
        if let Content::Bytes(content) = &known.content
            && more.is_empty()
            && out.try_reserve(content.len()).is_ok()
        {
            // Into the same send as the head.
            let range = first.start as usize..first.end as usize;
            out.extend_from_slice(content.get(range).unwrap_or_default());
            self.finish_exchange(cx, persistent);
            return Flow::Again;
        }
        // While a body arrived, turns may have passed since the file was looked at.
        let checked = if exchange.arrived == 0 { cx.files.look() } else { 0 };
        exchange.file = Some(FileBody::new(file.known, first, more, tail, checked));
        self.phase = Phase::Sending;
        Flow::Again
    }
}

pub fn status_of(error: &io::Error) -> u16 {
    match error.kind() {
        ErrorKind::PermissionDenied => 403,
        _ => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE) => 503,
            _ => 404,
        },
    }
}

pub(super) fn extend(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

pub(super) fn write_length(len: u64, out: &mut Vec<u8>) {
    extend(out, &[b"Content-Length: ", itoa::Buffer::new().format(len).as_bytes(), b"\r\n"]);
}
