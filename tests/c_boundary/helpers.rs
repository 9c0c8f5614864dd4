//! Functions that need no server, and all functions given nonsense. The tables are in C.

use crate::support::{Client, Program, Scratch, has_32_bits};

#[test]
fn every_helper_function_follows_its_table() {
    let scratch = Scratch::new();
    Program::start("helpers.c", &[&scratch.join("")]).wait_for_end();
}

#[test]
#[cfg_attr(not(feature = "cgi"), ignore = "built without CGI")]
fn options_have_their_names_defaults_and_sentences() {
    Program::start("options.c", &[]).wait_for_end();
}

#[test]
fn null_and_nonsense_do_nothing_in_every_function() {
    let mut program = Program::start("nulls.c", &[]);
    let port = program.port();
    let mut client = Client::connect(port);
    for _ in 0..2 {
        client.send("GET /abuse HTTP/1.1\r\n\r\n");
        client.expect("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine");
    }
    for status in ["0", "-1", "99", "100", "1000", "2147483647", "-2147483648"] {
        Client::connect(port).send(format!("GET /status?{status} HTTP/1.1\r\n\r\n"));
        Client::connect(port).send("GET /null HTTP/1.1\r\n\r\n");
    }
    client.send("GET /abuse HTTP/1.1\r\n\r\n");
    client.expect("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine");
    program.stop();
}

#[test]
fn the_printf_family_formats_as_the_c_library_does() {
    let mut program = Program::start("printf.c", &[]);
    let port = program.port();
    let answer = |query: &str| {
        let answer = Client::connect(port).ask(format!("GET /?{query} HTTP/1.1\r\n\r\n"));
        assert_eq!(answer.status, 200, "{query}");
        answer.body
    };
    let raw = answer("raw");
    let text = String::from_utf8_lossy(&raw);
    let least = if has_32_bits() { "-2147483648" } else { "-9223372036854775808" };
    let start = format!(
        "-1 4000000000 {least} 9223372036854775807 7 -8 9|\
         ff FF 010 00000005 +6 7     |\
         1.500000 2.35 1.234568e+04 1e-10 0x1p+0 2.250000|"
    );
    assert!(text.starts_with(&start) || text.contains("2.34 1.234568e+04"), "{}", &text[..200]);
    assert!(text.contains("|text abc    right left     cut c%|first second|1 2.000000 3 4 5."));
    assert!(raw.len() > 700_000);
    assert!(answer("data") == raw, "mg_printf_data");
    assert!(answer("vraw") == raw, "mg_vprintf");
    assert!(answer("vchunked") == raw, "mg_vprintf, chunked");
    program.stop();
}
