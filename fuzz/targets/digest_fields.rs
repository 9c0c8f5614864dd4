//! The field of digest authentication: any bytes in its place, and fields of honest clients, written
//! in any way that is allowed, of which one byte may be changed. Nobody is granted anything for
//! whom the password was not known.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use mongoose::auth::digest::{Authentication, Signed, challenge, check};
use mongoose::auth::htpasswd::{Ha1, md5_hex};
use mongoose::auth::nonce::Nonces;

thread_local! {
    static NONCES: RefCell<Nonces> = RefCell::new(Nonces::new(3600).expect("random numbers"));
}

const DOMAIN: &str = "my \"domain\"";
const TARGET: &[u8] = b"/a%20b?c=d";

fn ha1(user: &[u8]) -> Ha1 {
    md5_hex(&[user, b":", DOMAIN.as_bytes(), b":secret"])
}

fn ask(field: &[u8], nonces: Option<&mut Nonces>) -> (Authentication, Option<Vec<u8>>) {
    let mut asked = None;
    let find = |user: &[u8]| {
        asked = Some(user.to_vec());
        Some(ha1(user))
    };
    let signed = Signed { method: b"GET", target: TARGET };
    let result = check(field, signed, DOMAIN, find, nonces, 1000);
    (result, asked)
}

/// A value in quotes, with more escapes than are needed where `bits` says so.
fn quoted(value: &[u8], bits: u8) -> Vec<u8> {
    let mut out = vec![b'"'];
    for (place, byte) in value.iter().enumerate() {
        if matches!(byte, b'"' | b'\\') || bits >> (place % 8) & 1 == 1 {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
    out
}

/// The field of a client that knows the password.
fn honest(user: &[u8], cnonce: &[u8], nonce: &[u8], style: u8) -> Vec<u8> {
    let ha2 = md5_hex(&[b"GET:", TARGET]);
    let count = b"00000001";
    let response =
        md5_hex(&[&ha1(user), b":", nonce, b":", count, b":", cnonce, b":auth:", &ha2]);
    let mut parts: Vec<(&[u8], Vec<u8>)> = vec![
        (b"username", quoted(user, style)),
        (b"realm", quoted(DOMAIN.as_bytes(), style.rotate_left(3))),
        (b"nonce", quoted(nonce, style & 0x55)),
        (b"uri", quoted(TARGET, style & 0x0f)),
        (b"response", quoted(&response, 0)),
        (b"cnonce", quoted(cnonce, style)),
        (b"nc", count.to_vec()),
        (b"qop", if style & 1 == 0 { b"auth".to_vec() } else { b"\"auth\"".to_vec() }),
    ];
    if style & 2 == 0 {
        parts.push((b"algorithm", b"MD5".to_vec()));
    }
    parts.rotate_left(usize::from(style) % 7);
    let separator: &[u8] = [&b", "[..], b",", b" ,\t", b",, "][usize::from(style >> 2) % 4];
    let equals: &[u8] = if style & 0x20 == 0 { b"=" } else { b" = " };
    let parts: Vec<Vec<u8>> =
        parts.iter().map(|(name, value)| [name, equals, value].concat()).collect();
    [b"Digest ", &parts.join(separator)[..]].concat()
}

fuzz_target!(|data: &[u8]| {
    let [style, len, at, change, text @ ..] = data else { return };
    NONCES.with_borrow_mut(|nonces| {
        // Whatever it is, it is no proof.
        let (result, asked) = ask(data, Some(nonces));
        assert_eq!(result, Authentication::Denied);
        assert!(asked.is_none_or(|user| user.len() < data.len()));
        let mut field = Vec::new();
        challenge(&mut field, &String::from_utf8_lossy(text), "nonce", *style & 1 == 1);
        let end = field.len() - 2;
        assert!(!field[..end].iter().any(u8::is_ascii_control));

        let (user, cnonce) = text.split_at(usize::from(*len).min(text.len()));
        let is_text = |text: &[u8]| !text.iter().any(u8::is_ascii_control);
        if !is_text(user) || !is_text(cnonce) {
            return;
        }
        let nonce = nonces.issue(1000).into_bytes();
        let mut field = honest(user, cnonce, &nonce, *style);
        let granted = Authentication::Granted { user: user.to_vec() };
        assert_eq!(ask(&field, None), (granted.clone(), Some(user.to_vec())));
        assert_eq!(ask(&field, Some(nonces)).0, granted);
        assert_eq!(ask(&field, Some(nonces)).0, Authentication::Stale, "a count that was used");
        // One change either does not matter, or makes it worthless.
        let at = usize::from(*at) * 3 % field.len();
        field[at] = *change;
        let (result, _) = ask(&field, None);
        assert!(result == granted || result == Authentication::Denied, "{result:?}");
    });
});
