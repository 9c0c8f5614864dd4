//! Digest authentication (RFC 7616) with MD5 and `qop=auth`: the challenge, and the check of the
//! credentials that a client sends.
//!
//! Knows fields and the bytes of a password file, and not where the file lies. Credentials without
//! `qop`, as before RFC 2617, are refused: they hold no nonce count, so that an eavesdropper could
//! send them again. The challenge asks for `qop`, which all clients since 1999 send then.

use super::htpasswd::{Ha1, md5_hex};
use super::nonce::Nonces;
use super::{same_secret, write_realm};
use crate::http::request::is_token_byte;
use crate::http::uri::split_target;

/// The result of the check of an Authorization field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// The credentials are valid, and belong to this user.
    Granted { user: Vec<u8> },
    /// The credentials are not valid: the response is a challenge.
    Denied,
    /// The credentials are valid apart from the nonce: the response is a challenge with `stale`, so
    /// that the client repeats the request without asking for the password again.
    Stale,
}

/// The parts of the request line that the client signs.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    pub method: &'a [u8],
    /// The target as it stands in the request line, not decoded.
    pub target: &'a [u8],
}

/// Checks the value of an Authorization field. `find_ha1` returns the hash of a user in the password
/// file, which need not be read before it is called. `now` is the time by the clock of the nonces. Pass no `nonces` for a second check of the same request,
/// whose nonce count is used already.
pub fn check(
    authorization: &[u8],
    request: Signed<'_>,
    domain: &str,
    find_ha1: impl FnOnce(&[u8]) -> Option<Ha1>,
    nonces: Option<&mut Nonces>,
    now: u64,
) -> Authentication {
    let Some(credentials) = Credentials::parse(authorization) else {
        return Authentication::Denied;
    };
    if credentials.realm != domain.as_bytes() || !same_target(&credentials.uri, request.target) {
        return Authentication::Denied;
    }
    let ha1 = find_ha1(&credentials.username);
    // The check of an unknown user takes as long as that of a wrong password.
    let expected = credentials.expected_response(&ha1.unwrap_or([b'0'; 32]), request.method);
    let given = credentials.response.to_ascii_lowercase();
    if !same_secret(&expected, &given) || ha1.is_none() {
        return Authentication::Denied;
    }
    // The nonce comes last: only a client that knows the password may spend a nonce, or learn that
    // it is stale.
    let spent =
        nonces.map_or(Ok(()), |nonces| nonces.spend(&credentials.nonce, credentials.count, now));
    match spent {
        Ok(()) => Authentication::Granted { user: credentials.username },
        Err(_) => Authentication::Stale,
    }
}

/// Returns the user that an Authorization field names, whether the rest of it is right or not.
pub fn user(authorization: &[u8]) -> Option<Vec<u8>> {
    Credentials::parse(authorization).map(|credentials| credentials.username)
}

/// Appends the WWW-Authenticate field that asks for credentials.
pub fn challenge(out: &mut Vec<u8>, domain: &str, nonce: &str, stale: bool) {
    out.extend_from_slice(b"WWW-Authenticate: Digest ");
    write_realm(out, domain);
    out.extend_from_slice(b", qop=\"auth\", algorithm=MD5, nonce=\"");
    out.extend_from_slice(nonce.as_bytes());
    out.push(b'"');
    if stale {
        out.extend_from_slice(b", stale=true");
    }
    out.extend_from_slice(b"\r\n");
}

/// Returns whether the client signed the target of its request. It may leave out the scheme and the
/// host, which a request line has only for a proxy, and the fragment, which no target should have.
fn same_target(signed: &[u8], target: &[u8]) -> bool {
    if signed == target {
        return true;
    }
    let is_origin_form = |target: &[u8]| target.starts_with(b"/");
    is_origin_form(signed)
        && split_target(signed).is_ok_and(|signed| split_target(target) == Ok(signed))
}

/// The parameters of an Authorization field, without quotes (RFC 7616, section 3.4).
#[derive(Debug, PartialEq)]
struct Credentials {
    username: Vec<u8>,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    uri: Vec<u8>,
    response: Vec<u8>,
    cnonce: Vec<u8>,
    /// The nonce count as the client wrote it, since these bytes are signed.
    nc: Vec<u8>,
    /// The nonce count as a number.
    count: u32,
}

impl Credentials {
    /// Parses the value of the field. Returns `None` if it is malformed, of another scheme or
    /// algorithm, or incomplete.
    fn parse(value: &[u8]) -> Option<Credentials> {
        let (scheme, parameters) = value.trim_ascii().split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"Digest ") {
            return None;
        }
        let mut given = Parameters::default();
        let mut rest = parameters;
        while let Some((name, value, behind)) = next_parameter(rest)? {
            given.insert(name, value)?;
            rest = behind;
        }
        let is_auth = given.qop?.eq_ignore_ascii_case(b"auth");
        let is_md5 = given.algorithm.is_none_or(|name| name.eq_ignore_ascii_case(b"MD5"));
        let nc = given.nc?;
        let count = count(&nc)?;
        (is_auth && is_md5).then_some(Credentials {
            username: given.username?,
            realm: given.realm?,
            nonce: given.nonce?,
            uri: given.uri?,
            response: given.response?,
            cnonce: given.cnonce?,
            nc,
            count,
        })
    }

    /// Computes the response that proves the password (RFC 7616, sections 3.4.1 to 3.4.3).
    fn expected_response(&self, ha1: &Ha1, method: &[u8]) -> [u8; 32] {
        let ha2 = md5_hex(&[method, b":", &self.uri]);
        md5_hex(&[ha1, b":", &self.nonce, b":", &self.nc, b":", &self.cnonce, b":auth:", &ha2])
    }
}

/// The parameters that are checked; others are ignored.
#[derive(Default)]
struct Parameters {
    username: Option<Vec<u8>>,
    realm: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
    uri: Option<Vec<u8>>,
    response: Option<Vec<u8>>,
    cnonce: Option<Vec<u8>>,
    nc: Option<Vec<u8>>,
    qop: Option<Vec<u8>>,
    algorithm: Option<Vec<u8>>,
}

impl Parameters {
    /// Adds a parameter. Returns `None` if it is given twice: client and server might use different
    /// ones.
    fn insert(&mut self, name: &[u8], value: Vec<u8>) -> Option<()> {
        let place = match name.to_ascii_lowercase().as_slice() {
            b"username" => &mut self.username,
            b"realm" => &mut self.realm,
            b"nonce" => &mut self.nonce,
            b"uri" => &mut self.uri,
            b"response" => &mut self.response,
            b"cnonce" => &mut self.cnonce,
            b"nc" => &mut self.nc,
            b"qop" => &mut self.qop,
            b"algorithm" => &mut self.algorithm,
            _ => return Some(()),
        };
        place.replace(value).is_none().then_some(())
    }
}

/// The name of a parameter, its value, and the rest of the list.
type Parameter<'a> = (&'a [u8], Vec<u8>, &'a [u8]);

/// Parses the first parameter of a list. Returns `Some(None)` at the end of the list, and `None` if
/// it is malformed.
fn next_parameter(list: &[u8]) -> Option<Option<Parameter<'_>>> {
    let blanks_and_commas = list.iter().take_while(|b| b", \t".contains(b)).count();
    let list = &list[blanks_and_commas..];
    if list.is_empty() {
        return Some(None);
    }
    let (name, rest) = token(list)?;
    let rest = skip_blanks(skip_blanks(rest).strip_prefix(b"=")?);
    let (value, rest) = match rest.strip_prefix(b"\"") {
        Some(text) => quoted(text)?,
        None => token(rest).map(|(value, rest)| (value.to_vec(), rest))?,
    };
    let rest = skip_blanks(rest);
    match rest.first() {
        None | Some(b',') => Some(Some((name, value, rest))),
        Some(_) => None,
    }
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|b| b" \t".contains(b)).count();
    &text[blanks..]
}

/// Splits off a token (RFC 9110, section 5.6.2).
fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = text.iter().take_while(|byte| is_token_byte(byte)).count();
    (len > 0).then(|| text.split_at(len))
}

/// Decodes a quoted string (RFC 9110, section 5.6.4), whose first quote is in front of `text`.
/// Returns its content and the rest.
fn quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut rest = text;
    loop {
        let byte = match rest {
            [b'"', behind @ ..] => return Some((value, behind)),
            [b'\\', byte, behind @ ..] | [byte, behind @ ..] => {
                rest = behind;
                *byte
            }
            [] => return None,
        };
        if byte.is_ascii_control() && byte != b'\t' {
            return None;
        }
        value.push(byte);
    }
}

/// Parses a nonce count, which has exactly eight hexadecimal digits.
fn count(nc: &[u8]) -> Option<u32> {
    if nc.len() != 8 || !nc.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(nc).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::htpasswd::find_ha1;
    use super::*;
    use proptest::prelude::*;

    const DOMAIN: &str = "mydomain.com";

    fn passwords() -> Vec<u8> {
        let line = |user: &str, password: &str| {
            let hash = md5_hex(&[format!("{user}:{DOMAIN}:{password}").as_bytes()]);
            format!("{user}:{DOMAIN}:{}\n", String::from_utf8_lossy(&hash))
        };
        [line("joe", "secret"), line("an\"n\\", "x")].concat().into_bytes()
    }

    /// A client, with the parameters that it sends.
    #[derive(Clone)]
    struct Client<'a> {
        user: &'a str,
        password: &'a str,
        realm: &'a str,
        nonce: &'a str,
        uri: &'a str,
        method: &'a str,
        count: u32,
    }

    impl Client<'_> {
        fn response(&self) -> String {
            let (user, realm, password) = (self.user, self.realm, self.password);
            let ha1 = md5_hex(&[format!("{user}:{realm}:{password}").as_bytes()]);
            let ha2 = md5_hex(&[format!("{}:{}", self.method, self.uri).as_bytes()]);
            let [ha1, ha2] = [ha1, ha2].map(|hash| String::from_utf8(hash.to_vec()).unwrap());
            let (nonce, nc) = (self.nonce, self.count);
            let hash = md5_hex(&[format!("{ha1}:{nonce}:{nc:08x}:cn:auth:{ha2}").as_bytes()]);
            String::from_utf8(hash.to_vec()).unwrap()
        }

        fn field(&self) -> String {
            let user = self.user.replace('\\', "\\\\").replace('"', "\\\"");
            format!(
                "Digest username=\"{user}\", realm=\"{}\", nonce=\"{}\", uri=\"{}\", \
                 algorithm=MD5, qop=auth, nc={:08x}, cnonce=\"cn\", response=\"{}\"",
                self.realm,
                self.nonce,
                self.uri,
                self.count,
                self.response(),
            )
        }
    }

    const JOE: Client<'_> = Client {
        user: "joe",
        password: "secret",
        realm: DOMAIN,
        nonce: "",
        uri: "/a?b",
        method: "GET",
        count: 1,
    };

    const GET: Signed<'_> = Signed { method: b"GET", target: b"/a?b" };

    fn check_field(field: &str, request: Signed<'_>, nonces: &mut Nonces) -> Authentication {
        let find = |user: &[u8]| find_ha1(&passwords(), DOMAIN.as_bytes(), user);
        check(field.as_bytes(), request, DOMAIN, find, Some(nonces), 1000)
    }

    fn granted(user: &str) -> Authentication {
        let user = user.as_bytes().to_vec();
        Authentication::Granted { user }
    }

    #[test]
    fn the_response_is_that_of_the_rfc() {
        // RFC 7616, section 3.9.1.
        let answer = Credentials::parse(
            b"Digest username=\"Mufasa\", realm=\"http-auth@example.org\", \
              uri=\"/dir/index.html\", algorithm=MD5, \
              nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
              cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
              response=\"8ca523f5e9506fed4657c9700eebdbec\", \
              opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"",
        );
        let answer = answer.unwrap();
        let ha1 = *b"3d78807defe7de2157e2b0b6573a855f";
        let expected = answer.expected_response(&ha1, b"GET");
        assert_eq!(expected.as_slice(), answer.response);
    }

    #[test]
    fn who_knows_the_password_is_granted_and_nobody_else() {
        let mut nonces = Nonces::new(300).unwrap();
        let nonce = nonces.issue(1000);
        let joe = Client { nonce: &nonce, ..JOE };
        let table: [(&str, Client, Authentication); 9] = [
            ("right", joe.clone(), granted("joe")),
            ("password", Client { password: "Secret", ..joe }, Authentication::Denied),
            ("user", Client { user: "jo", ..joe }, Authentication::Denied),
            ("empty user", Client { user: "", ..joe }, Authentication::Denied),
            ("realm", Client { realm: "other", ..joe }, Authentication::Denied),
            ("uri", Client { uri: "/a", ..joe }, Authentication::Denied),
            ("method", Client { method: "HEAD", ..joe }, Authentication::Denied),
            ("count 0", Client { count: 0, ..joe }, Authentication::Stale),
            ("used count", joe.clone(), Authentication::Stale),
        ];
        for (what, client, expected) in table {
            assert_eq!(check_field(&client.field(), GET, &mut nonces), expected, "{what}");
        }
        let ann = Client { user: "an\"n\\", password: "x", count: 2, ..joe };
        assert_eq!(check_field(&ann.field(), GET, &mut nonces), granted("an\"n\\"));
    }

    #[test]
    fn only_with_the_right_password_a_nonce_is_stale() {
        let mut nonces = Nonces::new(300).unwrap();
        let expired = nonces.issue(600);
        let foreign = Nonces::new(300).unwrap().issue(1000);
        for nonce in [expired.as_str(), &foreign, "", "x", "\u{e9}"] {
            let joe = Client { nonce, ..JOE };
            assert_eq!(
                check_field(&joe.field(), GET, &mut nonces),
                Authentication::Stale,
                "{nonce}"
            );
            let wrong = Client { password: "x", ..joe };
            assert_eq!(
                check_field(&wrong.field(), GET, &mut nonces),
                Authentication::Denied,
                "{nonce}"
            );
        }
    }

    #[test]
    fn the_signed_target_is_the_one_asked_for() {
        let table: [(&[u8], &str, bool); 20] = [
            (b"/a?b", "/a?b", true),
            (b"/", "/", true),
            (b"*", "*", true),
            (b"/%41", "/A", false),
            (b"/a?b", "/a", false),
            (b"/a", "/a?", false),
            (b"/a", "http://h/a", false),
            (b"http://h/a?b", "/a?b", true),
            (b"http://h", "/", true),
            (b"http://h/a?b", "http://h/a?b", true),
            (b"http://h/a", "http://other/a", false),
            (b"http://h/a", "/b", false),
            (b"/a?b#c", "/a?b", true),
            (b"/a?b#c", "/a?b#c", true),
            (b"/a?b", "/a?b#c", true),
            (b"http://h/a#c", "/a", true),
            (b"/a?b#c", "/a", false),
            (b"/a", "/a#?b", true),
            (b"/a?", "/a", false),
            (b"/\xff", "/", false),
        ];
        for (target, uri, same) in table {
            let mut nonces = Nonces::new(300).unwrap();
            let nonce = nonces.issue(1000);
            let joe = Client { nonce: &nonce, uri, ..JOE };
            let request = Signed { method: b"GET", target };
            let expected = if same { granted("joe") } else { Authentication::Denied };
            assert_eq!(check_field(&joe.field(), request, &mut nonces), expected, "{uri}");
        }
    }

    /// The value of an Authorization field with all parameters.
    const WHOLE: &str = "Digest username=\"u\", realm=\"r\", nonce=\"n\", uri=\"/\", response=\"x\", \
                         cnonce=\"c\", nc=0000001F, qop=auth";

    #[test]
    fn credentials_are_read_strictly() {
        let whole = Credentials::parse(WHOLE.as_bytes()).unwrap();
        assert_eq!((whole.count, whole.nc.as_slice()), (31, &b"0000001F"[..]));
        let same = [
            WHOLE.replace("Digest ", "digest   "),
            WHOLE.replace(", ", ","),
            WHOLE.replace(", ", " ,\t, "),
            WHOLE.replace('=', " = "),
            WHOLE.replace("realm", "REALM"),
            WHOLE.replace("\"u\"", "\"\\u\""),
            WHOLE.replace("\"u\"", "u"),
            WHOLE.replace("qop=auth", "qop=\"auth\""),
            WHOLE.replace("0000001F", "\"0000001F\""),
            format!("{WHOLE}, algorithm=MD5"),
            format!("{WHOLE}, algorithm=\"md5\","),
            format!("{WHOLE}, opaque=\"\", x=y, x=z, username*=UTF-8''a, userhash=false"),
        ];
        for value in same {
            assert_eq!(Credentials::parse(value.as_bytes()).as_ref(), Some(&whole), "{value}");
        }
        let refused = [
            String::new(),
            "Digest".to_owned(),
            "Digest ".to_owned(),
            "Basic am9lOnNlY3JldA==".to_owned(),
            "Digest am9lOnNlY3JldA==".to_owned(),
            WHOLE.replace("Digest ", "Digest,"),
            WHOLE.replace("Digest ", "Digests "),
            WHOLE.replace("username", "username*"),
            WHOLE.replace(", ", "; "),
            WHOLE.replace(", ", " "),
            WHOLE.replace("\"u\"", "\"u"),
            WHOLE.replace("\"u\"", "\"u\"x"),
            WHOLE.replace("\"u\"", ""),
            WHOLE.replace("\"u\"", "'u v'"),
            WHOLE.replace("\"u\"", "\"\u{1}\""),
            WHOLE.replace("\"u\"", "\"\\\u{1}\""),
            WHOLE.replace("=auth", "=auth-int"),
            WHOLE.replace("=auth", "=\"auth,auth-int\""),
            WHOLE.replace("=auth", "=\"auth"),
            WHOLE.replace("=auth", "=\"auth\\"),
            WHOLE.replace("0000001F", "1F"),
            WHOLE.replace("0000001F", "+000001F"),
            WHOLE.replace("0000001F", "00000001F"),
            WHOLE.replace("0000001F", "0000001G"),
            format!("{WHOLE}, algorithm=MD5-sess"),
            format!("{WHOLE}, algorithm=SHA-256"),
            format!("{WHOLE}, uri=\"/\""),
            format!("{WHOLE}, USERNAME=\"u\""),
            format!("{WHOLE}, x"),
            format!("{WHOLE}, =x"),
        ];
        for value in refused {
            assert_eq!(Credentials::parse(value.as_bytes()), None, "{value}");
        }
        let parameters: Vec<&str> = WHOLE["Digest ".len()..].split(", ").collect();
        for missing in &parameters {
            let others: Vec<&str> = parameters.iter().copied().filter(|p| p != missing).collect();
            let value = format!("Digest {}", others.join(", "));
            assert_eq!(Credentials::parse(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_hash_is_found_by_user_and_domain() {
        let hash = "0123456789abcdef0123456789ABCDEF";
        let lower = hash.to_ascii_lowercase();
        let table = [
            (format!("joe:d:{hash}\n"), true),
            (format!("joe:d:{hash}"), true),
            (format!("joe:d:{hash}\r\n"), true),
            (
                format!(
                    "ann:d:{}\n# x\n\njoe:e:{}\njoe:d:{hash} \n",
                    "1".repeat(32),
                    "2".repeat(32)
                ),
                true,
            ),
            (format!("joe:d:short\njoe:d:{hash}\n"), true),
            (format!("joe:d:{hash}\njoe:d:{}\n", "0".repeat(32)), true),
            (format!("\u{feff}joe:d:{hash}\r\n"), true),
            (format!("\u{feff}ann:d:x\r\njoe:d:{hash}\r\n"), true),
            (format!("ann:d:x\n\u{feff}joe:d:{hash}\n"), false),
            (format!(" joe:d:{hash}\n"), false),
            (format!("xjoe:d:{hash}\n"), false),
            (format!("joe:dd:{hash}\n"), false),
            (format!("joe:D:{hash}\n"), false),
            (format!("joe:d:{hash}0\n"), false),
            (format!("joe:d:{}g\n", &hash[1..]), false),
            (format!("joe:d:{hash}:more\n"), false),
            ("joe:d:\njoe:d\njoe:".to_owned(), false),
            (String::new(), false),
        ];
        for (file, found) in table {
            let expected = found.then(|| Ha1::try_from(lower.as_bytes()).unwrap());
            assert_eq!(find_ha1(file.as_bytes(), b"d", b"joe"), expected, "{file:?}");
        }
        let file = format!(":d:{hash}\na:b:d:{hash}\n");
        for user in [&b""[..], b"a:b", b"a"] {
            assert_eq!(find_ha1(file.as_bytes(), b"d", user), None);
        }
    }

    #[test]
    fn a_challenge_quotes_what_needs_it() {
        let table = [
            ("mydomain.com", false, "mydomain.com\", qop=\"auth\", algorithm=MD5, nonce=\"N\"\r\n"),
            (
                "a\"b\\c",
                true,
                "a\\\"b\\\\c\", qop=\"auth\", algorithm=MD5, nonce=\"N\", stale=true\r\n",
            ),
            ("\u{e9}\r\nX: y", false, "\u{e9}X: y\", qop=\"auth\", algorithm=MD5, nonce=\"N\"\r\n"),
        ];
        for (domain, stale, behind) in table {
            let mut out = Vec::new();
            challenge(&mut out, domain, "N", stale);
            let expected = format!("WWW-Authenticate: Digest realm=\"{behind}");
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_value_is_judged(value in "[Dd]igest [a-z=\", \\\\]{0,80}") {
            Credentials::parse(value.as_bytes());
        }

        #[test]
        fn what_is_quoted_comes_back(text in "[ -~\u{e9}\t]{0,30}", behind in "[a,\"]{0,3}") {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            let input = format!("{escaped}\"{behind}");
            let expected = Some((text.into_bytes(), behind.as_bytes()));
            prop_assert_eq!(quoted(input.as_bytes()), expected);
        }
    }
}
