//! Wires the parts together.
#![forbid(unsafe_code)]

fn main() {}
