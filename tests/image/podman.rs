//! podman with its own storage for the tests: images and containers are below Cargo's target folder, not among the
//! machine's, and stay there as a cache of layers until `cargo clean`. Needs root, as network namespaces and overlay
//! mounts do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The image as the Deployment names it.
pub const IMAGE: &str = concat!("localhost/httpserver:", env!("CARGO_PKG_VERSION"));

/// podman with the tests' configuration.
pub struct Podman {
    home: PathBuf,
}

impl Podman {
    fn prepare() -> Self {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("podman");
        fs::create_dir_all(&home).unwrap();
        // A container cannot have more descriptors than its parent.
        let limits = fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let descriptors = line.split_whitespace().nth(4).unwrap();
        fs::write(
            home.join("containers.conf"),
            format!(
                "[containers]\ndefault_ulimits = [\"nofile={descriptors}:{descriptors}\", \"nproc=32768:32768\"]\n\
                 [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
                 [network]\nnetwork_backend = \"netavark\"\n"
            ),
        )
        .unwrap();
        // The run root is short because there are sockets below it, whose paths the kernel limits to 107 bytes.
        fs::write(
            home.join("storage.conf"),
            format!(
                "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = \"/run/httpserver-tests\"\n",
                home.join("images")
            ),
        )
        .unwrap();
        Self { home }
    }

    /// Returns the podman of this test program. The first call builds the image.
    pub fn with_image() -> &'static Self {
        static PODMAN: OnceLock<Podman> = OnceLock::new();
        PODMAN.get_or_init(|| {
            let podman = Self::prepare();
            podman.make_build_image();
            podman.build();
            podman
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

    /// Makes an image for this machine's compiler, under the name of the build image, which cannot be pulled here.
    fn make_build_image(&self) {
        let containerfile = fs::read_to_string(root().join("Containerfile")).unwrap();
        let version = containerfile
            .lines()
            .find_map(|line| line.strip_prefix("ARG RUST_VERSION="))
            .unwrap();
        let from = containerfile
            .lines()
            .find_map(|line| line.strip_prefix("FROM ")?.strip_suffix(" AS build"))
            .unwrap();
        let name = from.replace("${RUST_VERSION}", version);

        let script = root().join("tests/image/base.sh");
        let stamp = self.home.join("build-image-made-of");
        let made_of = format!(
            "{name}\n{}{}",
            stdout(Command::new("rustc").arg("-vV")),
            fs::read_to_string(&script).unwrap()
        );
        let exists = self
            .command()
            .args(["image", "exists", &name])
            .status()
            .unwrap()
            .success();
        if exists && fs::read_to_string(&stamp).is_ok_and(|stamp| stamp == made_of) {
            return;
        }
        stdout(self.configured(&script).arg(&name));
        fs::write(stamp, made_of).unwrap();
    }

    /// Builds the unchanged Containerfile.
    fn build(&self) {
        let mut build = self.command();
        build.current_dir(root()).arg("build").args(build_flags());
        stdout(build.arg(format!("--tag={IMAGE}")).arg("."));
        self.run(&["image", "prune", "--force", "--filter=until=24h"]);
    }
}

/// Returns the flags that `podman build` needs here: the folders of the toolchain and of the crates that Cargo has fetched, and
/// not to pull.
pub fn build_flags() -> [String; 5] {
    let toolchain = stdout(Command::new("rustc").args(["--print", "sysroot"]));
    let registry = std::env::var_os("CARGO_HOME")
        .map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cargo"),
            PathBuf::from,
        )
        .join("registry");
    [
        "--pull=never".to_owned(),
        "--network=none".to_owned(),
        format!("--volume={}:/usr/local/rustup:ro", toolchain.trim()),
        format!("--volume={}:/usr/local/cargo/registry:O", registry.display()),
        "--build-arg=SOURCE=https://example.com/its/sources".to_owned(),
    ]
}

/// Returns the package's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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
