//! One run of a scenario, in which one call fails or none, and what is found wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::calls;
use super::control::{Class, Control, Fault, Injection};
use super::peer::{Peer, Seen, patience};
use super::scenarios::{Scenario, Span};
use super::world::{Outcome, Process, World};
use crate::support::Scratch;

/// What is started: the compiled files.
pub struct Tools {
    pub server: String,
    pub shim: String,
}

/// What a run without a failure was like: others are held against it.
pub struct Reference {
    /// The calls that can fail, and how many of them there are.
    pub calls: BTreeMap<Class, usize>,
    log: BTreeSet<String>,
    names: BTreeSet<String>,
}

/// What a run with a failure has come to.
pub struct Verdict {
    /// Whether the call came at all: their number is not always the same.
    pub has_hit: bool,
    pub findings: Vec<String>,
    /// What the call was about.
    pub what: String,
    /// The way to it: places in the library.
    pub way: Vec<i64>,
}

/// What is known when a run is over.
struct Run {
    steps: Vec<(String, Outcome)>,
    again: Vec<(String, Outcome)>,
    troubles: Vec<String>,
    log: Vec<String>,
    names: BTreeSet<String>,
    control: Control,
}

/// Somebody who asks all the time, whose own calls never fail: each answer has to be the right one.
struct Bystander {
    stops: Arc<AtomicBool>,
    thread: JoinHandle<Option<String>>,
}

const COUNT: &str = "GET /count HTTP/1.1\r\nHost: b\r\n\r\n";

impl Bystander {
    /// Begins to ask, when the server has accepted it.
    fn start(mut peer: Peer) -> Result<Bystander, String> {
        let first = peer.ask(COUNT);
        if !matches!(&first, Seen::Answer(answer) if answer.text() == "1") {
            return Err(format!("the bystander's first request: {first:?}"));
        }
        let stops = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stops);
        let thread = std::thread::spawn(move || {
            for number in 2.. {
                match peer.ask(COUNT) {
                    Seen::Answer(answer) if answer.text() == format!("{number}") => {}
                    seen => return Some(format!("the bystander's request {number}: {seen:?}")),
                }
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            None
        });
        Ok(Bystander { stops, thread })
    }

    fn stop(self) -> Option<String> {
        self.stops.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_else(|_| Some("the bystander fails".to_owned()))
    }
}

/// Plays a scenario without a failure.
pub fn refer(tools: &Tools, scenario: &Scenario) -> Result<Reference, String> {
    let run = play(tools, scenario, None);
    let steps = run.steps.iter().chain(&run.again);
    let wrong: Vec<String> = steps
        .filter(|(_, outcome)| *outcome != Outcome::Right)
        .map(|(what, outcome)| format!("{what}: {outcome:?}"))
        .chain(run.troubles)
        .collect();
    if !wrong.is_empty() {
        return Err(format!("{}\nthe log: {:?}", wrong.join("\n"), run.log));
    }
    let mut calls = BTreeMap::new();
    for class in run.control.seen() {
        *calls.entry(class).or_insert(0) += 1;
    }
    Ok(Reference { calls, log: run.log.into_iter().collect(), names: run.names })
}

/// Plays a scenario with a failure, and judges it.
pub fn try_one(
    tools: &Tools,
    scenario: &Scenario,
    reference: &Reference,
    injection: Injection,
) -> Verdict {
    let run = play(tools, scenario, Some(injection));
    let (has_hit, what, way) = (run.control.has_hit(), run.control.what(), run.control.way());
    Verdict { has_hit, findings: judge(run, reference, injection), what, way }
}

fn play(tools: &Tools, scenario: &Scenario, injection: Option<Injection>) -> Run {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.join("root")).expect("a folder");
    (scenario.reset)(&scratch);
    let control = Control::new(scratch.join("control"));
    control.plan(injection);
    if scenario.span == Span::Creation {
        control.arm_at_creation();
    }
    let mut args = vec![
        format!("error_log_file={}", scratch.join("error")),
        format!("document_root={}", scratch.join("root")),
        "idle_timeout_ms=300000".to_owned(),
        "request_timeout_ms=300000".to_owned(),
        "websocket_ping_interval_ms=0".to_owned(),
    ];
    let more = (scenario.args)(&scratch);
    if !more.iter().any(|option| option.starts_with("listening_port=")) {
        args.push("listening_port=127.0.0.1:0".to_owned());
    }
    args.extend(more);
    let process = Process::start(&tools.server, &tools.shim, &control, &args);
    let mut run = Run {
        steps: Vec::new(),
        again: Vec::new(),
        troubles: Vec::new(),
        log: Vec::new(),
        names: BTreeSet::new(),
        control,
    };
    let mut world = World::new(scratch, process, 0);
    serve(scenario, &mut world, &mut run);
    if let Err(trouble) = world.process.stop()
        && !run.troubles.iter().any(|told| told.contains("does not end"))
    {
        run.troubles.push(trouble);
    }
    run.log = log_of(&world.scratch);
    list(Path::new(&world.scratch.join("root")), "", &mut run.names);
    run
}

/// Everything between the start of the server and its end.
fn serve(scenario: &Scenario, world: &mut World, run: &mut Run) {
    let ports = match world.process.line("PORT ") {
        Ok(ports) => ports,
        // A server that tells why it does not start is right to do so.
        Err(told) if told.starts_with("REFUSED") && scenario.span == Span::Creation => return,
        Err(trouble) => return run.troubles.push(format!("the start: {trouble}")),
    };
    let port = |entry: Option<&str>| {
        let digits = entry?.rsplit(':').next()?.trim_end_matches('s');
        digits.parse::<u16>().ok()
    };
    let (first, last) = (port(ports.split(',').next()), port(ports.split(',').next_back()));
    let (Some(first), Some(last)) = (first, last) else {
        return run.troubles.push(format!("no port in {ports:?}"));
    };
    world.port = last;
    (scenario.prepare)(world);
    let bystander = (scenario.span == Span::Play).then(|| Peer::open(first)).flatten();
    if let Some(peer) = &bystander {
        run.control.exempt(0, peer.local_port());
    }
    let bystander = bystander.map(Bystander::start);
    let bystander = match bystander {
        Some(Ok(bystander)) => Some(bystander),
        Some(Err(trouble)) => return run.troubles.push(trouble),
        None => None,
    };
    if scenario.span != Span::Creation {
        run.control.arm();
    }
    (scenario.play)(world);
    if scenario.span != Span::End {
        run.control.disarm();
    }
    run.troubles.extend(bystander.and_then(Bystander::stop));
    run.troubles.extend((scenario.files)(&world.scratch).err());
    run.steps = std::mem::take(&mut world.steps);
    if scenario.span == Span::Play {
        (scenario.reset)(&world.scratch);
        (scenario.play)(world);
        run.troubles.extend((scenario.files)(&world.scratch).err());
        run.again = std::mem::take(&mut world.steps);
    }
}

/// The lines of the error log without times, addresses of clients and the name of the scratch folder.
fn log_of(scratch: &Scratch) -> Vec<String> {
    let folder = scratch.join("");
    let text = |line: &str| {
        let behind_time = line.split_once("] ").map_or(line, |(_, rest)| rest);
        let what = behind_time.split_once(' ').map_or(behind_time, |(_, what)| what);
        // A failure that comes again is counted.
        let what = what.split_once(" more within a second: ").map_or(what, |(_, what)| what);
        what.replace(&folder, "")
    };
    scratch.read("error").lines().map(text).collect()
}

/// The names of everything below a folder.
fn list(folder: &Path, prefix: &str, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&entry.path(), &format!("{name}/"), names);
        }
        names.insert(name);
    }
}

/// The steps whose answers leave out what may not be read.
const LISTS: [&str; 3] = ["a list", "PROPFIND", "/page.shtml"];

/// What is wrong with a run.
fn judge(run: Run, reference: &Reference, injection: Injection) -> Vec<String> {
    let Injection { class, fault, .. } = injection;
    let mut findings = run.troubles;
    let mut has_lost = false;
    for (what, outcome) in &run.steps {
        match outcome {
            Outcome::Right => {}
            // The names and properties that may not be read are not told of.
            Outcome::Wrong(_)
                if fault == Fault::Error(libc::EACCES) && LISTS.contains(&what.as_str()) => {}
            // What the program was told needs no line, as that mg_write() has no memory.
            Outcome::Refused(503, text) if text == "memory" => {}
            Outcome::Refused(500, _) if what.starts_with("set ") || what.starts_with("passwd ") => {
            }
            // It says something about the path, and is told as such.
            Outcome::Refused(400..500, _) if fault == Fault::Error(libc::EACCES) => {}
            // The program closes a websocket whose message it could not write, and knows why.
            Outcome::Cut if class.number == calls::ALLOCATION && what == "a message" => {}
            Outcome::Refused(500.., _) | Outcome::Cut => has_lost = true,
            outcome => findings.push(format!("{what}: {outcome:?}")),
        }
    }
    let wrong = run.again.iter().filter(|(_, outcome)| *outcome != Outcome::Right);
    findings.extend(wrong.map(|(what, outcome)| format!("afterwards, {what}: {outcome:?}")));
    let mut log = run.log;
    log.retain(|line| !reference.log.contains(line));
    if has_lost && log.is_empty() && !class.is_about_client() {
        findings.push("something was lost, and the error log does not tell".to_owned());
    }
    if has_lost && !log.is_empty() && !log.iter().any(|line| names_the_fault(line, fault)) {
        findings.push(format!("the error log does not say why: {log:?}"));
    }
    if log.len() > 2 {
        findings.push(format!("{} lines in the error log: {log:?}", log.len()));
    }
    let mut left: Vec<_> = run.names.difference(&reference.names).collect();
    // Properties and locks that are there lie in a file of this name.
    left.retain(|name| Path::new(name).file_name().is_none_or(|name| name != ".mongoose-dav"));
    // What cannot be removed at once, or not read, is removed by a later request.
    let is_swept = class.removes() || class.name() == "closedir";
    if !left.is_empty() && !is_swept && run.control.has_hit() {
        findings.push(format!("left behind: {left:?}"));
    }
    findings
}

/// Whether a line of the log says what has failed.
fn names_the_fault(line: &str, fault: Fault) -> bool {
    match fault {
        Fault::Short => true,
        Fault::Error(error) => {
            let text = std::io::Error::from_raw_os_error(error).to_string();
            let words = text.split(" (os error").next().unwrap_or(&text);
            line.contains(words)
                || error == libc::ENOMEM && line.contains("memory")
                || [libc::EMFILE, libc::ENFILE].contains(&error) && line.contains("descriptor")
        }
    }
}

/// A failure that is not in the run that is held against: it waits, too.
pub fn describe(scenario: &Scenario, injection: Injection) -> String {
    let Injection { class, nth, fault } = injection;
    format!("{}: {} {} of {}", scenario.name, calls::name_of(fault), nth, class.name())
}

/// The longest time that a run may take, in words.
pub fn patience_in_words() -> String {
    format!("{} s", patience().as_secs())
}
