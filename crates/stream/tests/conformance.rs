//! The conformance suite of logs, on the two that need no broker. Kafka's run is in the workspace's `tests` crate, beside the
//! broker.
#![cfg(feature = "conformance")]

use std::sync::Arc;

use serin_stream::{conformance::Bench, log::Log, memory::MemoryLog};

mod memory {
    use super::*;

    struct Memory(MemoryLog);

    impl Bench for Memory {
        fn log(&self) -> Arc<dyn Log> {
            Arc::new(self.0.clone())
        }

        fn compact(&self) -> bool {
            self.0.compact();
            true
        }
    }

    serin_stream::conformance!(Memory(MemoryLog::new()));
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
            let folder = tempfile::tempdir().expect("a folder for the log");
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
            Arc::new(self.log.clone().expect("it is open between restarts"))
        }

        fn restart(&mut self) -> bool {
            self.log = None;
            // The writers' threads let go of the log a moment after their handles are dropped.
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
