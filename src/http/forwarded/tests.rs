use super::*;
use proptest::prelude::*;

/// The peer of all tests, and a list that trusts it.
const PEER: Peer = Peer::V4(Ipv4Addr::new(10, 0, 0, 1), 5000);

fn trusted() -> Trusted {
    Trusted::parse("10/8, 2001:db8:ffff::/48, unix").expect("a list")
}

/// Reads lines of the form `Name: value` from `PEER`, and shows client and scheme.
fn told(lines: &str) -> String {
    told_from(PEER, lines)
}

fn told_from(peer: Peer, lines: &str) -> String {
    let fields = lines.split('\n').filter_map(|line| line.split_once(':'));
    let fields: Vec<(&[u8], &[u8])> =
        fields.map(|(name, value)| (name.as_bytes(), value.trim().as_bytes())).collect();
    match read(fields.into_iter(), peer, &trusted()) {
        Ok(Told { client, is_https: None }) => client.to_string(),
        Ok(Told { client, is_https: Some(is_https) }) => {
            format!("{client} {}", if is_https { "https" } else { "http" })
        }
        Err(Unlike) => "unlike".to_owned(),
    }
}

#[track_caller]
fn check(table: &[(&str, &str)]) {
    for (lines, expected) in table {
        assert_eq!(told(lines), *expected, "{lines}");
    }
}

#[test]
fn the_nearest_hop_that_is_not_trusted_is_the_client() {
    check(&[
        ("", "10.0.0.1:5000"),
        ("Accept: 1.2.3.4", "10.0.0.1:5000"),
        ("X-Forwarded-For: 1.2.3.4", "1.2.3.4:0"),
        ("x-forwarded-for: 9.9.9.9, 1.2.3.4", "1.2.3.4:0"),
        ("X-Forwarded-For: 9.9.9.9, 1.2.3.4, 10.0.0.2, 10.0.0.3", "1.2.3.4:0"),
        ("X-Forwarded-For: 9.9.9.9, 1.2.3.4\nX-Forwarded-For: 10.0.0.2", "1.2.3.4:0"),
        ("X-Forwarded-For: 9.9.9.9\nX-Forwarded-For: 1.2.3.4", "1.2.3.4:0"),
        ("X-Forwarded-For: 10.0.0.3,10.0.0.2", "10.0.0.3:0"),
        ("X-Forwarded-For: , 1.2.3.4 ,,", "1.2.3.4:0"),
        ("X-Forwarded-For:", "10.0.0.1:5000"),
        ("X-Forwarded-For: 1.2.3.4:99", "1.2.3.4:99"),
        ("X-Forwarded-For: 2001:db8::7", "[2001:db8::7]:0"),
        ("X-Forwarded-For: [2001:db8::7]", "[2001:db8::7]:0"),
        ("X-Forwarded-For: [2001:db8::7]:8", "[2001:db8::7]:8"),
        ("X-Forwarded-For: ::ffff:1.2.3.4", "1.2.3.4:0"),
        ("X-Forwarded-For: 1.2.3.4, ::ffff:10.2.3.4", "1.2.3.4:0"),
        ("X-Forwarded-For: 1.2.3.4, 2001:db8:ffff::1", "1.2.3.4:0"),
        ("Forwarded: for=1.2.3.4", "1.2.3.4:0"),
        ("forwarded: FOR=9.9.9.9, For=1.2.3.4;by=10.0.0.1;host=a", "1.2.3.4:0"),
        ("Forwarded: for=9.9.9.9\nForwarded: for=1.2.3.4, for=10.0.0.4", "1.2.3.4:0"),
        ("Forwarded: for=\"1.2.3.4:47011\"", "1.2.3.4:47011"),
        ("Forwarded: for=\"[2001:db8::7]:47011\"", "[2001:db8::7]:47011"),
        ("Forwarded: for=\"[2001:db8::7]\"", "[2001:db8::7]:0"),
        ("Forwarded: for=\"[2001:db8::7]:_x\"", "[2001:db8::7]:0"),
        ("Forwarded: for=\"1\\.2.3.4\"", "1.2.3.4:0"),
        ("Forwarded: for=1.2.3.4;by=\"a, for=9.9.9.9\"", "1.2.3.4:0"),
        ("Forwarded: for=1.2.3.4;host=\"a\\\", for=9.9.9.9;\"", "1.2.3.4:0"),
        ("Forwarded: host=\"\\\\\";for=1.2.3.4", "1.2.3.4:0"),
        ("Forwarded: , for=1.2.3.4,", "1.2.3.4:0"),
    ]);
}

#[test]
fn what_is_no_address_ends_the_walk_at_the_last_good_one() {
    check(&[
        ("X-Forwarded-For: unknown", "10.0.0.1:5000"),
        ("X-Forwarded-For: 1.2.3.4, unknown", "10.0.0.1:5000"),
        ("X-Forwarded-For: 1.2.3.4, unknown, 10.0.0.2", "10.0.0.2:0"),
        ("X-Forwarded-For: 1.2.3.4, unix:", "10.0.0.1:5000"),
        ("X-Forwarded-For: 1.2.3.4\nX-Forwarded-For: x", "10.0.0.1:5000"),
        ("X-Forwarded-For: 1.2.3.256", "10.0.0.1:5000"),
        ("X-Forwarded-For: 1.2.3.4:", "10.0.0.1:5000"),
        ("X-Forwarded-For: 1.2.3.4:65536", "10.0.0.1:5000"),
        ("X-Forwarded-For: 1.2.3.4:+1", "10.0.0.1:5000"),
        ("X-Forwarded-For: [2001:db8::7", "10.0.0.1:5000"),
        ("X-Forwarded-For: [1.2.3.4]", "10.0.0.1:5000"),
        ("X-Forwarded-For: fe80::1%eth0", "10.0.0.1:5000"),
        ("X-Forwarded-For: \"1.2.3.4\"", "10.0.0.1:5000"),
        ("X-Forwarded-For: 1.2.3.4 9.9.9.9", "10.0.0.1:5000"),
        ("Forwarded: for=1.2.3.4, for=unknown", "10.0.0.1:5000"),
        ("Forwarded: for=1.2.3.4, for=_hidden, for=10.0.0.2", "10.0.0.2:0"),
        ("Forwarded: for=1.2.3.4, by=10.0.0.2", "10.0.0.1:5000"),
        ("Forwarded: for=1.2.3.4;for=1.2.3.4", "10.0.0.1:5000"),
        ("Forwarded: for=1.2.3.4\"", "10.0.0.1:5000"),
        ("Forwarded: for=\"1.2.3.4\\\"", "10.0.0.1:5000"),
        ("Forwarded: for", "10.0.0.1:5000"),
    ]);
    // As long as can be, and longer.
    let long = format!("Forwarded: for=\"{}1.2.3.4\"", "\\1".repeat(70));
    assert_eq!(told(&long), "10.0.0.1:5000");
}

#[test]
fn a_quote_that_a_client_left_open_does_not_swallow_what_a_proxy_appended() {
    check(&[
        ("Forwarded: for=\", for=1.2.3.4", "1.2.3.4:0"),
        ("Forwarded: for=\"a, for=\"[2001:db8::7]:1\"", "[2001:db8::7]:1"),
        ("Forwarded: for=\"\\, for=\"1.2.3.4\"", "1.2.3.4:0"),
        ("Forwarded: for=9.9.9.9;x=\", for=10.0.0.2", "10.0.0.2:0"),
        ("Forwarded: x=\";proto=https, for=1.2.3.4;proto=http", "1.2.3.4:0"),
    ]);
}

#[test]
fn a_scheme_is_believed_if_it_is_the_only_one() {
    check(&[
        ("X-Forwarded-Proto: https", "10.0.0.1:5000 https"),
        ("X-Forwarded-Proto: HTTP", "10.0.0.1:5000 http"),
        ("X-Forwarded-Proto: wss", "10.0.0.1:5000 https"),
        ("X-Forwarded-Proto: https, https", "10.0.0.1:5000"),
        ("X-Forwarded-Proto: https\nX-Forwarded-Proto: http", "10.0.0.1:5000"),
        ("X-Forwarded-Proto: gopher", "10.0.0.1:5000"),
        ("X-Forwarded-Proto:", "10.0.0.1:5000"),
        ("X-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: https", "1.2.3.4:0 https"),
        ("Forwarded: for=1.2.3.4;proto=https", "1.2.3.4:0 https"),
        ("Forwarded: proto=\"http\";for=1.2.3.4", "1.2.3.4:0 http"),
        ("Forwarded: for=9.9.9.9;proto=http, for=1.2.3.4;proto=https", "1.2.3.4:0"),
        ("Forwarded: for=9.9.9.9;proto=https, for=1.2.3.4", "1.2.3.4:0 https"),
    ]);
}

#[test]
fn both_kinds_have_to_be_alike() {
    check(&[
        ("Forwarded: for=1.2.3.4\nX-Forwarded-For: 1.2.3.4", "1.2.3.4:0"),
        ("Forwarded: for=1.2.3.4\nX-Forwarded-For: 9.9.9.9, 1.2.3.4", "1.2.3.4:0"),
        ("Forwarded: for=1.2.3.4\nX-Forwarded-For: 1.2.3.5", "unlike"),
        ("Forwarded: for=1.2.3.4\nX-Forwarded-For: unknown", "unlike"),
        ("Forwarded: for=1.2.3.4\nX-Forwarded-Proto: https", "unlike"),
        ("Forwarded: proto=https\nX-Forwarded-For: 1.2.3.4", "unlike"),
        ("Forwarded: for=\"1.2.3.4:1\"\nX-Forwarded-For: 1.2.3.4:1", "1.2.3.4:1"),
        ("Forwarded: for=\"1.2.3.4:1\"\nX-Forwarded-For: 1.2.3.4", "1.2.3.4:0"),
        ("Forwarded: for=\"1.2.3.4:1\"\nX-Forwarded-For: 1.2.3.4:2", "unlike"),
        ("Forwarded: for=1.2.3.4;proto=https\nX-Forwarded-For: 1.2.3.4", "1.2.3.4:0"),
        ("Forwarded: proto=https\nX-Forwarded-Proto: https", "10.0.0.1:5000 https"),
        ("Forwarded: proto=https\nX-Forwarded-Proto: http", "unlike"),
    ]);
}

#[test]
fn nothing_is_believed_of_a_peer_that_is_not_trusted() {
    let outside = Peer::V4(Ipv4Addr::new(1, 1, 1, 1), 7);
    let lines = "X-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: https\nForwarded: for=9.9.9.9";
    assert_eq!(told_from(outside, lines), "1.1.1.1:7");
    assert_eq!(told_from(Peer::Local, "X-Forwarded-For: 1.2.3.4"), "1.2.3.4:0");
    assert_eq!(told_from(Peer::Local, "X-Forwarded-For: x"), "unix:");
}

proptest! {
    /// Whatever a client sends, what the proxy appends decides.
    #[test]
    fn nothing_in_front_changes_what_a_proxy_appended(sent in "[ -~]{0,60}") {
        let appended = "for=\"[2001:db8::7]:80\"";
        prop_assert_eq!(told(&format!("Forwarded: {sent}, {appended}")), "[2001:db8::7]:80");
        prop_assert_eq!(told(&format!("Forwarded: {sent}\nForwarded: {appended}")), "[2001:db8::7]:80");
        prop_assert_eq!(told(&format!("X-Forwarded-For: {sent}, 1.2.3.4")), "1.2.3.4:0");
    }
}
