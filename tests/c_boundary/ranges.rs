//! Ranges and conditions of requests for files (RFC 9110, sections 13 and 14).

use crate::support::{Response, Scratch, Server, for_each};

fn serve(scratch: &Scratch) -> Server {
    scratch.write("root/ten.txt", "0123456789");
    scratch.write("root/empty.txt", "");
    scratch.write("root/big.bin", big());
    Server::start(&[&format!("document_root={}", scratch.join("root"))])
}

fn big() -> Vec<u8> {
    (0..1_000_000u32).map(|n| (n % 251) as u8).collect()
}

fn get(server: &Server, target: &str, fields: &str) -> Response {
    server.ask(format!("GET {target} HTTP/1.1\r\n{fields}\r\n"))
}

#[test]
fn a_range_is_answered_with_just_its_bytes() {
    let scratch = Scratch::new();
    let server = serve(&scratch);
    let cases = [
        ("bytes=0-0", 206, "bytes 0-0/10", "0"),
        ("bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("bytes=7-", 206, "bytes 7-9/10", "789"),
        ("bytes=7-99", 206, "bytes 7-9/10", "789"),
        ("bytes=-3", 206, "bytes 7-9/10", "789"),
        ("bytes=-99", 206, "bytes 0-9/10", "0123456789"),
        ("Bytes=1-1", 206, "bytes 1-1/10", "1"),
        ("bytes=10-", 416, "bytes */10", "416 Range Not Satisfiable\n"),
        ("bytes=-0", 416, "bytes */10", "416 Range Not Satisfiable\n"),
        ("bytes=4-2", 200, "", "0123456789"),
        ("bytes=a-b", 200, "", "0123456789"),
        ("lines=1-2", 200, "", "0123456789"),
        ("bytes=", 200, "", "0123456789"),
    ];
    for_each(
        &cases,
        |(range, ..)| range.to_string(),
        |(range, status, content_range, body)| {
            let answer = get(&server, "/ten.txt", &format!("Range: {range}\r\n"));
            assert_eq!((answer.status, answer.text().as_str()), (*status, *body));
            assert_eq!(answer.field("Content-Range").unwrap_or_default(), *content_range);
            if *status != 416 {
                assert_eq!(answer.field("Accept-Ranges"), Some("bytes"));
            }
        },
    );
    for range in ["0-", "0-0", "-0", "-1", "7-", "0-,1-"] {
        let answer = get(&server, "/empty.txt", &format!("Range: bytes={range}\r\n"));
        assert_eq!((answer.status, answer.field("Content-Length")), (200, Some("0")), "{range}");
        assert_eq!(answer.field("Content-Range"), None, "{range}");
    }
    server.stop();
}

#[test]
fn the_fields_of_a_range_stand_in_the_usual_order() {
    let scratch = Scratch::new();
    let server = serve(&scratch);
    let answer = get(&server, "/ten.txt", "Range: bytes=2-4\r\n");
    let names: Vec<&str> = answer.fields.iter().map(|(name, _)| name.as_str()).collect();
    let wanted = [
        "Date",
        "Last-Modified",
        "Etag",
        "Content-Type",
        "Content-Length",
        "Connection",
        "Accept-Ranges",
        "Content-Range",
    ];
    assert_eq!(names, wanted);
    server.stop();
}

#[test]
fn several_ranges_come_as_parts() {
    let scratch = Scratch::new();
    let server = serve(&scratch);
    let answer = get(&server, "/ten.txt", "Range: bytes=0-1,-2, 4-5\r\n");
    assert_eq!(answer.status, 206);
    let kind = answer.field("Content-Type").expect("a type").to_owned();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").expect("a boundary");
    let part = |range: &str, body: &str| {
        let fields = format!("Content-Type: text/plain\r\nContent-Range: bytes {range}/10");
        format!("--{boundary}\r\n{fields}\r\n\r\n{body}\r\n")
    };
    let wanted = [part("0-1", "01"), part("8-9", "89"), part("4-5", "45")].concat();
    assert_eq!(answer.text(), format!("{wanted}--{boundary}--\r\n"));
    assert!(answer.field("Content-Range").is_none());
    server.stop();
}

#[test]
fn too_many_or_overlapping_ranges_give_the_whole_file() {
    let scratch = Scratch::new();
    let server = serve(&scratch);
    let many = vec!["0-"; 500].join(",");
    for range in ["0-5,1-6,2-7", many.as_str()] {
        let answer = get(&server, "/ten.txt", &format!("Range: bytes={range}\r\n"));
        assert_eq!((answer.status, answer.text().as_str()), (200, "0123456789"));
    }
    server.stop();
}

#[test]
fn long_ranges_hold_the_right_bytes() {
    let scratch = Scratch::new();
    let server = serve(&scratch);
    let answer = get(&server, "/big.bin", "Range: bytes=100000-899999\r\n");
    assert_eq!(answer.status, 206);
    assert!(answer.body == big()[100_000..900_000]);
    let answer = get(&server, "/big.bin", "Range: bytes=0-299999,600000-\r\n");
    assert_eq!(answer.status, 206);
    let body = &answer.body;
    let holds = |wanted: &[u8]| body.windows(wanted.len()).any(|window| window == wanted);
    assert!(body.len() > 700_000 && body.len() < 701_000, "{}", body.len());
    assert!(holds(&big()[299_000..300_000]) && holds(&big()[600_000..601_000]));
    server.stop();
}

#[test]
fn conditions_are_judged_by_tag_and_date() {
    let scratch = Scratch::new();
    let server = serve(&scratch);
    let now = get(&server, "/ten.txt", "");
    let tag = now.field("Etag").expect("a tag").to_owned();
    let date = now.field("Last-Modified").expect("a date").to_owned();
    let past = "Thu, 01 Jan 1970 00:00:01 GMT";
    let cases = [
        (format!("If-None-Match: {tag}"), 304),
        (format!("If-None-Match: \"x\", W/{tag}"), 304),
        ("If-None-Match: *".to_owned(), 304),
        ("If-None-Match: \"x\"".to_owned(), 200),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {date}"), 200),
        (format!("If-Modified-Since: {date}"), 304),
        (format!("If-Modified-Since: {past}"), 200),
        ("If-Modified-Since: yesterday".to_owned(), 200),
        (format!("If-Match: {tag}"), 200),
        ("If-Match: *".to_owned(), 200),
        (format!("If-Match: W/{tag}"), 412),
        ("If-Match: \"x\"".to_owned(), 412),
        (format!("If-Unmodified-Since: {date}"), 200),
        (format!("If-Unmodified-Since: {past}"), 412),
        (format!("Range: bytes=0-1\r\nIf-Range: {tag}"), 206),
        (format!("Range: bytes=0-1\r\nIf-Range: {date}"), 206),
        ("Range: bytes=0-1\r\nIf-Range: \"x\"".to_owned(), 200),
        (format!("Range: bytes=0-1\r\nIf-Range: {past}"), 200),
        (format!("Range: bytes=0-1\r\nIf-None-Match: {tag}"), 304),
    ];
    for_each(
        &cases,
        |(fields, _)| fields.clone(),
        |(fields, status)| {
            let answer = get(&server, "/ten.txt", &format!("{fields}\r\n"));
            assert_eq!(answer.status, *status);
            if *status == 304 {
                assert_eq!(answer.field("Etag"), Some(tag.as_str()));
                assert!(answer.body.is_empty() && answer.field("Content-Length").is_none());
            }
        },
    );
    server.stop();
}
