//! Decisions that could not be made as the rollout asks: counted by what was asked for and why it could not be read, so that operators
//! see them. Such calls go to stable and enter no comparison.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::Unread;

/// What a decision needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needed {
    /// The sticky key.
    Sticky,
    /// What a target looks at.
    Target,
    /// The value of a segment.
    Segment,
}

impl Needed {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Sticky, Self::Target, Self::Segment];

    /// The word for it in metrics and reports.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sticky => "sticky",
            Self::Target => "target",
            Self::Segment => "segment",
        }
    }
}

/// Something that a decision needed and that could not be read.
pub(crate) type Undecided = (Needed, Unread);

/// The word for a sticky key that a request does not have.
pub(crate) const ABSENT: &str = "absent";

/// Counts of the calls of one model.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    calls: AtomicU64,
    /// Calls without the sticky key: they are split by chance.
    absent: AtomicU64,
    unread: [[AtomicU64; Unread::ALL.len()]; Needed::ALL.len()],
}

impl Tally {
    /// A call was decided.
    pub(crate) fn count(&self, undecided: Option<Undecided>, absent: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if absent {
            self.absent.fetch_add(1, Ordering::Relaxed);
        }
        if let Some((needed, why)) = undecided {
            self.unread[needed as usize][why as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Calls that were decided.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// What was needed, why it was not there, and for how many calls.
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
