//! podman with its own storage for the tests, and the image in it: see `build`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use support::root;

/// The image as the Deployment names it.
pub const IMAGE: &str = concat!("localhost/httpserver:", env!("CARGO_PKG_VERSION"));

/// podman with the tests' configuration.
pub struct Podman {
    home: PathBuf,
    /// The binary in the image, copied out of it.
    pub binary: PathBuf,
}

impl Podman {
    /// Returns the podman of this test program. The first call builds the image.
    pub fn with_image() -> &'static Self {
        static PODMAN: OnceLock<Podman> = OnceLock::new();
        PODMAN.get_or_init(|| Podman {
            home: Path::new(env!("CARGO_TARGET_TMPDIR")).join("podman"),
            binary: build(),
        })
    }

    /// Returns a command for podman, without arguments.
    pub fn command(&self) -> Command {
        self.configured("podman")
    }

    /// Returns a command for a program that itself calls podman.
    pub fn configured(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("CONTAINERS_CONF", self.home.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.home.join("storage.conf"));
        command
    }

    /// Returns the standard output of podman with these arguments. Panics if it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        stdout(self.command().args(arguments))
    }

    /// Returns the flags that building the image needs here.
    pub fn build_flags(&self) -> String {
        let flags = std::fs::read_to_string(self.home.join("build-flags")).expect("the image is built");
        flags.trim_end().to_owned()
    }
}

/// Builds the image, and returns the path of the binary in it.
pub fn build() -> PathBuf {
    let printed = stdout(&mut Command::new(root().join("tests/deploy/image/build")));
    printed.lines().last().expect("the path of the binary").into()
}

/// Returns the standard output of a command. Panics if it fails.
pub fn stdout(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    assert!(
        status.success(),
        "{command:?} failed with {status}\n{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8(stdout).unwrap()
}
