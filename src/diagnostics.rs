//! Diagnostics: one line each on standard error.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes `httpserver: ` and `line` to standard error.
///
/// A failed write is ignored: a closed or full standard error must not end the server.
pub fn report(line: impl Display) {
    // In one write, so that lines of several threads do not mix.
    let _ = io::stderr().write_all(format!("httpserver: {line}\n").as_bytes());
}
