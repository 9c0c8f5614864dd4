//! What a world is to be, and what is to happen in it: all of it follows from the seed.
//!
//! Each world has a part of what there could be, so that some are calm, where nothing excuses anything, and
//! others are not.

use super::random::Random;

/// What the clients of a world may be.
pub const KINDS: [Kind; 6] =
    [Kind::Polite, Kind::Pipelining, Kind::Uploading, Kind::Listening, Kind::Websocket, Kind::Rude];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// One request after the other, on a connection that stays open.
    Polite,
    /// Several requests at once, in pieces that are cut anywhere.
    Pipelining,
    /// Long contents, in chunks or with a length, piece by piece.
    Uploading,
    /// Streams of events that do not end, fast or slow.
    Listening,
    /// Messages both ways, compressed or not.
    Websocket,
    /// Leaves, stalls, resets, or speaks nonsense.
    Rude,
}

/// What happens to the servers.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// A server ends under load, by a thread, a handler or a signal, and another takes its place.
    Replace { server: usize, by: &'static str },
    /// It listens at other addresses.
    Move { server: usize },
    /// The clock by which timeouts are measured jumps ahead by so many milliseconds.
    JumpMonotonic(i64),
    /// The clock of the wall jumps.
    JumpRealtime(i64),
    /// The process is stopped for so many milliseconds.
    Freeze(u64),
    /// For so many milliseconds there are only so few descriptors left.
    LackDescriptors(u64, usize),
    /// An option has a value that disturbs clients for so many milliseconds.
    Disturb { server: usize, name: &'static str, value: &'static str, ms: u64 },
    /// A worker is killed.
    Kill { worker: usize },
}

/// What happens next, and after how many milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub after: u64,
    pub action: Action,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// The server whose socket each one uses; `None`: a socket of its own.
    pub servers: Vec<Option<usize>>,
    /// Threads that poll one server in turns.
    pub pollers: usize,
    pub writers: usize,
    pub walkers: usize,
    pub changers: usize,
    /// Processes that poll what their parent has bound.
    pub workers: usize,
    /// Where one listens.
    pub address: &'static str,
    /// The longest record of a stream.
    pub longest: usize,
    pub clients: Vec<Kind>,
    /// What happens in each era: at its end all servers have gone.
    pub eras: Vec<Vec<Event>>,
}

/// The time of an era.
const ERA_MS: u64 = 1300;

impl Plan {
    pub fn of(seed: u64, has_tls: bool) -> Plan {
        let mut random = Random::new(seed);
        let count = 1 + random.below(3);
        let shares = random.chance(30);
        let servers = (0..count).map(|server| (server > 0 && shares).then_some(0)).collect();
        let kinds: Vec<Kind> = KINDS.into_iter().filter(|_| random.chance(70)).collect();
        let kinds = if kinds.is_empty() { KINDS.to_vec() } else { kinds };
        let workers = if random.chance(30) { 1 + random.below(3) } else { 0 };
        // What a server shares is a socket without a letter: with a certificate it would speak TLS alone.
        let address = match random.chance(60) && has_tls && !shares {
            true => "127.0.0.1:0,127.0.0.1:0s",
            false => "127.0.0.1:0,127.0.0.1:0",
        };
        let mut plan = Plan {
            seed,
            servers,
            pollers: 1 + random.below(4) / 3,
            writers: 1 + random.below(4),
            walkers: random.below(4),
            changers: random.below(3),
            workers,
            address,
            longest: *random.pick(&[200, 5000, 20_000, 100_000]),
            clients: (0..4 + random.below(16)).map(|_| *random.pick(&kinds)).collect(),
            eras: Vec::new(),
        };
        let calm = random.chance(30);
        let possible: Vec<usize> = (0..8).filter(|_| !calm && random.chance(40)).collect();
        for _ in 0..3 {
            plan.eras.push(plan.era(&mut random, &possible));
        }
        plan
    }

    pub fn speaks_tls(&self) -> bool {
        self.address.ends_with('s')
    }

    fn era(&self, random: &mut Random, possible: &[usize]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut time = 0;
        while !possible.is_empty() {
            let after = random.below(500) as u64;
            let which = *random.pick(possible);
            let action = self.action(random, which);
            time += after + 100;
            if time > ERA_MS {
                break;
            }
            events.push(Event { after, action });
        }
        events
    }

    fn action(&self, random: &mut Random, which: usize) -> Action {
        let server = random.below(self.servers.len());
        match which {
            0 => {
                let by = *random.pick(&["thread", "thread", "handler", "signal"]);
                Action::Replace { server, by }
            }
            1 => Action::Move { server },
            // An hour; half and all of the time after which milliseconds in 32 bits begin anew.
            2 => Action::JumpMonotonic(*random.pick(&[
                1_500,
                45_000,
                3_600_000,
                (1 << 31) - 500,
                (1 << 32) - 700,
                1 << 33,
            ])),
            3 => Action::JumpRealtime(*random.pick(&[
                -1,
                -900,
                -3_600_000,
                -86_400_000 * 400,
                900,
                3_600_000,
                86_400_000 * 400,
            ])),
            4 => Action::Freeze(20 + random.below(400) as u64),
            5 => Action::LackDescriptors(50 + random.below(300) as u64, random.below(12)),
            6 => {
                let (name, value) = *random.pick(&[
                    ("max_connections", "3"),
                    ("idle_timeout_ms", "60"),
                    ("request_timeout_ms", "40"),
                    ("access_control_list", "-0.0.0.0/0"),
                    ("max_buffered_bytes", "20000"),
                    ("max_send_queue_bytes", "3000"),
                    ("max_request_body_bytes", "3000"),
                    ("websocket_delivery", "messages"),
                ]);
                Action::Disturb { server, name, value, ms: 50 + random.below(300) as u64 }
            }
            _ if self.workers > 0 => Action::Kill { worker: 1 + random.below(self.workers) },
            _ => Action::JumpRealtime(10),
        }
    }
}

/// The time that is left of an era behind its last event.
pub fn rest_of_era(events: &[Event]) -> u64 {
    ERA_MS.saturating_sub(events.iter().map(|event| event.after + 100).sum())
}
