//! A container of the image.

use std::fs;
use std::net::SocketAddr;

use serde_json::Value;

use super::podman::{IMAGE, Podman};
use support::client::{Client, Response};
use support::wait_for;

/// A running container that listens on a loopback port of the machine. Dropping it removes it.
pub struct Container {
    podman: &'static Podman,
    pub name: String,
    pub pid: u32,
    pub address: SocketAddr,
}

impl Container {
    /// Runs the image as its default user, confined as in a cluster, and waits for the start line.
    pub fn run(podman: &'static Podman, name: &str, arguments: &[&str]) -> Self {
        Self::run_with(podman, name, free_port(), &[], arguments)
    }

    /// The same as another user, as on platforms that assign one.
    pub fn run_as(user: &str, podman: &'static Podman, name: &str) -> Self {
        Self::run_with(podman, name, free_port(), &["--user", user], &[])
    }

    /// The same on a given address, with further flags of podman.
    pub fn run_with(
        podman: &'static Podman,
        name: &str,
        listen: SocketAddr,
        flags: &[&str],
        arguments: &[&str],
    ) -> Self {
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
                    "--memory=512m",
                ],
                flags,
                &[IMAGE, &format!("--listen={listen}")],
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
            address: listen,
        };
        let log = || {
            let log = podman.command().args(["logs", &container.name]).output().unwrap();
            String::from_utf8(log.stderr).unwrap()
        };
        let log = wait_for("the start line", log, |log| listening_on(log).is_some());
        container.address = listening_on(&log).expect("the start line has the address");
        container
    }

    /// Sends one GET request on its own connection.
    pub fn get(&self, target: &str) -> Response {
        Client::connect(self.address).get(target)
    }

    /// Returns the output of `podman inspect`.
    pub fn inspect(&self) -> Value {
        let mut list: Vec<Value> = serde_json::from_str(&self.podman.run(&["inspect", &self.name])).unwrap();
        list.remove(0)
    }

    /// Returns a field of the process's /proc/PID/status.
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

/// Returns the address that stands for any free port.
fn free_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Returns the address in the start line of a log.
fn listening_on(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(" listening on ")?;
    rest.split_once(',')?.0.parse().ok()
}

/// Returns a field of a process's /proc/PID/status.
pub fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap().trim().to_owned()
}
