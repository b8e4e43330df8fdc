//! The server as it is released.

use std::path::PathBuf;
use std::process::Command;

/// Returns the path of the build that `BENCH_SERVER` names, or else of a release build, which it makes.
pub fn server() -> PathBuf {
    std::env::var_os("BENCH_SERVER").map_or_else(build, PathBuf::from)
}

fn build() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--bin", "httpserver"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .expect("Cargo starts");
    assert!(built.success(), "cargo build: {built}");
    // The benches' own folder is that of the release build, too: target/release/deps.
    let this = std::env::current_exe().expect("the path of this program");
    let release = this.ancestors().nth(2).expect("the folder of the release build");
    release.join("httpserver")
}
