//! Request targets: a decoded path never leaves the root, and is its own decoded form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mongoose::http::uri::{decode_path, split_target};

fuzz_target!(|data: &[u8]| {
    let Ok(target) = split_target(data) else { return };
    let mut path = vec![0; target.path.len()];
    let decoded = decode_path(target.path, &mut path);
    if target.plain {
        assert!(decoded == Ok(target.path.len()) || target.path == b"*");
    }
    let Ok(len) = decoded else { return };
    let path = &path[..len];
    assert!(path.starts_with(b"/"));
    assert!(!path.split(|b| *b == b'/').any(|segment| segment == b"." || segment == b".."));
    assert!(!path.windows(2).any(|pair| pair == b"//"));
    assert!(!path.iter().any(u8::is_ascii_control));
    if target.plain {
        assert_eq!(path, target.path);
    }
});
