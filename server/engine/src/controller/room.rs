//! How much a controller takes on at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Places for one kind of work.
pub(crate) struct Room {
    max: u32,
    taken: Arc<AtomicU32>,
}

/// One place; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    taken: Arc<AtomicU32>,
}

impl Room {
    pub(crate) fn new(max: u32) -> Room {
        Room {
            max,
            taken: Arc::default(),
        }
    }

    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Ordering::SeqCst)
    }

    /// A place, if there is one.
    pub(crate) fn take(&self) -> Option<Place> {
        self.taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| {
                (taken < self.max).then_some(taken + 1)
            })
            .ok()
            .map(|_| self.place())
    }

    /// A place for what was taken on before, by an earlier process.
    pub(crate) fn take_again(&self) -> Place {
        self.taken.fetch_add(1, Ordering::SeqCst);
        self.place()
    }

    fn place(&self) -> Place {
        Place {
            taken: Arc::clone(&self.taken),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted() {
        let room = Room::new(2);
        let first = room.take().unwrap();
        let _second = room.take().unwrap();
        assert!(room.take().is_none());
        drop(first);
        // An earlier process may have taken on more than this one would.
        let _again = (room.take_again(), room.take_again());
        assert_eq!(room.taken(), 3);
        assert!(room.take().is_none());
    }
}
