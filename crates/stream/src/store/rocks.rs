//! Rows on disk: one `RocksDB` per process, one column family per task.
//!
//! There is no write-ahead log, because the changelog serves as one: rows that were not flushed when the process died
//! are restored from it. All column families share one cache and one limit for their write buffers.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, DBWithThreadMode, Direction, IteratorMode, MultiThreaded, Options, ReadOptions,
    WriteBatch, WriteBufferManager, WriteOptions,
};

use super::{Changes, Store, StoreError, Stores, in_use_or, is_in_use};
use crate::native::Open;

/// Free space that a new column family needs: the options file is rewritten.
const ROOM_BYTES: usize = 1 << 20;

type Db = DBWithThreadMode<MultiThreaded>;

/// How long to wait for a directory that another process has locked. An exiting process unlocks it within seconds.
const IN_USE: Duration = Duration::from_secs(5);
/// Pause between two attempts to open such a directory.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Memory limits of all stores of a process together.
#[derive(Clone, Copy, Debug)]
pub struct RocksLimits {
    /// Size of the block cache in bytes, including index and filter blocks. Write buffers are charged to it.
    pub cache_bytes: usize,
    /// Size of the write buffers of all tasks, in bytes.
    pub write_buffer_bytes: usize,
    /// Maximum number of open files.
    pub max_open_files: i32,
}

impl Default for RocksLimits {
    /// A stage's state is megabytes. These limits hold all of it and are modest even for a laptop.
    fn default() -> Self {
        Self { cache_bytes: 64 << 20, write_buffer_bytes: 32 << 20, max_open_files: 512 }
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
    /// Opens the stores in `folder`, which is created if it does not exist. A damaged directory is emptied, because the
    /// changelog contains everything. Waits for a directory that an exiting process has still locked.
    pub fn open(folder: &Path, limits: RocksLimits) -> Result<Self, StoreError> {
        Self::open_within(folder, limits, IN_USE)
    }

    fn open_within(folder: &Path, limits: RocksLimits, timeout: Duration) -> Result<Self, StoreError> {
        let cache = Cache::new_lru_cache(limits.cache_bytes);
        let buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(limits.write_buffer_bytes, false, cache.clone());
        crate::metrics::observe_store(cache.clone(), buffers.clone());
        let options = options(limits, &cache, &buffers);
        let deadline = Instant::now() + timeout;
        let mut emptied = false;
        let db = loop {
            match open(&options, folder) {
                Ok(db) => break db,
                Err(error) if is_in_use(&error) && Instant::now() < deadline => thread::sleep(LOOK_AGAIN),
                Err(error) if !is_in_use(&error) && !std::mem::replace(&mut emptied, true) => {
                    let place = folder.display();
                    tracing::warn!(folder = %place, %error, "the state is damaged; restoring it from the changelog");
                    // The error of the next attempt is more useful than an error of this call.
                    let _ = Db::destroy(&options, folder);
                }
                Err(error) => return Err(in_use_or(folder, "opening the state directory", &error)),
            }
        };
        Ok(Self { db: Arc::new(db), open: Arc::new(Open::new()), options })
    }
}

fn open(options: &Options, folder: &Path) -> Result<Db, rocksdb::Error> {
    let names = Db::list_cf(options, folder).unwrap_or_default();
    let names = if names.is_empty() { vec!["default".to_owned()] } else { names };
    Db::open_cf_with_opts(options, folder, names.into_iter().map(|name| (name, options.clone())))
}

fn options(limits: RocksLimits, cache: &Cache, buffers: &WriteBufferManager) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_manager(buffers);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_max_open_files(limits.max_open_files);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    // Keeps prefix scans fast after windows were deleted: files with many tombstones are compacted.
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
            self.probe()?;
            self.db.create_cf(&self.family, &self.options).map_err(failed("creating a column family"))?;
        }
        Ok(())
    }

    fn probe(&self) -> Result<(), StoreError> {
        probe(&self.db.path().join(format!("{}.room", self.family)))
    }

    fn family(&self) -> Arc<rocksdb::BoundColumnFamily<'_>> {
        self.db.cf_handle(&self.family).expect("it was created when the store was opened")
    }
}

/// Checks whether there is enough space for a column family. If the space runs out while one is created, the family
/// exists but is inaccessible until the process restarts, so it is better not to start.
fn probe(file: &Path) -> Result<(), StoreError> {
    let written = std::fs::write(file, vec![0; ROOM_BYTES]);
    // The file may have been written partially.
    let removed = std::fs::remove_file(file);
    written.and(removed).map_err(|error| StoreError {
        doing: "checking the free space for a column family",
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

    fn visit(&self, prefix: &[u8], row: &mut dyn FnMut(Bytes, Bytes) -> bool) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        if let Some(end) = after_prefix(prefix) {
            options.set_iterate_upper_bound(end);
        }
        let rows = self.db.iterator_cf_opt(&self.family(), options, IteratorMode::From(prefix, Direction::Forward));
        for found in rows {
            let (key, value) = found.map_err(failed("reading rows"))?;
            if !row(Bytes::from(key), Bytes::from(value)) {
                break;
            }
        }
        Ok(())
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
        // If a family is dropped without space for its replacement, the store is inaccessible until the process
        // restarts.
        self.probe()?;
        self.db.drop_cf(&self.family).map_err(failed("dropping a column family"))?;
        self.create()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.db.flush_cf(&self.family()).map_err(failed("flushing rows"))
    }
}

/// The first key after all keys that start with `prefix`. `None` if there is none.
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
    fn a_store_without_disk_space_opens_once_there_is_space() {
        let folder = tempfile::tempdir().unwrap();
        let stores = RocksStores::open(folder.path(), RocksLimits::default()).unwrap();
        // Writes to this path fail with a full disk.
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
        let error = RocksStores::open_within(folder.path(), RocksLimits::default(), Duration::ZERO).err().unwrap();
        assert!(error.to_string().contains("in use by another process"), "{error}");
    }

    #[test]
    fn a_folder_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let first = RocksStores::open(folder.path(), RocksLimits::default()).unwrap();
        let (opens, opened) = std::sync::mpsc::channel();
        let path = folder.path().to_owned();
        let second = thread::spawn(move || {
            opens.send(()).unwrap();
            RocksStores::open_within(&path, RocksLimits::default(), Duration::from_mins(1)).is_ok()
        });
        opened.recv().unwrap();
        drop(first);
        assert!(second.join().unwrap());
    }

    /// Whichever file is missing, truncated or overwritten, the stores open, and they either contain all rows or
    /// return an error.
    #[test]
    fn torn_files_cost_a_restore_and_no_more() {
        type Tear = fn(&Path) -> std::io::Result<()>;
        let tears: [Tear; 3] = [
            |file| std::fs::remove_file(file),
            |file| std::fs::File::options().write(true).open(file)?.set_len(std::fs::metadata(file)?.len() / 2),
            |file| std::fs::write(file, vec![0xa5; std::fs::metadata(file)?.len() as usize]),
        ];
        let filled = || {
            let folder = tempfile::tempdir().unwrap();
            let stores = RocksStores::open(folder.path(), RocksLimits::default()).unwrap();
            let mut store = Stores::open(&stores, "s", 1).unwrap();
            let row = |n: u32| (Bytes::copy_from_slice(&n.to_be_bytes()), Some(Bytes::from(vec![7; 100])));
            store.write((0..1000).map(row).collect()).unwrap();
            store.flush().unwrap();
            folder
        };
        let names = |folder: &Path| {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = entries.filter(|name| name != "LOCK").collect();
            names.sort();
            names
        };
        let all = names(filled().path());
        assert!(all.iter().any(|name| name.to_string_lossy().ends_with(".sst")), "{all:?}");
        for (number, tear) in tears.into_iter().enumerate() {
            for name in &all {
                let folder = filled();
                // Some file names contain counters that differ from run to run.
                let Ok(()) = tear(&folder.path().join(name)) else { continue };
                let stores = RocksStores::open(folder.path(), RocksLimits::default());
                let stores = stores.unwrap_or_else(|error| panic!("tear {number} of {name:?}: {error}"));
                let mut store = Stores::open(&stores, "s", 1).unwrap();
                match store.scan(b"") {
                    Ok(rows) => assert!([0, 1000].contains(&rows.len()), "tear {number} of {name:?}: {}", rows.len()),
                    // The task reopens with an empty store.
                    Err(_) => store.clear().unwrap(),
                }
                store.write(vec![("k".into(), Some("v".into()))]).unwrap();
                assert_eq!(store.get(b"k").unwrap(), Some("v".into()), "tear {number} of {name:?}");
            }
        }
    }

    /// Many tasks of one process share one memory limit.
    #[test]
    fn write_buffers_of_all_tasks_have_one_bound() {
        let folder = tempfile::tempdir().unwrap();
        let limits = RocksLimits { cache_bytes: 8 << 20, write_buffer_bytes: 4 << 20, ..RocksLimits::default() };
        let stores = RocksStores::open(folder.path(), limits).unwrap();
        let mut tasks: Vec<_> = (0..8).map(|partition| Stores::open(&stores, "s", partition).unwrap()).collect();
        for round in 0_u32..64 {
            for store in &mut tasks {
                let row =
                    |n: u32| (Bytes::copy_from_slice(&(round * 100 + n).to_be_bytes()), Some(vec![7; 1000].into()));
                store.write((0..100).map(row).collect()).unwrap();
            }
        }
        let used = |partition: i32| {
            let family = stores.db.cf_handle(&format!("s-{partition:04}")).unwrap();
            stores.db.property_int_value_cf(&family, "rocksdb.cur-size-all-mem-tables").unwrap().unwrap()
        };
        // 51 MB were written, 6.4 MB to each of the eight stores. Without a common limit all of it would stay in
        // memory, since each store alone may keep 64 MiB. Memory is allocated in blocks of 1 MiB, and a write over
        // the limit triggers a flush in the background, so the limit is not strict: it holds once writes are slower
        // than flushes.
        let deadline = Instant::now() + Duration::from_mins(1);
        while (0..8).map(used).sum::<u64>() > 24 << 20 {
            for store in &mut tasks {
                store.write(vec![("k".into(), Some("v".into()))]).unwrap();
            }
            assert!(Instant::now() < deadline, "{:?}", (0..8).map(used).collect::<Vec<_>>());
            thread::sleep(LOOK_AGAIN);
        }
    }

    #[test]
    fn the_end_of_a_prefix_is_the_next_one() {
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }
}
