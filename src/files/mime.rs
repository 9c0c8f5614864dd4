//! The media types of files by their names (RFC 9110, section 8.3). Owns the table of extensions;
//! knows nothing of the content of files.
//!
//! Some of the built-in types differ from those that are registered today, since pages and programs
//! rely on the types that the 5.0 library sent.

use std::borrow::Cow;
use std::ffi::CStr;

use crate::options::Config;

const DEFAULT: &CStr = c"text/plain";

/// Pairs of extension and media type. An extension is in lower case and without its dot; the table
/// is sorted by extension.
const TYPES: &[(&str, &CStr)] = &[
    ("arj", c"application/x-arj-compressed"),
    ("asf", c"video/x-ms-asf"),
    ("avi", c"video/x-msvideo"),
    ("avif", c"image/avif"),
    ("bmp", c"image/bmp"),
    ("css", c"text/css"),
    ("doc", c"application/msword"),
    ("eot", c"application/vnd.ms-fontobject"),
    ("exe", c"application/octet-stream"),
    ("flac", c"audio/flac"),
    ("gif", c"image/gif"),
    ("gz", c"application/x-gunzip"),
    ("htm", c"text/html"),
    ("html", c"text/html"),
    ("ico", c"image/x-icon"),
    ("jpeg", c"image/jpeg"),
    ("jpg", c"image/jpeg"),
    ("js", c"application/x-javascript"),
    ("json", c"text/json"),
    ("m3u", c"audio/x-mpegurl"),
    ("m4v", c"video/x-m4v"),
    ("map", c"application/json"),
    ("mid", c"audio/mid"),
    ("mjs", c"text/javascript"),
    ("mov", c"video/quicktime"),
    ("mp3", c"audio/x-mp3"),
    ("mp4", c"video/mp4"),
    ("mpeg", c"video/mpeg"),
    ("mpg", c"video/mpeg"),
    ("ogg", c"application/ogg"),
    ("opus", c"audio/ogg"),
    ("otf", c"font/otf"),
    ("pdf", c"application/pdf"),
    ("png", c"image/png"),
    ("ra", c"audio/x-pn-realaudio"),
    ("ram", c"audio/x-pn-realaudio"),
    ("rar", c"application/x-arj-compressed"),
    ("rtf", c"application/rtf"),
    ("shtm", c"text/html"),
    ("shtml", c"text/html"),
    ("svg", c"image/svg+xml"),
    ("swf", c"application/x-shockwave-flash"),
    ("tar", c"application/x-tar"),
    ("tgz", c"application/x-tar-gz"),
    ("torrent", c"application/x-bittorrent"),
    ("ttf", c"application/x-font-ttf"),
    ("txt", c"text/plain"),
    ("wasm", c"application/wasm"),
    ("wav", c"audio/x-wav"),
    ("webm", c"video/webm"),
    ("webmanifest", c"application/manifest+json"),
    ("webp", c"image/webp"),
    ("woff", c"font/woff"),
    ("woff2", c"font/woff2"),
    ("xls", c"application/excel"),
    ("xml", c"text/xml"),
    ("xsl", c"application/xml"),
    ("xslt", c"application/xml"),
    ("zip", c"application/x-zip-compressed"),
];

/// The media types that take precedence, and the charset of text.
#[derive(Clone, Debug, Default)]
pub struct Types {
    /// Pairs of suffix, with its dot, and media type. The first that matches counts.
    pub extra: Vec<(String, String)>,
    /// The charset that the types of text get which have none.
    pub charset: Option<String>,
}

impl Types {
    /// Returns the types that the options set.
    pub fn of(config: &Config) -> Types {
        Types { extra: config.extra_mime_types.clone(), charset: config.default_charset.clone() }
    }

    /// Returns the media type of a file.
    pub fn media_type(&self, name: &[u8]) -> Cow<'_, str> {
        let mut extra = self.extra.iter();
        let plain = match extra.find(|(suffix, _)| ends_with(name, suffix.as_bytes())) {
            Some((_, media_type)) => media_type,
            None => builtin(name).to_str().unwrap_or_default(),
        };
        match &self.charset {
            Some(charset) if takes_charset(plain) => format!("{plain}; charset={charset}").into(),
            _ => plain.into(),
        }
    }
}

/// Returns whether a media type is one of text that does not tell its charset.
fn takes_charset(media_type: &str) -> bool {
    let (kind, parameters) = media_type.split_once(';').unwrap_or((media_type, ""));
    let kind = kind.trim().to_ascii_lowercase();
    let is_text = kind.starts_with("text/")
        || kind.ends_with("+xml")
        || kind.ends_with("+json")
        || matches!(
            kind.strip_prefix("application/"),
            Some("json" | "javascript" | "x-javascript" | "ecmascript" | "xml")
        );
    let is_charset = |parameter: &str| {
        let name = parameter.split('=').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case("charset")
    };
    is_text && !parameters.split(';').any(is_charset)
}

/// Returns the built-in media type for the extension of `name`, in any ASCII case.
pub fn builtin(name: &[u8]) -> &'static CStr {
    let Some(dot) = memchr::memrchr(b'.', name) else {
        return DEFAULT;
    };
    let extension = name[dot + 1..].iter().map(u8::to_ascii_lowercase);
    let index = TYPES.binary_search_by(|(known, _)| known.bytes().cmp(extension.clone()));
    index.map_or(DEFAULT, |index| TYPES[index].1)
}

/// Returns whether `name` ends with `suffix`, in any ASCII case.
fn ends_with(name: &[u8], suffix: &[u8]) -> bool {
    let end = name.len().checked_sub(suffix.len());
    end.is_some_and(|end| name[end..].eq_ignore_ascii_case(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_extension_has_its_media_type_in_any_case() {
        let table = [
            (".html .htm .shtm .shtml", c"text/html"),
            (".css", c"text/css"),
            (".js", c"application/x-javascript"),
            (".ico", c"image/x-icon"),
            (".gif", c"image/gif"),
            (".jpg .jpeg", c"image/jpeg"),
            (".png", c"image/png"),
            (".svg", c"image/svg+xml"),
            (".bmp", c"image/bmp"),
            (".txt", c"text/plain"),
            (".json", c"text/json"),
            (".xml", c"text/xml"),
            (".xsl .xslt", c"application/xml"),
            (".pdf", c"application/pdf"),
            (".zip", c"application/x-zip-compressed"),
            (".gz", c"application/x-gunzip"),
            (".tgz", c"application/x-tar-gz"),
            (".tar", c"application/x-tar"),
            (".mp3", c"audio/x-mp3"),
            (".wav", c"audio/x-wav"),
            (".mp4", c"video/mp4"),
            (".webm", c"video/webm"),
            (".ttf", c"application/x-font-ttf"),
            (".doc", c"application/msword"),
            (".xls", c"application/excel"),
            (".exe", c"application/octet-stream"),
            (".swf", c"application/x-shockwave-flash"),
            (".torrent", c"application/x-bittorrent"),
            (".m3u", c"audio/x-mpegurl"),
            (".ogg", c"application/ogg"),
            (".mpg .mpeg", c"video/mpeg"),
            (".mov", c"video/quicktime"),
            (".avi", c"video/x-msvideo"),
            (".rtf", c"application/rtf"),
            (".rar .arj", c"application/x-arj-compressed"),
            (".mid", c"audio/mid"),
            (".ra .ram", c"audio/x-pn-realaudio"),
            (".asf", c"video/x-ms-asf"),
            (".m4v", c"video/x-m4v"),
            (".woff", c"font/woff"),
            (".woff2", c"font/woff2"),
            (".otf", c"font/otf"),
            (".eot", c"application/vnd.ms-fontobject"),
            (".wasm", c"application/wasm"),
            (".mjs", c"text/javascript"),
            (".webp", c"image/webp"),
            (".avif", c"image/avif"),
            (".webmanifest", c"application/manifest+json"),
            (".map", c"application/json"),
            (".opus", c"audio/ogg"),
            (".flac", c"audio/flac"),
        ];
        let mut count = 0;
        for (extensions, expected) in table {
            for extension in extensions.split(' ') {
                let name = format!("/dir.d/file{extension}");
                assert_eq!(builtin(name.as_bytes()), expected, "{name}");
                let name = name.to_uppercase();
                assert_eq!(builtin(name.as_bytes()), expected, "{name}");
                count += 1;
            }
        }
        assert_eq!(count, TYPES.len());
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(TYPES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn any_other_name_is_plain_text() {
        for name in ["", ".", "README", "html", "a.", "a.html~", "a.htmlx", "a.h", "a.html/b"] {
            assert_eq!(builtin(name.as_bytes()), c"text/plain", "{name}");
        }
        assert_eq!(builtin(b"a.\xff"), c"text/plain");
        assert_eq!(builtin(b".html"), c"text/html");
    }

    #[test]
    fn types_of_the_program_come_first() {
        let extra = [
            (".tar.gz", "application/x-tgz"),
            (".gz", "application/gzip"),
            (".html", "application/xhtml+xml"),
            (".html", "text/x-never"),
        ];
        let extra = extra.map(|(suffix, kind)| (suffix.to_owned(), kind.to_owned()));
        let types = Types { extra: extra.to_vec(), charset: None };
        let table = [
            ("a.tar.gz", "application/x-tgz"),
            ("a.GZ", "application/gzip"),
            ("/b/a.html", "application/xhtml+xml"),
            ("a.htm", "text/html"),
            ("gz", "text/plain"),
            ("", "text/plain"),
        ];
        for (name, expected) in table {
            assert_eq!(types.media_type(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(Types::default().media_type(b"a.html"), "text/html");
    }

    #[test]
    fn text_that_tells_no_charset_gets_one() {
        let pair = |left: &str, right: &str| (left.to_owned(), right.to_owned());
        let extra = vec![
            pair(".l1", "text/plain; Charset=iso-8859-1"),
            pair(".md", "text/markdown; variant=GFM"),
            pair(".bin", "application/octet-stream"),
            pair(".atom", "Application/Atom+XML"),
        ];
        let types = Types { extra, charset: Some("utf-8".to_owned()) };
        let table = [
            ("a.html", "text/html; charset=utf-8"),
            ("a.js", "application/x-javascript; charset=utf-8"),
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.json", "text/json; charset=utf-8"),
            ("a.map", "application/json; charset=utf-8"),
            ("a.webmanifest", "application/manifest+json; charset=utf-8"),
            ("a.xml", "text/xml; charset=utf-8"),
            ("a.xsl", "application/xml; charset=utf-8"),
            ("a.svg", "image/svg+xml; charset=utf-8"),
            ("a.atom", "Application/Atom+XML; charset=utf-8"),
            ("a.md", "text/markdown; variant=GFM; charset=utf-8"),
            ("a", "text/plain; charset=utf-8"),
            ("a.l1", "text/plain; Charset=iso-8859-1"),
            ("a.bin", "application/octet-stream"),
            ("a.png", "image/png"),
            ("a.pdf", "application/pdf"),
            ("a.rtf", "application/rtf"),
        ];
        for (name, expected) in table {
            assert_eq!(types.media_type(name.as_bytes()), expected, "{name}");
        }
    }
}
