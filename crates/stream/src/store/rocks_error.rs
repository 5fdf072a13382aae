//! `RocksDB`'s errors in the user's words.

use std::path::Path;

use super::StoreError;

/// An error that says so when another process has the folder.
pub(crate) fn in_use_or(folder: &Path, doing: &'static str, error: &rocksdb::Error) -> StoreError {
    let text = error.to_string();
    let folder = folder.display();
    let cause = if text.contains("/LOCK") {
        format!(
            "{folder} is in use by another process; stop that one, or give this one a directory of its own ({text})"
        )
    } else {
        format!("{folder}: {text}")
    };
    StoreError { doing, cause }
}
