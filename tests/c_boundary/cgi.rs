//! CGI programs (RFC 3875) in the languages that people write them in: what they are told, and
//! what becomes of what they write.

use crate::support::{Client, Response, Scratch, Server, deadline_secs, for_each, request};

/// A server for `scratch/root`.
pub fn serve(scratch: &Scratch, args: &[&str]) -> Server {
    let root = format!("document_root={}", scratch.join("root"));
    let log = format!("error_log_file={}", scratch.join("error.log"));
    let mut all = vec![root.as_str(), log.as_str()];
    all.extend(args);
    Server::start(&all)
}

/// A shell script at `root/<name>`.
pub fn shell(scratch: &Scratch, name: &str, lines: &str) {
    scratch.write_program(&format!("root/{name}"), format!("#!/bin/sh\n{lines}\n"));
}

fn get(server: &Server, target: &str) -> Response {
    server.ask(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
}

/// What `env` printed, as lines; what the shell itself adds is left out.
fn environment(server: &Server, head: &str) -> Vec<String> {
    let answer = server.ask(head);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().lines().map(str::to_owned).collect()
}

fn value<'a>(environment: &'a [String], name: &str) -> Option<&'a str> {
    let values = environment.iter().filter_map(|line| line.split_once('='));
    values.filter(|(found, _)| *found == name).map(|(_, value)| value).next()
}

const ENV: &str = "echo Content-Type: text/plain; echo; exec env";

#[test]
fn a_program_is_told_exactly_what_it_may_know() {
    let scratch = Scratch::new();
    shell(&scratch, "a b/x y.cgi", r"printf 'A: b\n\n'; pwd");
    shell(&scratch, "a/env.cgi", ENV);
    // Nothing but a shell's own additions.
    let options = ["cgi_environment=FROM_OPTION=1,HTTPS=on", "auth_domain=my.domain"];
    let server = serve(&scratch, &options);
    let port = server.port;
    let mut client = server.client();
    client.send(
        "POST /a/env.cgi?q=%20 HTTP/1.1\r\nHost: h.example:1\r\nProxy: http://evil/\r\n\
         X-One: 1\r\nx-one: 2\r\nX_One: 3\r\nContent-Type: text/x\r\nContent-Length: 3\r\n\r\nabc",
    );
    let text = client.response().text();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let root = scratch.join("root");
    let expected = [
        ("SERVER_NAME", "my.domain"),
        ("SERVER_ROOT", &root),
        ("DOCUMENT_ROOT", &root),
        ("SERVER_SOFTWARE", "Mongoose/5.0"),
        ("SERVER_PORT", &port.to_string()),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REDIRECT_STATUS", "200"),
        ("REQUEST_METHOD", "POST"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_PORT", &client.local_port().to_string()),
        ("REQUEST_URI", "/a/env.cgi?q=%20"),
        ("SCRIPT_NAME", "/a/env.cgi"),
        ("SCRIPT_FILENAME", &format!("{root}/a/env.cgi")),
        ("QUERY_STRING", "q=%20"),
        ("CONTENT_TYPE", "text/x"),
        ("CONTENT_LENGTH", "3"),
        ("HTTPS", "on"),
        ("HTTP_HOST", "h.example:1"),
        ("HTTP_X_ONE", "1, 2"),
        ("FROM_OPTION", "1"),
    ];
    for (name, wanted) in expected {
        assert_eq!(value(&lines, name), Some(wanted), "{name}");
    }
    let known = ["PATH", "PERLLIB", "LD_LIBRARY_PATH", "TMPDIR", "MONGOOSE_CGI"];
    let of_the_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    for line in &lines {
        let name = line.split('=').next().unwrap_or_default();
        let is_expected = expected.iter().any(|(expected, _)| *expected == name);
        assert!(is_expected || known.contains(&name) || of_the_shell.contains(&name), "{line}");
    }
    // A program's own directory, even with a space, and with every character in its name.
    assert_eq!(get(&server, "/a%20b/x%20y.cgi").text(), format!("{root}/a b\n"));
    let lines = environment(&server, "GET http://b/a/env.cgi HTTP/1.0\r\n\r\n");
    assert_eq!(value(&lines, "REQUEST_URI"), Some("/a/env.cgi"));
    assert_eq!(value(&lines, "SERVER_PROTOCOL"), Some("HTTP/1.0"));
    assert_eq!(value(&lines, "SERVER_NAME"), Some("my.domain"));
    assert_eq!(value(&lines, "QUERY_STRING"), Some(""));
    assert_eq!(value(&lines, "PWD"), Some(format!("{root}/a").as_str()));
    server.stop();
}

#[test]
fn path_info_is_what_follows_the_program_also_behind_a_rewrite() {
    let scratch = Scratch::new();
    shell(&scratch, "a/env.cgi", ENV);
    shell(&scratch, "d/index.cgi", ENV);
    scratch.write("root/plain.txt", "plain");
    scratch.write_program("app/front.cgi", format!("#!/bin/sh\n{ENV}\n"));
    let rewrites = format!(
        "url_rewrites=/app={},/two={}",
        scratch.join("app/front.cgi"),
        scratch.join("app/front.cgi/inner"),
    );
    let server = serve(&scratch, &[&rewrites]);
    let root = scratch.join("root");
    let translated = |info: &str| Some(format!("{root}{info}"));
    let cases = [
        ("/a/env.cgi", "/a/env.cgi", None, None),
        ("/a/env.cgi/", "/a/env.cgi", Some("/"), translated("/")),
        ("/a/env.cgi/b%20c/d?x=/y", "/a/env.cgi", Some("/b c/d"), translated("/b c/d")),
        ("/a/env.cgi/b.cgi", "/a/env.cgi", Some("/b.cgi"), translated("/b.cgi")),
        ("/d/", "/d/index.cgi", None, None),
        ("/app", "/app", None, None),
        ("/app/more/x", "/app", Some("/more/x"), translated("/more/x")),
        ("/two/x", "/two/x", Some("/inner/x"), translated("/inner/x")),
    ];
    for_each(
        cases,
        |case| case.0.to_owned(),
        |(target, name, info, file)| {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let lines = environment(&server, &head);
            assert_eq!(value(&lines, "SCRIPT_NAME"), Some(*name));
            assert_eq!(value(&lines, "PATH_INFO"), *info);
            assert_eq!(value(&lines, "PATH_TRANSLATED"), file.as_deref());
        },
    );
    assert_eq!(get(&server, "/plain.txt/more").status, 404);
    assert_eq!(get(&server, "/a/none.cgi/more").status, 404);
    server.stop();
}

#[test]
fn perl_python_and_php_answer_forms() {
    needs!("perl", "php-cgi", "python3");
    let scratch = Scratch::new();
    scratch.write_program(
        "root/form.pl",
        "#!/usr/bin/perl\nuse strict;\nread(STDIN, my $body, $ENV{CONTENT_LENGTH});\n\
         print \"Content-Type: text/plain\\r\\nX-Lang: perl\\r\\n\\r\\n\";\n\
         print \"$ENV{REQUEST_METHOD} $ENV{QUERY_STRING} $body\";\n",
    );
    scratch.write_program(
        "root/form.cgi",
        "#!/usr/bin/env python3\nimport os, sys\n\
         body = sys.stdin.buffer.read(int(os.environ['CONTENT_LENGTH']))\n\
         print('Content-Type: text/plain')\nprint('X-Lang: python')\nprint()\n\
         print(os.environ['REQUEST_METHOD'], os.environ['QUERY_STRING'], body.decode(), end='')\n",
    );
    let server = serve(&scratch, &[]);
    let ask = |server: &Server, file: &str| {
        server.ask(format!(
            "POST /{file}?a=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\nb=2&c=3"
        ))
    };
    for (file, language) in [("form.pl", "perl"), ("form.cgi", "python")] {
        let answer = ask(&server, file);
        assert_eq!((answer.status, answer.text().as_str()), (200, "POST a=1 b=2&c=3"));
        assert_eq!(answer.field("X-Lang"), Some(language));
    }
    server.stop();

    scratch.write(
        "root/index.php",
        "<?php setcookie('a', '1'); setcookie('b', '2'); header('X-Lang: php');\n\
         echo $_SERVER['REQUEST_METHOD'], ' a=', $_GET['a'] ?? '', ' b=', $_POST['b'] ?? '',\n\
         ' c=', $_POST['c'] ?? '', ' ', $_SERVER['PATH_INFO'] ?? '-', ' ', basename(__FILE__);",
    );
    scratch.write("root/away.php", "<?php header('Location: /there'); echo 'gone';");
    scratch.write("root/none.php", "<?php http_response_code(404); echo 'nothing';");
    for interpreter in ["cgi_interpreter=/usr/bin/php-cgi", "cgi_interpreter=php-cgi"] {
        let server = serve(&scratch, &[interpreter]);
        let answer = ask(&server, "index.php/info");
        assert_eq!(answer.text(), "POST a=1 b=2 c=3 /info index.php");
        assert_eq!(answer.field("X-Lang"), Some("php"));
        let cookies = answer.fields.iter().filter(|(name, _)| name == "Set-Cookie").count();
        assert_eq!(cookies, 2, "{}", answer.head);
        assert_eq!(get(&server, "/?a=x").text(), "GET a=x b= c= - index.php");
        let away = get(&server, "/away.php");
        assert_eq!((away.status, away.field("Location")), (302, Some("/there")));
        let none = get(&server, "/none.php");
        assert_eq!((none.status, none.text().as_str()), (404, "nothing"));
        server.stop();
    }
}

#[test]
fn what_a_program_writes_becomes_an_answer_or_502() {
    let scratch = Scratch::new();
    let cases: &[(&str, u16, &str, &str)] = &[
        (r"Content-Type: text/x\n\nhello", 200, "Content-Type: text/x", "hello"),
        (r"Content-Type: text/x\r\n\r\nhello\n", 200, "Content-Type: text/x", "hello\n"),
        (r"A: b\n\n", 200, "A: b", ""),
        (r"Status: 404 No luck\nA: b\n\nsorry", 404, "HTTP/1.1 404 No luck", "sorry"),
        (r"Status: 500\n\n", 500, "HTTP/1.1 500 Internal Server Error", ""),
        (r"Status: 204\nA: b\n\nnothing may follow", 204, "A: b", ""),
        // No Upgrade field goes with it, so that Connection must not name one.
        (r"Status: 426\nUpgrade: x\nA: b\n\nhello", 426, "A: b", "hello"),
        (r"Location: http://b/c\n\n", 302, "Location: http://b/c", ""),
        (r"Location: //b/c\n\n", 302, "Location: //b/c", ""),
        (r"Location: x?y\nStatus: 303 S\n\nz", 303, "Location: x?y", "z"),
        (r"Set-Cookie: a\nLocation: /b\n\n", 302, "Set-Cookie: a", ""),
        (r"Set-Cookie: a\nSet-Cookie: b\n\n", 200, "Set-Cookie: a\r\nSet-Cookie: b\r\n", ""),
        (r"Content-Length: 5\nA: b\n\nhello and more", 200, "Content-Length: 5", "hello"),
        (r"Connection: x\nTransfer-Encoding: x\nA: b\n\nhello", 200, "chunked", "hello"),
        (r"Date: then\nA: b\n\n", 200, "Date: then\r\n", ""),
        ("", 502, "502 Bad Gateway", ""),
        (r"\n\nhello", 502, "", ""),
        (r"\r\nhello", 502, "", ""),
        (r"hello", 502, "", ""),
        (r"HTTP/1.0 400 Bad Request\nA: b\n\nhello", 400, "A: b", "hello"),
        (r"HTTP/1.1 200 Fine\r\nContent-Type: text/x\r\n\r\nhello", 200, "Fine", "hello"),
        (r"HTTP/1.1 404\n\nhello", 404, "404 Not Found", "hello"),
        (r"HTTP/1.0 404 No\nStatus: 404 No\n\nhello", 404, "", "hello"),
        (r"HTTP/1.0 200 OK\nStatus: 404 No\n\nhello", 502, "", ""),
        (r"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\n\nhello", 502, "", ""),
        (r"HTTP/2 200 OK\nA: b\n\nhello", 502, "", ""),
        (r"HTTP/1.1 200 a\rEvil: c\n\nhello", 502, "", ""),
        (r"Location: /b#c\n\n", 302, "Location: /b#c", ""),
        (r"<html>\n\nhello", 502, "", ""),
        (r"A: b\n", 502, "", ""),
        (r"A: b\rEvil: c\n\n", 502, "", ""),
        (r"A: b\n folded\n\n", 502, "", ""),
        (r"A\000b: c\n\n", 502, "", ""),
        (r"Status: 999999\n\n", 502, "", ""),
        (r"Status: 101 Switching\n\n", 502, "", ""),
        (r"Content-Length: x\n\n", 502, "", ""),
    ];
    for (number, case) in cases.iter().enumerate() {
        shell(&scratch, &format!("{number}.cgi"), &format!("printf '{}'", case.0));
    }
    shell(&scratch, "long.cgi", "while :; do echo AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA: b; done");
    shell(&scratch, "short.cgi", r"printf 'Content-Length: 10\n\nhello'");
    let server = serve(&scratch, &[]);
    let mut client = server.client();
    for (number, (output, status, head, body)) in cases.iter().enumerate() {
        let answer = client.ask(format!("GET /{number}.cgi HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(answer.status, *status, "{output}");
        assert!(answer.head.contains(head), "{output}:\n{}", answer.head);
        let body = if *status == 502 { "502 Bad Gateway\n" } else { body };
        assert_eq!(answer.text(), body, "{output}");
        assert_eq!(answer.field("Connection"), Some("keep-alive"), "{output}");
        assert!(answer.field("Date").is_some(), "{output}");
        assert!(!answer.head.contains("Evil"), "{output}");
    }
    assert_eq!(client.ask("GET /long.cgi HTTP/1.1\r\nHost: a\r\n\r\n").status, 502);
    // A promise that is not kept must not look like one that is.
    client.send("GET /short.cgi HTTP/1.1\r\nHost: a\r\n\r\n");
    let rest = String::from_utf8_lossy(&client.rest()).into_owned();
    assert!(rest.ends_with("\r\n\r\nhello"), "{rest}");
    server.stop();
    let log = scratch.read("error.log");
    for sentence in ["wrote nothing", "overlong header", "no header field", "end of its content"] {
        assert!(log.contains(sentence), "{sentence} in\n{log}");
    }
}

#[test]
fn a_path_of_this_server_is_answered_in_place_of_the_program() {
    let scratch = Scratch::new();
    scratch.write("root/page.html", "the page").write("root/d/guarded.html", "no");
    scratch.write("root/d/.htpasswd", "x:y:z\n");
    let to = |target: &str| format!("cat >/dev/null; printf 'Location: {target}\\n\\n'");
    shell(&scratch, "page.cgi", &to("/page.html"));
    shell(&scratch, "handled.cgi", &to("/echo?a=b"));
    shell(&scratch, "next.cgi", &to("/env.cgi/i?c=d"));
    shell(&scratch, "env.cgi", ENV);
    shell(&scratch, "loop.cgi", &to("/loop.cgi"));
    shell(&scratch, "none.cgi", &to("/none.html"));
    shell(&scratch, "up.cgi", &to("/../../etc/passwd"));
    shell(&scratch, "bad.cgi", &to("/%%zz"));
    shell(&scratch, "space.cgi", &to("/a b HTTP/1.1"));
    shell(&scratch, "guarded.cgi", &to("/d/guarded.html"));
    shell(&scratch, "verbose.cgi", "printf 'Location: /page.html\\n\\nignored'");
    let server = serve(&scratch, &["--handler=/echo=echo"]);
    let mut client = server.client();
    let mut ask = |method: &str, target: &str| {
        let length = if method == "POST" { "Content-Length: 2\r\n" } else { "" };
        let body = if method == "POST" { "ab" } else { "" };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nX: y\r\n{length}\r\n{body}");
        client.ask(head)
    };
    assert_eq!(ask("GET", "/page.cgi").text(), "the page");
    assert_eq!(ask("GET", "/verbose.cgi").text(), "the page");
    assert_eq!(ask("POST", "/page.cgi").text(), "the page");
    let echo = ask("POST", "/handled.cgi").text();
    assert!(echo.starts_with("method=GET\nuri=/echo\nversion=1.1\nquery=a=b\n"), "{echo}");
    assert!(echo.contains("X: y") && echo.contains("content_len=0"), "{echo}");
    let next = ask("GET", "/next.cgi").text();
    for line in ["SCRIPT_NAME=/env.cgi", "PATH_INFO=/i", "QUERY_STRING=c=d", "REQUEST_METHOD=GET"] {
        assert!(next.lines().any(|found| found == line), "{line} in {next}");
    }
    assert_eq!(ask("GET", "/none.cgi").status, 404);
    assert_eq!(ask("GET", "/up.cgi").status, 404);
    assert_eq!(ask("GET", "/bad.cgi").status, 502);
    assert_eq!(ask("GET", "/space.cgi").status, 502);
    assert_eq!(ask("GET", "/loop.cgi").status, 500);
    // The client has to ask for what is guarded in its own name.
    let guarded = ask("GET", "/guarded.cgi");
    assert_eq!((guarded.status, guarded.field("Location")), (302, Some("/d/guarded.html")));
    server.stop();
}

#[test]
fn methods_and_versions() {
    let scratch = Scratch::new();
    shell(&scratch, "x.cgi", r"printf 'A: b\n\n'; echo $REQUEST_METHOD");
    shell(&scratch, "length.cgi", r"printf 'Content-Length: 6\nA: b\n\nlength'");
    let server = serve(&scratch, &[]);
    let mut client = server.client();
    for target in ["/x.cgi", "/length.cgi"] {
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let head = client.response_without_body();
        assert_eq!((head.status, head.field("A")), (200, Some("b")));
    }
    assert_eq!(client.ask("GET /x.cgi HTTP/1.1\r\nHost: a\r\n\r\n").text(), "GET\n");
    let post = "POST /x.cgi HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(client.ask(post).text(), "POST\n");
    for method in ["PUT", "DELETE", "PATCH", "FOO"] {
        let answer = server.ask(format!("{method} /x.cgi HTTP/1.1\r\nHost: a\r\n\r\n"));
        // Methods that write are a matter of passwords first.
        let expected = if ["PUT", "DELETE"].contains(&method) { 401 } else { 405 };
        assert_eq!(answer.status, expected, "{method}");
    }
    // HTTP/1.0 knows no chunks: the end is that of the connection, or the length.
    let mut old = server.client();
    old.send("GET /x.cgi HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let text = String::from_utf8_lossy(&old.rest()).into_owned();
    assert!(text.contains("Connection: close\r\n\r\nGET\n") && !text.contains("chunked"), "{text}");
    let mut old = server.client();
    for _ in 0..2 {
        let answer = old.ask("GET /length.cgi HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(answer.text(), "length");
    }
    // Requests that arrive together are answered in their order.
    let mut many = server.client();
    let one = "GET /x.cgi HTTP/1.1\r\nHost: a\r\n\r\n";
    many.send(format!("{one}{}{one}", request("GET", "1.1", &["status 201"])));
    for status in [200, 201, 200] {
        assert_eq!(many.response().status, status);
    }
    server.stop();
}

#[test]
fn source_never_leaks_and_nothing_runs_that_must_not() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    shell(&scratch, "run.cgi", "touch ../ran; printf 'A: b\\n\\n'");
    shell(&scratch, "d/run.cgi", "touch ../../ran; printf 'A: b\\n\\n'");
    scratch.write("root/d/.htpasswd", "x:y:z\n");
    scratch.write("root/not.cgi", "#!/bin/sh\nSECRET");
    scratch.write_program("root/lost.cgi", "#!/no/such/interpreter\nSECRET");
    scratch.write_program("root/none.cgi", "SECRET without a first line");
    shell(&scratch, "hidden.cgi", "touch ../ran; printf 'A: b\\n\\n'");
    scratch.write("root/folder.cgi/page.html", "in a folder");
    let secret = std::fs::Permissions::from_mode(0o311);
    shell(&scratch, "secret.cgi", "printf 'A: b\\n\\nSECRET'");
    std::fs::set_permissions(scratch.join("root/secret.cgi"), secret).expect("rights");
    let server = serve(&scratch, &["hide_files_patterns=hidden*"]);
    let cases = [
        ("GET /not.cgi", 403),
        ("GET /NOT.cgi", 404),
        ("GET /not.cgi/", 403),
        ("GET /not.cgi/more", 403),
        ("GET /%6eot.cgi", 403),
        ("HEAD /not.cgi", 403),
        ("GET /lost.cgi", 500),
        ("GET /none.cgi", 500),
        ("GET /d/run.cgi", 401),
        ("GET /d/run.cgi/more", 401),
        ("POST /d/run.cgi", 401),
        ("GET /hidden.cgi", 404),
        ("GET /hidden.cgi/more", 404),
        ("PATCH /run.cgi", 405),
        ("OPTIONS /run.cgi", 200),
        ("GET /folder.cgi/page.html", 200),
        ("GET /run.cgi%00", 400),
    ];
    for (line, status) in cases {
        if status == 500 && crate::support::under_valgrind() {
            // It cannot go on after an exec that fails.
            continue;
        }
        if status == 500
            && crate::support::under_qemu("an exec that fails, as posix_spawn tells it")
        {
            continue;
        }
        let mut client = server.client();
        client.send(format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        let text = String::from_utf8_lossy(&client.rest()).into_owned();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {text}");
        assert!(!text.contains("SECRET"), "{line}: {text}");
    }
    // What cannot be run does not have its content sent for.
    let expecting =
        "POST /not.cgi HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(server.ask(expecting).status, 403);
    assert_eq!(std::fs::metadata(scratch.join("ran")).ok().map(|_| ()), None);
    assert_eq!(get(&server, "/run.cgi").status, 200);
    server.stop();
    let log = scratch.read("error.log");
    assert!(log.contains("root/not.cgi: Permission denied"), "{log}");
}

#[test]
fn who_is_let_in_has_a_name() {
    needs!("curl");
    let scratch = Scratch::new();
    shell(&scratch, "d/env.cgi", ENV);
    let server = serve(&scratch, &[]);
    let passwords = scratch.join("root/d/.htpasswd");
    let line = std::process::Command::new("sh")
        .args(["-c", "printf 'joe:mydomain.com:'; printf joe:mydomain.com:pw | md5sum | cut -c-32"])
        .output()
        .expect("md5sum");
    std::fs::write(passwords, line.stdout).expect("a password file");
    let out = crate::support::outside("curl")
        .args(["-sS", "--max-time", &deadline_secs(), "--digest", "-u", "joe:pw"])
        .arg(format!("http://127.0.0.1:{}/d/env.cgi/info", server.port))
        .output()
        .expect("curl");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    for wanted in ["REMOTE_USER=joe", "AUTH_TYPE=Digest", "PATH_INFO=/info"] {
        assert!(text.lines().any(|line| line == wanted), "{wanted} in {text}");
    }
    assert!(!text.contains("HTTP_AUTHORIZATION"), "{text}");
    server.stop();
}

#[test]
fn the_pattern_says_what_a_program_is() {
    let scratch = Scratch::new();
    shell(&scratch, "x.cgi", "printf 'A: b\\n\\nran'");
    shell(&scratch, "bin/tool", "printf 'A: b\\n\\nran'");
    let server = serve(&scratch, &["cgi_pattern=/bin/**$"]);
    assert_eq!(get(&server, "/bin/tool").text(), "ran");
    assert!(get(&server, "/x.cgi").text().starts_with("#!/bin/sh"));
    server.stop();
}

#[test]
fn where_no_program_is_run_none_shows_its_source() {
    let scratch = Scratch::new();
    for name in ["x.cgi", "x.pl", "x.php", "d/index.php"] {
        shell(&scratch, name, "printf 'A: b\\n\\nran'");
    }
    scratch.write("root/page.shtml", "[<!--#include virtual=\"x.cgi\" -->]");
    scratch.write("root/x.txt", "text");
    for value in ["none", "NONE"] {
        let server = serve(&scratch, &[&format!("cgi_pattern={value}"), "ssi_pattern=**.shtml$"]);
        for path in ["/x.cgi", "/x.pl", "/x.php?q", "/x.cgi/more", "/d/", "/d/index.php"] {
            for method in ["GET", "HEAD"] {
                let text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n\r\n");
                let answer = server.client().send(text).response_without_body();
                assert_eq!(answer.status, 403, "{method} {path}");
            }
        }
        assert_eq!(get(&server, "/page.shtml").text(), "[]");
        assert_eq!(get(&server, "/x.txt").text(), "text");
        server.stop();
    }
}

#[test]
fn the_access_log_counts_what_was_sent() {
    let scratch = Scratch::new();
    shell(&scratch, "x.cgi", "cat; printf 'Status: 201 Made\\nContent-Length: 5\\n\\nhello'");
    let log = format!("access_log_file={}", scratch.join("access.log"));
    let server = serve(&scratch, &[&log]);
    assert_eq!(get(&server, "/x.cgi?q").status, 201);
    assert_eq!(get(&server, "/x.cgi/more").status, 201);
    server.stop();
    let text = scratch.read("access.log");
    assert!(text.contains("\"GET /x.cgi?q HTTP/1.1\" 201 5 "), "{text}");
    assert!(text.contains("\"GET /x.cgi/more HTTP/1.1\" 201 5 "), "{text}");
}

#[test]
fn the_error_log_says_which_program_is_missing() {
    // Valgrind cannot go on after an exec that fails.
    if crate::support::under_valgrind()
        || crate::support::under_qemu("an exec that fails, as posix_spawn tells it")
    {
        return;
    }
    let scratch = Scratch::new();
    scratch.write_program("root/x.cgi", "#!/nonexistent/first\necho\n");
    let file = scratch.join("root/x.cgi");
    let by = format!("cannot run {file} by /nonexistent/php: No such file");
    let first = format!("cannot run {file}: its first line names a program that is not there\n");
    for (args, complaint) in [(&["cgi_interpreter=/nonexistent/php"][..], by), (&[], first)] {
        let server = serve(&scratch, args);
        assert_eq!(get(&server, "/x.cgi").status, 500);
        server.stop();
        let log = scratch.read("error.log");
        assert!(log.contains(&complaint), "{complaint:?} in\n{log}");
    }
}

#[test]
fn complaints_go_to_the_error_log_line_by_line() {
    let scratch = Scratch::new();
    let script = "printf 'one\\ntwo\\033[31m\\r\\nthree' >&2; printf 'A: b\\n\\n'";
    shell(&scratch, "x.cgi", script);
    shell(&scratch, "flood.cgi", "yes 0123456789 | head -c 2000000 >&2; printf 'A: b\\n\\n'");
    let server = serve(&scratch, &[]);
    assert_eq!(get(&server, "/x.cgi").status, 200);
    assert_eq!(get(&server, "/flood.cgi").status, 200);
    server.stop();
    let log = scratch.read("error.log");
    for end in ["x.cgi: one\n", "x.cgi: two\\u{1b}[31m\n", "x.cgi: three\n"] {
        assert!(log.contains(end), "{end:?} in\n{}", &log[..log.len().min(2000)]);
    }
    assert!(log.contains("(what follows is left out)") && log.len() < 4_000_000);
}

#[test]
fn complaints_are_about_the_client_also_when_it_has_its_answer() {
    let scratch = Scratch::new();
    let wait = "while ! test -e ../go; do sleep 0.01; done";
    shell(&scratch, "x.cgi", &format!("printf 'A: b\\n\\n'; exec >&-; {wait}; echo late >&2"));
    let server = serve(&scratch, &[]);
    let mut client = server.client();
    assert_eq!(client.ask("GET /x.cgi HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    scratch.write("go", "");
    let log = scratch.read_when("error.log", |log| log.ends_with("x.cgi: late\n"));
    assert!(log.contains(&format!("] 127.0.0.1:{} ", client.local_port())), "{log}");
    server.stop();
}

#[test]
fn errors_of_programs_go_to_the_error_handler() {
    let scratch = Scratch::new();
    shell(&scratch, "x.cgi", "echo nonsense");
    let server = serve(&scratch, &["--errors", "--error=data own page"]);
    let answer = get(&server, "/x.cgi");
    assert_eq!((answer.status, answer.text().as_str()), (502, "own page"));
    // Also when the program sends the request to where there can be nothing.
    shell(&scratch, "to.cgi", r#"printf 'Location: /%s\n\n' "$QUERY_STRING""#);
    for target in ["%zz", "a%00", "%", &format!("%zz{}", "a".repeat(3_000))] {
        let answer = get(&server, &format!("/to.cgi?{target}"));
        assert_eq!((answer.status, answer.text().as_str()), (502, "own page"), "{target}");
    }
    server.stop();
}

#[test]
fn a_relative_root_is_one_of_the_program_that_serves() {
    let scratch = Scratch::new();
    shell(&scratch, "a/x.cgi", ENV);
    let mut root = std::path::PathBuf::new();
    let here = std::env::current_dir().expect("a directory");
    here.components().skip(1).for_each(|_| root.push(".."));
    let root = format!("{}{}", root.display(), scratch.join("root"));
    let server = Server::start(&[&format!("document_root={root}")]);
    let text = get(&server, "/a/x.cgi/i").text();
    let line = text.lines().find_map(|line| line.strip_prefix("SCRIPT_FILENAME=/"));
    assert!(line.is_some_and(|rest| rest.ends_with("root/a/x.cgi")), "{text}");
    let mut client = Client::connect(server.port);
    assert_eq!(client.ask("GET /a/x.cgi HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    server.stop();
}
