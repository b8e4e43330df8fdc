//! A separate network for a test, so that programs can listen on fixed ports.

use std::ffi::OsStr;
use std::process::Command;

use super::podman::{Podman, stdout};

/// A network namespace with its loopback interface up. Dropping it deletes it.
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

    /// Returns a command that runs inside. `ip netns exec` would hide the control groups from it.
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
