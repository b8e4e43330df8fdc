//! The drills of docs/drills.md: the times of its table, by promtool, and some for real.

mod real;
mod times;
