//! The helpers that read forms, uploads, header values and ranges.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mongoose::http::form_data::{self, Event, FormData};
use mongoose::http::{form, header_value, multipart, range};
use mongoose::pattern::matched_len;

/// What is told of a form that comes in pieces, so many beginnings and ends at a time.
fn told(pieces: &[&[u8]], limit: usize) -> Vec<u8> {
    let (mut text, mut content) = (Vec::new(), FormData::new(b"x"));
    'all: for piece in pieces {
        let mut tell = |event: Event<'_>| {
            match event {
                Event::Begin { name, file_name } => {
                    text.push(b'[');
                    text.extend(name);
                    text.extend(file_name.unwrap_or_default());
                }
                Event::Data(data) => text.extend_from_slice(data),
                Event::End => text.push(b']'),
            }
            Ok::<(), ()>(())
        };
        let mut piece = *piece;
        loop {
            if content.take(piece, limit, &mut tell).is_err() {
                text.push(b'!');
                break 'all;
            }
            if !content.is_behind() {
                break;
            }
            piece = b"";
        }
    }
    text
}

fuzz_target!(|data: &[u8]| {
    let [split, data @ ..] = data else { return };
    let (left, right) = data.split_at(usize::from(*split).min(data.len()));
    let mut buf = [0xaa; 64];
    form::find_var(right, left, &mut buf);
    if let Some(len) = form::url_decode(data, &mut buf, true) {
        assert!(len < buf.len() && buf[len] == 0);
    }
    let len = header_value::parse(right, left, &mut buf);
    assert!(len < buf.len() && buf[len] == 0);
    let mut rest = data;
    while let Some(part) = multipart::next_part(rest) {
        assert!(part.data.end <= rest.len() && part.next > 0 && part.next <= rest.len());
        rest = &rest[part.next..];
    }
    assert_eq!(told(&[left, right], 1), told(&[data], usize::MAX));
    form_data::boundary(data);
    match range::parse(data, 1000) {
        range::Ranges::One(range) => assert!(range.start < range.end && range.end <= 1000),
        range::Ranges::Several(ranges) => {
            assert!(ranges.iter().all(|range| range.start < range.end && range.end <= 1000));
        }
        _ => {}
    }
    if let Some(len) = matched_len(left, right) {
        assert!(len <= right.len());
    }
});
