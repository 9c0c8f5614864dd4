//! The sources of answers: a file, a directory, a method of WebDAV, a page with includes, a CGI
//! program, or a short text of the library. Each source fills the outbox, piece by piece.
//!
//! Refuses to know the connection: how much fits, when it is sent, and what follows the answer.

mod dav;
pub mod file;
mod form;
pub mod head;
mod listing;
mod page;
#[cfg(feature = "cgi")]
mod program;
#[cfg(not(feature = "cgi"))]
#[path = "absent.rs"]
mod program;
#[cfg(feature = "deflate")]
mod unpacked;
#[cfg(not(feature = "deflate"))]
#[path = "packed.rs"]
mod unpacked;

use std::borrow::Cow;
use std::io::{self, ErrorKind};

use self::dav::PropfindAnswer;
use self::file::FileBody;
use self::listing::Listing;
use self::page::Page;
pub use self::program::{Gateway, Moved};
use self::unpacked::Unpacked;
use crate::cgi::table::Number;
use crate::dav::form::Form;
use crate::dav::upload::Upload;
use crate::dav::work::Work;
use crate::exchange::context::Context;
use crate::exchange::outbox::Outbox;
use crate::exchange::request::Request;
use crate::files::patience::Question;
use crate::options::Config;
use crate::site::{Intake, Site, Task, upload_limit};

/// The largest number of bytes that a source adds to the outbox at once. While as many wait there,
/// it adds none.
pub const PIECE: usize = 64 * 1024;

/// The rest of an answer, which is made when there is room for it.
pub enum Source {
    File(Box<FileBody>),
    /// A file that is stored compressed only.
    Unpacked(Box<Unpacked>),
    Listing(Box<Listing>),
    /// A method of WebDAV at work. The answer begins at its end.
    Work(Box<Work>),
    Upload(Box<Upload>),
    /// A form whose content is complete.
    Form(Box<Form>),
    /// An answer to PROPFIND that is sent as the directory is read.
    Propfind(Box<PropfindAnswer>),
    Page(Box<Page>),
    Program(Box<Gateway>),
}

/// The result of beginning an answer.
pub enum Begun {
    /// The whole answer is in the outbox.
    Complete,
    Source(Source),
    /// The answer is a short one with this status, most often an error.
    Failed(u16),
    /// The answer is 401, and waits until this time.
    Denied {
        until: u32,
    },
}

/// The result of continuing an answer. A source that is not returned has ended.
pub enum Progress {
    /// There is more to do in this turn.
    More(Source),
    /// Other connections have their turn before the source continues.
    Yields(Source),
    /// The source waits for a CGI program.
    Waits(Source),
    /// It waits for the disk.
    Reads(Source),
    /// It waits for a slow file system, which a helper is to ask.
    Asks(Question, Source),
    Ended(Ended),
}

/// The end of a source.
pub enum Ended {
    /// The whole answer is in the outbox.
    Complete,
    /// The answer is a short one with this status, most often an error; if it has begun, it ends
    /// incomplete.
    Failed(u16),
    /// The rest cannot be made, and the client has to notice that the answer is incomplete.
    Broken(Broken),
    /// The CGI program has redirected the request to another path of this server.
    Redirected,
}

/// The reason why an answer ends incomplete.
pub struct Broken {
    /// The line for the error log; empty if there is none or it is written already.
    pub why: Cow<'static, str>,
    /// Set if the end of the connection is the end of the answer, so that only a reset tells that
    /// it is incomplete.
    pub resets: bool,
}

impl Broken {
    /// Returns the end without a line for the error log.
    fn silently() -> Broken {
        Broken { why: "".into(), resets: false }
    }

    /// Returns the end for a file that has changed, or cannot be read any more, since its head was sent.
    pub fn of_file(error: &io::Error) -> Broken {
        let why = match error.raw_os_error() {
            None if error.kind() == ErrorKind::OutOfMemory => "no memory to send a file".into(),
            Some(_) => format!("a file became unreadable while it was sent: {error}").into(),
            None => "a file changed while it was sent".into(),
        };
        Broken { why, resets: false }
    }
}

/// Begins the answer that `task` stands for.
pub fn begin(task: Task, request: &mut Request, out: &mut Outbox, cx: &mut Context) -> Begun {
    match task {
        Task::Reply(status) => Begun::Failed(status),
        Task::Deny { until } => Begun::Denied { until },
        Task::File(file) if file.is_unpacked() => unpacked::begin(&file, request, out, cx),
        Task::File(file) => file::begin(file, request, out, cx),
        Task::List(path) => listing::begin(path, request, out, cx),
        Task::Dav(work) => Begun::Source(Source::Work(work)),
        Task::Put(upload) => Begun::Source(Source::Upload(upload)),
        Task::Form(form) => Begun::Source(Source::Form(form)),
        Task::Page(known, file, path) => page::begin(known, file, path, request, out, cx),
        Task::Run(script) => match Gateway::start(&script, request, cx) {
            Ok(mut gateway) => {
                gateway.give_all(request, cx);
                Begun::Source(Source::Program(gateway))
            }
            Err(status) => Begun::Failed(status),
        },
    }
}

impl Source {
    /// Makes the next piece of the answer. `read_closed` says that the client has shut its sending
    /// side.
    pub fn produce(
        self,
        request: &mut Request,
        out: &mut Outbox,
        cx: &mut Context,
        read_closed: bool,
    ) -> Progress {
        match self {
            Source::File(file) => file.produce(out, cx),
            Source::Unpacked(file) => file.produce(out, cx),
            Source::Listing(listing) => listing.produce(request, out, cx),
            Source::Work(work) => dav::work_on(work, request, out, cx, read_closed),
            Source::Upload(upload) => dav::store(upload, request, cx),
            Source::Form(form) => form::store(form, request, cx),
            Source::Propfind(answer) => answer.produce(request, out, cx),
            Source::Page(page) => page.produce(request, out, cx),
            Source::Program(gateway) => gateway.produce(request, out, cx),
        }
    }

    /// Returns whether the source makes output now, for which it waits for room in the outbox. The
    /// answer of a WebDAV method begins at its end.
    pub fn makes_output(&self) -> bool {
        !matches!(self, Source::Work(_) | Source::Upload(_) | Source::Form(_))
    }

    /// Returns whether the source waits for bytes that a helper reads.
    pub fn awaits_piece(&self) -> bool {
        matches!(self, Source::File(body) if body.awaits_piece())
    }

    /// Returns whether work on the file system takes the time, and not the client.
    pub fn is_at_work(&self) -> bool {
        matches!(self, Source::Work(_) | Source::Upload(_) | Source::Form(_) | Source::Propfind(_))
    }

    /// Returns the number of the CGI program that the source waits for.
    pub fn program(&self) -> Option<Number> {
        match self {
            Source::Program(gateway) => Some(gateway.program()),
            Source::Page(page) => page.program(),
            _ => None,
        }
    }

    /// Ends the source, before or at the end of its answer, with all that it has begun.
    pub fn stop(self, cx: &mut Context) {
        match self {
            Source::Work(work) => work.abandon(&mut cx.sweeper),
            Source::Page(page) => page.stop(cx),
            Source::Program(gateway) => gateway.stop(cx),
            Source::File(_)
            | Source::Unpacked(_)
            | Source::Listing(_)
            | Source::Upload(_)
            | Source::Form(_)
            | Source::Propfind(_) => {}
        }
    }
}

/// The answer that is planned for a request whose content is arriving.
pub enum Plan {
    Task(Task),
    /// The CGI program that answers runs already, and takes the content as it arrives.
    Program(Box<Gateway>),
}

impl Plan {
    /// Returns what becomes of the content.
    pub fn intake(&self) -> Intake {
        match self {
            Plan::Task(task) => task.intake(),
            Plan::Program(_) => Intake::Stream,
        }
    }

    /// Returns the largest length of the content.
    pub fn content_limit(&self, config: &Config) -> u64 {
        match self {
            Plan::Task(task) => task.content_limit(config),
            Plan::Program(_) => upload_limit(config),
        }
    }

    /// Takes a piece of the content.
    pub fn take(
        &mut self,
        content: &[u8],
        request: &mut Request,
        cx: &mut Context,
    ) -> Result<(), u16> {
        match self {
            Plan::Task(Task::Dav(work)) => dav::take_document(work, content, request, cx),
            Plan::Task(Task::Put(upload)) => {
                let written = upload.write(content);
                written.map_err(|reply| Site { request, cx }.take_reply(reply))
            }
            Plan::Task(Task::Form(form)) => form::take(form, content, request, cx),
            Plan::Task(Task::Run(script)) => {
                let mut gateway = Gateway::start(script, request, cx)?;
                let taken = gateway.give(content, cx);
                *self = Plan::Program(gateway);
                taken
            }
            Plan::Program(gateway) => gateway.give(content, cx),
            Plan::Task(_) => {
                debug_assert!(false, "a task takes content that has no use for it");
                Ok(())
            }
        }
    }

    /// Returns whether more content can be taken now.
    pub fn takes_content(&self, cx: &Context) -> bool {
        match self {
            Plan::Program(gateway) => cx.programs.takes(gateway.program()),
            Plan::Task(_) => true,
        }
    }

    /// Returns whether there is content that was taken, and of which nothing was made yet.
    pub fn is_behind(&self) -> bool {
        matches!(self, Plan::Task(Task::Form(form)) if form.is_behind())
    }

    /// Returns the number of the CGI program that runs already.
    pub fn program(&self) -> Option<Number> {
        match self {
            Plan::Program(gateway) => Some(gateway.program()),
            Plan::Task(_) => None,
        }
    }

    /// Gives the plan up, with all that it has begun.
    pub fn stop(self, cx: &mut Context) {
        match self {
            Plan::Task(task) => task.abandon(cx),
            Plan::Program(gateway) => gateway.stop(cx),
        }
    }
}
