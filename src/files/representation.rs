//! The representations of a file: the file itself, or a compressed sibling that is stored beside it
//! (RFC 9110, sections 8.4 and 12.5.3). Knows nothing of the Accept-Encoding field, whose
//! evaluation the caller passes in.
//!
//! A sibling has the media type of the file that it stands for, and validators of its own: a range
//! or a condition applies to the bytes that are sent (RFC 9110, section 8.8.3.3).

use std::borrow::Cow;

use super::known::Entry;
use crate::http::accept_encoding::Coding;

/// The representation of a file that was chosen.
#[derive(Debug)]
pub struct Representation {
    /// The file that is sent.
    pub known: Entry,
    form: Form,
    /// Whether the choice depends on the Accept-Encoding field.
    varies: bool,
}

/// What the file that is sent is to the file that was asked for.
#[derive(Debug)]
enum Form {
    /// The file itself.
    Plain,
    /// A sibling of this file, with this content coding.
    Coded(Entry, Coding),
    /// A compressed sibling of a file that does not exist, which has this media type. It is unpacked
    /// where the coding is `Identity`.
    Alone(Box<str>, Coding),
}

impl From<Entry> for Representation {
    fn from(known: Entry) -> Representation {
        Representation { known, form: Form::Plain, varies: false }
    }
}

impl Representation {
    /// Chooses between a file and its siblings by `choose`, whose arguments say which siblings
    /// there are. A sibling that is older than the file does not count, since it was made from
    /// another content.
    pub fn negotiate(
        plain: Entry,
        brotli: Option<Entry>,
        gzip: Option<Entry>,
        choose: impl FnOnce(bool, bool) -> Coding,
    ) -> Representation {
        let brotli = brotli.filter(|sibling| sibling.modified >= plain.modified);
        let gzip = gzip.filter(|sibling| sibling.modified >= plain.modified);
        let varies = brotli.is_some() || gzip.is_some();
        let coding = choose(brotli.is_some(), gzip.is_some());
        let sibling = match coding {
            Coding::Identity => None,
            Coding::Gzip => gzip,
            Coding::Brotli => brotli,
        };
        debug_assert!(
            sibling.is_some() || coding == Coding::Identity,
            "a coding without a sibling is chosen"
        );
        match sibling {
            Some(known) => Representation { known, form: Form::Coded(plain, coding), varies },
            None => Representation { known: plain, form: Form::Plain, varies },
        }
    }

    /// Returns the representation of a file of which there is the sibling `gzip` alone. It is unpacked
    /// where the coding is `Identity`.
    pub fn alone(gzip: Entry, media_type: Box<str>, coding: Coding) -> Representation {
        Representation { known: gzip, form: Form::Alone(media_type, coding), varies: true }
    }

    /// Returns whether the file is unpacked as it is sent.
    pub fn is_unpacked(&self) -> bool {
        matches!(self.form, Form::Alone(_, Coding::Identity))
    }

    fn is_plain(&self) -> bool {
        matches!(self.form, Form::Plain)
    }

    /// Returns the content coding, if there is one.
    fn coding(&self) -> Option<&'static str> {
        match self.form {
            Form::Plain => None,
            Form::Coded(_, coding) | Form::Alone(_, coding) => match coding {
                Coding::Identity => None,
                Coding::Gzip => Some("gzip"),
                Coding::Brotli => Some("br"),
            },
        }
    }

    /// Returns the entity tag, in quotes. It differs for each content coding.
    pub fn etag(&self) -> Cow<'_, str> {
        if self.is_plain() {
            return Cow::Borrowed(self.known.etag());
        }
        let sibling = self.known.etag().trim_end_matches('"');
        Cow::Owned(format!("{sibling}.{}\"", self.coding().unwrap_or("unpacked")))
    }

    pub fn media_type(&self) -> &str {
        match &self.form {
            Form::Plain => self.known.media_type(),
            Form::Coded(plain, _) => plain.media_type(),
            Form::Alone(media_type, _) => media_type,
        }
    }

    /// Appends `Last-Modified` and `Etag`.
    pub fn write_validators(&self, out: &mut Vec<u8>) {
        if self.is_plain() {
            out.extend_from_slice(self.known.validator_fields());
            return;
        }
        out.extend_from_slice(self.known.date_field());
        out.extend_from_slice(b"Etag: ");
        out.extend_from_slice(self.etag().as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// Appends `Last-Modified`, `Etag` and `Content-Type`.
    pub fn write_fields_but_length(&self, out: &mut Vec<u8>) {
        if self.is_plain() {
            out.extend_from_slice(self.known.fields_but_length());
            return;
        }
        self.write_validators(out);
        out.extend_from_slice(b"Content-Type: ");
        out.extend_from_slice(self.media_type().as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// Appends all fields that describe the whole representation.
    pub fn write_fields(&self, out: &mut Vec<u8>) {
        if self.is_plain() {
            out.extend_from_slice(self.known.fields());
            return;
        }
        self.write_fields_but_length(out);
        let mut number = itoa::Buffer::new();
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(number.format(self.known.len).as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the fields of the negotiation: `Content-Encoding`, if there is content, and `Vary`.
    pub fn write_form(&self, has_content: bool, out: &mut Vec<u8>) {
        if let (Some(coding), true) = (self.coding(), has_content) {
            out.extend_from_slice(b"Content-Encoding: ");
            out.extend_from_slice(coding.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if self.varies {
            out.extend_from_slice(b"Vary: Accept-Encoding\r\n");
        }
    }
}
