//! Answers to forms that bring files: back to the list of the directory, or a page that says what was
//! not stored, and why.
//!
//! Refuses to know how files are stored, which is in `dav/form`.

use super::{Ended, Progress, Source};
use crate::dav::Env;
use crate::dav::form::{Form, Outcome};
use crate::exchange::context::{Context, WORK_PER_TURN};
use crate::exchange::request::{Document, Request};
use crate::files::listing::escape_html;
use crate::http::status::reason;
use crate::site::Site;

/// The cost of a part that begins or ends, in bytes of the share of a connection.
const PART_COST: usize = 32 * 1024;

/// Gives a piece of the content to a form. An error is the status of the answer, which has a page.
pub fn take(
    form: &mut Form,
    piece: &[u8],
    request: &mut Request,
    cx: &mut Context,
) -> Result<(), u16> {
    cx.look_at_secrets();
    let (config, secrets) = (&cx.options.config, &cx.files.secrets);
    let env = || Env::of(request.writer(), config, secrets, cx.clock.unix);
    let limit = cx.turn.bytes / PART_COST;
    let written = form.write(piece, limit, &env, &mut cx.sweeper);
    cx.files.look_again();
    let reply = match written {
        Ok(count) => {
            cx.turn.spend(count * PART_COST);
            return Ok(());
        }
        Err(reply) => reply,
    };
    let outcome = form.give_up(reply.status);
    let status = Site { request, cx }.take_reply(reply);
    tell(request, &outcome, status);
    Err(status)
}

/// Does the next portion of the end of a form.
pub fn store(mut form: Box<Form>, request: &mut Request, cx: &mut Context) -> Progress {
    if form.is_behind() {
        return match take(&mut form, b"", request, cx) {
            Ok(()) => Progress::Yields(Source::Form(form)),
            Err(status) => Progress::Ended(Ended::Failed(status)),
        };
    }
    cx.look_at_secrets();
    let (config, secrets) = (&cx.options.config, &cx.files.secrets);
    let env = Env::of(request.writer(), config, secrets, cx.clock.unix);
    let done = form.advance(&env, &mut { WORK_PER_TURN });
    cx.files.look_again();
    let status = match done {
        Ok(false) => return Progress::Yields(Source::Form(form)),
        Ok(true) => {
            let outcome = form.outcome();
            let status = outcome.status();
            match status {
                Some(status) => tell(request, &outcome, status),
                None => lead_back(request),
            }
            status.unwrap_or(303)
        }
        Err(reply) => {
            let outcome = form.give_up(reply.status);
            let status = Site { request, cx }.take_reply(reply);
            tell(request, &outcome, status);
            status
        }
    };
    // A file that was not stored takes space on the disk while it is open.
    drop(form);
    Progress::Ended(Ended::Failed(status))
}

/// Leads the client back to the list, in the order in which it was. The reference is relative, since
/// a proxy may serve the directory under another path.
fn lead_back(request: &mut Request) {
    let query = request.query().filter(|query| query.is_ascii()).map(<[u8]>::to_vec);
    request.fields.extend_from_slice(b"Location: ./");
    if let Some(query) = query {
        request.fields.push(b'?');
        request.fields.extend_from_slice(&query);
    }
    request.fields.extend_from_slice(b"\r\n");
}

/// Makes the page that says what was not stored.
fn tell(request: &mut Request, outcome: &Outcome, status: u16) {
    request.document = Some(Document::Html(page(outcome, status)));
    const POLICY: &[u8] =
        b"Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n";
    request.fields.extend_from_slice(POLICY);
}

/// Writes the page.
fn page(outcome: &Outcome, status: u16) -> String {
    let mut page = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
        <meta name=\"viewport\" content=\"width=device-width\">\n\
        <meta name=\"color-scheme\" content=\"light dark\">\n\
        <title>Not all was stored</title>\n</head>\n<body>\n<h1>Not all was stored</h1>\n"
        .to_owned();
    if outcome.failed.is_empty() {
        page += &format!("<p>{}</p>\n", why(status));
    } else {
        page += "<ul>\n";
        for (name, status) in &outcome.failed {
            page += &format!("<li><bdi>{}</bdi>: {}</li>\n", escape_html(name), why(*status));
        }
        page += "</ul>\n";
        if outcome.unnamed > 0 {
            page += &format!("<p>And {} more.</p>\n", outcome.unnamed);
        }
    }
    let stored = match outcome.stored {
        0 => "Nothing was stored.".to_owned(),
        1 => "One was stored.".to_owned(),
        count => format!("{count} were stored."),
    };
    page += &format!("<p>{stored}</p>\n<p><a href=\"./\">Back to the list</a></p>\n");
    page += "</body>\n</html>\n";
    page
}

/// Returns the reason for a failure, for people.
fn why(status: u16) -> &'static str {
    match status {
        400 => "this name cannot be used, or the form did not arrive as a whole",
        403 => "this is not allowed",
        404 => "the folder is not there any more",
        405 | 409 => "something of this name exists already",
        413 => "this is too large",
        414 => "the name is too long",
        423 => "somebody has locked this",
        503 => "the server is busy; try again",
        507 => "there is no room on the disk",
        status => reason(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_what_failed_and_no_name_breaks_out_of_it() {
        let mut outcome =
            Outcome { stored: 2, failed: vec![(b"<b>&\xff".to_vec(), 409)], ..Outcome::default() };
        let text = page(&outcome, 409);
        let row =
            "<li><bdi>&lt;b&gt;&amp;\u{fffd}</bdi>: something of this name exists already</li>";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("2 were stored."));
        (outcome.failed, outcome.unnamed) = (vec![(b"x".to_vec(), 403); 100], 900);
        let text = page(&outcome, 403);
        assert!(text.contains("<p>And 900 more.</p>") && text.matches("<li>").count() == 100);
        let nothing = page(&Outcome::default(), 507);
        assert!(nothing.contains("no room on the disk") && nothing.contains("Nothing was stored."));
    }
}
