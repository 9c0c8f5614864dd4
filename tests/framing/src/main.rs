//! A second opinion on framing. Requests of a grammar with oddities are read by the library and by llhttp, an
//! independent parser: where both accept, they have to agree. Answers that programs write themselves are taken
//! by the library, and read by llhttp as a client: it has to find their ends where the library goes on.
//!
//! `FRAMING_COUNT`: how many requests, and as many answers (default: 100 million). `FRAMING_SEED`: another
//! seed. `FRAMING_CASE`: shows one case, by the number that a failure tells.

mod answers;
mod compare;
mod grammar;
mod ours;
mod random;
mod regular;
mod requests;
mod second;
mod served;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use answers::Written;
use mongoose::http::response::Answer;
use ours::Ours;
use random::Random;
use second::Second;
use served::Served;

/// Cases that a thread takes at once.
const SHARE: u64 = 1000;
/// One case of so many goes over a real connection as well.
const SERVED: u64 = 40;
/// After so many failures there is nothing more to learn.
const MAX_FAILURES: usize = 20;

/// All that a thread needs for a case.
struct Bench {
    seed: u64,
    stream: Vec<u8>,
    written: Written,
    answer: Answer,
    ours: Ours,
    second: Second,
    served: Served,
    requests: compare::Tally,
    answers: answers::Tally,
    connections: u64,
}

impl Bench {
    fn new(seed: u64, number: u64) -> Self {
        Self {
            seed,
            stream: Vec::new(),
            written: Written::default(),
            answer: Answer::default(),
            ours: Ours::default(),
            second: Second::new(),
            served: Served::new(number),
            requests: Default::default(),
            answers: Default::default(),
            connections: 0,
        }
    }

    fn random(&self, case: u64) -> Random {
        Random::new((self.seed << 40) + case)
    }

    fn requests(&mut self, case: u64) -> Result<(), String> {
        let mut random = self.random(case);
        self.stream.clear();
        let (made, is_regular) = requests::write(&mut random, &mut self.stream);
        self.requests.made += made as u64;
        let Self { stream, ours, second, requests, served, .. } = self;
        compare::compare(stream, is_regular, ours, second, requests).map_err(|(what, index)| {
            format!("{what:?} of request {index} of {}", stream.escape_ascii())
        })?;
        if case.is_multiple_of(SERVED) {
            self.connections += 1;
            let cut = random.below(2 * stream.len() + 1);
            let shown = served.shows(stream, cut, ours);
            shown.map_err(|shown| {
                format!("served, cut at {cut}: {} as {shown}", stream.escape_ascii())
            })?;
        }
        Ok(())
    }

    fn answers(&mut self, case: u64) -> Result<(), String> {
        let mut random = self.random(case);
        let Self { stream, written, answer, second, answers, served, .. } = self;
        written.write(&mut random);
        stream.clear();
        let end = answers::take(written, answer, stream);
        answers::judge(written, end, stream, second, answers).map_err(|odds| {
            format!(
                "{odds:?} where the library {end:?}: {written} sent as {}",
                stream.escape_ascii()
            )
        })?;
        if case.is_multiple_of(SERVED) {
            self.connections += 1;
            served.answers(written).map_err(|sent| format!("served: {written} {sent}"))?;
        }
        Ok(())
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

fn main() -> ExitCode {
    let seed = setting("FRAMING_SEED").unwrap_or(1);
    if let Some(case) = setting("FRAMING_CASE") {
        let mut bench = Bench::new(seed, 0);
        let outcome = bench.requests(case);
        println!("requests: {}\n{outcome:?}", bench.stream.escape_ascii());
        let outcome = bench.answers(case);
        println!("answer: {}\n{outcome:?}", bench.written);
        return ExitCode::SUCCESS;
    }
    let count = setting("FRAMING_COUNT").unwrap_or(100_000_000);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let next = AtomicU64::new(0);
    let (made, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    let total = Mutex::new((compare::Tally::default(), answers::Tally::default(), 0));
    let work = |number: u64| {
        let mut bench = Bench::new(seed, number);
        let has_failed = || failures.lock().expect("no panic").len() >= MAX_FAILURES;
        let is_done = |made: &AtomicU64| made.load(Relaxed) >= count;
        while !(has_failed() || is_done(&made) && is_done(&answered)) {
            let first = next.fetch_add(SHARE, Relaxed);
            let before = bench.requests.made;
            for case in first..first + SHARE {
                let requests = if is_done(&made) { Ok(()) } else { bench.requests(case) };
                let outcome = requests.and_then(|()| bench.answers(case));
                if let Err(failure) = outcome {
                    failures.lock().expect("no panic").push(format!("case {case}: {failure}"));
                }
            }
            made.fetch_add(bench.requests.made - before, Relaxed);
            answered.fetch_add(SHARE, Relaxed);
        }
        let mut total = total.lock().expect("no panic");
        total.0.add(&bench.requests);
        total.1.add(&bench.answers);
        total.2 += bench.connections;
    };
    std::thread::scope(|scope| {
        for number in 0..threads {
            let work = &work;
            scope.spawn(move || work(number));
        }
    });
    let (requests, answers, connections) = total.into_inner().expect("no panic");
    report(&requests, &answers, connections);
    let failures = failures.into_inner().expect("no panic");
    for failure in &failures {
        println!("{failure}");
    }
    println!(
        "{} passed, {} failed",
        requests.made + answers.made - failures.len() as u64,
        failures.len()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(requests: &compare::Tally, answers: &answers::Tally, connections: u64) {
    println!(
        "{} requests: {} read alike ({} with content, {} in chunks, {} of which the rest was awaited); \
         refused {} by both, {} by the library alone, {} by the second parser alone",
        requests.made,
        requests.both_accept,
        requests.with_content,
        requests.in_chunks,
        requests.both_wait,
        requests.refused_by_both,
        requests.refused_by_ours,
        requests.refused_by_second,
    );
    for (one, count) in compare::EXCEPTIONS.iter().zip(requests.exceptions) {
        println!("  known: {}: {count}", one.name);
    }
    println!(
        "{} answers: {} behind which the connection goes on, {} behind which it closes, {} to be continued; \
         the client refuses {}",
        answers.made, answers.kept, answers.closed, answers.waits, answers.refused_by_client,
    );
    for (one, count) in answers::EXCEPTIONS.iter().zip(answers.exceptions) {
        println!("  known: {}: {count}", one.name);
    }
    println!("{connections} real connections");
}
