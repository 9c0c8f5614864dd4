//! The page that a request comes from, as browsers tell it: the fields Origin (RFC 6454, section 7;
//! WHATWG Fetch), Sec-Fetch-Site (W3C Fetch Metadata) and Referer (RFC 9110, section 10.1.3).
//!
//! A browser sends the password of a server, and reaches hosts of a local network, on behalf of any
//! page of the web. So a request that changes something counts only if no field says that a page of
//! another origin has made it. Clients that are no browsers send none of these fields.

use super::request::Head;
use super::uri;

/// Returns whether a page of another origin may have made the request. `is_https` says by which
/// scheme the client has reached this server.
pub fn is_foreign(head: &Head, bytes: &[u8], is_https: bool) -> bool {
    let values = |name: &'static str| {
        head.pairs(bytes)
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value.trim_ascii())
    };
    let host = head.value(bytes, "host").map(<[u8]>::trim_ascii);
    let is_own = |origin: &[u8]| host.is_some_and(|host| is_at(origin, host, is_https));
    let mut is_vouched = false;
    for site in values("sec-fetch-site") {
        match site {
            b"same-origin" => is_vouched = true,
            // The user himself has asked for it, and no page.
            b"none" => {}
            _ => return true,
        }
    }
    let mut is_told = is_vouched;
    for origin in values("origin") {
        // Where pages tell nobody where they are, the origin is "null" to their own server, too. The
        // browser has vouched for it then.
        let is_hidden = is_vouched && origin == b"null";
        if !(is_own(origin) || is_hidden) {
            return true;
        }
        is_told = true;
    }
    // Browsers before 2020 send neither field with a form.
    !is_told && values("referer").any(|referer| !is_own(referer))
}

/// Returns whether a URI, or the beginning of one, lies on this server.
fn is_at(origin: &[u8], host: &[u8], is_https: bool) -> bool {
    let has_scheme =
        |scheme: &[u8]| origin.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme));
    // A proxy in front may speak TLS where this server does not know of it, but not the other way.
    let fits = has_scheme(b"https://") || has_scheme(b"http://") && !is_https;
    let Ok((authority, _)) = uri::split_absolute(origin) else { return false };
    let default: &[u8] = if has_scheme(b"https") { b":443" } else { b":80" };
    let bare = authority.strip_suffix(default).unwrap_or(authority);
    // A port that is the default of another scheme only is another server's.
    let is_port_kept = authority.eq_ignore_ascii_case(host);
    fits && (is_port_kept || bare.eq_ignore_ascii_case(without_default_port(host)))
}

fn without_default_port(host: &[u8]) -> &[u8] {
    host.strip_suffix(b":80").or(host.strip_suffix(b":443")).unwrap_or(host)
}

/// Returns whether two hosts are the same. A default port makes no difference, whichever it is,
/// since a proxy in front may end TLS.
pub fn same_host(a: &[u8], b: &[u8]) -> bool {
    without_default_port(a).eq_ignore_ascii_case(without_default_port(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_another_origin_is_known_by_what_the_browser_tells() {
        // The fields, whether it is foreign by http, and by https.
        let table = [
            ("", false, false),
            ("Sec-Fetch-Site: same-origin", false, false),
            ("Sec-Fetch-Site: none", false, false),
            ("Sec-Fetch-Site: same-site", true, true),
            ("Sec-Fetch-Site: cross-site", true, true),
            ("Sec-Fetch-Site: ", true, true),
            ("sec-fetch-site: same-origin\r\nSec-Fetch-Site: cross-site", true, true),
            ("Origin: http://a.example:8080", false, true),
            ("origin: HTTP://A.Example:8080", false, true),
            ("Origin: https://a.example:8080", false, false),
            ("Origin: http://a.example", true, true),
            ("Origin: http://a.example:80801", true, true),
            ("Origin: http://b.a.example:8080", true, true),
            ("Origin: http://a.example:8080.b.example", true, true),
            ("Origin: ftp://a.example:8080", true, true),
            ("Origin: a.example:8080", true, true),
            ("Origin: null", true, true),
            ("Origin: ", true, true),
            ("Origin: null\r\nSec-Fetch-Site: same-origin", false, false),
            ("Origin: null\r\nSec-Fetch-Site: none", true, true),
            ("Origin: http://b.example\r\nSec-Fetch-Site: same-origin", true, true),
            ("Origin: https://a.example:8080\r\nSec-Fetch-Site: cross-site", true, true),
            ("Origin: https://a.example:8080\r\nOrigin: http://b.example", true, true),
            ("Referer: https://a.example:8080/x?y", false, false),
            ("Referer: http://b.example/http://a.example:8080/", true, true),
            ("Referer: http://b.example/\r\nSec-Fetch-Site: same-origin", false, false),
            ("Referer: http://b.example/\r\nOrigin: https://a.example:8080", false, false),
        ];
        for (fields, by_http, by_https) in table {
            let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
            let bytes = format!("PUT / HTTP/1.1\r\nHost: a.example:8080\r\n{fields}\r\n");
            let mut head = Head::default();
            head.parse(bytes.as_bytes(), bytes.len());
            for (is_https, expected) in [(false, by_http), (true, by_https)] {
                let found = is_foreign(&head, bytes.as_bytes(), is_https);
                assert_eq!(found, expected, "{fields} {is_https}");
            }
        }
        let rows = [
            ("a", "http://a", false),
            ("a", "http://a:80", false),
            ("a", "https://a:443", false),
            ("a:80", "http://a", false),
            ("a:443", "https://a", false),
            ("a", "http://a:443", true),
            ("a", "https://a:80", true),
            ("[::1]:8080", "http://[::1]:8080", false),
        ];
        for (host, origin, expected) in rows {
            let bytes = format!("PUT / HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n");
            let mut head = Head::default();
            head.parse(bytes.as_bytes(), bytes.len());
            assert_eq!(is_foreign(&head, bytes.as_bytes(), false), expected, "{host} {origin}");
        }
        // Without a Host nothing is known to be of this server.
        let bytes = b"PUT / HTTP/1.1\r\nOrigin: http://a.example\r\n\r\n";
        let mut head = Head::default();
        head.parse(bytes, bytes.len());
        assert!(is_foreign(&head, bytes, false));
    }

    #[test]
    fn a_default_port_may_be_left_out() {
        assert!(same_host(b"A:80", b"a") && same_host(b"a:443", b"a") && same_host(b"a", b"a"));
        assert!(!same_host(b"a:81", b"a") && !same_host(b"b", b"a"));
    }
}
