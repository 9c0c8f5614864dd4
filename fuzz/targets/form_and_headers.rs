//! The helpers that read forms, uploads, header values and ranges.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mongoose::http::{form, header_value, multipart, range};
use mongoose::pattern::matched_len;

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
