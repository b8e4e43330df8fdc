//! A network of a test's own, for what listens on fixed ports.

use std::ffi::OsStr;
use std::process::Command;

use crate::podman::{Podman, stdout};

/// A network namespace with its loopback up; deleted when it is dropped.
pub struct Network {
    name: String,
}

impl Network {
    pub fn new(test: &str) -> Self {
        let network = Self {
            name: format!("httpserver-{test}-{}", std::process::id()),
        };
        stdout(Command::new("ip").args(["netns", "add", &network.name]));
        stdout(Command::new("ip").args(["-n", &network.name, "link", "set", "lo", "up"]));
        network
    }

    /// A command that runs inside. Not `ip netns exec`, which would hide the control groups from it.
    pub fn inside(&self, program: impl AsRef<OsStr>, podman: &Podman) -> Command {
        let mut command = podman.configured("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}
