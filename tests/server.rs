//! The server as a client meets it: endpoints, flags, drain.

mod support;
