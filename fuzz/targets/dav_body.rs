//! What WebDAV reads of a request, and what it has kept itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mongoose::dav::bodies::{Change, lockinfo, propertyupdate, propfind};
use mongoose::dav::conditions::{Current, If};
use mongoose::dav::fields::{self, Location, MAX_TIMEOUT};
use mongoose::dav::store::State;
use mongoose::dav::xml;

fuzz_target!(|data: &[u8]| {
    if let Ok(root) = xml::parse(data) {
        let text = root.to_text();
        let again = xml::parse(text.as_bytes()).expect("what was written is a document");
        assert_eq!((&again.name, again.to_text()), (&root.name, text));
    }
    let _ = propfind(data);
    let _ = lockinfo(data);
    for change in propertyupdate(data).unwrap_or_default() {
        if let Change::Set(name, text) = change {
            let element = xml::parse(text.as_bytes()).expect("a property stands for itself");
            assert_eq!(element.name, name);
        }
    }
    if let Ok(field) = If::parse(data, Some(b"host")) {
        assert!(!field.tokens().iter().any(String::is_empty));
        let _ = field.holds(|_| Ok::<_, ()>(Current::default()));
    }
    if let Ok(Location::Here(path)) = fields::location(data, Some(b"host")) {
        assert!(path.starts_with(b"/") && !path.contains(&0));
        assert!(!path.split(|b| *b == b'/').any(|name| name == b"." || name == b".."));
    }
    assert!((1..=MAX_TIMEOUT).contains(&fields::timeout(Some(data))));
    let _ = (fields::depth(Some(data)), fields::overwrite(Some(data)), fields::lock_token(data));
    if let Some(state) = State::parse(data) {
        let again = State::parse(state.to_text().as_bytes()).expect("what was written is read");
        assert_eq!(again.to_text(), state.to_text());
    }
});
