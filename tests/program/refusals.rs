//! What is refused: a sentence on standard error, status 2, and nothing half started.

use crate::scratch::Scratch;
use crate::support::run;

#[test]
fn a_wrong_argument_is_told_in_a_sentence() {
    let folder = Scratch::new();
    folder.write("a.txt", "hello").write("empty.pem", "");
    let table: &[(&[&str], &str)] = &[
        (
            &["--listening_prt", "80"],
            "No such option: --listening_prt. Did you mean --listening_port?",
        ),
        (&["-uplaod"], "No such option: -uplaod. Did you mean --upload?"),
        (&["--nonsense"], "No such option: --nonsense. --help lists all of them."),
        (&["--idle_timeout_ms"], "--idle_timeout_ms needs a value"),
        (
            &["--idle_timeout_ms", "soon"],
            "--idle_timeout_ms: Option value must be a whole number of milliseconds",
        ),
        (
            &["--listening_port=eighty"],
            "--listening_port: Invalid listening port: names are not looked up, only numbers are taken",
        ),
        (&["nowhere"], "nowhere: No such file or directory (os error 2)"),
        (&["a.txt"], "a.txt: Not a directory (os error 20)"),
        (
            &["--document_root", "nowhere"],
            "--document_root: nowhere: No such file or directory (os error 2)",
        ),
        (&[".", "."], "one directory can be shared: . or .? (An option begins with --)"),
        (&[".", "--document_root", "."], "--document_root: the directory . is named as well"),
        (&["--tls", "nowhere.pem"], "--tls: Cannot read the certificate file"),
        (&["--tls", "empty.pem"], "--tls: The certificate file is empty"),
        (
            &["--tls", "self-signed", "--ssl_certificate", "x.pem"],
            "--tls: ssl_certificate is set as well",
        ),
        (&["--grace", "-1"], "--grace: the value must be a number of seconds, at most 86400"),
        (&["--grace", "86401"], "--grace: the value must be a number of seconds, at most 86400"),
        (&["--cgi=maybe"], "--cgi: the value must be yes or no"),
        (&["--user", "a:b"], "--user: the name has a colon in it"),
        (&["--user", ""], "--user: the name is empty"),
        (&["--user", "joe"], "the password is empty"),
        (
            &["--user", "joe", "--global_auth_file", "x"],
            "--user: global_auth_file is set as well: one of them can say who gets in",
        ),
        (&["--run_as_user", "nobody-of-this-name"], "--run_as_user: There is no such user"),
        (&["--config", "nowhere.conf"], "nowhere.conf: No such file or directory (os error 2)"),
        (&["--config", "."], ".: it is a directory"),
        (&["-A", "passwords"], "-A takes a file, a realm, a user, and perhaps a password"),
        (&["-A", "passwords", "realm", "a:b", "x"], "USER: the name has a colon in it"),
        (&["-A", "passwords", "", "joe", "x"], "REALM: the realm is empty"),
        (&["-A", "passwords", "realm", "joe", ""], "the password is empty"),
        (&["-A", ".", "realm", "joe", "x"], ".: it is a directory"),
        (&["--completions", "tcsh"], "--completions knows bash, zsh and fish"),
    ];
    for (arguments, sentence) in table {
        // A server that starts all the same would not end.
        let fallback = ["--grace", "0", "--listening_port", "127.0.0.1:0"];
        let is_server = !arguments.iter().any(|word| word.starts_with("--listening_port"))
            && !["-A", "--completions"].contains(&arguments[0]);
        let more: &[&str] = if is_server { &fallback[2..] } else { &[] };
        let all = [more, arguments].concat();
        let (status, told, errors) = run(&all, &folder, "");
        assert_eq!(status, Some(2), "{arguments:?}: {errors}");
        let last = errors.lines().last().unwrap_or_default();
        assert_eq!(last, format!("mongoose: {sentence}"), "{arguments:?}");
        assert_eq!(told, "", "{arguments:?}");
    }
    assert_eq!(std::fs::read_dir(folder.join("")).expect("a folder").count(), 2, "nothing is made");
}

#[test]
fn a_wrong_line_of_the_file_is_told_by_its_number() {
    let table: &[(&[u8], &str)] = &[
        (b"listening_prt 80\n", "1: No such option: listening_prt. Did you mean listening_port?"),
        (b"\n# x\nnonsense 1\n", "3: No such option: nonsense"),
        (b"listening_port\n", "1: listening_port has no value"),
        (
            b"idle_timeout_ms 1\r\n\r\nidle_timeout_ms 2\r\n",
            "3: idle_timeout_ms stands in line 1, too",
        ),
        (
            b"listening_port 127.0.0.1:0\nidle_timeout_ms soon\n",
            "2: idle_timeout_ms: Option value must be a whole number of milliseconds",
        ),
        (b"auth_domain \xff\n", "1: auth_domain: Option value must be UTF-8 text"),
        (b"auth_domain a\0b\n", "1: there is a zero byte in this line"),
        (b"config other.conf\n", "1: config is for the command line alone"),
        (b"help yes\n", "1: help is for the command line alone"),
        (b"upload perhaps\n", "1: upload: the value must be yes or no"),
        (b"grace 1s\n", "1: grace: the value must be a number of seconds, at most 86400"),
        (b"tls nowhere.pem\n", "1: tls: Cannot read the certificate file"),
        (
            b"document_root nowhere\n",
            "1: document_root: nowhere: No such file or directory (os error 2)",
        ),
        (b"run_as_user nobody-of-this-name\n", "1: run_as_user: There is no such user"),
        (b"listening_port 8080:8080\n", "1: listening_port: Invalid listening port"),
    ];
    let folder = Scratch::new();
    for (text, sentence) in table {
        folder.write("my.conf", text);
        let arguments = ["--config", "my.conf", "--listening_port", "127.0.0.1:0"];
        let has_port = sentence.contains("listening_port: ");
        let arguments = if has_port { &arguments[..2] } else { &arguments[..] };
        let (status, told, errors) = run(arguments, &folder, "");
        let text = String::from_utf8_lossy(text);
        assert_eq!(status, Some(2), "{text}: {errors}");
        let last = errors.lines().last().unwrap_or_default();
        assert_eq!(last, format!("mongoose: my.conf:{sentence}"), "{text}");
        assert_eq!(told, "", "{text}");
    }
    folder.write("my.conf", vec![b'#'; (1 << 20) + 1]);
    let (status, _, errors) = run(&["--config", "my.conf"], &folder, "");
    assert_eq!(
        (status, errors.as_str()),
        (Some(2), "mongoose: my.conf: it is longer than 1 MiB\n")
    );
}

#[test]
fn a_port_that_cannot_be_had_is_told_with_the_reason() {
    let folder = Scratch::new();
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = held.local_addr().expect("an address").to_string();
    let (status, told, errors) = run(&["--listening_port", &address], &folder, "");
    assert_eq!((status, told.as_str()), (Some(2), ""));
    assert!(errors.contains(&format!("cannot bind to {address}: ")), "{errors}");
    assert!(errors.contains("mongoose: --listening_port: Cannot bind to port\n"), "{errors}");
}
