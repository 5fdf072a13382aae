//! Readable messages for `RocksDB` errors.

use std::path::Path;

use super::StoreError;

/// Whether another process has locked the directory.
pub(super) fn is_in_use(error: &rocksdb::Error) -> bool {
    error.as_ref().contains("/LOCK")
}

/// Converts an error, with a clear message if another process has locked the directory.
pub(crate) fn in_use_or(folder: &Path, doing: &'static str, error: &rocksdb::Error) -> StoreError {
    let text = error.to_string();
    let folder = folder.display();
    let cause = if is_in_use(error) {
        format!(
            "{folder} is in use by another process; stop that process, or configure a different directory for this one ({text})"
        )
    } else {
        format!("{folder}: {text}")
    };
    StoreError { doing, cause }
}
