//! The real binary on a free port.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::access_log::{self, Line};
use crate::client::{Client, Response};
use crate::wait_for;

/// A running server, killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub start_line: String,
    stderr: Arc<Mutex<String>>,
    stdout: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// Returns the path of the binary: the one that `TEST_SERVER` names, or else the one that was built with the tests.
pub fn binary() -> OsString {
    std::env::var_os("TEST_SERVER").unwrap_or_else(built_with_the_tests)
}

/// Returns the path of the binary that was built with the tests. It loads shared libraries, which that of the image does not.
pub fn built_with_the_tests() -> OsString {
    std::env::var_os("CARGO_BIN_EXE_httpserver").expect("Cargo, which runs the tests, names the binary")
}

/// Returns a command for the binary with flags, without the settings in the caller's environment.
pub fn command(flags: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(flags).stdin(Stdio::null());
    // As in the image, which says why.
    command.env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HTTPSERVER_")) {
        command.env_remove(name);
    }
    command
}

/// Runs the binary until it exits on its own.
pub fn run(flags: &[&str]) -> Output {
    command(flags).output().expect("the binary runs")
}

/// Collects the lines of a pipe as they arrive.
fn collect(pipe: impl Read + Send + 'static, into: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut text = into.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    })
}

impl Server {
    /// Starts the binary on a free port of 127.0.0.1 with further flags, and waits for its start line.
    pub fn start(flags: &[&str]) -> Server {
        let mut all = vec!["--listen", "127.0.0.1:0"];
        all.extend(flags);
        Server::spawn(command(&all))
    }

    /// Starts a command that execs the binary, and waits for the binary's start line.
    pub fn spawn(mut command: Command) -> Server {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().unwrap(), &stdout),
            collect(child.stderr.take().unwrap(), &stderr),
        ];
        let is_start_line = |line: &&str| line.contains(" listening on ");
        let text = wait_for(
            "the start line",
            || {
                // A line that it wrote before it exited may still be on its way.
                let exited = child.try_wait().expect("the binary can be waited for");
                (stderr.lock().unwrap().clone(), exited)
            },
            |(text, _)| text.lines().any(|line| is_start_line(&line)),
        );
        let start_line = text.0.lines().find(is_start_line).unwrap().to_owned();
        let address = start_line
            .split(" listening on ")
            .nth(1)
            .and_then(|rest| rest.split(',').next())
            .and_then(|address| address.parse().ok())
            .expect("the start line has the address");
        Server {
            child,
            address,
            start_line,
            stderr,
            stdout,
            readers,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Opens a new connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends one GET request on its own connection.
    pub fn get(&self, target: &str) -> Response {
        self.connect().get(target)
    }

    /// Returns the exposition.
    pub fn metrics(&self) -> String {
        self.get("/metrics").text()
    }

    /// Returns the value of the first series of the exposition that starts with `series` and a space.
    pub fn metric(&self, series: &str) -> Option<f64> {
        value_of(&self.metrics(), series)
    }

    /// Returns what the server has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Returns what the server has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    /// Blocks until the access log has `count` lines, and returns all that it has.
    pub fn logged(&self, count: usize) -> Vec<Line> {
        let lines = |log: &String| log.lines().count();
        wait_for(
            &format!("{count} lines in the access log"),
            || lines(&self.stdout()),
            |lines| *lines >= count,
        );
        access_log::parse(&self.stdout())
    }

    /// Returns a number of /proc/PID/status, in the unit that it has there (kB for memory).
    pub fn proc_status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process is alive");
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|value| value.split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in /proc/PID/status"))
    }

    /// Returns the resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.proc_status("VmRSS") * 1024
    }

    pub fn open_fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Returns the CPU time so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // USER_HZ is 100 on every Linux platform that the server supports.
        Duration::from_millis(ticks * 10)
    }

    /// Sends a signal, given by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Blocks until the server exits. Returns its status and how long that took.
    pub fn wait_exit(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let status = wait_for("the server to exit", || self.child.try_wait().unwrap(), Option::is_some);
        let took = start.elapsed();
        let status = status.expect("it has exited");
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        (status, took)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the value of the first series of an exposition that starts with `series` and a space.
pub fn value_of(exposition: &str, series: &str) -> Option<f64> {
    exposition.lines().find_map(|line| {
        line.strip_prefix(series)?
            .strip_prefix(' ')?
            .split(' ')
            .next()?
            .parse()
            .ok()
    })
}
