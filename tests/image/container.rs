//! One container of the image, ended when it goes out of scope.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::podman::{IMAGE, Podman};

/// How long anything here may take that takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running container, listening on a loopback port of the machine.
pub struct Container {
    podman: &'static Podman,
    pub name: String,
    pub pid: u32,
    pub address: SocketAddr,
}

impl Container {
    /// Runs the image, confined as a cluster would confine it, and waits for its start line.
    pub fn run(podman: &'static Podman, name: &str, arguments: &[&str]) -> Self {
        let name = format!("httpserver-test-{name}");
        podman.run(&["rm", "--force", "--ignore", &name]);
        podman.run(
            &[
                &[
                    "run",
                    "--detach",
                    "--name",
                    &name,
                    "--network=host",
                    "--read-only",
                    "--read-only-tmpfs=false",
                    "--cap-drop=all",
                    "--security-opt=no-new-privileges",
                    "--memory=256m",
                    IMAGE,
                    "--listen=127.0.0.1:0",
                ],
                arguments,
            ]
            .concat(),
        );
        let pid = podman
            .run(&["inspect", "--format={{.State.Pid}}", &name])
            .trim()
            .parse()
            .unwrap();
        let mut container = Self {
            podman,
            name,
            pid,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        container.address = wait_for("the start line", || container.listening_on());
        container
    }

    fn listening_on(&self) -> Option<SocketAddr> {
        let log = self.podman.command().args(["logs", &self.name]).output().unwrap();
        let log = String::from_utf8(log.stderr).unwrap();
        let (_, rest) = log.split_once(" listening on ")?;
        rest.split_once(',')?.0.parse().ok()
    }

    /// What podman knows of it.
    pub fn inspect(&self) -> Value {
        let mut list: Vec<Value> = serde_json::from_str(&self.podman.run(&["inspect", &self.name])).unwrap();
        list.remove(0)
    }

    /// A field of /proc/PID/status of its process.
    pub fn status(&self, field: &str) -> String {
        status(self.pid, field)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self
            .podman
            .command()
            .args(["rm", "--force", "--time=0", &self.name])
            .output();
    }
}

/// A field of a process's /proc/PID/status.
pub fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap().trim().to_owned()
}

/// The status code and the body that a GET is answered with.
pub fn get(address: SocketAddr, target: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no status line but {line:?}")))?;
    let mut rest = String::new();
    reader.read_to_string(&mut rest)?;
    let body = rest.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}

/// The value of the first sample whose line begins so.
pub fn sample(page: &str, begins: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(begins))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Asks until there is an answer.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not come within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
