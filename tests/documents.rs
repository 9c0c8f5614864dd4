//! What the pages of the repository show works as it stands: each code block has a rule that says how it is tried.

#[path = "documents/blocks.rs"]
mod blocks;
#[macro_use]
#[path = "c_boundary/support/needs.rs"]
mod needs;
#[path = "documents/migrate.rs"]
mod migrate;
#[path = "documents/pages.rs"]
mod pages;
#[path = "documents/workshop.rs"]
mod workshop;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use blocks::Block;
use needs::{lacks, outside};
use workshop::{Workshop, checked};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All blocks, with places relative to the root.
fn all() -> Vec<Block> {
    let pages = pages::all(&root());
    let of = |page: &PathBuf| {
        let text = fs::read_to_string(page).expect("a page");
        blocks::of(page.strip_prefix(root()).expect("a page of ours"), &text)
    };
    pages.iter().flat_map(of).collect()
}

/// The blocks whose rules begin so.
fn with_rule(start: &str) -> Vec<Block> {
    let found: Vec<Block> = all().into_iter().filter(|b| b.rule_behind(start).is_some()).collect();
    assert!(!found.is_empty(), "no block has the rule {start:?}");
    found
}

fn in_folder(block: &Block) -> Workshop {
    Workshop::new(&block.place().replace(['/', ':'], "-"))
}

/// Tries every block, and tells of all that fail.
#[track_caller]
fn each(blocks: &[Block], test: impl Fn(&Block) -> Result<(), String>) {
    let tried = blocks.iter().filter_map(|block| Some((block, test(block).err()?)));
    let faults: Vec<String> = tried.map(|(b, why)| format!("{}: {why}", b.place())).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_block_has_a_rule_that_is_known() {
    const KNOWN: [&str; 10] = [
        "c program",
        "c functions",
        "c statements",
        "sh run",
        "sh serves",
        "make",
        "cmake",
        "haproxy",
        "nginx",
        "part of",
    ];
    each(&all(), |block| {
        let known = KNOWN.iter().any(|rule| block.rule_behind(rule).is_some());
        // What is not tried says why.
        let reason =
            |rule| block.rule_behind(rule).is_some_and(|why| why.trim_start_matches(':').len() > 8);
        let fits = known || reason("sh parsed") || reason("no code");
        let explain = "no rule, or an unknown one, in a comment above the block: tests/documents/blocks.rs has them";
        fits.then_some(()).ok_or_else(|| format!("{explain}; found {:?}", block.rule))
    });
}

#[test]
fn blocks_of_c_compile_without_a_warning() {
    each(&with_rule("c"), |block| {
        let source = blocks::as_c(block).ok_or("an unknown rule of C")?;
        let mut compiler = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()));
        compiler.args(["-fsyntax-only", "-Wall", "-Wextra", "-pedantic", "-Werror", "-xc", "-"]);
        compiler.args(["-Wno-unused-parameter", "-Wno-unused-variable", "-Wno-unused-function"]);
        compiler.arg("-I").arg(root().join("include"));
        compiler.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = compiler.spawn().map_err(|error| error.to_string())?;
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(source.as_bytes()).map_err(|error| error.to_string())?;
        drop(stdin);
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(told)
    });
}

/// The program of README.md, at a socket beside it in place of a port that may be in use.
fn program_of_the_readme() -> String {
    let programs = with_rule("c program");
    let program = programs.iter().find(|block| block.page == Path::new("README.md"));
    let text = &program.expect("a program in README.md").text;
    let changed = text.replace("\"8080\"", "\"unix:app.sock\"");
    assert_ne!(*text, changed);
    changed
}

#[test]
fn blocks_of_a_shell_run() {
    needs!("openssl", "pkg-config", "python3");
    each(&with_rule("sh run"), |block| {
        let folder = in_folder(block);
        for name in block.rule_behind("sh run with").unwrap_or_default().split_whitespace() {
            match name {
                "app.c" => folder.write(name, &program_of_the_readme()),
                "app.o" => {
                    folder.write("app.c", &program_of_the_readme());
                    checked(folder.command("cc").args(["-c", "app.c"]))?;
                }
                _ => folder.write(name, name),
            }
        }
        folder.run(&block.text)
    });
}

#[test]
fn what_serves_answers() {
    for block in with_rule("sh serves") {
        let folder = in_folder(&block);
        folder.write("app.c", &program_of_the_readme());
        fs::create_dir(folder.join("www")).expect("a folder");
        let waits_at_a_socket = block.text.contains("./app");
        folder.serve(&block.text, |out| {
            if waits_at_a_socket {
                return folder
                    .ask("app.sock", "/hello")
                    .ends_with("Hello! You asked for /hello\n\r\n0\r\n\r\n");
            }
            let mut line = String::new();
            while out.read_line(&mut line).expect("its output") > 0 {
                if let Some((_, address)) = line.split_once("Listening on http://") {
                    let mut stream = TcpStream::connect(address.trim().trim_end_matches('/'))
                        .expect("a connection");
                    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a request");
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).expect("an answer");
                    return answer.starts_with("HTTP/1.0 200 ")
                        || answer.starts_with("HTTP/1.1 200 ");
                }
                line.clear();
            }
            false
        });
    }
}

#[test]
fn what_cannot_be_run_is_read_by_the_shell_and_names_what_is_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("Makefile");
    each(&with_rule("sh parsed"), |block| {
        checked(Command::new("sh").args(["-n", "-c", &block.text]))?;
        for line in block.text.lines() {
            let line = line.split(" #").next().unwrap_or_default();
            let is_variable = |word: &&str| {
                word.split_once('=').is_some_and(|(name, _)| !name.contains(['/', '-']))
            };
            let mut words =
                line.split_whitespace().filter(|word| *word != "sudo" && !is_variable(word));
            let Some(command) = words.next() else { continue };
            let known = match command {
                "make" => words
                    .filter(|word| {
                        word.chars().all(|c| c.is_ascii_lowercase() || "-_/".contains(c))
                    })
                    .all(|target| {
                        makefile.lines().any(|rule| rule.starts_with(&format!("{target}:")))
                            || target.starts_with("build/")
                    }),
                _ if command.starts_with('/')
                    || command.starts_with('.')
                    || !command.contains('/') =>
                {
                    true
                }
                _ => root().join(command).exists(),
            };
            known.then_some(()).ok_or_else(|| format!("there is nothing for {line:?}"))?;
        }
        Ok(())
    });
}

#[test]
fn excerpts_stand_so_in_their_files() {
    for block in all() {
        let Some(file) = block.rule_behind("part of") else { continue };
        let text = fs::read_to_string(root().join(file))
            .unwrap_or_else(|e| panic!("{}: {file}: {e}", block.place()));
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let wanted: Vec<&str> = block.text.lines().map(str::trim).collect();
        let stands = lines.windows(wanted.len()).any(|part| part == wanted);
        assert!(stands, "{} is not what stands in {file}", block.place());
    }
}

/// What a program is told of a failure by these, it has to look at.
const TELLING: [&str; 6] = [
    "mg_create_server",
    "mg_set_option",
    "mg_get_var",
    "mg_modify_passwords_file",
    "mg_parse_multipart",
    "mg_start_thread",
];

#[test]
fn examples_look_at_what_they_are_told() {
    let header = fs::read_to_string(root().join("include/mongoose.h")).expect("the header");
    let folder = Workshop::new("looking");
    let mut strict = header.clone();
    for name in TELLING {
        let line = header
            .lines()
            .find(|line| line.contains(&format!("{name}(")) && !line.starts_with(' '));
        let line = line.unwrap_or_else(|| panic!("no {name}"));
        strict = strict.replace(line, &format!("__attribute__((warn_unused_result)) {line}"));
    }
    folder.write("mongoose.h", &strict);
    let examples = pages::below(&root().join("examples"), ".c");
    let examples = examples.iter().filter(|path| !path.ends_with("bus.c"));
    let mut count = 0;
    for example in examples {
        let mut compiler = folder.command("cc");
        // The header of this folder goes before the one that is installed.
        compiler.args(["-c", "-o", "out.o", "-Wall", "-Wextra", "-Werror", "-I", "."]).arg(example);
        checked(&mut compiler).unwrap_or_else(|told| panic!("{told}"));
        count += 1;
    }
    assert!(count > 12, "{count}");
    let careless = "#include <mongoose.h>\nvoid f(void) { mg_set_option(NULL, NULL, NULL); }\n";
    folder.write("careless.c", careless);
    let mut compiler = folder.command("cc");
    compiler.args(["-c", "-Werror", "-I", ".", "careless.c"]);
    checked(&mut compiler).expect_err("what nobody looks at is told of");
}

/// The names in backquotes of a text.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn each_promise_of_security_has_tests_that_are_there() {
    let page = fs::read_to_string(root().join("SECURITY.md")).expect("SECURITY.md");
    let section = page.split("\n## ").find(|section| section.starts_with("What is promised"));
    let rows = section.expect("the promises").lines().filter(|line| line.starts_with("| "));
    let mut sources = String::new();
    for folder in ["tests", "src"] {
        for file in pages::below(&root().join(folder), ".rs") {
            let text = fs::read_to_string(file).expect("a source");
            // What says in which builds a test is left out.
            let lines = text.lines().filter(|line| !line.starts_with("#[cfg_attr("));
            sources.extend(lines.flat_map(|line| [line, "\n"]));
        }
    }
    let rows: Vec<&str> = rows.skip(1).collect();
    assert!(rows.len() >= 15, "{rows:#?}");
    for row in rows {
        let tests = row.trim_end_matches([' ', '|']).rsplit_once('|').expect("two columns").1;
        let names = quoted(tests);
        assert!(!names.is_empty(), "no test for {row}");
        for name in names {
            let is_there = match name.contains('/') {
                true => root().join(name).exists(),
                false => sources.contains(&format!("#[test]\nfn {name}()")),
            };
            assert!(is_there, "there is no test {name}, which SECURITY.md names");
        }
    }
}

#[test]
fn the_settings_of_the_page_on_hardening_are_taken() {
    let functions = with_rule("c functions");
    let block = functions.iter().find(|block| block.page == Path::new("docs/hardening.md"));
    let text = &block.expect("a block").text;
    let folder = Workshop::new("hardening");
    let main = r#"
int main(void) {
  struct mg_server *server = mg_create_server(NULL);
  if (!harden(server) || mg_set_option(server, "listening_port", "unix:app.sock") != NULL) return 1;
  for (;;) mg_poll_server(server, 1000);
}
"#;
    folder.write("app.c", &format!("#include <mongoose.h>\n{text}\n{main}\n"));
    for path in ["www/folder", "www/.git"] {
        fs::create_dir_all(folder.join(path)).expect("a folder");
    }
    for path in ["www/index.html", "www/a.bak", "www/b~", "www/.git/config", "www/run.cgi"] {
        folder.write(path, "content");
    }
    std::os::unix::fs::symlink("/etc/passwd", folder.join("www/link")).expect("a link");
    folder.serve("cc app.c -o app -lmongoose && exec ./app", |_| {
        let statuses = [
            ("/index.html", "200"),
            ("/a.bak", "404"),
            ("/b~", "404"),
            ("/.git/config", "404"),
            ("/run.cgi", "403"),
            ("/folder/", "403"),
            ("/link", "404"),
        ];
        statuses.iter().all(|(path, status)| {
            let answer = folder.ask("app.sock", path);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
            assert!(answer.contains("X-Content-Type-Options: nosniff\r\n"), "{answer}");
            true
        })
    });
    // The error log is the first of them, and has nothing to tell.
    assert_eq!(fs::read_to_string(folder.join("error.log")).expect("a log"), "");
}

#[test]
fn a_server_in_python_serves_echoes_and_pushes() {
    needs!("python3");
    let folder = Workshop::new("bindings");
    let mut test = folder.command("python3");
    test.arg(root().join("examples/bindings/test")).arg("python");
    test.env("MONGOOSE_LIBRARY", folder.installed().join("lib/libmongoose.so.5"));
    checked(&mut test).expect("the server in Python");
}

#[test]
fn lines_for_make_build_a_program() {
    needs!("pkg-config");
    each(&with_rule("make"), |block| {
        let folder = in_folder(block);
        folder.write("app.c", &program_of_the_readme());
        folder.write("Makefile", &format!("{}\napp: app.c\n", block.text));
        checked(folder.command("make").arg("app"))?;
        folder.join("app").exists().then_some(()).ok_or_else(|| "no program".to_owned())
    });
}

#[test]
fn lines_for_cmake_build_a_program() {
    needs!("cmake");
    each(&with_rule("cmake"), |block| {
        let folder = in_folder(block);
        folder.write("app.c", &program_of_the_readme());
        let before =
            "cmake_minimum_required(VERSION 3.10)\nproject(app C)\nadd_executable(app app.c)\n";
        folder.write("CMakeLists.txt", &format!("{before}{}", block.text));
        checked(folder.command("cmake").args(["-S", ".", "-B", "build"]))?;
        checked(folder.command("cmake").args(["--build", "build"]))?;
        folder.join("build/app").exists().then_some(()).ok_or_else(|| "no program".to_owned())
    });
}

#[test]
fn haproxy_takes_its_settings() {
    needs!("haproxy", "openssl");
    each(&with_rule("haproxy"), |block| {
        let folder = in_folder(block);
        let pem = folder.join("site.pem").display().to_string();
        folder.run(
            "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=a -keyout k -out c\n\
             cat k c >site.pem",
        )?;
        let text = block.text.replace("/etc/haproxy/site.pem", &pem);
        let before = "defaults\n timeout connect 9s\n timeout client 9s\n timeout server 9s\n";
        folder.write("haproxy.cfg", &format!("{before}{text}"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut haproxy = outside("haproxy");
        haproxy.args(["-c", "-f"]).arg(folder.join("haproxy.cfg"));
        checked(haproxy.env("PATH", format!("{path}:/usr/sbin")))
    });
}

#[test]
fn nginx_takes_its_settings() {
    needs!("nginx");
    each(&with_rule("nginx"), |block| {
        let folder = in_folder(block);
        // In a test of settings nginx puts up with a port that is in use.
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let listen = listener.local_addr().map_err(|error| error.to_string())?;
        let (http, server) =
            block.text.split_once("# In `server`:").ok_or("no part for `server`")?;
        let at = folder.join("").display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {at}{name};\n"))
            .concat();
        folder.write(
            "nginx.conf",
            &format!(
                "pid {at}pid; error_log stderr; events {{}}\nhttp {{ access_log off;\n{temporary}\n{http}\n\
                 server {{ listen {listen};\n{server}\n}}\n}}\n"
            ),
        );
        let path = std::env::var("PATH").unwrap_or_default();
        let mut nginx = outside("nginx");
        nginx.args(["-t", "-e", "stderr", "-p", &at, "-c"]).arg(folder.join("nginx.conf"));
        checked(nginx.env("PATH", format!("{path}:/usr/sbin")))
    });
}
