//! The local switch "all stable": the operator's last resort when nothing else works. It is kept on disk and does not need the log.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};

use crate::tables::disk;

/// The switch that sends all calls to stable.
#[derive(Debug)]
pub(crate) struct Switch {
    path: PathBuf,
    on: AtomicBool,
}

/// What is on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    all_stable: bool,
}

impl Switch {
    /// Reads the switch. If it cannot be read, it counts as on, which is the safe state.
    pub(super) fn open(folder: &Path) -> Self {
        let path = folder.join("switch.json");
        let on = match fs::read(&path) {
            Ok(bytes) => {
                let file = serde_json::from_slice::<File>(&bytes).ok().filter(|file| file.version == 1);
                if file.is_none() {
                    tracing::warn!(path = %path.display(), "the switch cannot be read: all models are on stable until an operator \
                        sends POST /switch/all-stable {{\"on\": false}} to the admin port");
                }
                file.is_none_or(|file| file.all_stable)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the switch cannot be read: all models are on stable");
                true
            }
        };
        Self { path, on: AtomicBool::new(on) }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Sets the switch immediately, then stores it on disk. An error means that the setting would be lost at a restart.
    pub(crate) fn set(&self, on: bool) -> io::Result<()> {
        self.on.store(on, Ordering::Relaxed);
        let file = serde_json::to_vec(&File { version: 1, all_stable: on }).map_err(io::Error::other)?;
        disk::replace(&self.path, &file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_a_restart_and_an_unreadable_file_counts_as_on() {
        let folder = tempfile::tempdir().unwrap();
        let switch = Switch::open(folder.path());
        assert!(!switch.is_on());
        switch.set(true).unwrap();
        assert!(switch.is_on() && Switch::open(folder.path()).is_on());
        switch.set(false).unwrap();
        assert!(!Switch::open(folder.path()).is_on());
        assert_eq!(
            fs::read_to_string(folder.path().join("switch.json")).unwrap(),
            r#"{"version":1,"all_stable":false}"#
        );
        fs::write(folder.path().join("switch.json"), "{").unwrap();
        assert!(Switch::open(folder.path()).is_on());
    }
}
