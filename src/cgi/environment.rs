//! The environment of a CGI program (RFC 3875, section 4.1).
//!
//! Owns which facts of a request become variables, and under which names. Knows neither the process
//! nor the options that the facts come from.
#![forbid(unsafe_code)]

use std::ffi::CString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::http::request::Head;
use crate::peer::Peer;

/// Variables of the library's own environment that a program inherits: the paths of files.
const INHERITED: [&str; 5] = ["PATH", "PERLLIB", "LD_LIBRARY_PATH", "TMPDIR", "MONGOOSE_CGI"];

/// Fields that do not become `HTTP_` variables: they have other variables, apply to the connection
/// only, or, as `Proxy`, would be taken for a setting.
const WITHHELD: [&[u8]; 5] =
    [b"CONTENT_LENGTH", b"CONTENT_TYPE", b"PROXY", b"PROXY_AUTHORIZATION", b"TRANSFER_ENCODING"];

/// The certificate of a client, which was checked.
pub struct ClientCertificate {
    /// The subject by RFC 4514.
    pub subject: String,
    /// The certificate in PEM.
    pub pem: String,
}

/// The facts of a request for a program.
pub struct MetaVariables<'a> {
    pub head: &'a Head,
    /// The bytes of the head of the request.
    pub bytes: &'a [u8],
    pub method: &'a [u8],
    /// The target as the client wrote it.
    pub target: &'a [u8],
    pub query: &'a [u8],
    /// The name of this server, which is the option `auth_domain`. The Host field may hold any
    /// name, and becomes `HTTP_HOST`.
    pub server_name: &'a str,
    pub local: Option<SocketAddr>,
    pub peer: Peer,
    /// Whether the client speaks https, to this server or to a trusted proxy.
    pub is_https: bool,
    /// Whether the connection uses TLS.
    pub secure: bool,
    /// The certificate that the client has shown.
    pub client: Option<&'a ClientCertificate>,
    /// The user that was accepted, and by which scheme; empty without a password.
    pub user: &'a [u8],
    pub scheme: &'a str,
    /// Whether the connection takes Basic authentication: such credentials are then for this server.
    pub takes_basic: bool,
    /// The length of the content, if there is content.
    pub content_length: Option<u64>,
    pub document_root: &'a Path,
    /// The part of the decoded path that leads to the program.
    pub script_name: &'a [u8],
    pub script_file: &'a Path,
    /// The rest of the decoded path.
    pub path_info: &'a [u8],
    /// The file that `path_info` would name.
    pub path_translated: Option<&'a Path>,
    /// The variables of the option `cgi_environment`, which replace all others.
    pub extra: &'a [(String, String)],
}

/// Returns `NAME=value` for every variable, except those that contain a NUL.
pub fn table(variables: &MetaVariables<'_>) -> Vec<CString> {
    let mut table = Table { extra: variables.extra, entries: Vec::with_capacity(48) };
    variables.fill(&mut table);
    table.entries
}

/// The variables so far.
struct Table<'a> {
    extra: &'a [(String, String)],
    entries: Vec<CString>,
}

impl Table<'_> {
    /// Adds a variable, unless the option has one of this name.
    fn set(&mut self, name: &str, value: &[u8]) {
        if self.extra.iter().all(|(other, _)| other != name) {
            self.push(name.as_bytes(), value);
        }
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.entries.extend(CString::new([name, b"=", value].concat()));
    }
}

impl MetaVariables<'_> {
    /// Adds all variables.
    fn fill(&self, table: &mut Table<'_>) {
        let root = self.document_root.as_os_str().as_bytes();
        let port = |address: Option<SocketAddr>| address.map_or(0, |a| a.port()).to_string();
        let (server_port, peer_port) = (port(self.local), self.peer.port().to_string());
        let peer = self.peer.address().to_string();
        let version: &[u8] = if self.head.minor == 0 { b"HTTP/1.0" } else { b"HTTP/1.1" };

        let always: [(&str, &[u8]); 16] = [
            ("SERVER_NAME", self.server_name.as_bytes()),
            ("SERVER_ROOT", root),
            ("DOCUMENT_ROOT", root),
            ("SERVER_SOFTWARE", b"Mongoose/5.0"),
            ("SERVER_PORT", server_port.as_bytes()),
            ("GATEWAY_INTERFACE", b"CGI/1.1"),
            ("SERVER_PROTOCOL", version),
            // PHP refuses to run without this variable.
            ("REDIRECT_STATUS", b"200"),
            ("REQUEST_METHOD", self.method),
            ("REMOTE_ADDR", peer.as_bytes()),
            ("REMOTE_PORT", peer_port.as_bytes()),
            ("REQUEST_URI", self.target),
            ("SCRIPT_NAME", self.script_name),
            ("SCRIPT_FILENAME", self.script_file.as_os_str().as_bytes()),
            ("QUERY_STRING", self.query),
            ("HTTPS", if self.is_https { b"on" } else { b"off" }),
        ];
        for (name, value) in always {
            table.set(name, value);
        }
        if !self.path_info.is_empty() {
            table.set("PATH_INFO", self.path_info);
            if let Some(path) = self.path_translated {
                table.set("PATH_TRANSLATED", path.as_os_str().as_bytes());
            }
        }
        if !self.user.is_empty() {
            table.set("REMOTE_USER", self.user);
            table.set("AUTH_TYPE", self.scheme.as_bytes());
        }
        if self.secure {
            let verified: &[u8] = if self.client.is_some() { b"SUCCESS" } else { b"NONE" };
            table.set("SSL_CLIENT_VERIFY", verified);
        }
        if let Some(client) = self.client {
            table.set("SSL_CLIENT_S_DN", client.subject.as_bytes());
            table.set("SSL_CLIENT_CERT", client.pem.as_bytes());
        }
        if let Some(length) = self.content_length {
            table.set("CONTENT_LENGTH", length.to_string().as_bytes());
            if let Some(kind) = self.head.value(self.bytes, "content-type") {
                table.set("CONTENT_TYPE", kind);
            }
        }
        for (name, value) in self.fields() {
            table.set(&format!("HTTP_{name}"), &value);
        }
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                table.set(name, value.as_bytes());
            }
        }
        for (place, (name, value)) in self.extra.iter().enumerate() {
            // Of two entries with the same name, the last one counts.
            if self.extra[place + 1..].iter().all(|(later, _)| later != name) {
                table.push(name.as_bytes(), value.as_bytes());
            }
        }
    }

    /// Returns whether credentials are none of the program's business, with the value of their
    /// field. Clients send those of Basic to all paths below one that has asked for them (RFC 7617,
    /// section 2.2), so also to programs in places that are not guarded.
    fn is_for_server(&self, authorization: &[u8]) -> bool {
        let scheme = authorization.get(..5).unwrap_or_default();
        !self.user.is_empty() || self.takes_basic && scheme.eq_ignore_ascii_case(b"Basic")
    }

    /// Returns the fields of the request under the names of variables. Several fields of the same
    /// name are joined (RFC 9110, section 5.3; for cookies RFC 9113, section 8.2.3).
    fn fields(&self) -> Vec<(String, Vec<u8>)> {
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        for (name, value) in self.head.pairs(self.bytes) {
            let Some(name) = variable(name) else { continue };
            let is_secret = name == "AUTHORIZATION" && self.is_for_server(value);
            if is_secret || WITHHELD.contains(&name.as_bytes()) {
                continue;
            }
            match found.iter_mut().find(|(other, _)| *other == name) {
                Some((_, joined)) => {
                    let glue: &[u8] = if name == "COOKIE" { b"; " } else { b", " };
                    joined.extend_from_slice(glue);
                    joined.extend_from_slice(value);
                }
                None => found.push((name, value.to_vec())),
            }
        }
        found
    }
}

/// Converts the name of a field to that of a variable. Returns `None` for names with other bytes
/// than letters, digits and hyphens: a name with an underscore would become the same variable as
/// the name with a hyphen.
fn variable(name: &[u8]) -> Option<String> {
    let part = |byte: &u8| match byte {
        b'-' => Some('_'),
        byte if byte.is_ascii_alphanumeric() => Some(byte.to_ascii_uppercase() as char),
        _ => None,
    };
    name.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::Outcome;

    fn table_of(head: &str, change: impl Fn(&mut MetaVariables<'_>)) -> Vec<String> {
        let mut parsed = Head::default();
        assert_eq!(parsed.parse(head.as_bytes(), 16384), Outcome::Complete);
        let mut variables = MetaVariables {
            head: &parsed,
            bytes: head.as_bytes(),
            method: b"GET",
            target: b"/a/x.cgi/i%20j?q=1",
            query: b"q=1",
            server_name: "mydomain.com",
            local: Some("[::ffff:127.0.0.1]:8080".parse().expect("an address")),
            peer: Peer::V4([10, 0, 0, 1].into(), 99),
            is_https: false,
            secure: false,
            client: None,
            user: b"",
            scheme: "Digest",
            takes_basic: false,
            content_length: None,
            document_root: Path::new("/www"),
            script_name: b"/a/x.cgi",
            script_file: Path::new("/www/a/x.cgi"),
            path_info: b"",
            path_translated: None,
            extra: &[],
        };
        change(&mut variables);
        let text = |entry: CString| entry.into_string().expect("text");
        table(&variables).into_iter().map(text).collect()
    }

    fn value<'a>(table: &'a [String], name: &str) -> Option<&'a str> {
        let mut values = table.iter().filter_map(|entry| {
            let (found, value) = entry.split_once('=')?;
            (found == name).then_some(value)
        });
        let first = values.next();
        assert_eq!(values.next(), None, "{name} stands twice");
        first
    }

    #[test]
    fn a_program_learns_who_asks_for_what() {
        let table = table_of("GET /a/x.cgi/i%20j?q=1 HTTP/1.0\r\n\r\n", |variables| {
            variables.path_info = b"/i j";
            variables.path_translated = Some(Path::new("/www/i j"));
            variables.user = b"joe";
        });
        for (name, wanted) in [
            ("SERVER_NAME", "mydomain.com"),
            ("SERVER_ROOT", "/www"),
            ("DOCUMENT_ROOT", "/www"),
            ("SERVER_SOFTWARE", "Mongoose/5.0"),
            ("SERVER_PORT", "8080"),
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("SERVER_PROTOCOL", "HTTP/1.0"),
            ("REDIRECT_STATUS", "200"),
            ("REQUEST_METHOD", "GET"),
            ("REMOTE_ADDR", "10.0.0.1"),
            ("REMOTE_PORT", "99"),
            ("REMOTE_USER", "joe"),
            ("AUTH_TYPE", "Digest"),
            ("REQUEST_URI", "/a/x.cgi/i%20j?q=1"),
            ("SCRIPT_NAME", "/a/x.cgi"),
            ("SCRIPT_FILENAME", "/www/a/x.cgi"),
            ("PATH_INFO", "/i j"),
            ("PATH_TRANSLATED", "/www/i j"),
            ("QUERY_STRING", "q=1"),
            ("HTTPS", "off"),
        ] {
            assert_eq!(value(&table, name), Some(wanted), "{name}");
        }
        for name in ["CONTENT_LENGTH", "CONTENT_TYPE"] {
            assert_eq!(value(&table, name), None, "{name}");
        }
        assert_eq!(value(&table, "PATH"), std::env::var("PATH").ok().as_deref());
        assert_eq!(value(&table, "HOME"), None);
    }

    #[test]
    fn a_program_learns_of_the_certificate_of_a_client() {
        let names = ["SSL_CLIENT_VERIFY", "SSL_CLIENT_S_DN", "SSL_CLIENT_CERT"];
        let client = ClientCertificate { subject: "CN=joe".to_owned(), pem: "pem\n".to_owned() };
        // The values must outlive the call.
        let client: &ClientCertificate = Box::leak(Box::new(client));
        for (secure, certificate, wanted) in [
            (false, None, [None, None, None]),
            (true, None, [Some("NONE"), None, None]),
            (true, Some(client), [Some("SUCCESS"), Some("CN=joe"), Some("pem\n")]),
        ] {
            let table = table_of("GET / HTTP/1.1\r\nHost: a\r\n\r\n", |variables| {
                (variables.secure, variables.client) = (secure, certificate);
            });
            assert_eq!(names.map(|name| value(&table, name)), wanted);
        }
    }

    #[test]
    fn what_is_unknown_is_absent() {
        let table = table_of("GET / HTTP/1.1\r\nHost: a.b:80\r\n\r\n", |_| {});
        for name in ["REMOTE_USER", "AUTH_TYPE", "PATH_INFO", "PATH_TRANSLATED"] {
            assert_eq!(value(&table, name), None, "{name}");
        }
        // The Host field does not change the name of this server.
        assert_eq!(value(&table, "SERVER_NAME"), Some("mydomain.com"));
        assert_eq!(value(&table, "HTTP_HOST"), Some("a.b:80"));
    }

    #[test]
    fn fields_become_variables_unless_that_were_dangerous() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nProxy: http://evil/\r\nAccept: x\r\n\
                    accept: y\r\nCookie: a=1\r\nCookie: b=2\r\nX_Forwarded_For: 6.6.6.6\r\n\
                    X-Forwarded-For: 1.1.1.1\r\nContent-Type: text/x\r\nContent-Length: 3\r\n\
                    X!y: 1\r\nAuthorization: Basic abc\r\nProxy-Authorization: z\r\n\r\n";
        let table = table_of(head, |variables| variables.content_length = Some(3));
        for (name, wanted) in [
            ("HTTP_HOST", Some("a")),
            ("HTTP_PROXY", None),
            ("HTTP_ACCEPT", Some("x, y")),
            ("HTTP_COOKIE", Some("a=1; b=2")),
            ("HTTP_X_FORWARDED_FOR", Some("1.1.1.1")),
            ("HTTP_CONTENT_TYPE", None),
            ("HTTP_CONTENT_LENGTH", None),
            ("HTTP_AUTHORIZATION", Some("Basic abc")),
            ("HTTP_PROXY_AUTHORIZATION", None),
            ("CONTENT_TYPE", Some("text/x")),
            ("CONTENT_LENGTH", Some("3")),
        ] {
            assert_eq!(value(&table, name), wanted, "{name}");
        }
        assert!(!table.iter().any(|entry| entry.contains("evil") || entry.contains('!')));
        // The program does not need credentials that the server has checked.
        let table = table_of(head, |variables| variables.user = b"joe");
        assert_eq!(value(&table, "HTTP_AUTHORIZATION"), None);
        // Nor does it get a password that is for another path of this server.
        for (field, withheld) in [("Basic abc", true), ("bASIC abc", true), ("Bearer abc", false)] {
            let head = head.replace("Basic abc", field);
            let table = table_of(&head, |variables| variables.takes_basic = true);
            assert_eq!(value(&table, "HTTP_AUTHORIZATION").is_none(), withheld, "{field}");
        }
    }

    #[test]
    fn the_option_wins_over_everything_and_its_last_entry_over_the_others() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let extra = [pair("HTTPS", "on"), pair("A", "1"), pair("A", "2"), pair("PATH", "/x")];
        let table = table_of("GET / HTTP/1.1\r\nHost: a\r\n\r\n", |variables| {
            // The list must outlive the call.
            variables.extra = Box::leak(Box::new(extra.clone()));
        });
        for (name, wanted) in [("HTTPS", "on"), ("A", "2"), ("PATH", "/x")] {
            assert_eq!(value(&table, name), Some(wanted));
        }
    }
}
