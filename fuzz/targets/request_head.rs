//! Heads of requests: no input panics, a refusal does not depend on what follows it, and what is
//! complete lies within the input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mongoose::http::request::{Head, Outcome};

const LIMIT: usize = 16_384;

fuzz_target!(|data: &[u8]| {
    let mut head = Head::default();
    match head.parse(data, LIMIT) {
        Outcome::Complete => {
            assert!(head.len <= data.len());
            for field in &head.fields {
                assert!(data.get(field.name.range()).is_some_and(|name| !name.is_empty()));
                assert!(data.get(field.value.range()).is_some());
            }
            assert!(data.get(head.target.range()).is_some());
            // Whatever was cut off before was not complete.
            for cut in [head.len - 1, head.len / 2] {
                let mut part = Head::default();
                assert_eq!(part.parse(&data[..cut], LIMIT), Outcome::Partial);
            }
        }
        Outcome::Refused(status) => assert!((400..600).contains(&status)),
        Outcome::Partial => {}
    }
});
