//! Basic authentication (RFC 7617): the challenge, and the check of the credentials that a client
//! sends, by the same password files as digest authentication.
//!
//! Refuses to know where passwords are kept, whether Basic is allowed on a connection, and how soon a
//! refusal is told.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::htpasswd::{Ha1, md5_hex};
use super::{same_secret, write_realm};

/// Base64 with or without padding: clients exist that leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Returns the credentials of an Authorization field, as they are sent, if its scheme is Basic.
pub fn credentials(authorization: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Basic";
    let (scheme, rest) = authorization.trim_ascii().split_at_checked(SCHEME.len())?;
    let is_basic = scheme.eq_ignore_ascii_case(SCHEME) && !rest.starts_with(b"\t");
    (is_basic && rest.first().is_none_or(|byte| *byte == b' ')).then(|| rest.trim_ascii())
}

/// Returns the user, if the credentials are right. `find_ha1` returns the hash of a user. One that it
/// does not know costs as much time as a wrong password.
pub fn check(
    credentials: &[u8],
    domain: &str,
    find_ha1: impl FnOnce(&[u8]) -> Option<Ha1>,
) -> Option<Vec<u8>> {
    let pair = BASE64.decode(credentials).ok()?;
    // RFC 7617, section 2: neither part contains control characters. The first colon ends the name.
    if pair.iter().any(u8::is_ascii_control) {
        return None;
    }
    let colon = memchr::memchr(b':', &pair)?;
    let (user, password) = (&pair[..colon], &pair[colon + 1..]);
    let known = find_ha1(user);
    let given = md5_hex(&[user, b":", domain.as_bytes(), b":", password]);
    let is_right = same_secret(&known.unwrap_or([b'0'; 32]), &given);
    (is_right && known.is_some()).then(|| user.to_vec())
}

/// Returns the user that credentials name, whether the password is right or not.
pub fn user(credentials: &[u8]) -> Option<Vec<u8>> {
    let pair = BASE64.decode(credentials).ok()?;
    let colon = memchr::memchr(b':', &pair)?;
    pair.get(..colon).map(<[u8]>::to_vec)
}

/// Appends the WWW-Authenticate field that asks for credentials. With `charset` clients send names
/// and passwords in UTF-8 (RFC 7617, section 2.1), in which `mg_modify_passwords_file` got them.
pub fn challenge(out: &mut Vec<u8>, domain: &str) {
    out.extend_from_slice(b"WWW-Authenticate: Basic ");
    write_realm(out, domain);
    out.extend_from_slice(b", charset=\"UTF-8\"\r\n");
}

#[cfg(test)]
mod tests {
    use super::super::htpasswd::find_ha1;
    use super::*;
    use proptest::prelude::*;

    const DOMAIN: &str = "mydomain.com";

    fn line(user: &str, password: &str) -> String {
        let hash = md5_hex(&[format!("{user}:{DOMAIN}:{password}").as_bytes()]);
        format!("{user}:{DOMAIN}:{}\n", String::from_utf8_lossy(&hash))
    }

    fn passwords() -> Vec<u8> {
        let users =
            [("joe", "secret"), ("j\u{f6}rg", "\u{df}\u{20ac}"), ("co", "a:b:"), ("no", "")];
        users.map(|(user, password)| line(user, password)).concat().into_bytes()
    }

    fn checked(credentials: &[u8]) -> Option<Vec<u8>> {
        check(credentials, DOMAIN, |user| find_ha1(&passwords(), DOMAIN.as_bytes(), user))
    }

    fn user_of(pair: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        checked(BASE64.encode(pair).as_bytes())
    }

    #[test]
    fn the_credentials_are_what_follows_the_scheme() {
        let table: [(&[u8], Option<&[u8]>); 9] = [
            (b"Basic am9l", Some(b"am9l")),
            (b"bASIC   am9l ", Some(b"am9l")),
            (b" Basic am9l", Some(b"am9l")),
            (b"Basic", Some(b"")),
            (b"Basic ", Some(b"")),
            (b"Basicam9l", None),
            (b"Basi", None),
            (b"Digest am9l", None),
            (b"", None),
        ];
        for (field, expected) in table {
            assert_eq!(credentials(field), expected, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn who_knows_the_password_is_known_and_nobody_else() {
        let long = format!("joe:{}", "x".repeat(20_000));
        let table: [(&str, Option<&str>); 18] = [
            ("joe:secret", Some("joe")),
            ("j\u{f6}rg:\u{df}\u{20ac}", Some("j\u{f6}rg")),
            // The first colon ends the name: a password may hold others.
            ("co:a:b:", Some("co")),
            ("no:", Some("no")),
            ("joe:Secret", None),
            ("joe:secret ", None),
            ("joe:", None),
            ("joe", None),
            ("jo:secret", None),
            ("ann:secret", None),
            (":secret", None),
            (":", None),
            ("", None),
            ("joe:mydomain.com:secret", None),
            ("joe:secret\0", None),
            ("joe\0:secret", None),
            ("\njoe:secret", None),
            (&long, None),
        ];
        for (pair, expected) in table {
            let expected = expected.map(|user| user.as_bytes().to_vec());
            assert_eq!(user_of(pair), expected, "{pair:.40?}");
        }
        // The same name in Latin-1.
        assert_eq!(user_of(b"j\xf6rg:\xdf"), None);
    }

    #[test]
    fn padding_may_be_missing_and_nothing_else() {
        let right = BASE64.encode("joe:secret");
        assert!(right.ends_with("=="), "{right}");
        let known = Some(b"joe".to_vec());
        let bare = right.trim_end_matches('=');
        for good in [right.as_str(), bare] {
            assert_eq!(checked(good.as_bytes()), known, "{good}");
        }
        for broken in [&right[1..], &right[..5], "=", "====", "joe:secret", "\u{e9}", "am9l OnNl"] {
            assert_eq!(checked(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn the_hash_itself_is_no_password() {
        for hash in ["0".repeat(32), line("joe", "secret")[17..49].to_owned()] {
            assert_eq!(user_of(format!("joe:{hash}")), None);
            assert_eq!(user_of(format!("ann:{hash}")), None);
        }
    }

    proptest! {
        #[test]
        fn any_field_is_refused_or_names_a_user_of_the_file(
            field in prop::collection::vec(any::<u8>(), 0..200),
            pair in "(joe|ann|co|no|):[a-z:]{0,8}",
        ) {
            let _ = credentials(&field);
            let _ = checked(&field);
            let right = ["joe:secret", "co:a:b:", "no:"].contains(&pair.as_str());
            prop_assert_eq!(user_of(&pair).is_some(), right);
        }
    }
}
