//! The repository itself: what the docs say is true, and the sources are laid out as they say.

mod docs;
mod layout;
