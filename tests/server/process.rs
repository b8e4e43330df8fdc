//! The process and its environment: full and closed standard streams, limits, no IPv6, a clock that steps.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use support::access_log::Durations;
use support::client::Client;
use support::prometheus::free_address;
use support::server::{Server, binary, built_with_the_tests, command, value_of};
use support::{root, wait_for};

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
        wait_for(
            "the server to listen",
            || {
                let exited = muted.child.try_wait().unwrap();
                assert_eq!(exited, None, "the server has exited");
                TcpStream::connect(address)
            },
            Result::is_ok,
        )
        .unwrap();
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
        let exited = wait_for("the server to exit", || self.child.try_wait().unwrap(), Option::is_some);
        let status = exited.unwrap();
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
fn the_default_address_serves_ipv4_on_a_system_without_ipv6() {
    let script = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 && ip link set lo up && \
        { \"$0\" 2>&1 >/dev/null & } && server=$! && \
        curl --silent --show-error --retry 60 --retry-delay 1 --retry-connrefused http://127.0.0.1:19004/healthz; \
        kill $server; wait $server";
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .arg(binary())
        .output()
        .expect("unshare starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("listening on [::]:19004") && text.contains("ok\n"),
        "{text} {output:?}"
    );
}

#[test]
fn the_soft_limit_on_descriptors_is_raised_to_the_hard_one() {
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -Sn 64; exec \"$0\" --listen 127.0.0.1:0"])
        .arg(binary())
        .stdin(Stdio::null());
    let server = Server::spawn(limited);
    assert!(server.metric("process_max_fds").unwrap() > 64.0);
}

/// An empty root: no /proc, no /dev, nothing but the binary and the libraries that it loads.
#[test]
fn an_empty_root_without_dev_null_is_enough_to_serve() {
    let root = std::env::temp_dir().join(format!("httpserver-root-{}", std::process::id()));
    let libraries = Command::new("ldd").arg(binary()).output().unwrap().stdout;
    let libraries = String::from_utf8(libraries).unwrap();
    let files = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for file in files {
        let copy = root.join(&file[1..]);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(file, copy).unwrap();
    }
    fs::create_dir_all(&root).unwrap();
    fs::copy(binary(), root.join("httpserver")).unwrap();
    let mut bare = Command::new("chroot");
    bare.arg(&root).args(["/httpserver", "--listen", "127.0.0.1:0"]);
    let server = Server::spawn(bare);
    assert_eq!(server.get("/healthz").status, 200);
    fs::remove_dir_all(root).unwrap();
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
        // A binary without shared libraries loads no other library either.
        let mut stepped = Command::new(built_with_the_tests());
        stepped
            .args(["--listen", "127.0.0.1:0"])
            .args(flags)
            .stdin(Stdio::null())
            .env_clear()
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
    let delay = Duration::from_secs(5);
    let stepped = Stepped::start(&["--delay-min", "5s", "--delay-max", "5s"]);
    let start_time = |exposition: &str| value_of(exposition, "process_start_time_seconds").unwrap();
    let started = start_time(&stepped.server.metrics());
    let step = |hours: i64| {
        stepped.step(hours * 3_600);
        wait_for("the clock to step", || stepped.hours_off(), |off| *off == hours);
    };
    let mut waiting = Vec::new();
    // No request ends with the clock with which it began.
    for hours in [2, -2, 48, -1] {
        let mut client = stepped.server.connect();
        let sent_at = Instant::now();
        client.request("GET", "/", &[]);
        waiting.push((client, sent_at));
        wait_for(
            &format!("{} requests to be in flight beside the scrape", waiting.len()),
            || stepped.server.metric("http_requests_in_flight"),
            |in_flight| *in_flight > Some(waiting.len() as f64),
        );
        step(hours);
    }
    for (client, sent_at) in &mut waiting {
        assert_eq!(client.receive().unwrap().status, 200);
        let took = sent_at.elapsed();
        assert!(took >= delay, "{took:?}");
    }
    step(0);
    // The log has what the histogram has. From begin to end, each clock has moved by an hour or more.
    let log = stepped.server.logged(waiting.len());
    let durations: Durations = log.iter().map(|line| line.duration).collect();
    let in_time = delay.as_secs_f64()..3_600.0;
    assert!(
        in_time.contains(&durations.quantile(0.0)) && in_time.contains(&durations.quantile(1.0)),
        "{durations:?}"
    );
    let of_root = |name: &str| format!(r#"http_request_duration_seconds_{name}{{method="GET",path="/",status="200"}}"#);
    let exposition = stepped.server.metrics();
    assert_eq!(value_of(&exposition, &of_root("count")), Some(waiting.len() as f64));
    let sum = value_of(&exposition, &of_root("sum")).unwrap();
    assert!((sum - durations.sum()).abs() < 0.001, "{sum} s, {durations:?}");
    assert_eq!(start_time(&exposition), started);
}

#[test]
fn servers_that_start_within_a_tick_of_the_system_have_start_times_of_their_own() {
    let servers: Vec<Server> = (0..10).map(|_| Server::start(&[])).collect();
    let times: Vec<f64> = servers
        .iter()
        .map(|server| value_of(&server.metrics(), "httpserver_start_time_seconds").unwrap())
        .collect();
    assert!(times.is_sorted_by(|before, after| before < after), "{times:?}");
}

/// The macros panic if the write fails. Our own function for diagnostics does not.
#[test]
fn no_source_file_uses_a_print_macro() {
    let mut folders = vec![root().join("src")];
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
