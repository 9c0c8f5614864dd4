//! The options of a server: their names and defaults, their text as C reads it back, and their
//! parsed values as the rest of the library uses them.
//!
//! Knows nothing of the effect of an option. The server acts on `listening_port`, `run_as_user` and
//! the options of TLS, and stores them here only when that succeeded.
#![forbid(unsafe_code)]

mod values;

use std::ffi::{CStr, CString};
use std::path::PathBuf;

pub use self::values::{
    BasicAuth, DeferredAnswers, FollowSymlinks, IterateContent, IterateOver, Protocols,
    VerifyClient, WebsocketDelivery,
};
use self::values::{
    ENVIRONMENT_FORM, REWRITE_FORM, Refusal, access_control_list, charset, entries, header_fields,
    int_size, listening_port, media_types, milliseconds, named_files, number, optional_text,
    owned_text, pairs, path, protocols, size, text, trusted_proxies, verify_client, word, yes,
};
use crate::acl::{Acl, Trusted};
use crate::listening::Entry;

macro_rules! options {
    ($($(#[doc = $about:literal])? $id:ident = $name:literal, $default:expr;)*) => {
        /// The number of an option, which is its index in `OPTIONS`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum OptionId { $($id),* }

        /// The names and defaults of all options.
        pub const OPTIONS: &[(&CStr, Option<&CStr>)] = &[$(($name, $default)),*];

        /// What each option is for, in a line: the comments of the table.
        pub const ABOUT: &[&str] = &[$(concat!("" $(, $about)?)),*];

        const IDS: &[OptionId] = &[$(OptionId::$id),*];
    };
}

/// The default pattern of CGI programs.
const CGI_PATTERN: &CStr = c"**.cgi$|**.pl$|**.php$";

options! {
    /// Who may connect: subnets with + or -, the last match decides, as -0.0.0.0/0,+192.168/16.
    AccessControlList = c"access_control_list", None;
    /// A file to which a line is appended for each request (Combined Log Format).
    AccessLogFile = c"access_log_file", None;
    /// The realm of passwords, and the name of the server for CGI programs.
    AuthDomain = c"auth_domain", Some(c"mydomain.com");
    /// Variables for CGI programs, as NAME=VALUE,NAME=VALUE.
    CgiEnvironment = c"cgi_environment", None;
    /// The program that runs every CGI program, as php-cgi; else each is executed itself.
    CgiInterpreter = c"cgi_interpreter", None;
    /// Which files are CGI programs; none: no file is run.
    CgiPattern = c"cgi_pattern", Some(CGI_PATTERN);
    /// Milliseconds after which a CGI program that does nothing is ended.
    CgiTimeoutMs = c"cgi_timeout_ms", Some(c"60000");
    /// The password file for who may write by WebDAV; without it nobody may.
    DavAuthFile = c"dav_auth_file", None;
    /// yes: PROPFIND may ask for all that is below a directory.
    DavDepthInfinity = c"dav_depth_infinity", Some(c"no");
    /// The charset of types of text that tell none, as utf-8.
    DefaultCharset = c"default_charset", None;
    /// Which handlers may answer later: get or all.
    DeferredAnswers = c"deferred_answers", Some(c"get");
    /// The directory that is served.
    DocumentRoot = c"document_root", None;
    /// Whether Basic authentication is taken beside Digest: no, tls or always.
    EnableBasicAuth = c"enable_basic_auth", Some(c"no");
    /// yes: a directory without index file is listed.
    EnableDirectoryListing = c"enable_directory_listing", Some(c"yes");
    /// yes: a.js.br or a.js.gz is sent for a.js to clients that take it.
    EnablePrecompressed = c"enable_precompressed", Some(c"no");
    /// yes: pages may run commands, and include files from anywhere.
    EnableSsiExec = c"enable_ssi_exec", Some(c"no");
    /// yes: who may write does so from the pages that list directories.
    EnableUploads = c"enable_uploads", Some(c"no");
    /// A file to which a line is appended for each failure.
    ErrorLogFile = c"error_log_file", None;
    /// Header fields for every answer: lines of the form Name: value.
    ExtraHeaders = c"extra_headers", None;
    /// Media types by extension, as .foo=text/plain,.bar=image/png.
    ExtraMimeTypes = c"extra_mime_types", None;
    /// Memory for the content of small files.
    FileCacheBytes = c"file_cache_bytes", Some(c"16777216");
    /// Which symbolic links are followed: yes, no, or same_owner.
    FollowSymlinks = c"follow_symlinks", Some(c"yes");
    /// One password file for everything, in place of .htpasswd in each directory.
    GlobalAuthFile = c"global_auth_file", None;
    /// Files that nobody gets or sees, by their names or paths, as **.bak$|**/private/.
    HideFilesPatterns = c"hide_files_patterns", None;
    /// Milliseconds without traffic after which a connection is closed; 0: never.
    IdleTimeoutMs = c"idle_timeout_ms", Some(c"30000");
    /// What a directory shows in place of a listing, the first that exists.
    IndexFiles = c"index_files", Some(c"index.html,index.htm,index.cgi,index.php,index.lp");
    /// What a walk over websockets sees as content: none, or the last message.
    IterateContent = c"iterate_content", Some(c"none");
    /// What a walk visits: websockets, or all connections.
    IterateOver = c"iterate_over", Some(c"websockets");
    /// Milliseconds for which a walk of another thread waits; 0: for ever.
    IterateTimeoutMs = c"iterate_timeout_ms", Some(c"10000");
    /// Where the server listens, as 8080, 127.0.0.1:8080, [::]:80r,[::]:443s, unix:run.sock:0660.
    ListeningPort = c"listening_port", None;
    /// The most memory for all request bodies and send queues together.
    MaxBufferedBytes = c"max_buffered_bytes", Some(c"1073741824");
    /// The most CGI programs that run at a time; 0: no limit.
    MaxCgiProcesses = c"max_cgi_processes", Some(c"256");
    /// The most connections at a time; 0: as many as the system allows.
    MaxConnections = c"max_connections", Some(c"0");
    /// The longest request body that is kept in memory.
    MaxRequestBodyBytes = c"max_request_body_bytes", Some(c"268435456");
    /// The longest head of a request.
    MaxRequestHeaderBytes = c"max_request_header_bytes", Some(c"16384");
    /// The most bytes that wait for one client.
    MaxSendQueueBytes = c"max_send_queue_bytes", Some(c"268435456");
    /// The longest upload to a file or a CGI program; 0: as long as the disk has room.
    MaxUploadBytes = c"max_upload_bytes", Some(c"0");
    /// The longest message of a websocket.
    MaxWebsocketMessageBytes = c"max_websocket_message_bytes", Some(c"67108864");
    /// Milliseconds in which a request must be complete; 0: any time.
    RequestTimeoutMs = c"request_timeout_ms", Some(c"30000");
    /// The user that the process becomes once it listens.
    RunAsUser = c"run_as_user", None;
    /// A PEM file with the authorities of client certificates, which are then asked for.
    SslCaCertificate = c"ssl_ca_certificate", None;
    /// A PEM file with key and certificates: the ports then speak TLS.
    SslCertificate = c"ssl_certificate", None;
    /// Certificates by the name that a client asks for, as host=file,*.example.org=file.
    SslCertificates = c"ssl_certificates", None;
    /// The versions of TLS that are spoken.
    SslProtocols = c"ssl_protocols", Some(c"1.2,1.3");
    /// Whether clients must have a certificate: require, or optional.
    SslVerifyClient = c"ssl_verify_client", None;
    /// Which files are pages with includes, as **.shtml$.
    SsiPattern = c"ssi_pattern", None;
    /// Subnets, or unix, of proxies that are believed for whom they speak.
    TrustedProxies = c"trusted_proxies", None;
    /// yes: anybody may write from those pages, where enable_uploads is yes.
    UploadsByAnybody = c"uploads_by_anybody", Some(c"no");
    /// Places in the file system by the path of a request, as /docs=/usr/share/doc.
    UrlRewrites = c"url_rewrites", None;
    /// yes: messages of websockets are compressed where the client can.
    WebsocketDeflate = c"websocket_deflate", Some(c"no");
    /// What a websocket handler is shown: messages, or frames.
    WebsocketDelivery = c"websocket_delivery", Some(c"messages");
    /// Milliseconds after which an idle websocket is pinged; 0: never.
    WebsocketPingIntervalMs = c"websocket_ping_interval_ms", Some(c"5000");
    /// The subprotocols of websockets, the first that the client knows is taken.
    WebsocketProtocols = c"websocket_protocols", None;
}

/// The parsed values. `None` and empty lists mean unset; times are milliseconds, sizes bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub access_control_list: Option<Acl>,
    pub access_log_file: Option<PathBuf>,
    pub auth_domain: String,
    pub cgi_environment: Vec<(String, String)>,
    pub cgi_interpreter: Option<PathBuf>,
    /// The pattern of CGI programs, also when programs are not run.
    pub cgi_pattern: String,
    /// Whether CGI programs are run.
    pub cgi_runs: bool,
    pub cgi_timeout_ms: u64,
    pub dav_auth_file: Option<PathBuf>,
    pub dav_depth_infinity: bool,
    pub default_charset: Option<String>,
    pub deferred_answers: DeferredAnswers,
    pub document_root: Option<PathBuf>,
    pub enable_basic_auth: BasicAuth,
    pub enable_directory_listing: bool,
    pub enable_precompressed: bool,
    pub enable_ssi_exec: bool,
    pub enable_uploads: bool,
    pub error_log_file: Option<PathBuf>,
    /// Header fields as they are sent, each with its line end.
    pub extra_headers: Vec<u8>,
    /// Pairs of suffix and media type. A suffix is in lower case, with its dot.
    pub extra_mime_types: Vec<(String, String)>,
    pub file_cache_bytes: usize,
    pub follow_symlinks: FollowSymlinks,
    pub global_auth_file: Option<PathBuf>,
    pub hide_files_patterns: Option<String>,
    pub idle_timeout_ms: u64,
    pub index_files: Vec<String>,
    pub iterate_content: IterateContent,
    pub iterate_over: IterateOver,
    pub iterate_timeout_ms: u64,
    /// The value that was set; the text that C reads shows the addresses that were bound.
    pub listening_port: Vec<Entry>,
    pub max_buffered_bytes: usize,
    pub max_cgi_processes: usize,
    pub max_connections: usize,
    pub max_request_body_bytes: usize,
    pub max_request_header_bytes: usize,
    pub max_send_queue_bytes: usize,
    /// The largest length of content that goes to a file or a program as it arrives; `None` is no
    /// limit.
    pub max_upload_bytes: Option<u64>,
    pub max_websocket_message_bytes: usize,
    pub request_timeout_ms: u64,
    pub run_as_user: Option<String>,
    pub ssl_ca_certificate: Option<PathBuf>,
    pub ssl_certificate: Option<PathBuf>,
    /// Pairs of a name, in lower case, and the file of its certificate.
    pub ssl_certificates: Vec<(String, PathBuf)>,
    pub ssl_protocols: Protocols,
    /// `None` where nothing is set.
    pub ssl_verify_client: Option<VerifyClient>,
    pub ssi_pattern: Option<String>,
    pub trusted_proxies: Option<Trusted>,
    pub uploads_by_anybody: bool,
    /// Pairs of pattern and path.
    pub url_rewrites: Vec<(String, String)>,
    pub websocket_deflate: bool,
    pub websocket_delivery: WebsocketDelivery,
    pub websocket_ping_interval_ms: u64,
    /// Subprotocols, in the order of the option.
    pub websocket_protocols: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        let index_files = ["html", "htm", "cgi", "php", "lp"];
        Config {
            access_control_list: None,
            access_log_file: None,
            auth_domain: "mydomain.com".to_owned(),
            cgi_environment: Vec::new(),
            cgi_interpreter: None,
            cgi_pattern: CGI_PATTERN.to_string_lossy().into_owned(),
            cgi_runs: cfg!(feature = "cgi"),
            cgi_timeout_ms: 60_000,
            dav_auth_file: None,
            dav_depth_infinity: false,
            default_charset: None,
            deferred_answers: DeferredAnswers::Get,
            document_root: None,
            enable_basic_auth: BasicAuth::No,
            enable_directory_listing: true,
            enable_precompressed: false,
            enable_ssi_exec: false,
            enable_uploads: false,
            error_log_file: None,
            extra_headers: Vec::new(),
            extra_mime_types: Vec::new(),
            file_cache_bytes: 16 << 20,
            follow_symlinks: FollowSymlinks::Yes,
            global_auth_file: None,
            hide_files_patterns: None,
            idle_timeout_ms: 30_000,
            index_files: index_files.map(|ext| format!("index.{ext}")).to_vec(),
            iterate_content: IterateContent::None,
            iterate_over: IterateOver::Websockets,
            iterate_timeout_ms: 10_000,
            listening_port: Vec::new(),
            max_buffered_bytes: 1 << 30,
            max_cgi_processes: 256,
            max_connections: 0,
            max_request_body_bytes: 256 << 20,
            max_request_header_bytes: 16 << 10,
            max_send_queue_bytes: 256 << 20,
            max_upload_bytes: None,
            max_websocket_message_bytes: 64 << 20,
            request_timeout_ms: 30_000,
            run_as_user: None,
            ssl_ca_certificate: None,
            ssl_certificate: None,
            ssl_certificates: Vec::new(),
            ssl_protocols: Protocols::default(),
            ssl_verify_client: None,
            ssi_pattern: None,
            trusted_proxies: None,
            uploads_by_anybody: false,
            url_rewrites: Vec::new(),
            websocket_deflate: false,
            websocket_delivery: WebsocketDelivery::Messages,
            websocket_ping_interval_ms: 5_000,
            websocket_protocols: Vec::new(),
        }
    }
}

impl Config {
    /// Returns whether anybody may change what is listed.
    pub fn lets_anybody_write(&self) -> bool {
        self.enable_uploads && self.uploads_by_anybody
    }

    /// Returns whether listings take files, from anybody or from who has a password.
    pub fn takes_uploads(&self) -> bool {
        cfg!(feature = "webdav")
            && self.enable_uploads
            && (self.uploads_by_anybody || self.dav_auth_file.is_some())
    }

    /// Parses `value` into its field, where an empty value means unset. On an error, nothing has
    /// changed.
    fn apply(&mut self, id: OptionId, value: &[u8]) -> Result<(), Refusal> {
        use OptionId as Id;
        match id {
            Id::AccessControlList => self.access_control_list = access_control_list(value)?,
            Id::AccessLogFile => self.access_log_file = path(value),
            Id::AuthDomain => self.auth_domain = text(value)?.to_owned(),
            Id::CgiEnvironment => self.cgi_environment = pairs(value, ENVIRONMENT_FORM)?,
            Id::CgiInterpreter => self.cgi_interpreter = path(value),
            Id::CgiPattern => {
                let value = text(value)?;
                let is_none = value.eq_ignore_ascii_case("none");
                self.cgi_runs = cfg!(feature = "cgi") && !is_none;
                self.cgi_pattern = match is_none {
                    false => value.to_owned(),
                    // Their source must not be sent instead.
                    true => CGI_PATTERN.to_string_lossy().into_owned(),
                };
            }
            Id::CgiTimeoutMs => self.cgi_timeout_ms = milliseconds(value)?,
            Id::DavAuthFile => self.dav_auth_file = path(value),
            Id::DavDepthInfinity => self.dav_depth_infinity = yes(value),
            Id::DefaultCharset => self.default_charset = charset(value)?,
            Id::DeferredAnswers => {
                let words = [("get", DeferredAnswers::Get), ("all", DeferredAnswers::All)];
                self.deferred_answers = word(value, &words, c"Option value must be get or all")?;
            }
            Id::DocumentRoot => self.document_root = path(value),
            Id::EnableBasicAuth => {
                let words =
                    [("no", BasicAuth::No), ("tls", BasicAuth::Tls), ("always", BasicAuth::Always)];
                let refusal = c"Option value must be no, tls or always";
                self.enable_basic_auth = word(value, &words, refusal)?;
            }
            Id::EnableDirectoryListing => self.enable_directory_listing = yes(value),
            Id::EnablePrecompressed => self.enable_precompressed = yes(value),
            Id::EnableSsiExec => self.enable_ssi_exec = yes(value),
            Id::EnableUploads => self.enable_uploads = yes(value),
            Id::ErrorLogFile => self.error_log_file = path(value),
            Id::ExtraHeaders => self.extra_headers = header_fields(value)?,
            Id::ExtraMimeTypes => self.extra_mime_types = media_types(value)?,
            Id::FileCacheBytes => self.file_cache_bytes = size(value)?,
            Id::FollowSymlinks => {
                let words = [
                    ("yes", FollowSymlinks::Yes),
                    ("no", FollowSymlinks::No),
                    ("same_owner", FollowSymlinks::SameOwner),
                ];
                let refusal = c"Option value must be yes, no or same_owner";
                self.follow_symlinks = word(value, &words, refusal)?;
            }
            Id::GlobalAuthFile => self.global_auth_file = path(value),
            Id::HideFilesPatterns => self.hide_files_patterns = optional_text(value)?,
            Id::IdleTimeoutMs => self.idle_timeout_ms = milliseconds(value)?,
            Id::IndexFiles => self.index_files = entries(text(value)?).map(str::to_owned).collect(),
            Id::IterateContent => {
                let words = [("none", IterateContent::None), ("last", IterateContent::Last)];
                self.iterate_content = word(value, &words, c"Option value must be none or last")?;
            }
            Id::IterateOver => {
                let words = [("websockets", IterateOver::Websockets), ("all", IterateOver::All)];
                self.iterate_over = word(value, &words, c"Option value must be websockets or all")?;
            }
            Id::IterateTimeoutMs => self.iterate_timeout_ms = milliseconds(value)?,
            Id::ListeningPort => self.listening_port = listening_port(value)?,
            Id::MaxBufferedBytes => self.max_buffered_bytes = size(value)?,
            Id::MaxCgiProcesses => self.max_cgi_processes = size(value)?,
            Id::MaxConnections => self.max_connections = size(value)?,
            Id::MaxRequestBodyBytes => self.max_request_body_bytes = int_size(value)?,
            Id::MaxRequestHeaderBytes => self.max_request_header_bytes = size(value)?,
            Id::MaxSendQueueBytes => self.max_send_queue_bytes = size(value)?,
            Id::MaxUploadBytes => {
                let most = number(value, c"Option value must be a whole number")?;
                self.max_upload_bytes = (most > 0).then_some(most);
            }
            Id::MaxWebsocketMessageBytes => self.max_websocket_message_bytes = int_size(value)?,
            Id::RequestTimeoutMs => self.request_timeout_ms = milliseconds(value)?,
            Id::RunAsUser => self.run_as_user = optional_text(value)?,
            Id::SslCaCertificate => self.ssl_ca_certificate = path(value),
            Id::SslCertificate => self.ssl_certificate = path(value),
            Id::SslCertificates => self.ssl_certificates = named_files(value)?,
            Id::SslProtocols => self.ssl_protocols = protocols(value)?,
            Id::SslVerifyClient => self.ssl_verify_client = verify_client(value)?,
            Id::SsiPattern => self.ssi_pattern = optional_text(value)?,
            Id::TrustedProxies => self.trusted_proxies = trusted_proxies(value)?,
            Id::UploadsByAnybody => self.uploads_by_anybody = yes(value),
            Id::UrlRewrites => self.url_rewrites = pairs(value, REWRITE_FORM)?,
            Id::WebsocketDeflate => self.websocket_deflate = yes(value),
            Id::WebsocketDelivery => {
                let words = [
                    ("messages", WebsocketDelivery::Messages),
                    ("frames", WebsocketDelivery::Frames),
                ];
                let refusal = c"Option value must be messages or frames";
                self.websocket_delivery = word(value, &words, refusal)?;
            }
            Id::WebsocketPingIntervalMs => self.websocket_ping_interval_ms = milliseconds(value)?,
            Id::WebsocketProtocols => {
                self.websocket_protocols = entries(text(value)?).map(str::to_owned).collect();
            }
        }
        Ok(())
    }
}

/// The options of one server: `config` for the library, the texts for C.
pub struct Options {
    pub config: Config,
    /// The texts by option number; `None` where the default applies.
    texts: [Option<CString>; OPTIONS.len()],
}

/// Finds the option of this name, which is compared byte for byte.
pub fn lookup(name: &[u8]) -> Option<OptionId> {
    let index = OPTIONS.iter().position(|(known, _)| known.to_bytes() == name)?;
    IDS.get(index).copied()
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    pub fn new() -> Options {
        Options { config: Config::default(), texts: [const { None }; OPTIONS.len()] }
    }

    /// Sets an option. NULL and the empty text reset it. On an error, the old value stays.
    pub fn set(&mut self, id: OptionId, value: Option<&[u8]>) -> Result<(), Refusal> {
        let text = owned_text(value)?;
        let value = text.as_deref().or(OPTIONS[id as usize].1);
        self.config.apply(id, value.map_or(b"", |v| v.to_bytes()))?;
        self.texts[id as usize] = text;
        Ok(())
    }

    /// Returns the values as they would be with this one, without setting it.
    pub fn with(&self, id: OptionId, value: Option<&[u8]>) -> Result<Config, Refusal> {
        let mut config = self.config.clone();
        let default = OPTIONS[id as usize].1.map_or(&b""[..], CStr::to_bytes);
        config.apply(id, value.unwrap_or(default))?;
        Ok(config)
    }

    /// Returns whether a value is set, and not the default.
    pub fn is_set(&self, id: OptionId) -> bool {
        self.texts[id as usize].is_some()
    }

    /// Returns the text that was set, or the default, or "". It is valid until the option is set
    /// again.
    pub fn get(&self, id: OptionId) -> &CStr {
        let set = self.texts[id as usize].as_deref();
        set.or(OPTIONS[id as usize].1).unwrap_or(c"")
    }

    /// Stores a text without parsing it: the addresses that were bound.
    pub fn store_text(&mut self, id: OptionId, value: Option<&[u8]>) {
        let text = owned_text(value);
        debug_assert!(text.is_ok(), "a text of the library that holds a NUL");
        self.texts[id as usize] = text.unwrap_or(None);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    fn set(options: &mut Options, name: &str, value: &[u8]) -> Result<(), Refusal> {
        options.set(lookup(name.as_bytes()).expect(name), Some(value))
    }

    #[test]
    fn the_parsed_defaults_are_those_of_the_table() {
        let mut config = Config::default();
        for (&id, (name, default)) in IDS.iter().zip(OPTIONS) {
            let default = default.map_or(&b""[..], CStr::to_bytes);
            assert_eq!(config.apply(id, default), Ok(()), "{name:?}");
            assert_eq!(config, Config::default(), "{name:?}");
        }
    }

    #[test]
    fn every_option_has_a_line_that_says_what_it_is_for() {
        assert_eq!(ABOUT.len(), OPTIONS.len());
        for ((name, _), about) in OPTIONS.iter().zip(ABOUT) {
            let about = about.trim();
            assert!(about.ends_with('.') && about.len() < 100, "{name:?}: {about:?}");
        }
    }

    #[test]
    fn every_name_is_found_and_reads_back_its_default() {
        let options = Options::new();
        for (index, (name, default)) in OPTIONS.iter().enumerate() {
            let id = lookup(name.to_bytes()).unwrap();
            assert_eq!(id as usize, index);
            assert_eq!(options.get(id), default.unwrap_or(c""));
        }
        for name in ["", "nope", "Listening_Port", "listening_port "] {
            assert_eq!(lookup(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_refused_value_leaves_the_old_one_standing() {
        type Row<'a> = (&'a str, &'a [u8], &'a [&'a [u8]]);
        let table: &[Row] = &[
            ("access_control_list", b"+10/8", &[b"10/8", b"+10/8,", b"+\xff"]),
            ("auth_domain", b"x", &[b"\xff", b"a\0b"]),
            ("cgi_environment", b"A=B, C=", &[b"A", b"=x", b"A=B,C"]),
            ("default_charset", b"utf-8", &[b"utf 8", b"a;b", b"\"a\"", b"\xff"]),
            ("deferred_answers", b"All", &[b"none", b"get "]),
            ("extra_headers", b"A: b\nC: d", &[b"A", b"A: \x01", b"Date: x", b"A: b\nc"]),
            ("extra_mime_types", b".X=a/b", &[b".x", b"=a/b"]),
            ("follow_symlinks", b"Same_Owner", &[b"maybe", b"no "]),
            ("idle_timeout_ms", b"0", &[b"-1", b"+1", b"1 ", b"1s", b"9223372036854775808"]),
            ("iterate_over", b"all", &[b"none"]),
            ("listening_port", b"[::1]:80", &[b"65536", b"::1:80", b"localhost:80", b"\xff"]),
            ("max_request_body_bytes", b"2147483647", &[b"2147483648", b"x"]),
            ("max_send_queue_bytes", b"9999999999", &[b"99999999999999999999"]),
            ("max_upload_bytes", b"9223372036854775807", &[b"9223372036854775808", b"-1", b"x"]),
            ("max_websocket_message_bytes", b"1", &[b"2147483648"]),
            ("ssl_certificates", b"a.b=/x, *.A.B=y", &[b"a", b"a=", b"=x", b",", b"1.2.3.4=x"]),
            ("ssl_protocols", b"1.3", &[b"1.1", b"1.2,", b"tls1.3", b"1.2;1.3"]),
            ("ssl_verify_client", b"Optional", &[b"no", b"require "]),
            ("trusted_proxies", b"10/8,unix", &[b"+10/8", b"10/8,", b"local", b"\xff"]),
            ("url_rewrites", b"/a=/b", &[b"/a"]),
            ("websocket_delivery", b"frames", &[b"both"]),
        ];
        for &(name, good, refused) in table {
            let mut options = Options::new();
            let id = lookup(name.as_bytes()).unwrap();
            assert_eq!(set(&mut options, name, good), Ok(()), "{name}");
            let config = options.config.clone();
            for value in refused {
                assert!(set(&mut options, name, value).is_err(), "{name} {value:?}");
                assert_eq!(options.get(id).to_bytes(), good);
                assert_eq!(options.config, config);
            }
            for nothing in [None, Some(&b""[..])] {
                set(&mut options, name, good).unwrap();
                assert_eq!(options.set(id, nothing), Ok(()), "{name}");
                assert_eq!(options.config, Config::default(), "{name}");
                assert_eq!(options.get(id), OPTIONS[id as usize].1.unwrap_or(c""));
            }
        }
    }

    #[test]
    fn lists_are_split_and_paths_keep_any_bytes() {
        let mut options = Options::new();
        set(&mut options, "index_files", b"a.html, b.html,,").unwrap();
        set(&mut options, "extra_mime_types", b".FOO=a/b, tar.gz=c/d").unwrap();
        set(&mut options, "url_rewrites", b"/x=/y=z").unwrap();
        set(&mut options, "document_root", b"/\xff").unwrap();
        set(&mut options, "enable_directory_listing", b"true").unwrap();
        let pair = |left: &str, right: &str| (left.to_owned(), right.to_owned());
        let config = &options.config;
        assert_eq!(config.index_files, ["a.html", "b.html"]);
        let types = [pair(".foo", "a/b"), pair(".tar.gz", "c/d")];
        assert_eq!(config.extra_mime_types, types);
        assert_eq!(config.url_rewrites, [pair("/x", "/y=z")]);
        let root = config.document_root.as_ref().unwrap();
        assert_eq!(root.as_os_str().as_bytes(), b"/\xff");
        assert!(!config.enable_directory_listing);
    }

    #[test]
    fn a_stored_text_is_shown_instead_of_what_was_asked_for() {
        let mut options = Options::new();
        set(&mut options, "listening_port", b"0").unwrap();
        options.store_text(OptionId::ListeningPort, Some(b"45678"));
        assert_eq!(options.get(OptionId::ListeningPort), c"45678");
        options.store_text(OptionId::ListeningPort, None);
        assert_eq!(options.get(OptionId::ListeningPort), c"");
    }

    #[test]
    fn a_number_that_is_refused_is_refused_for_the_right_reason() {
        let whole = "Option value must be a whole number";
        let most = "Option value must be at most 2147483647";
        let rows = [
            ("max_connections", "x", whole),
            ("max_connections", "-1", whole),
            ("max_connections", "9223372036854775808", "Option value is too large"),
            ("max_connections", "99999999999999999999999", "Option value is too large"),
            ("idle_timeout_ms", "1s", "Option value must be a whole number of milliseconds"),
            ("idle_timeout_ms", "9223372036854775808", "Option value is too large"),
            ("max_request_body_bytes", "1.5", whole),
            ("max_request_body_bytes", "2147483648", most),
            ("max_request_body_bytes", "99999999999999999999999", most),
        ];
        for (name, value, sentence) in rows {
            let refusal = set(&mut Options::new(), name, value.as_bytes()).expect_err(value);
            assert_eq!(refusal.to_str(), Ok(sentence), "{name} {value}");
        }
    }
}
