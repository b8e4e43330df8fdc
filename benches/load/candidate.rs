//! A server under load: its process, its resource usage, and its clients.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// The servers that are measured beside this one.
#[derive(Clone, Copy)]
pub enum Peer {
    /// The Go program that this server replaces, on net/http.
    NetHttp,
    /// The simplest server on tiny_http, without a delay.
    PlainPool,
}

/// A running server, killed when dropped.
pub struct Candidate {
    child: Child,
    address: SocketAddr,
}

/// Starts a server, anew for each run.
pub type Start = Box<dyn Fn() -> Candidate>;

impl Candidate {
    /// Returns a start of this server, or of the build that `BENCH_SERVER` names.
    pub fn ours(delay_max: &'static str) -> Start {
        let binary = super::release::server();
        Box::new(move || {
            let flags = [
                "--listen",
                "127.0.0.1:0",
                "--access-log",
                "false",
                "--delay-max",
                delay_max,
            ];
            // As in the image.
            let environment = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");
            Candidate::start(Command::new(&binary).args(flags).env(environment.0, environment.1))
        })
    }

    /// Returns a start of a peer. The plain pool never delays.
    pub fn peer(peer: Peer, delay_max: &'static str) -> Start {
        match peer {
            Peer::NetHttp => {
                let binary = build_net_http();
                Box::new(move || Candidate::start(Command::new(&binary).arg(delay_max)))
            }
            Peer::PlainPool => Box::new(|| {
                let this = std::env::current_exe().expect("the path of this program");
                Candidate::start(Command::new(this).arg(super::PLAIN_POOL))
            }),
        }
    }

    /// Each server writes one line to standard error that says where it listens.
    fn start(command: &mut Command) -> Candidate {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split(" listening on ").nth(1)?.split(',').next()?.parse().ok())
            .expect("a start line");
        thread::spawn(move || lines.for_each(drop));
        Candidate { child, address }
    }

    /// Returns the CPU time of all threads so far, including those that have ended.
    pub fn cpu(&self) -> Duration {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a process id"));
        let clock = clock_getcpuclockid(pid).expect("the process is alive");
        clock.now().expect("a clock").into()
    }

    pub fn resident_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process is alive");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
        let kib: f64 = line.split_whitespace().nth(1).expect("kB").parse().expect("a number");
        kib / 1024.0
    }

    /// Returns how many requests of the load have been answered, according to the server's own histogram, and how many of them took at
    /// most 2 s, the longest delay. Only this server has that bucket.
    pub fn answered(&self) -> [f64; 2] {
        let exposition = self.exposition();
        let sum = |is_counted: fn(&str) -> bool| -> f64 {
            let lines = exposition
                .lines()
                .filter(|line| line.starts_with("http_request_duration_seconds_"));
            let counted = lines.filter(|line| is_counted(line) && !line.contains("/metrics"));
            counted
                .map(|line| {
                    line.split_whitespace()
                        .nth(1)
                        .expect("a value")
                        .parse::<f64>()
                        .expect("a number")
                })
                .sum()
        };
        [
            sum(|line| line.contains("_seconds_count")),
            sum(|line| line.contains("_bucket{") && line.contains("le=\"2\"")),
        ]
    }

    /// Returns how long a scrape on a connection of its own takes until the last byte arrives.
    pub fn scrape(&self) -> Duration {
        let start = Instant::now();
        self.exposition();
        start.elapsed()
    }

    fn exposition(&self) -> String {
        let mut stream = TcpStream::connect(self.address).expect("the server accepts");
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            .expect("the server reads");
        let mut exposition = String::new();
        stream.read_to_string(&mut exposition).expect("an exposition");
        exposition
    }

    /// Starts `clients` keep-alive connections, each of which requests `/` again and again.
    pub fn load(&self, clients: usize, lasts: Duration) -> Load {
        let wrk = Command::new("wrk")
            .args(["-t2", "--timeout", "10s", "-c", &clients.to_string()])
            .args([
                &format!("-d{}s", lasts.as_secs_f64().ceil()),
                &format!("http://{}/", self.address),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("wrk is installed");
        Load { wrk }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Running clients.
pub struct Load {
    wrk: Child,
}

impl Load {
    /// Blocks until the clients finish.
    pub fn requests_per_second(self) -> f64 {
        let output = self.wrk.wait_with_output().expect("wrk runs");
        let report = String::from_utf8(output.stdout).expect("text");
        assert!(!report.contains("Non-2xx"), "{report}");
        if let Some(errors) = report.lines().find(|line| line.contains("Socket errors")) {
            eprintln!("{}", errors.trim());
        }
        report
            .lines()
            .find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse().ok())
            .unwrap_or_else(|| panic!("{report}"))
    }
}

/// Returns the path of the Go program, built from `benches/peers/net_http`.
fn build_net_http() -> PathBuf {
    let binary = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("net_http");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&binary)
        .arg(".")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/net_http"))
        .status()
        .expect("go is installed");
    assert!(built.success(), "go build: {built}");
    binary
}
