//! Where an answer comes from: a file, a directory, a method of WebDAV, a page with includes, a program, or a
//! few words of the library's own. Each source fills the outbox, piece by piece.
//!
//! Refuses to know the connection: how much fits, when it is sent, and what follows the answer.

mod dav;
pub mod file;
pub mod head;
mod listing;
mod page;
mod program;

use std::borrow::Cow;

use self::dav::Telling;
use self::file::FileBody;
use self::listing::Listing;
use self::page::Page;
pub use self::program::{Gateway, Moved};
use crate::dav::upload::Upload;
use crate::dav::work::Work;
use crate::exchange::context::Context;
use crate::exchange::outbox::Outbox;
use crate::exchange::request::Request;
use crate::site::{Intake, Site, Task};

/// Bytes that a source adds to the outbox in one go, at most; while as many wait there, it adds none.
pub const PIECE: usize = 64 * 1024;

/// The rest of an answer, which is made when there is room for it.
pub enum Source {
    File(Box<FileBody>),
    Listing(Box<Listing>),
    /// A method of WebDAV at work. The answer begins when it is done.
    Work(Box<Work>),
    Upload(Box<Upload>),
    /// An answer to PROPFIND that is sent as the directory is read.
    Telling(Box<Telling>),
    Page(Box<Page>),
    Program(Box<Gateway>),
}

/// The beginning of an answer.
pub enum Begun {
    /// All of it is in the outbox.
    Complete,
    Source(Source),
    /// It is to be an error instead.
    Failed(u16),
}

/// What came of an attempt to go on with an answer. A source that is not handed back is over.
pub enum Progress {
    /// There is more to be had, or to be done, in this turn.
    More(Source),
    /// Others have their turn before it goes on.
    Yields(Source),
    /// It waits for a program.
    Waits(Source),
    Ended(Ended),
}

/// How a source has ended.
pub enum Ended {
    /// All of the answer is in the outbox.
    Complete,
    /// The answer is to be an error instead, or, if it has begun, to end before its end.
    Failed(u16),
    /// The rest cannot be had. The client is to see that the answer is not whole.
    Broken(Broken),
    /// The request has become another one, by a word of the program that answered it.
    Redirected,
}

/// Why an answer ends before its end.
pub struct Broken {
    /// For the error log; empty if it says so already.
    pub why: Cow<'static, str>,
    /// Nothing but the end of the connection ends the answer: only a reset tells that it is not whole.
    pub resets: bool,
}

impl Broken {
    /// There is nothing to say of it.
    fn silently() -> Broken {
        Broken { why: "".into(), resets: false }
    }

    /// A file is no longer what it was when its head was sent.
    pub fn of_file() -> Broken {
        Broken { why: CHANGED_MEANWHILE.into(), resets: false }
    }
}

/// For the error log.
const CHANGED_MEANWHILE: &str = "a file changed or became unreadable while it was sent";

/// Begins to answer a request as was decided.
pub fn begin(task: Task, request: &mut Request, out: &mut Outbox, cx: &mut Context) -> Begun {
    match task {
        Task::Reply(status) => Begun::Failed(status),
        Task::File(file) => file::begin(file, request, out, cx),
        Task::List(path) => listing::begin(path, request, out, cx),
        Task::Dav(work) => Begun::Source(Source::Work(work)),
        Task::Put(upload) => Begun::Source(Source::Upload(upload)),
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
    /// Makes the next piece of the answer. `has_left`: the client has shut its sending side.
    pub fn produce(
        self,
        request: &mut Request,
        out: &mut Outbox,
        cx: &mut Context,
        has_left: bool,
    ) -> Progress {
        match self {
            Source::File(file) => file.produce(out, cx),
            Source::Listing(listing) => listing.produce(request, out, cx),
            Source::Work(work) => dav::work_on(work, request, out, cx, has_left),
            Source::Upload(upload) => dav::store(upload, request, cx),
            Source::Telling(telling) => telling.produce(out, cx),
            Source::Page(page) => page.produce(request, out, cx),
            Source::Program(gateway) => gateway.produce(request, out, cx),
        }
    }

    /// Whether it makes output now, for which it waits for room in the outbox. The answer of a method of
    /// WebDAV begins when that is done.
    pub fn makes_output(&self) -> bool {
        !matches!(self, Source::Work(_) | Source::Upload(_))
    }

    /// Whether work on the file system, and not the client, is what takes time.
    pub fn is_at_work(&self) -> bool {
        matches!(self, Source::Work(_) | Source::Upload(_) | Source::Telling(_))
    }

    /// The number of the program that it waits for.
    pub fn program(&self) -> Option<usize> {
        match self {
            Source::Program(gateway) => Some(gateway.program()),
            Source::Page(page) => page.program(),
            _ => None,
        }
    }

    /// Ends it before its end, or behind it: nothing of it stays behind.
    pub fn stop(self, cx: &mut Context) {
        match self {
            Source::Work(work) => work.abandon(&mut cx.sweeper),
            Source::Page(page) => page.stop(cx),
            Source::Program(gateway) => gateway.stop(cx),
            Source::File(_) | Source::Listing(_) | Source::Upload(_) | Source::Telling(_) => {}
        }
    }
}

/// How a request will be answered whose content is arriving.
pub enum Plan {
    Task(Task),
    /// The program that answers runs already, and takes the content as it comes.
    Program(Box<Gateway>),
}

impl Plan {
    /// What becomes of the content.
    pub fn intake(&self) -> Intake {
        match self {
            Plan::Task(task) => task.intake(),
            Plan::Program(_) => Intake::Stream,
        }
    }

    /// How long the content may be, where `maximum` is the limit of the server.
    pub fn content_limit(&self, maximum: u64) -> u64 {
        match self {
            Plan::Task(Task::Dav(_)) => maximum.min(crate::site::dav::MAX_DOCUMENT as u64),
            _ => maximum,
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
            Plan::Task(Task::Run(script)) => {
                let mut gateway = Gateway::start(script, request, cx)?;
                let taken = gateway.give(content, cx);
                *self = Plan::Program(gateway);
                taken
            }
            Plan::Program(gateway) => gateway.give(content, cx),
            // Nothing else takes content.
            Plan::Task(_) => Ok(()),
        }
    }

    /// Whether it takes more content for now.
    pub fn takes_content(&self, cx: &Context) -> bool {
        match self {
            Plan::Program(gateway) => cx.programs.takes(gateway.program()),
            Plan::Task(_) => true,
        }
    }

    /// The number of the program that runs already.
    pub fn program(&self) -> Option<usize> {
        match self {
            Plan::Program(gateway) => Some(gateway.program()),
            Plan::Task(_) => None,
        }
    }

    /// Gives it up: nothing of it stays behind.
    pub fn stop(self, cx: &mut Context) {
        match self {
            Plan::Task(task) => task.abandon(cx),
            Plan::Program(gateway) => gateway.stop(cx),
        }
    }
}
