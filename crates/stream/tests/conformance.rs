//! The conformance suite for the two logs that need no broker. Kafka's run is in the workspace's `tests` crate, next
//! to the broker.
#![cfg(feature = "conformance")]

use std::{any::Any, sync::Arc};

use serin_stream::{conformance::Bench, log::Log, sim::SimLog};

mod sim {
    use serin_stream::{
        conformance::outgoing,
        log::CommitError,
        record::Target,
        sim::{Fate, Step, World},
    };

    use super::*;

    struct Sim(SimLog);

    /// Dies before the commit, so the transaction stays open.
    struct DiesBeforeCommit;

    impl World for DiesBeforeCommit {
        fn at(&self, _: &str, step: Step) -> Fate {
            if step == Step::Commit { Fate::Dies } else { Fate::Works }
        }
    }

    impl Bench for Sim {
        fn log(&self) -> Arc<dyn Log> {
            Arc::new(self.0.clone())
        }

        fn compact(&self) -> bool {
            self.0.compact();
            true
        }

        fn open_transaction(&self, id: &str, topic: &str, value: &str) -> Option<Box<dyn Any>> {
            assert_eq!(topic, "t");
            let log = self.0.seen_by("dying", Arc::new(DiesBeforeCommit));
            let mut owner = log.transactional(id).expect("the id can be taken over");
            let died = owner.commit(&[outgoing("t", Target::Partition(0), "k", value)], &[], None);
            assert!(matches!(died, Err(CommitError::Unknown(_))), "{died:?}");
            Some(Box::new(owner))
        }
    }

    serin_stream::conformance!(Sim(SimLog::new()));
}

#[cfg(feature = "embedded")]
mod embedded {
    use serin_stream::embedded::{EmbeddedLog, EmbeddedOptions};
    use tempfile::TempDir;

    use super::*;

    struct Embedded {
        log: Option<EmbeddedLog>,
        folder: TempDir,
    }

    impl Embedded {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a directory for the log");
            let mut bench = Self { log: None, folder };
            bench.restart();
            bench
        }
    }

    fn options() -> EmbeddedOptions {
        EmbeddedOptions { prefix: "test.".into(), ..EmbeddedOptions::default() }
    }

    impl Bench for Embedded {
        fn log(&self) -> Arc<dyn Log> {
            Arc::new(self.log.clone().expect("the log is open between restarts"))
        }

        fn restart(&mut self) -> bool {
            self.log = None;
            // The writers' threads release the log a moment after their handles were dropped.
            let open = || EmbeddedLog::open(self.folder.path(), options());
            serin_stream::conformance::until("the directory is free", || {
                self.log = open().ok();
                self.log.is_some()
            })
            .expect("the log opens");
            true
        }
    }

    serin_stream::conformance!(Embedded::new());
}
