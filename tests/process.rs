//! The process and its environment: full and closed standard streams, environment variables, a clock that steps.

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use support::client::Client;
use support::prometheus::free_address;
use support::server::{Server, command, value_of};
use support::wait_for;

const VARIABLES: [&str; 11] = [
    "HTTPSERVER_LISTEN",
    "HTTPSERVER_DELAY_MIN",
    "HTTPSERVER_DELAY_MAX",
    "HTTPSERVER_DELAY_QUANTILES",
    "HTTPSERVER_ERROR_RATE",
    "HTTPSERVER_BUCKETS",
    "HTTPSERVER_MAX_IN_FLIGHT",
    "HTTPSERVER_DRAIN_TIMEOUT",
    "HTTPSERVER_IDLE_TIMEOUT",
    "HTTPSERVER_REQUESTS_PER_CONNECTION",
    "HTTPSERVER_ACCESS_LOG",
];

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// Returns the writing end of a pipe whose reading end is closed.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A server whose standard streams cannot be written to, so that its start line cannot be read. Killed when dropped.
struct Muted {
    child: Child,
    address: SocketAddr,
}

impl Muted {
    fn start(stdout: Stdio, stderr: Stdio) -> Muted {
        let address = free_address();
        let child = command(&["--listen", &address.to_string(), "--delay-max", "0s"])
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut muted = Muted { child, address };
        wait_for("the server to listen", Duration::from_secs(10), || {
            let exited = muted.child.try_wait().unwrap();
            assert_eq!(exited, None, "the server has exited");
            TcpStream::connect(address).is_ok().then_some(())
        });
        muted
    }

    /// Asserts that the server serves, also after clients reset their connections, and exits with status 0 on SIGTERM.
    fn survives(mut self) {
        for _ in 0..20 {
            let mut client = Client::connect(self.address);
            assert_eq!(client.get("/").status, 200);
            assert_eq!(client.get("/nothing").status, 404);
            // tiny_http's thread for this connection may panic, which the server reports.
            reset_after_a_request(self.address);
        }
        assert_eq!(Client::connect(self.address).get("/healthz").status, 200);
        assert_eq!(self.child.try_wait().unwrap(), None, "the server has exited");
        signal(self.child.id(), "TERM");
        let status = wait_for("the server to exit", Duration::from_secs(10), || {
            self.child.try_wait().unwrap()
        });
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

impl Drop for Muted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Resets a connection right after a request, and another right after it is accepted.
fn reset_after_a_request(address: SocketAddr) {
    let at_once = linger {
        l_onoff: 1,
        l_linger: 0,
    };
    for sent in [&b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"[..], b""] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(sent).unwrap();
        setsockopt(&stream, sockopt::Linger, &at_once).unwrap();
    }
}

#[test]
fn a_full_stderr_does_not_end_the_server() {
    Muted::start(Stdio::null(), full().into()).survives();
}

#[test]
fn a_full_stdout_does_not_end_the_server() {
    Muted::start(full().into(), Stdio::null()).survives();
}

#[test]
fn full_standard_streams_do_not_end_the_server() {
    Muted::start(full().into(), full().into()).survives();
}

#[test]
fn a_closed_stderr_does_not_end_the_server() {
    Muted::start(Stdio::null(), closed_pipe()).survives();
}

#[test]
fn a_closed_stdout_does_not_end_the_server() {
    Muted::start(closed_pipe(), Stdio::null()).survives();
}

#[test]
fn standard_streams_that_close_while_it_runs_do_not_end_the_server() {
    let (stdout_reader, stdout) = std::io::pipe().unwrap();
    let (stderr_reader, stderr) = std::io::pipe().unwrap();
    let muted = Muted::start(stdout.into(), stderr.into());
    assert_eq!(Client::connect(muted.address).get("/").status, 200);
    drop((stdout_reader, stderr_reader));
    muted.survives();
}

#[test]
fn an_access_log_that_is_not_read_drops_lines_and_says_how_many() {
    // More than the pipe and the queue hold.
    const REQUESTS: usize = 10_000;
    let (reader, writer) = std::io::pipe().unwrap();
    let server = Muted::start(writer.into(), Stdio::null());
    let mut client = Client::connect(server.address);
    for _ in 0..REQUESTS {
        client.get("/");
    }
    let (mut written, mut dropped) = (0, 0);
    for line in BufReader::new(reader).lines() {
        match line.unwrap().split_once(" dropped_lines=") {
            Some((_, count)) => dropped += count.parse::<usize>().unwrap(),
            None => written += 1,
        }
        if written + dropped >= REQUESTS {
            break;
        }
    }
    assert_eq!(written + dropped, REQUESTS);
    assert!(dropped > 0, "all {written} lines were kept");
}

/// Runs a command until it exits. Returns its status and the lines on its standard error.
fn exit(mut command: Command, stdout: Stdio) -> (ExitStatus, Vec<String>) {
    let output = command
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output();
    let Output { status, stderr, .. } = output.unwrap();
    (
        status,
        String::from_utf8(stderr).unwrap().lines().map(str::to_owned).collect(),
    )
}

#[test]
fn help_that_cannot_be_written_gets_one_line_and_status_1() {
    for flag in ["--help", "--version"] {
        for stdout in [full().into(), closed_pipe()] {
            let (status, lines) = exit(command(&[flag]), stdout);
            assert_eq!(status.code(), Some(1), "{flag}: {lines:?}");
            assert_eq!(lines.len(), 1, "{flag}: {lines:?}");
            assert!(lines[0].starts_with("httpserver: cannot write "), "{lines:?}");
        }
        let status = command(&[flag]).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{flag}: nothing can be written");
    }
}

#[test]
fn errors_that_cannot_be_written_keep_their_status() {
    let server = Server::start(&[]);
    for (flags, code) in [
        (["--error-rate", "2"], 2),
        (["--listen", &server.address.to_string()], 1),
    ] {
        for stderr in [full().into(), closed_pipe()] {
            let status = command(&flags).stdout(Stdio::null()).stderr(stderr).status().unwrap();
            assert_eq!(status.code(), Some(code), "{flags:?}");
        }
    }
}

#[test]
fn an_empty_variable_means_unset() {
    let mut empty = command(&["--listen", "127.0.0.1:0"]);
    for name in VARIABLES {
        empty.env(name, "");
    }
    let from_start_line = |server: &Server| server.start_line.split_once(", ").unwrap().1.to_owned();
    let (empty, unset) = (Server::spawn(empty), Server::start(&[]));
    assert_eq!(from_start_line(&empty), from_start_line(&unset));
    let bounds = |server: &Server| server.metrics().matches("le=").count();
    assert_eq!(bounds(&empty), bounds(&unset));
}

#[test]
fn an_error_in_a_variable_names_the_variable() {
    for (name, value) in [
        ("HTTPSERVER_LISTEN", "nowhere"),
        ("HTTPSERVER_DELAY_MIN", "fast"),
        ("HTTPSERVER_DELAY_MIN", "3s"),
        ("HTTPSERVER_DELAY_MAX", "2h"),
        ("HTTPSERVER_DELAY_QUANTILES", "0.5=3s"),
        ("HTTPSERVER_DELAY_QUANTILES", "half"),
        ("HTTPSERVER_ERROR_RATE", "2"),
        ("HTTPSERVER_BUCKETS", "2,1"),
        ("HTTPSERVER_MAX_IN_FLIGHT", "0"),
        ("HTTPSERVER_DRAIN_TIMEOUT", "soon"),
        ("HTTPSERVER_IDLE_TIMEOUT", "0s"),
        ("HTTPSERVER_REQUESTS_PER_CONNECTION", "-1"),
        ("HTTPSERVER_ACCESS_LOG", "maybe"),
    ] {
        let mut wrong = command(&[]);
        wrong.env(name, value);
        let (status, lines) = exit(wrong, Stdio::null());
        assert_eq!(status.code(), Some(2), "{name}: {lines:?}");
        assert_eq!(lines.len(), 1, "{name}: {lines:?}");
        assert!(lines[0].contains(&format!("{name} {value:?}")), "{name}: {lines:?}");
        let flag = name.trim_start_matches("HTTPSERVER_").to_lowercase().replace('_', "-");
        assert!(!lines[0].contains(&format!("--{flag}")), "{name}: {lines:?}");
    }
}

#[test]
fn an_error_in_a_flag_names_the_flag_even_if_the_variable_is_set() {
    let mut wrong = command(&["--error-rate", "2"]);
    wrong.env("HTTPSERVER_ERROR_RATE", "0.5");
    let (status, lines) = exit(wrong, Stdio::null());
    assert_eq!(status.code(), Some(2), "{lines:?}");
    assert!(lines[0].contains("--error-rate \"2\""), "{lines:?}");
}

/// Returns the path of Debian's libfaketime, which shifts the time that the C library returns.
fn libfaketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .expect("faketime is installed")
}

/// A server whose wall clock can be stepped.
struct Stepped {
    server: Server,
    offset_file: PathBuf,
}

impl Stepped {
    fn start(flags: &[&str]) -> Stepped {
        let offset_file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clock-{}", std::process::id()));
        fs::write(&offset_file, "+0").unwrap();
        let mut stepped = command(&["--listen", "127.0.0.1:0"]);
        stepped
            .args(flags)
            .env("LD_PRELOAD", libfaketime())
            .env("FAKETIME_TIMESTAMP_FILE", &offset_file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        Stepped {
            server: Server::spawn(stepped),
            offset_file,
        }
    }

    /// Sets the wall clock to an offset from the real time, in seconds.
    fn step(&self, offset_seconds: i64) {
        // A rename is atomic, so the server never reads half of the offset.
        let new = self.offset_file.with_extension("new");
        fs::write(&new, format!("{offset_seconds:+}")).unwrap();
        fs::rename(new, &self.offset_file).unwrap();
    }

    /// Returns the offset of the server's wall clock from the real time, in hours, according to its `Date`.
    fn hours_off(&self) -> i64 {
        let response = self.server.get("/healthz");
        let date = httpdate::parse_http_date(response.header("Date").unwrap()).unwrap();
        let seconds = match date.duration_since(std::time::SystemTime::now()) {
            Ok(ahead) => ahead.as_secs_f64(),
            Err(behind) => -behind.duration().as_secs_f64(),
        };
        (seconds / 3_600.0).round() as i64
    }
}

#[test]
fn delays_and_durations_do_not_follow_a_stepped_clock() {
    let stepped = Stepped::start(&["--delay-min", "600ms", "--delay-max", "700ms"]);
    let start_time = |exposition: &str| value_of(exposition, "process_start_time_seconds").unwrap();
    let started = start_time(&stepped.server.metrics());
    let requests = 4;
    for hours in [2, -2, 48, 0] {
        let mut client = stepped.server.connect();
        let sent_at = Instant::now();
        client.request("GET", "/", &[]);
        std::thread::sleep(Duration::from_millis(200));
        stepped.step(hours * 3_600);
        wait_for("the clock to step", Duration::from_secs(2), || {
            (stepped.hours_off() == hours).then_some(())
        });
        let response = client.receive().unwrap();
        let took = sent_at.elapsed();
        assert_eq!(response.status, 200);
        assert!(
            took >= Duration::from_millis(600) && took < Duration::from_secs(2),
            "{hours} h: {took:?}"
        );
    }
    let of_root = |name: &str| format!(r#"http_request_duration_seconds_{name}{{method="GET",path="/",status="200"}}"#);
    let exposition = wait_for("the last observation", Duration::from_secs(2), || {
        let exposition = stepped.server.metrics();
        (value_of(&exposition, &of_root("count")) == Some(f64::from(requests))).then_some(exposition)
    });
    let sum = value_of(&exposition, &of_root("sum")).unwrap();
    assert!(
        (0.6 * f64::from(requests)..1.0 * f64::from(requests)).contains(&sum),
        "{sum} s"
    );
    let moved = (start_time(&exposition) - started).abs();
    assert!(moved < 1.5, "process_start_time_seconds moved by {moved} s");
}

/// The macros panic if the write fails. Our own function for diagnostics does not.
#[test]
fn no_source_file_uses_a_print_macro() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            for (line_number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                if ["println!", "print!", "dbg!"]
                    .iter()
                    .any(|printing| code.contains(printing))
                {
                    found.push(format!("{}:{}: {}", path.display(), line_number + 1, line.trim()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
