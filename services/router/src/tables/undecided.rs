//! Calls that could not be split as the rollout requires, counted for operators by the needed value and the reason why it could not be
//! read. Such calls go to stable and are excluded from the comparison.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::Unread;

/// The value that a decision needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needed {
    /// The sticky key.
    Sticky,
    /// The value that a target checks.
    Target,
    /// The value of a segment.
    Segment,
}

impl Needed {
    /// All variants.
    pub(crate) const ALL: [Self; 3] = [Self::Sticky, Self::Target, Self::Segment];

    /// The name in metrics and reports.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sticky => "sticky",
            Self::Target => "target",
            Self::Segment => "segment",
        }
    }
}

/// The needed value, and why it could not be read.
pub(crate) type Undecided = (Needed, Unread);

/// The reason if a request has no sticky key.
pub(crate) const ABSENT: &str = "absent";

/// Counts for the calls of one model.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    calls: AtomicU64,
    /// Number of calls without a sticky key. They are split at random.
    absent: AtomicU64,
    unread: [[AtomicU64; Unread::ALL.len()]; Needed::ALL.len()],
}

impl Tally {
    /// Counts a call.
    pub(crate) fn count(&self, undecided: Option<Undecided>, absent: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if absent {
            self.absent.fetch_add(1, Ordering::Relaxed);
        }
        if let Some((needed, why)) = undecided {
            self.unread[needed as usize][why as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Number of calls.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The needed values, the reasons and the numbers of calls.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let unread = Needed::ALL.into_iter().flat_map(move |needed| {
            Unread::ALL.into_iter().map(move |why| {
                let calls = self.unread[needed as usize][why as usize].load(Ordering::Relaxed);
                (needed.as_str(), why.as_str(), calls)
            })
        });
        let absent = (Needed::Sticky.as_str(), ABSENT, self.absent.load(Ordering::Relaxed));
        unread.chain([absent]).filter(|(_, _, calls)| *calls > 0)
    }
}
