//! Rows on disk: one `RocksDB` per process, one column family per task.
//!
//! There is no write-ahead log: the changelog on the log is one. What the process had not flushed when it died is read again
//! from there. All column families share one cache and one bound for their write buffers.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, DBWithThreadMode, Direction, IteratorMode, MultiThreaded, Options, ReadOptions,
    WriteBatch, WriteBufferManager, WriteOptions,
};

use super::{Changes, Store, StoreError, Stores, in_use_or};
use crate::native::Open;

/// Room that a new column family needs at least: the file of options is written anew.
const ROOM_BYTES: usize = 1 << 20;

type Db = DBWithThreadMode<MultiThreaded>;

/// Bounds of the memory of all stores of a process together.
#[derive(Clone, Copy, Debug)]
pub struct RocksLimits {
    /// Block cache, with index and filter blocks, in bytes. Write buffers are charged to it.
    pub cache_bytes: usize,
    /// Write buffers of all tasks, in bytes.
    pub write_buffer_bytes: usize,
}

impl Default for RocksLimits {
    /// A stage's state is megabytes; this holds it whole on a laptop and is no burden there.
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, write_buffer_bytes: 32 << 20 }
    }
}

/// All stores of a process. Clones share them.
#[derive(Clone)]
pub struct RocksStores {
    db: Arc<Db>,
    open: Arc<Open>,
    options: Options,
}

impl RocksStores {
    /// Opens the stores in `folder`, which is created if need be. A damaged folder is emptied: the changelog has everything.
    pub fn open(folder: &Path, limits: RocksLimits) -> Result<Self, StoreError> {
        let options = options(limits);
        let open = || {
            let names = Db::list_cf(&options, folder).unwrap_or_default();
            let names = if names.is_empty() { vec!["default".to_owned()] } else { names };
            Db::open_cf_with_opts(&options, folder, names.into_iter().map(|name| (name, options.clone())))
        };
        let db = open().or_else(|error| {
            if error.kind() != rocksdb::ErrorKind::Corruption {
                return Err(error);
            }
            tracing::warn!(folder = %folder.display(), %error, "state is damaged; it is restored from the changelog");
            Db::destroy(&options, folder)?;
            open()
        });
        let db = db.map_err(|error| in_use_or(folder, "opening the state directory", &error))?;
        Ok(Self { db: Arc::new(db), open: Arc::new(Open::new()), options })
    }
}

fn options(limits: RocksLimits) -> Options {
    let cache = Cache::new_lru_cache(limits.cache_bytes);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager_with_cache(
        limits.write_buffer_bytes,
        false,
        cache,
    ));
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    // Scans of a prefix stay cheap where windows were deleted: files with many tombstones are compacted.
    options.add_compact_on_deletion_collector_factory(10_000, 5_000, 0.5);
    options
}

impl Stores for RocksStores {
    fn open(&self, stage: &str, partition: i32) -> Result<Box<dyn Store>, StoreError> {
        let store = RocksStore {
            db: Arc::clone(&self.db),
            _open: Arc::clone(&self.open),
            options: self.options.clone(),
            family: format!("{stage}-{partition:04}"),
        };
        store.create()?;
        Ok(Box::new(store))
    }
}

/// One column family.
struct RocksStore {
    db: Arc<Db>,
    _open: Arc<Open>,
    options: Options,
    family: String,
}

impl RocksStore {
    fn create(&self) -> Result<(), StoreError> {
        if self.db.cf_handle(&self.family).is_none() {
            probe(&self.db.path().join(format!("{}.room", self.family)))?;
            self.db.create_cf(&self.family, &self.options).map_err(failed("creating a column family"))?;
        }
        Ok(())
    }

    fn family(&self) -> Arc<rocksdb::BoundColumnFamily<'_>> {
        self.db.cf_handle(&self.family).expect("it was created when the store was opened")
    }
}

/// Whether there is room for a column family. One that runs out of it half-way exists and cannot be reached until the process
/// is started again, so that it is better not begun.
fn probe(file: &Path) -> Result<(), StoreError> {
    let written = std::fs::write(file, vec![0; ROOM_BYTES]);
    // Half of it may be there.
    let removed = std::fs::remove_file(file);
    written.and(removed).map_err(|error| StoreError {
        doing: "looking for room for a column family",
        cause: format!("{}: {error}", file.display()),
    })
}

fn failed(doing: &'static str) -> impl Fn(rocksdb::Error) -> StoreError {
    move |error| StoreError { doing, cause: error.to_string() }
}

impl Store for RocksStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let row = self.db.get_cf(&self.family(), key).map_err(failed("reading a row"))?;
        Ok(row.map(Bytes::from))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut options = ReadOptions::default();
        if let Some(end) = after_prefix(prefix) {
            options.set_iterate_upper_bound(end);
        }
        let rows = self.db.iterator_cf_opt(&self.family(), options, IteratorMode::From(prefix, Direction::Forward));
        rows.map(|row| row.map(|(key, value)| (Bytes::from(key), Bytes::from(value))))
            .collect::<Result<_, _>>()
            .map_err(failed("reading rows"))
    }

    fn write(&mut self, changes: Changes) -> Result<(), StoreError> {
        let family = self.family();
        let mut batch = WriteBatch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put_cf(&family, key, value),
                None => batch.delete_cf(&family, key),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(failed("writing rows"))
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.db.drop_cf(&self.family).map_err(failed("dropping a column family"))?;
        self.create()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.db.flush_cf(&self.family()).map_err(failed("flushing rows"))
    }
}

/// The first key after all that begin with `prefix`; `None` if there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(store: &dyn Store, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
        store.scan(prefix).unwrap()
    }

    #[test]
    fn rows_survive_a_flush_and_are_found_by_prefix() {
        let folder = tempfile::tempdir().unwrap();
        let changes: Changes = [("a\u{7f}", "1"), ("ab", "2"), ("b", "3")]
            .into_iter()
            .map(|(key, value)| (key.into(), Some(value.into())))
            .collect();
        {
            let stores = RocksStores::open(folder.path(), RocksLimits::default()).unwrap();
            let mut store = Stores::open(&stores, "s", 1).unwrap();
            store.write(changes).unwrap();
            store.write(vec![("b".into(), None)]).unwrap();
            store.flush().unwrap();
            assert!(rows(Stores::open(&stores, "s", 2).unwrap().as_ref(), b"").is_empty(), "one store per task");
        }
        let stores = RocksStores::open(folder.path(), RocksLimits::default()).unwrap();
        let mut store = Stores::open(&stores, "s", 1).unwrap();
        assert_eq!(store.get(b"ab").unwrap(), Some("2".into()));
        assert_eq!(rows(store.as_ref(), b"a"), [("ab".into(), "2".into()), ("a\u{7f}".into(), "1".into())]);
        assert_eq!(rows(store.as_ref(), b"b"), []);
        store.clear().unwrap();
        assert_eq!(rows(store.as_ref(), b""), []);
    }

    #[test]
    fn a_store_for_which_there_was_no_room_opens_once_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let stores = RocksStores::open(folder.path(), RocksLimits::default()).unwrap();
        // Whoever writes there finds the disk full.
        std::os::unix::fs::symlink("/dev/full", folder.path().join("s-0001.room")).unwrap();
        let error = Stores::open(&stores, "s", 1).err().unwrap();
        assert!(error.to_string().contains("No space left"), "{error}");
        let mut store = Stores::open(&stores, "s", 1).unwrap();
        store.write(vec![("k".into(), Some("v".into()))]).unwrap();
    }

    #[test]
    fn a_folder_in_use_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let _first = RocksStores::open(folder.path(), RocksLimits::default()).unwrap();
        let error = RocksStores::open(folder.path(), RocksLimits::default()).err().unwrap();
        assert!(error.to_string().contains("in use by another process"), "{error}");
    }

    #[test]
    fn the_end_of_a_prefix_is_the_next_one() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }
}
