//! The options of features that a build leaves out: their names stay known, and a value other than the
//! default is refused.
//!
//! Owns which option belongs to which feature. Refuses to know what the options do.

use std::ffi::CStr;

use crate::options::{OPTIONS, OptionId};

const NO_TLS: &CStr = c"TLS is not built into this library";
const NO_WEBDAV: &CStr = c"WebDAV is not built into this library";
const NO_CGI: &CStr = c"CGI is not built into this library";
const NO_DEFLATE: &CStr = c"Compression is not built into this library";

/// Returns the sentence for a value that asks for a feature which this build leaves out.
///
/// `cgi_pattern` is none of these options: by it, files that are programs are kept back.
pub fn refusal(id: OptionId, value: &[u8]) -> Option<&'static CStr> {
    use OptionId as Id;
    let sentence = match id {
        Id::SslCaCertificate
        | Id::SslCertificate
        | Id::SslCertificates
        | Id::SslProtocols
        | Id::SslVerifyClient
            if !cfg!(feature = "tls") =>
        {
            NO_TLS
        }
        Id::DavAuthFile | Id::DavDepthInfinity | Id::EnableUploads | Id::UploadsByAnybody
            if !cfg!(feature = "webdav") =>
        {
            NO_WEBDAV
        }
        Id::CgiEnvironment | Id::CgiInterpreter | Id::CgiTimeoutMs | Id::MaxCgiProcesses
            if !cfg!(feature = "cgi") =>
        {
            NO_CGI
        }
        Id::WebsocketDeflate if !cfg!(feature = "deflate") => NO_DEFLATE,
        _ => return None,
    };
    let default = OPTIONS[id as usize].1.map_or(&b""[..], CStr::to_bytes);
    (value != default).then_some(sentence)
}
