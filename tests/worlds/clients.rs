//! The clients of a world. Each is one thread, whose conduct follows from the seed and its number, and
//! whose connections are owners, one after the other.

use std::time::{Duration, Instant};

use super::ledger::{ANSWER, Receipts, UPWARDS, record};
use super::plan::Kind;
use super::random::Random;
use super::wire::{Framing, PATIENCE, Trouble, Wire};
use super::world::{Phase, World};

/// Lives until the era is over.
pub fn live(world: &World, kind: Kind, mut random: Random) {
    while world.phase() == Phase::Running && !world.has_failed() {
        let since = world.excuses.now();
        let Some(target) = world.some_target(&mut random) else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let Some(owner) = world.new_owner() else { return };
        let outcome = Wire::connect(world, target, owner).and_then(|mut wire| match kind {
            Kind::Polite => polite(world, &mut wire, &mut random),
            Kind::Pipelining => pipelining(world, &mut wire, &mut random),
            Kind::Uploading => uploading(world, &mut wire, &mut random),
            Kind::Listening => listening(world, &mut wire, &mut random),
            Kind::Websocket => websocket(world, &mut wire, &mut random),
            Kind::Rude => rude(world, wire, &mut random),
        });
        match outcome {
            Ok(()) => world.count("lives"),
            Err(Trouble::Over) => return,
            Err(Trouble::Wrong(text)) => world.fail(format!("{kind:?}: {text}")),
            // The others have a right to be served until they end.
            Err(Trouble::Broken(_)) if kind == Kind::Rude || world.excuses.excuse(&since) => {
                world.count("excused");
            }
            Err(Trouble::Broken(text)) => {
                // What ends connections may be noticed by them first.
                std::thread::sleep(Duration::from_millis(300));
                if !world.excuses.excuse(&since) {
                    world.fail(format!("{kind:?}, without a reason: {text}"));
                }
            }
        }
    }
}

/// A request, and what it has to be answered.
struct Question {
    bytes: Vec<u8>,
    expected: Expected,
    what: String,
}

enum Expected {
    Body(Vec<u8>),
    /// One of the files of this name.
    File(usize),
    NotFound,
}

/// The files of a name, below the roots `a` and `b`.
pub fn file_of(root: char, number: usize) -> Vec<u8> {
    let text = format!("file {number} of {root};");
    text.bytes().cycle().take([10, 3000, 150_000][number]).collect()
}

/// The next request of an owner; `longest`: its content.
fn question(owner: u32, number: u32, longest: usize, random: &mut Random) -> Question {
    let len = match random.below(4) {
        0 => random.below(longest),
        _ => random.below(longest.min(300)),
    };
    let query = format!("?o={owner}&r={number}&l={len}");
    let answer = record(owner, ANSWER, number, len);
    let (method, path, content, expected) = match random.below(16) {
        0..4 => ("GET", "/now".to_owned(), None, Expected::Body(answer)),
        4..6 => ("POST", "/now".to_owned(), Some(b"x".to_vec()), Expected::Body(answer)),
        6..9 => {
            let content = record(owner, UPWARDS, number, len);
            ("POST", "/echo".to_owned(), Some(content.clone()), Expected::Body(content))
        }
        9..12 => ("GET", "/later".to_owned(), None, Expected::Body(answer)),
        12 => ("POST", "/later".to_owned(), Some(b"y".to_vec()), Expected::Body(answer)),
        13 => {
            let file = random.below(3);
            ("GET", format!("/file{file}.txt"), None, Expected::File(file))
        }
        14 if random.chance(30) && cfg!(feature = "cgi") => {
            let content = record(owner, UPWARDS, number, len);
            ("POST", "/echo.cgi".to_owned(), Some(content.clone()), Expected::Body(content))
        }
        _ => ("GET", "/none".to_owned(), None, Expected::NotFound),
    };
    let what = format!("{method} {path}{query}");
    let mut bytes = format!("{what} HTTP/1.1\r\nHost: a\r\n").into_bytes();
    match content {
        None => bytes.extend(b"\r\n"),
        Some(content) if random.chance(40) => {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            let mut rest = &content[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(1 + random.below(rest.len()));
                bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
                bytes.extend(piece);
                bytes.extend(b"\r\n");
                rest = behind;
            }
            bytes.extend(b"0\r\n\r\n");
        }
        Some(content) => {
            bytes.extend(format!("Content-Length: {}\r\n\r\n", content.len()).bytes());
            bytes.extend(content);
        }
    }
    Question { bytes, expected, what }
}

/// Reads the answer to a request, and judges it.
fn hear(world: &World, wire: &mut Wire, question: &Question) -> Result<(), Trouble> {
    let answer = wire.answer(&question.what)?;
    world.count("answers");
    let wanted = if matches!(question.expected, Expected::NotFound) { 404 } else { 200 };
    if answer.status != wanted {
        let text = format!("{} is answered {}", question.what, answer.status);
        return Err(Trouble::Broken(text));
    }
    let is_right = match &question.expected {
        Expected::Body(body) => answer.body == *body,
        Expected::File(number) => {
            ['a', 'b'].into_iter().any(|root| answer.body == file_of(root, *number))
        }
        Expected::NotFound => true,
    };
    if is_right {
        return Ok(());
    }
    let shown = answer.body[..answer.body.len().min(90)].escape_ascii();
    let text = format!("{} gets {} bytes: {shown}", question.what, answer.body.len());
    Err(Trouble::Wrong(text))
}

fn polite(world: &World, wire: &mut Wire, random: &mut Random) -> Result<(), Trouble> {
    for number in 0..random.below(60) as u32 {
        if world.phase() != Phase::Running {
            break;
        }
        let question = question(wire.owner, number, 20_000, random);
        wire.send(&question.bytes)?;
        hear(world, wire, &question)?;
        if random.chance(10) {
            std::thread::sleep(Duration::from_millis(random.below(20) as u64));
        }
    }
    Ok(())
}

fn pipelining(world: &World, wire: &mut Wire, random: &mut Random) -> Result<(), Trouble> {
    let mut number = 0;
    for _ in 0..random.below(12) {
        if world.phase() != Phase::Running {
            break;
        }
        let questions: Vec<Question> = (0..1 + random.below(8))
            .map(|_| {
                number += 1;
                question(wire.owner, number, 600, random)
            })
            .collect();
        let all: Vec<u8> =
            questions.iter().flat_map(|question| question.bytes.iter().copied()).collect();
        wire.send_in_pieces(&all, random)?;
        if random.chance(10) {
            // Who sends no more gets all answers.
            wire.finish_sending();
            for question in &questions {
                hear(world, wire, question)?;
            }
            return Ok(());
        }
        for question in &questions {
            hear(world, wire, question)?;
        }
    }
    Ok(())
}

fn uploading(world: &World, wire: &mut Wire, random: &mut Random) -> Result<(), Trouble> {
    for number in 0..random.below(6) as u32 {
        let question = question(wire.owner, number, 100_000, random);
        wire.send_in_pieces(&question.bytes, random)?;
        hear(world, wire, &question)?;
        if world.phase() != Phase::Running {
            break;
        }
    }
    Ok(())
}

/// A stream of records: raw, or a chunk each.
fn listening(world: &World, wire: &mut Wire, random: &mut Random) -> Result<(), Trouble> {
    if random.chance(30) {
        let question = question(wire.owner, 0, 300, random);
        wire.send(&question.bytes)?;
        hear(world, wire, &question)?;
    }
    let path = *random.pick(&["/events", "/chunks"]);
    let what = format!("GET {path}?o={}", wire.owner);
    wire.send(format!("{what} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
    let (status, framing) = wire.head(&what)?;
    if status != 200 {
        return Err(Trouble::Broken(format!("{what} is answered {status}")));
    }
    let is_chunked = framing == Framing::Chunks;
    let stay = patience_of_listener(random);
    let is_slow = random.chance(40);
    let mut receipts = Receipts::new(wire.owner);
    // What of a chunk has not come.
    let mut records = Vec::new();
    follow(world, wire, random, (stay, is_slow), &mut receipts, |wire, receipts| {
        if !is_chunked {
            let mut at = 0;
            while at < wire.received().len()
                && let Some(len) = receipts.take(&wire.received()[at..])?
            {
                at += len;
                world.count("records");
            }
            wire.consume(at);
            return Ok(());
        }
        while let Some(line) = memchr::memmem::find(wire.received(), b"\r\n") {
            let text = String::from_utf8_lossy(&wire.received()[..line]).into_owned();
            let Ok(len @ 1..) = usize::from_str_radix(&text, 16) else {
                return Err(Trouble::Wrong(format!("{}: a chunk of {text:?}", wire.owner)));
            };
            let end = line + 2 + len;
            if wire.received().len() < end + 2 {
                break;
            }
            // One call, one chunk: the bytes of others do not stand among them.
            records.clear();
            records.extend_from_slice(&wire.received()[line + 2..end]);
            if receipts.take(&records)? != Some(len) || &wire.received()[end..end + 2] != b"\r\n" {
                return Err(Trouble::Wrong(format!("{}: no chunk is a record", wire.owner)));
            }
            world.count("records");
            wire.consume(end + 2);
        }
        Ok(())
    })
}

/// How long a listener stays; `None`: to the end of the era.
fn patience_of_listener(random: &mut Random) -> Option<Instant> {
    let time = Duration::from_millis(random.below(800) as u64);
    random.chance(40).then(|| Instant::now() + time)
}

/// Reads a stream to its end: when the listener leaves, or all that was taken has come.
fn follow(
    world: &World,
    wire: &mut Wire,
    random: &mut Random,
    (stay, is_slow): (Option<Instant>, bool),
    receipts: &mut Receipts,
    mut read: impl FnMut(&mut Wire, &mut Receipts) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let mut drained: Option<Instant> = None;
    loop {
        let phase = world.phase();
        if phase == Phase::Running {
            if stay.is_some_and(|stay| Instant::now() > stay) {
                return Ok(());
            }
            if is_slow {
                wire.pace = 1 + random.below(2000);
                std::thread::sleep(Duration::from_millis(random.below(30) as u64));
            }
        } else {
            wire.pace = 65_536;
        }
        let goes_on = wire.glance()?;
        read(wire, receipts)?;
        if !goes_on {
            let text = format!("the stream of {} has ended", wire.owner);
            return Err(Trouble::Broken(text));
        }
        if phase == Phase::Draining {
            let lack = receipts.lacks(&world.ledger)?;
            let end = *drained.get_or_insert_with(|| Instant::now() + PATIENCE);
            match lack {
                None => return Ok(()),
                Some(lack) if Instant::now() > end => return Err(Trouble::Wrong(lack)),
                Some(_) => {}
            }
        }
    }
}

fn masked(first: u8, payload: &[u8], random: &mut Random) -> Vec<u8> {
    let mask = (random.draw() as u32).to_ne_bytes();
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn compressed(payload: &[u8]) -> Vec<u8> {
    use flate2::{Compress, Compression, FlushCompress};
    let mut out = Vec::with_capacity(payload.len() + 100);
    let mut deflater = Compress::new(Compression::fast(), false);
    let done = deflater.compress_vec(payload, &mut out, FlushCompress::Sync);
    done.expect("room");
    out.truncate(out.len() - 4);
    out
}

fn inflated(payload: &[u8]) -> Option<Vec<u8>> {
    use flate2::{Decompress, FlushDecompress};
    let input = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut out = Vec::with_capacity(300_000);
    let mut inflater = Decompress::new(false);
    inflater.decompress_vec(&input, &mut out, FlushDecompress::Sync).ok()?;
    Some(out)
}

/// Sends messages with numbers that have no gap, and reads those that come from anywhere.
fn websocket(world: &World, wire: &mut Wire, random: &mut Random) -> Result<(), Trouble> {
    let offer = match random.chance(50) && cfg!(feature = "deflate") {
        true => {
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
             client_no_context_takeover\r\n"
        }
        false => "",
    };
    let what = format!("GET /ws?o={}", wire.owner);
    let request = format!(
        "{what} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n"
    );
    wire.send(request.as_bytes())?;
    let (status, framing) = wire.head(&what)?;
    if status != 101 {
        return Err(Trouble::Broken(format!("{what} is answered {status}")));
    }
    let deflates = framing == Framing::Compressed;
    let (mut sent, mut asked, mut counted) = (0, false, false);
    let (stay, is_slow) = (patience_of_listener(random), random.chance(25));
    let mut receipts = Receipts::new(wire.owner);
    let mut own = Random::branch(random.draw(), 0);
    let outcome = follow(world, wire, random, (stay, is_slow), &mut receipts, |wire, receipts| {
        while let Some((first, payload)) = wire.frame()? {
            let payload = match first {
                0x81 | 0x82 => payload,
                0xc1 | 0xc2 if deflates => inflated(&payload)
                    .ok_or_else(|| Trouble::Wrong(format!("{} cannot inflate", wire.owner)))?,
                0x89 => {
                    let pong = masked(0x8a, &payload, &mut own);
                    wire.send(&pong)?;
                    continue;
                }
                0x88 => return Err(Trouble::Broken(format!("{} got a Close", wire.owner))),
                _ => {
                    let text = format!("{} got a frame {first:x}", wire.owner);
                    return Err(Trouble::Wrong(text));
                }
            };
            if asked && payload == format!("count {sent}").as_bytes() {
                counted = true;
            } else if receipts.take(&payload)? == Some(payload.len()) {
                world.count("messages");
            } else {
                return Err(Trouble::Wrong(format!("{}: a message is no record", wire.owner)));
            }
        }
        if world.phase() == Phase::Running {
            if own.chance(30) {
                let len = if own.chance(5) { own.below(70_000) } else { own.below(200) };
                let message = record(wire.owner, UPWARDS, sent, len);
                sent += 1;
                let opcode = 1 + own.below(2) as u8;
                if deflates && own.chance(50) {
                    wire.send(&masked(0xc0 | opcode, &compressed(&message), &mut own))?;
                } else if own.chance(20) {
                    let (one, two) = message.split_at(own.below(message.len()));
                    let frames = [masked(opcode, one, &mut own), masked(0x80, two, &mut own)];
                    wire.send(&frames.concat())?;
                } else {
                    wire.send(&masked(0x80 | opcode, &message, &mut own))?;
                }
            }
        } else if !asked {
            asked = true;
            wire.send(&masked(0x81, format!("count {sent}").as_bytes(), &mut own))?;
        }
        Ok(())
    });
    if outcome.is_ok() && asked && !counted {
        // The answer stands behind all that has come so far.
        return follow_count(wire, sent, random);
    }
    outcome
}

/// Waits for the last message of a websocket.
fn follow_count(wire: &mut Wire, sent: u32, random: &mut Random) -> Result<(), Trouble> {
    let end = Instant::now() + PATIENCE;
    let mut next = Instant::now();
    while Instant::now() < end {
        if Instant::now() > next {
            // There may have been no room for the answer.
            wire.send(&masked(0x81, format!("count {sent}").as_bytes(), random))?;
            next = Instant::now() + Duration::from_secs(2);
        }
        while let Some((first, payload)) = wire.frame()? {
            match first {
                0x81 | 0xc1 if payload == format!("count {sent}").as_bytes() => return Ok(()),
                0x89 => {}
                0xc1 if inflated(&payload) == Some(format!("count {sent}").into_bytes()) => {
                    return Ok(());
                }
                0x88 => return Err(Trouble::Broken(format!("{} got a Close", wire.owner))),
                _ => {
                    let shown = payload[..payload.len().min(90)].escape_ascii();
                    let text = format!("{} got more than was taken: {shown}", wire.owner);
                    return Err(Trouble::Wrong(text));
                }
            }
        }
        if !wire.glance()? {
            return Err(Trouble::Broken(format!("the websocket of {} has ended", wire.owner)));
        }
    }
    Err(Trouble::Wrong(format!("{} waits in vain for its count", wire.owner)))
}

/// Does what clients should not. What it gets is its own all the same.
fn rude(world: &World, mut wire: Wire, random: &mut Random) -> Result<(), Trouble> {
    let owner = wire.owner;
    let question = question(owner, 0, 20_000, random);
    let stream = *random.pick(&["/events", "/chunks", "/later", "/now", "/file2.txt"]);
    let get = format!("GET {stream}?o={owner}&r=1&l=3000 HTTP/1.1\r\nHost: a\r\n\r\n");
    let upgrade = format!(
        "GET /ws?o={owner} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let bytes = match random.below(6) {
        0 => question.bytes[..random.below(question.bytes.len())].to_vec(),
        1 => get.into_bytes(),
        2 => get.repeat(3).into_bytes(),
        3 => {
            let message = record(owner, UPWARDS, 0, 100);
            let frame = masked(0x82, &message, random);
            [upgrade.as_bytes(), &frame[..random.below(frame.len() + 1)]].concat()
        }
        4 => (0..random.below(500)).map(|_| random.draw() as u8).collect(),
        _ => {
            let message = record(owner, UPWARDS, 0, 100);
            let noise = [0xff_u8; 30];
            let frame = masked(0x82, &message, random);
            [upgrade.as_bytes(), &frame, &noise].concat()
        }
    };
    wire.send(&bytes)?;
    if random.chance(20) {
        wire.finish_sending();
    }
    let end = Instant::now() + Duration::from_millis(random.below(300) as u64);
    let reads = random.chance(50);
    while Instant::now() < end && world.phase() == Phase::Running {
        if reads && !wire.glance()? {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    own_alone(&wire)?;
    if random.chance(50) {
        wire.reset();
    }
    Ok(())
}

/// Whatever has come: all names in it are those of the owner.
fn own_alone(wire: &Wire) -> Result<(), Trouble> {
    let text = String::from_utf8_lossy(wire.received());
    for part in text.split('<').skip(1) {
        let owner = part.split('.').next().unwrap_or_default();
        // The last one may have been cut off.
        if part.contains(':')
            && let Ok(owner) = owner.parse::<u32>()
            && owner != wire.owner
        {
            return Err(Trouble::Wrong(format!(
                "{} got what is {owner}'s: {part:.60}",
                wire.owner
            )));
        }
    }
    Ok(())
}
