//! The values of options: their types, and how they are read from the text that a program sets. A value
//! that makes no sense is refused by a sentence.
//!
//! Refuses to know which option has which value.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::acl::{Acl, Trusted};
use crate::listening::{self, Entry};

/// The reason why a value was refused: a static sentence that is returned to C.
pub(super) type Refusal = &'static CStr;

/// The connections on which Basic authentication is offered and accepted, beside Digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BasicAuth {
    No,
    Tls,
    Always,
}

impl BasicAuth {
    /// Returns whether Basic is offered and accepted on a connection, which uses TLS or does not.
    pub fn holds(self, is_secure: bool) -> bool {
        match self {
            BasicAuth::No => false,
            BasicAuth::Tls => is_secure,
            BasicAuth::Always => true,
        }
    }
}

/// The requests that stay open when their handler writes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeferredAnswers {
    Get,
    All,
}

/// The symbolic links that are followed on the way to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowSymlinks {
    Yes,
    No,
    /// Those that lead to what the owner of the link owns.
    SameOwner,
}

/// The connections that `mg_iterate_over_connections` visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IterateOver {
    Websockets,
    All,
}

/// The content of a websocket that the function of `mg_iterate_over_connections` is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IterateContent {
    None,
    /// The last message.
    Last,
}

/// The unit in which a websocket handler receives data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebsocketDelivery {
    Messages,
    Frames,
}

/// Whether a client must show a certificate, where the authorities of clients are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyClient {
    #[default]
    Require,
    Optional,
}

/// The versions of TLS that are spoken; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    pub tls12: bool,
    pub tls13: bool,
}

impl Default for Protocols {
    fn default() -> Protocols {
        Protocols { tls12: true, tls13: true }
    }
}

pub(super) const ENVIRONMENT_FORM: Refusal = c"Option value must be a list of NAME=VALUE";
const MEDIA_TYPE_FORM: Refusal = c"Option value must be a list of .extension=type";
const TOO_LARGE: Refusal = c"Option value is too large";
pub(super) const REWRITE_FORM: Refusal = c"Option value must be a list of pattern=path";

/// Copies a text for C. An empty one counts as unset.
pub(super) fn owned_text(value: Option<&[u8]>) -> Result<Option<CString>, Refusal> {
    match value {
        None | Some(b"") => Ok(None),
        Some(value) => {
            CString::new(value).map(Some).map_err(|_| c"Option value must not contain a zero byte")
        }
    }
}

pub(super) fn text(value: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(value).map_err(|_| c"Option value must be UTF-8 text")
}

pub(super) fn optional_text(value: &[u8]) -> Result<Option<String>, Refusal> {
    Ok(Some(text(value)?.to_owned()).filter(|value| !value.is_empty()))
}

/// Parses the name of a charset, which is a token (RFC 9110, section 8.3.2).
pub(super) fn charset(value: &[u8]) -> Result<Option<String>, Refusal> {
    match value.iter().all(crate::http::request::is_token_byte) {
        true => optional_text(value),
        false => Err(c"Option value must be the name of a charset"),
    }
}

/// Parses a path, which may hold any bytes.
pub(super) fn path(value: &[u8]) -> Option<PathBuf> {
    (!value.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(value)))
}

pub(super) fn yes(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"yes")
}

/// Parses decimal digits, without sign or blanks. `refusal` is the error for any other text.
pub(super) fn number(value: &[u8], refusal: Refusal) -> Result<u64, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(refusal);
    }
    // The bound lets the number be added to a time or to another size without overflow.
    let number = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.filter(|number| *number <= i64::MAX as u64).ok_or(TOO_LARGE)
}

pub(super) fn milliseconds(value: &[u8]) -> Result<u64, Refusal> {
    number(value, c"Option value must be a whole number of milliseconds")
}

pub(super) fn size(value: &[u8]) -> Result<usize, Refusal> {
    let size = number(value, c"Option value must be a whole number")?;
    usize::try_from(size).map_err(|_| TOO_LARGE)
}

/// Parses a size that C reads as an `int`.
pub(super) fn int_size(value: &[u8]) -> Result<usize, Refusal> {
    const MOST: Refusal = c"Option value must be at most 2147483647";
    match number(value, c"Option value must be a whole number") {
        Ok(size) => {
            usize::try_from(size).ok().filter(|size| *size <= i32::MAX as usize).ok_or(MOST)
        }
        Err(refusal) if refusal == TOO_LARGE => Err(MOST),
        Err(refusal) => Err(refusal),
    }
}

/// Finds a word in a list of words with their meanings, in any ASCII case.
pub(super) fn word<T: Copy>(
    value: &[u8],
    words: &[(&str, T)],
    refusal: Refusal,
) -> Result<T, Refusal> {
    let known = words.iter().find(|(word, _)| value.eq_ignore_ascii_case(word.as_bytes()));
    known.map(|(_, meaning)| *meaning).ok_or(refusal)
}

/// Splits a comma-separated list into entries without blanks around them. Empty entries are left
/// out.
pub(super) fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim_ascii).filter(|entry| !entry.is_empty())
}

/// Parses a comma-separated list of `left=right`, where the left side must not be empty.
pub(super) fn pairs(value: &[u8], refusal: Refusal) -> Result<Vec<(String, String)>, Refusal> {
    entries(text(value)?)
        .map(|entry| match entry.split_once('=') {
            Some((left, right)) if !left.is_empty() => Ok((left.to_owned(), right.to_owned())),
            _ => Err(refusal),
        })
        .collect()
}

/// Parses a comma-separated list of `host=file`.
pub(super) fn named_files(value: &[u8]) -> Result<Vec<(String, PathBuf)>, Refusal> {
    const FORM: Refusal = c"Option value must be a list of host=file";
    let mut files: Vec<(String, PathBuf)> = Vec::new();
    for (host, file) in pairs(value, FORM)? {
        let (host, file) = (host.trim_ascii().to_ascii_lowercase(), file.trim_ascii());
        if file.is_empty() {
            return Err(FORM);
        }
        if file.starts_with("-----BEGIN") {
            return Err(c"ssl_certificates takes files, and no PEM text");
        }
        if !is_server_name(&host) {
            return Err(
                c"A host of ssl_certificates must be a name as example.org or *.example.org",
            );
        }
        if files.iter().any(|(other, _)| *other == host) {
            return Err(c"A host stands twice in ssl_certificates");
        }
        files.push((host, PathBuf::from(file)));
    }
    // A value without any entry is a mistake, and is not taken as unset.
    if files.is_empty() && !value.is_empty() {
        return Err(FORM);
    }
    Ok(files)
}

/// Returns whether a client may ask for this name (RFC 6066, section 3), in which the first label
/// may be `*`. Addresses are no names.
fn is_server_name(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let fits = |label: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len())
            && label.bytes().all(is_part)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(fits) && !is_number(last)
}

/// Parses a list of the versions of TLS.
pub(super) fn protocols(value: &[u8]) -> Result<Protocols, Refusal> {
    const FORM: Refusal = c"Option value must be a list of 1.2 and 1.3";
    let mut protocols = Protocols { tls12: false, tls13: false };
    for entry in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        match entry {
            b"1.2" => protocols.tls12 = true,
            b"1.3" => protocols.tls13 = true,
            b"1.0" | b"1.1" => return Err(c"TLS before version 1.2 is not spoken"),
            _ => return Err(FORM),
        }
    }
    Ok(protocols)
}

pub(super) fn verify_client(value: &[u8]) -> Result<Option<VerifyClient>, Refusal> {
    if value.is_empty() {
        return Ok(None);
    }
    let words = [("require", VerifyClient::Require), ("optional", VerifyClient::Optional)];
    word(value, &words, c"Option value must be require or optional").map(Some)
}

pub(super) fn media_types(value: &[u8]) -> Result<Vec<(String, String)>, Refusal> {
    let mut types = pairs(value, MEDIA_TYPE_FORM)?;
    for (extension, _) in &mut types {
        extension.make_ascii_lowercase();
        if !extension.starts_with('.') {
            extension.insert(0, '.');
        }
    }
    Ok(types)
}

pub(super) fn header_fields(value: &[u8]) -> Result<Vec<u8>, Refusal> {
    use crate::http::extra_fields::{self, Refusal as Why};
    extra_fields::parse(value).map_err(|why| match why {
        Why::Form => c"Option value must be lines of the form Name: value",
        Why::Character => c"Option value must not contain control characters",
        Why::Reserved => c"Option value names a header that the library writes itself",
    })
}

pub(super) fn access_control_list(value: &[u8]) -> Result<Option<Acl>, Refusal> {
    if value.is_empty() {
        return Ok(None);
    }
    let acl = std::str::from_utf8(value).ok().and_then(Acl::parse);
    acl.map(Some).ok_or(c"Option value must be a list of +subnet or -subnet")
}

pub(super) fn trusted_proxies(value: &[u8]) -> Result<Option<Trusted>, Refusal> {
    if value.is_empty() {
        return Ok(None);
    }
    let trusted = std::str::from_utf8(value).ok().and_then(Trusted::parse);
    trusted.map(Some).ok_or(c"Option value must be a list of subnets, or unix")
}

pub(super) fn listening_port(value: &[u8]) -> Result<Vec<Entry>, Refusal> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    listening::parse(value).map_err(|refusal| refusal.sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_a_certificate_is_a_name_with_a_wildcard_in_front_or_none() {
        let long = format!("{}.example", "x".repeat(63));
        let longest = format!("{}.{}", "a".repeat(61), vec!["b".repeat(63); 3].join("."));
        let good =
            ["a", "a.b", "*.a.b", "*.a", "A.B", "xn--bcher-kva.example", "a_b.c", "1.a", &long];
        let bad = [
            "",
            "*",
            "*.",
            "a.",
            ".a",
            "a..b",
            "a.*.b",
            "**.a",
            "*a.b",
            "a b",
            "-a",
            "a-",
            "a/b",
            "a:1",
            "1.2.3.4",
            "[::1]",
            "::1",
            "*.1.2.3.4",
            "bücher.example",
        ];
        let too_long = [format!("x{long}"), format!("b{longest}b")];
        for host in good.into_iter().chain([longest.as_str()]) {
            assert!(is_server_name(&host.to_ascii_lowercase()), "{host}");
        }
        for host in bad.into_iter().chain(too_long.iter().map(String::as_str)) {
            assert!(!is_server_name(host), "{host}");
        }
        let twice = named_files(b"a.b=x,A.b=y").expect_err("twice");
        assert_eq!(twice, c"A host stands twice in ssl_certificates");
        let text = named_files(b"a.b=-----BEGIN CERTIFICATE-----").expect_err("text");
        assert_eq!(text, c"ssl_certificates takes files, and no PEM text");
    }
}
