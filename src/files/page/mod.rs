//! The styles and scripts of the pages that list directories, and what a browser may do there (CSP,
//! Content Security Policy Level 3).
//!
//! They stand in the page, since a path of their own would take that of a file. A browser runs them by
//! their hashes, and nothing else.

/// What stands around the rows of a listing.
pub struct Parts {
    pub styles: &'static [&'static str],
    /// What stands between the title and the rows.
    pub tools: &'static str,
    pub scripts: &'static [&'static str],
    /// Fields of the answer, each with its line end.
    pub policy: &'static [u8],
}

/// The parts of a page that only lists.
pub const PLAIN: Parts = Parts {
    styles: &[LISTING],
    tools: "",
    scripts: &[TIMES],
    policy: b"Content-Security-Policy: default-src 'none'; img-src data:; \
        style-src 'sha256-nBM4dH1O2Sb/VWrXNAtOO7Sc2U+xBxt8Q77t44DpqpU='; \
        script-src 'sha256-T/Jec9zKLwZVf6VyM/bnVY31oFgixAYxTElZqIjp8Z0='; base-uri 'none'\r\n",
};

/// The parts of a page that also takes files. Its forms work without scripts.
pub const UPLOADS: Parts = Parts {
    styles: &[LISTING, CHANGING],
    tools: FORMS,
    scripts: &[TIMES, UPLOADING],
    policy: b"Content-Security-Policy: default-src 'none'; img-src data:; \
        style-src 'sha256-nBM4dH1O2Sb/VWrXNAtOO7Sc2U+xBxt8Q77t44DpqpU=' \
        'sha256-19VVyYRfKjP0oTpQnCsWBQaoKEgiZI79qW/3Px6Pde4='; \
        script-src 'sha256-T/Jec9zKLwZVf6VyM/bnVY31oFgixAYxTElZqIjp8Z0=' \
        'sha256-qtkOKVTv3ibpwl6Z+UjBN+J5OsriJTBM0OqLO0OLRwM='; \
        connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'\r\n",
};

const LISTING: &str = include_str!("listing.css");
const CHANGING: &str = include_str!("uploads.css");
const TIMES: &str = include_str!("times.js");
const UPLOADING: &str = include_str!("uploads.js");
const FORMS: &str = "<section id=\"change\" aria-label=\"Change this folder\">\n\
    <form method=\"post\" enctype=\"multipart/form-data\"><label>Files \
    <input type=\"file\" name=\"file\" multiple required></label> <button>Upload</button></form>\n\
    <form method=\"post\" enctype=\"multipart/form-data\"><label>New folder \
    <input name=\"folder\" required></label> <button>Create</button></form>\n\
    </section>\n";

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn the_policy_names_what_stands_in_the_page_and_nothing_else() {
        for parts in [&PLAIN, &UPLOADS] {
            let policy = std::str::from_utf8(parts.policy).unwrap();
            let hash = |text: &&&str| {
                let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
                format!("'sha256-{}'", STANDARD.encode(digest))
            };
            let sources = |list: &[&str]| list.iter().map(|text| hash(&text)).collect::<Vec<_>>();
            for (directive, list) in [("style-src ", parts.styles), ("script-src ", parts.scripts)]
            {
                let named = policy.split(directive).nth(1).and_then(|rest| rest.split(';').next());
                assert_eq!(named, Some(sources(list).join(" ").as_str()), "{directive}");
                assert!(list.iter().all(|text| !text.contains("</")));
            }
        }
    }
}
