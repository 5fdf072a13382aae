//! Stores records and metadata in two column families of one `RocksDB`.

use std::path::Path;

use bytes::Bytes;
use crossbeam_channel::Sender;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, Direction, IteratorMode, Options, ReadOptions,
    WriteBatch, WriteOptions,
};

use super::codec;
use crate::{
    local::{
        failed,
        storage::{Change, Image, Place, Storage, StorageError, Stored},
    },
    log::LogError,
    native::Open,
    store::in_use_or,
};

const RECORDS: &str = "records";
const META: &str = "meta";

/// Size of the block cache. Readers of a log are mostly at its end, which is in the write buffer.
const CACHE_BYTES: usize = 32 << 20;
/// Size of the write buffer for records.
const WRITE_BUFFER_BYTES: usize = 32 << 20;
/// Maximum write-ahead log before buffers are flushed. It bounds the time of the next start.
const MAX_WAL_BYTES: u64 = 128 << 20;

/// The storage of an embedded log.
pub struct RocksStorage {
    db: DB,
    _open: Open,
    /// Dropping this sender notifies the keeper that the log was dropped.
    _alive: Sender<()>,
}

impl RocksStorage {
    pub(super) fn open(folder: &Path, max_open_files: i32, alive: Sender<()>) -> Result<Self, LogError> {
        let doing = "opening the log directory";
        std::fs::create_dir_all(folder).map_err(|error| failed(doing, &format!("{}: {error}", folder.display())))?;
        let families = [RECORDS, META].map(|name| ColumnFamilyDescriptor::new(name, options()));
        let mut whole = options();
        whole.set_max_open_files(max_open_files);
        let db = DB::open_cf_descriptors(&whole, folder, families).map_err(|error| {
            let error = in_use_or(folder, doing, &error);
            failed(doing, &error.cause)
        })?;
        let storage = Self { db, _open: Open::new(), _alive: alive };
        storage.check_format(folder)?;
        Ok(storage)
    }

    /// Opens the log of another process for reading. `scratch` is an empty directory for this reader's own files.
    pub(super) fn follow(folder: &Path, scratch: &Path, alive: Sender<()>) -> Result<Self, LogError> {
        let doing = "reading the log directory";
        if !folder.join("CURRENT").exists() {
            let cause = format!("there is no log in {}; `serin up` creates one", folder.display());
            return Err(failed(doing, &cause));
        }
        let families = [RECORDS, META].map(|name| ColumnFamilyDescriptor::new(name, options()));
        let db = DB::open_cf_descriptors_as_secondary(&options(), folder, scratch, families)
            .map_err(|error| failed(doing, &error))?;
        Ok(Self { db, _open: Open::new(), _alive: alive })
    }

    /// Catches up with the records that the writing process has appended since the last call.
    pub(super) fn catch_up(&self) -> Result<(), StorageError> {
        self.db.try_catch_up_with_primary().map_err(|error| storage_error(&error))
    }

    fn check_format(&self, folder: &Path) -> Result<(), LogError> {
        let doing = "opening the log directory";
        let meta = self.family(META);
        match self.db.get_cf(meta, codec::FORMAT_KEY).map_err(|error| failed(doing, &error))?.as_deref() {
            None => self.db.put_cf(meta, codec::FORMAT_KEY, [codec::FORMAT]).map_err(|error| failed(doing, &error)),
            Some([codec::FORMAT]) => Ok(()),
            Some(other) => {
                let (folder, format) = (folder.display(), codec::FORMAT);
                let cause = format!("{folder} has format {other:?}, this build reads {format}; run a newer version");
                Err(failed(doing, &cause))
            }
        }
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("both families are opened with the database")
    }

    /// Bytes of records, on disk and in write buffers.
    pub(super) fn size(&self) -> Result<u64, StorageError> {
        let property = |name: &str| self.db.property_int_value_cf(self.family(RECORDS), name);
        let files = property("rocksdb.total-sst-files-size").map_err(|error| storage_error(&error))?;
        let buffers = property("rocksdb.cur-size-all-mem-tables").map_err(|error| storage_error(&error))?;
        Ok(files.unwrap_or(0) + buffers.unwrap_or(0))
    }

    /// Frees the disk space of a partition's deleted records.
    pub(super) fn reclaim(&self, place: Place, before: i64) {
        let (from, until) = (codec::record_key(place, 0), codec::record_key(place, before));
        self.db.compact_range_cf(self.family(RECORDS), Some(from), Some(until));
    }

    fn stage(&self, batch: &mut WriteBatch, change: Change) {
        let (records, meta) = (self.family(RECORDS), self.family(META));
        match change {
            Change::Append { place, offset, record } => {
                let mut bytes = Vec::with_capacity(record.size() + 64);
                codec::encode(&record, &mut bytes);
                batch.put_cf(records, codec::record_key(place, offset), bytes);
            }
            Change::Remove { place, offset } => batch.delete_cf(records, codec::record_key(place, offset)),
            Change::Start { place, start } => {
                batch.delete_range_cf(records, codec::record_key(place, 0), codec::record_key(place, start));
                batch.put_cf(meta, codec::meta_key(codec::START, &codec::place_bytes(place)), start.to_be_bytes());
            }
            Change::End { place, next } => {
                batch.put_cf(meta, codec::meta_key(codec::END, &codec::place_bytes(place)), next.to_be_bytes());
            }
            Change::Epoch { id, epoch } => {
                batch.put_cf(meta, codec::meta_key(codec::EPOCH, id.as_bytes()), epoch.to_be_bytes());
            }
            Change::Position { group, place, next } => {
                batch.put_cf(meta, codec::position_key(&group, place), next.to_be_bytes());
            }
            Change::Topic { id, spec } => {
                batch.put_cf(meta, codec::meta_key(codec::TOPIC, &id.to_be_bytes()), codec::encode_topic(&spec));
            }
        }
    }
}

fn options() -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_total_wal_size(MAX_WAL_BYTES);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options
}

fn storage_error(error: &rocksdb::Error) -> StorageError {
    StorageError(error.to_string())
}

fn damaged() -> StorageError {
    StorageError("the metadata of the log is damaged".into())
}

/// Adds one entry of the meta family to the image.
fn read_meta(image: &mut Image, key: &[u8], value: &[u8]) -> Option<()> {
    let (kind, rest) = key.split_first()?;
    let number = || Some(i64::from_be_bytes(value.try_into().ok()?));
    match *kind {
        codec::TOPIC => image.topics.push((u32::from_be_bytes(rest.try_into().ok()?), codec::decode_topic(value)?)),
        codec::EPOCH => image.epochs.push((String::from_utf8(rest.to_vec()).ok()?, number()?)),
        codec::START => image.starts.push((codec::place_of(rest)?, number()?)),
        codec::END => image.ends.push((codec::place_of(rest)?, number()?)),
        // Positions are looked up individually, and the format was already checked.
        _ => {}
    }
    Some(())
}

impl Storage for RocksStorage {
    fn load(&self) -> Result<Image, StorageError> {
        let mut image = Image::default();
        for entry in self.db.iterator_cf(self.family(META), IteratorMode::Start) {
            let (key, value) = entry.map_err(|error| storage_error(&error))?;
            read_meta(&mut image, &key, &value).ok_or_else(damaged)?;
        }
        Ok(image)
    }

    fn write(&self, changes: Vec<Change>, durable: bool) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        for change in changes {
            self.stage(&mut batch, change);
        }
        let mut options = WriteOptions::default();
        options.set_sync(durable);
        self.db.write_opt(batch, &options).map_err(|error| storage_error(&error))
    }

    fn read(
        &self,
        place: Place,
        from: i64,
        until: i64,
        sink: &mut dyn FnMut(i64, Stored) -> bool,
    ) -> Result<(), StorageError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(codec::record_key(place, until));
        let start = codec::record_key(place, from);
        let mode = IteratorMode::From(&start, Direction::Forward);
        for entry in self.db.iterator_cf_opt(self.family(RECORDS), options, mode) {
            let (key, value) = entry.map_err(|error| storage_error(&error))?;
            let offset = codec::offset_of(&key).ok_or_else(damaged)?;
            if !sink(offset, codec::decode(Bytes::from(value))?) {
                break;
            }
        }
        Ok(())
    }

    fn position(&self, group: &str, place: Place) -> Result<Option<i64>, StorageError> {
        let key = codec::position_key(group, place);
        let value = self.db.get_cf(self.family(META), key).map_err(|error| storage_error(&error))?;
        let number = |bytes: Vec<u8>| bytes.try_into().map(i64::from_be_bytes).map_err(|_| damaged());
        value.map(number).transpose()
    }
}
