//! The server as well-behaved clients and its operator see it.

mod clients;
mod drain;
mod endpoints;
mod flags;
mod http;
mod idle;
mod panics;
mod process;
