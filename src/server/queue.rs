//! The deadline queue: what is due first leaves first.

use std::collections::BTreeMap;
use std::time::Instant;

/// Entries in the order in which they are due, and of equal ones in the order of their insertion.
pub(super) struct Queue<T> {
    entries: BTreeMap<(Instant, u64), T>,
    /// How many have been inserted.
    inserted: u64,
    /// When every entry became due, if that has happened.
    expired_at: Option<Instant>,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Queue {
            entries: BTreeMap::new(),
            inserted: 0,
            expired_at: None,
        }
    }

    /// Inserts an entry that is due then, or earlier if all have expired.
    pub(super) fn insert(&mut self, due: Instant, entry: T) {
        self.inserted += 1;
        let due = self.expired_at.map_or(due, |expired_at| expired_at.min(due));
        self.entries.insert((due, self.inserted), entry);
    }

    /// Returns when the first entry is due.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(&(due, _), _)| due)
    }

    /// Removes the first entry.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.entries.pop_first().map(|(_, entry)| entry)
    }

    /// Removes the entries for which `leaves` is true.
    pub(super) fn extract(&mut self, leaves: impl Fn(&T) -> bool) -> impl Iterator<Item = T> {
        self.entries
            .extract_if(.., move |_, entry| leaves(entry))
            .map(|(_, entry)| entry)
    }

    /// Makes every entry due, also those to come.
    pub(super) fn expire(&mut self, now: Instant) {
        self.expired_at = Some(now);
        let entries = std::mem::take(&mut self.entries);
        let expired = |((due, number), entry): (_, _)| ((now.min(due), number), entry);
        self.entries = entries.into_iter().map(expired).collect();
    }
}
