//! What a CGI program writes, cut anywhere, and the tags of pages with includes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mongoose::cgi::header::{self, MAX_CGI_HEAD, Parsed};
use mongoose::files::ssi::{self, Found};

fuzz_target!(|data: &[u8]| {
    let [cut, data @ ..] = data else { return };
    let begun = &data[..usize::from(*cut).min(data.len())];
    let whole = header::parse(data, false);
    match header::parse(begun, false) {
        // More output may finish a head, but never change what one means.
        Parsed::Partial => {}
        early => assert_eq!(early, whole),
    }
    assert!(!matches!(header::parse(data, true), Parsed::Partial));
    if let Parsed::Complete(head) = whole {
        assert!(head.len <= data.len() && head.len <= MAX_CGI_HEAD);
        assert!((200..=599).contains(&head.status));
        // Each field is one line, with a name.
        let fields = String::from_utf8_lossy(&head.fields);
        assert!(fields.is_empty() || fields.ends_with("\r\n"));
        for line in fields.split_terminator("\r\n") {
            assert!(line.find(':').is_some_and(|colon| colon > 0));
            assert!(!line.contains(['\r', '\n', '\0']));
        }
        assert!(!head.reason.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }

    let (mut rest, mut len) = (data, 0);
    loop {
        let step = match ssi::scan(rest, true) {
            Found::More => break,
            Found::Text(step) | Found::Tag(step, _) => step,
        };
        assert!(step > 0 && step <= rest.len());
        (rest, len) = (&rest[step..], len + step);
    }
    assert_eq!(len, data.len());
});
