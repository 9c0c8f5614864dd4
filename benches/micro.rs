//! What single pieces of the way of a request take: `cargo bench`, or `cargo bench -- unmask`.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use mongoose::exchange::outbox::Outbox;
use mongoose::http::request::{Head, Outcome};
use mongoose::http::response::{Answer, RequestFacts};
use mongoose::http::{chunked, uri};
use mongoose::pattern::matched_len;
use mongoose::timers::{HORIZON_MS, Timers};
use mongoose::websocket::frame::{self, Parsed};
use mongoose::websocket::message::{Receiver, Step, Unit};

fn main() {
    divan::main();
}

fn get(fields: usize) -> Vec<u8> {
    let mut head = b"GET /some/path/index.html?name=value HTTP/1.1\r\nHost: localhost\r\n".to_vec();
    for number in 1..fields {
        head.extend_from_slice(format!("X-Field-{number}: some value\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

const BROWSER: &[u8] = b"GET /wiki/Main_Page HTTP/1.1\r\n\
    Host: www.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: https://www.example.org/start\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Connection: keep-alive\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    \r\n";

mod head {
    use super::*;

    fn parse(bencher: Bencher, input: &[u8]) {
        let mut head = Head::default();
        assert_eq!(head.parse(input, 16_384), Outcome::Complete);
        bencher
            .counter(BytesCount::of_slice(input))
            .bench_local(|| head.parse(black_box(input), 16_384));
    }

    #[divan::bench(args = [1, 5, 30, 100])]
    fn fields(bencher: Bencher, count: usize) {
        parse(bencher, &get(count));
    }

    #[divan::bench]
    fn browser(bencher: Bencher) {
        parse(bencher, BROWSER);
    }

    /// The end of the head has not come.
    #[divan::bench]
    fn partial(bencher: Bencher) {
        let mut head = Head::default();
        let input = &BROWSER[..BROWSER.len() - 2];
        bencher.bench_local(|| head.parse(black_box(input), 16_384));
    }
}

mod target {
    use super::*;

    const PLAIN: &str = "/some/directory/with/a/file.html";
    const ENCODED: &str = "/some%20directory/./with/../%C3%A4/file.html";

    #[divan::bench(args = [PLAIN, ENCODED])]
    fn split(target: &str) -> bool {
        uri::split_target(black_box(target.as_bytes())).is_ok()
    }

    #[divan::bench(args = [PLAIN, ENCODED])]
    fn decode(bencher: Bencher, path: &str) {
        let path = path.as_bytes();
        let mut out = [0; 256];
        bencher
            .counter(BytesCount::of_slice(path))
            .bench_local(|| uri::decode_path(black_box(path), &mut out).is_ok());
    }
}

mod body {
    use super::*;

    /// 64 KiB of content in chunks of this size.
    #[divan::bench(args = [16, 1024, 16_384])]
    fn chunks(bencher: Bencher, size: usize) {
        let mut input = Vec::new();
        for _ in 0..65_536 / size {
            input.extend_from_slice(format!("{size:x}\r\n").as_bytes());
            input.resize(input.len() + size, b'c');
            input.extend_from_slice(b"\r\n");
        }
        input.extend_from_slice(b"0\r\n\r\n");
        bencher.bench_local(|| {
            let mut decoder = chunked::Decoder::new();
            let (mut at, mut content) = (0, 0);
            loop {
                match decoder.step(black_box(&input[at..])).expect("well formed") {
                    chunked::Step::Data { start, end } => {
                        content += end - start;
                        at += end;
                    }
                    chunked::Step::More => unreachable!("the input is complete"),
                    chunked::Step::End(_) => return content,
                }
            }
        });
    }
}

mod websocket {
    use super::*;

    fn masked(len: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        frame::write_header(&mut frame, frame::BINARY, len, false);
        frame[1] |= 0x80;
        frame.extend_from_slice(&[1, 2, 3, 4]);
        frame.resize(frame.len() + len, b'm');
        frame
    }

    #[divan::bench(args = [32, 1000, 100_000])]
    fn header(bencher: Bencher, len: usize) {
        let frame = masked(len);
        assert!(matches!(frame::parse(&frame, false, false), Parsed::Header(_)));
        bencher.bench_local(|| frame::parse(black_box(&frame), false, false));
    }

    #[divan::bench(args = [32, 1000, 16_384])]
    fn unmask(bencher: Bencher, len: usize) {
        let mut payload = vec![b'm'; len];
        bencher
            .counter(BytesCount::new(len))
            .bench_local(|| frame::unmask(black_box(&mut payload), [1, 2, 3, 4], 0));
    }

    /// Whole messages, as they come out of one read.
    #[divan::bench(args = [32, 1000, 16_384])]
    fn message(bencher: Bencher, len: usize) {
        let mut input = masked(len);
        let mut receiver = Receiver::new(Unit::Message, 1 << 20, None);
        bencher.counter(BytesCount::new(len)).bench_local(|| {
            let step = receiver.step(black_box(&mut input));
            assert!(matches!(step, Step::Message { .. }));
            receiver.release();
        });
    }
}

mod pattern {
    use super::*;

    #[divan::bench(args = ["/api", "**.cgi$|**.pl$|**.php$", "/a/*/b/**/c$", "**a*b**c*d$"])]
    fn matched(pattern: &str) -> Option<usize> {
        matched_len(black_box(pattern.as_bytes()), b"/some/directory/with/a/file.html")
    }
}

mod timers {
    use super::*;

    /// What a connection costs that opens and closes, beside others.
    #[divan::bench(args = [100, 20_000])]
    fn set_and_clear(bencher: Bencher, others: u32) {
        let mut timers = Timers::new(0);
        for id in 0..others {
            timers.set(id, id % HORIZON_MS, 0);
        }
        bencher.bench_local(|| {
            timers.set(black_box(others), 10_000, 0);
            timers.clear(black_box(others));
        });
    }

    /// What a turn costs when nothing comes due.
    #[divan::bench(args = [100, 20_000])]
    fn idle_turn(bencher: Bencher, others: u32) {
        let mut timers = Timers::new(0);
        let mut due = Vec::new();
        for id in 0..others {
            timers.set(id, 10_000, 0);
        }
        bencher.bench_local(|| {
            timers.expire(black_box(5), &mut due);
            timers.wait(black_box(5))
        });
    }

    /// A whole turn of the wheel in which each of 1,000 entries comes due once.
    #[divan::bench]
    fn expire(bencher: Bencher) {
        bencher
            .with_inputs(|| {
                let mut timers = Timers::new(0);
                for id in 0..1000 {
                    timers.set(id, id * 16, 0);
                }
                (timers, Vec::with_capacity(1000))
            })
            .bench_local_values(|(mut timers, mut due)| {
                timers.expire(HORIZON_MS, &mut due);
                due.len()
            });
    }
}

mod outbox {
    use super::*;

    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nHello";
    const FACTS: RequestFacts = RequestFacts { head_only: false, chunks: true, persistent: true };

    /// An answer in one piece, written and taken by the socket.
    #[divan::bench]
    fn raw_answer(bencher: Bencher) {
        let mut out = Outbox::default();
        let mut write = || {
            let mut answer = Answer::new(FACTS, 200);
            answer.write(black_box(ANSWER), &mut out.bytes);
            answer.handler_returned(&mut out.bytes);
            out.consume(out.len());
        };
        // The first one takes so long that the sample would hold nothing else.
        write();
        bencher.bench_local(write);
    }

    /// The same through the `mg_send` family.
    #[divan::bench]
    fn sent_answer(bencher: Bencher) {
        let mut out = Outbox::default();
        out.bytes.reserve(4096);
        bencher.bench_local(|| {
            let mut answer = Answer::new(FACTS, 200);
            answer.send_header(b"Content-Type", black_box(b"text/plain"));
            answer.send_data(b"Hello", &mut out.bytes);
            answer.handler_returned(&mut out.bytes);
            out.consume(out.len());
        });
    }

    /// 1 MiB that a slow socket takes in pieces.
    #[divan::bench(args = [1448, 65_536])]
    fn drain(bencher: Bencher, piece: usize) {
        let megabyte = vec![b'o'; 1 << 20];
        bencher
            .with_inputs(|| {
                let mut out = Outbox::default();
                out.bytes.extend_from_slice(&megabyte);
                out
            })
            .bench_local_values(|mut out| {
                while !out.is_empty() {
                    out.consume(piece.min(out.len()));
                }
            });
    }
}
