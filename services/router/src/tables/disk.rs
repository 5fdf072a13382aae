//! The latest routing tables on disk, so that a router that starts without the log knows the servers of stable.
//!
//! Format `serin-tables 1`: one line `serin-tables 1 <checksum>`, where the checksum is `hash64("serin-tables 1", body)` in 16 hexadecimal
//! digits, followed by the body: a JSON list of routing tables. A file of another version or with a wrong checksum is ignored with a
//! warning; the tables are then read from the log.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serin_schemas::records::RoutingTable;
use serin_sketches::hash::hash64;

const FORMAT: &str = "serin-tables 1";

/// Why a table file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the file has another version or is not a table file: its first line is {0:?}")]
    Format(String),
    #[error("the checksum is wrong: the file was truncated or modified")]
    Checksum,
    #[error("the body cannot be read: {0}")]
    Body(serde_json::Error),
}

/// The path of the table file in a router's directory.
pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join("tables")
}

/// Encodes the file.
fn encode(tables: &[&RoutingTable]) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::to_vec(tables)?;
    let mut file = format!("{FORMAT} {:016x}\n", hash64(FORMAT.as_bytes(), &body)).into_bytes();
    file.extend_from_slice(&body);
    Ok(file)
}

/// Decodes the file.
pub(crate) fn decode(file: &[u8]) -> Result<Vec<RoutingTable>, DiskError> {
    let end = file.iter().take(100).position(|&byte| byte == b'\n').unwrap_or(file.len().min(100));
    let line = String::from_utf8_lossy(&file[..end]).into_owned();
    let checksum = line.strip_prefix(FORMAT).and_then(|rest| rest.strip_prefix(' '));
    let Some(checksum) = checksum else { return Err(DiskError::Format(line)) };
    let body = file.get(end + 1..).unwrap_or_default();
    if checksum != format!("{:016x}", hash64(FORMAT.as_bytes(), body)) {
        return Err(DiskError::Checksum);
    }
    serde_json::from_slice(body).map_err(DiskError::Body)
}

/// Reads the tables. Returns none if there is no file or it cannot be used.
pub(crate) fn load(folder: &Path) -> Vec<RoutingTable> {
    let path = path(folder);
    let read = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        read => read.map_err(DiskError::Io).and_then(|file| decode(&file)),
    };
    read.unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "the table file is ignored; the tables are read from the log");
        Vec::new()
    })
}

/// Replaces the tables on disk.
pub(crate) fn store(folder: &Path, tables: &[&RoutingTable]) -> io::Result<()> {
    replace(&path(folder), &encode(tables).map_err(io::Error::other)?)
}

/// Replaces a file atomically: after a crash there is the old or the new file, never a partial one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::table::tests::record;

    #[test]
    fn the_format_is_pinned() {
        let mut table = record(7, 100, 1000);
        table.routes.truncate(1);
        let file = String::from_utf8(encode(&[&table]).unwrap()).unwrap();
        insta::assert_snapshot!(file, @r#"
        serin-tables 1 ccd6990c1dbe99b1
        [{"model":"flights","generation":7,"lease_seq":0,"lease_ms":60000,"rollout":"r1","salt":"salt","sticky":null,"routes":[{"version":"v1","arm":"stable","share":8900,"url":"http://127.0.0.1:1/v1"}],"segments":"","outputs":"","fallback":false,"policy":"","reason":"test","decided_at":0}]
        "#);
        assert_eq!(decode(file.as_bytes()).unwrap(), [table]);
    }

    #[test]
    fn any_changed_byte_is_detected() {
        let file = encode(&[&record(7, 100, 1000)]).unwrap();
        for at in 0..file.len() {
            let mut broken = file.clone();
            broken[at] ^= 1;
            assert!(decode(&broken).is_err(), "byte {at}");
            assert!(decode(&file[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn tables_survive_a_restart_and_garbage_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(folder.path()).is_empty());
        let table = record(7, 100, 1000);
        store(folder.path(), &[&table]).unwrap();
        assert_eq!(load(folder.path()), [table]);
        fs::write(path(folder.path()), [0xff, 0, 7]).unwrap();
        assert!(load(folder.path()).is_empty());
    }
}
