//! What the test suites share: the real binary, an HTTP client that exposes every byte, a real Prometheus, and the
//! manifests.

pub mod access_log;
pub mod client;
pub mod manifest;
pub mod prometheus;
pub mod server;

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

/// Returns the project's folder.
pub fn root() -> &'static Path {
    let this = Path::new(env!("CARGO_MANIFEST_DIR"));
    this.ancestors().nth(2).expect("tests/support is two folders below")
}

/// How long a test waits for what is bound to happen. Far more than that takes, even on a machine with other work: what must
/// happen soon is asserted apart.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `observe` until what it returns is as wanted, and returns that. Panics after [`PATIENCE`], with what it returned last.
pub fn wait_for<T: Debug>(what: &str, mut observe: impl FnMut() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let observed = observe();
        if wanted(&observed) {
            return observed;
        }
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} for {what}; at the end: {observed:#?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
