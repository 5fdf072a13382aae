//! `RocksDB`'s errors in the user's words.

use std::path::Path;

use super::StoreError;

/// Whether another process has the folder.
pub(crate) fn is_in_use(error: &rocksdb::Error) -> bool {
    error.as_ref().contains("/LOCK")
}

/// An error that says so when another process has the folder.
pub(crate) fn in_use_or(folder: &Path, doing: &'static str, error: &rocksdb::Error) -> StoreError {
    let text = error.to_string();
    let folder = folder.display();
    let cause = if is_in_use(error) {
        format!(
            "{folder} is in use by another process; stop that one, or give this one a directory of its own ({text})"
        )
    } else {
        format!("{folder}: {text}")
    };
    StoreError { doing, cause }
}
