//! Reads the parts of a request's body that are needed before its version is chosen, and holds the body meanwhile.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use crate::{
    body::request::{Arriving, Hold, Taken, Taking},
    call::{request::Call, worker::Worker},
    config::{Config, span},
    protocol::{
        Promise, Scan, Unread, Wire,
        asks::Asks,
        asks_first,
        decoder::Decoder,
        grpc,
        headers::MODEL,
        openai,
        reader::{self, Reader},
        refusal::Refusal,
        rows::{self, RowList, RowLists},
    },
};

/// The model's name must be within this many bytes of a gRPC body, or within the part of the body that is kept.
const MODEL_WITHIN: usize = 16 << 10;

/// Reads the model from the body, for protocols that have it there.
pub(super) async fn in_body(
    worker: &Worker,
    config: &Config,
    headers: &HeaderMap,
    wire: Wire,
    body: &mut Arriving,
) -> Result<(Option<String>, Option<grpc::Named>), Refusal> {
    if wire == Wire::Grpc {
        let (most, patience) = (config.limits.keep_body.max(MODEL_WITHIN), span(config.timeouts.request));
        let mut named = body.look(most, patience, grpc::named).await?;
        if named.is_none() && body.head().first() == Some(&1) {
            named = match in_compressed(config, headers, body).await? {
                Err(why) if !headers.contains_key(&MODEL) => return Err(Refusal::Unread(why)),
                found => found.unwrap_or_default(),
            };
        }
        return Ok((named.as_ref().map(|named| named.model.clone()), named));
    }
    // The whole body is read, because servers use the last of two names.
    let how = hold(config, headers);
    if !body.hold(how, u64::MAX).await? {
        body.throw_away(how).await;
        return Err(Refusal::Unread(Unread::TooLarge));
    }
    let reader = Reader::new(headers, &openai::MODEL, config.limits.body);
    let (found, _) = scan(worker, reader, body).await.map_err(Refusal::Unread)?;
    match found.as_ref().and_then(|body| body.get("model")) {
        Some(Value::String(model)) => Ok((Some(model.clone()), None)),
        None | Some(Value::Null) => Ok((None, None)),
        Some(_) => Err(Refusal::Unread(Unread::NotScalar)),
    }
}

/// Reads the model from a compressed first message of gRPC.
async fn in_compressed(
    config: &Config,
    headers: &HeaderMap,
    body: &mut Arriving,
) -> Result<Result<Option<grpc::Named>, Unread>, Refusal> {
    let Some(length) = grpc::first_message(body.head()) else { return Ok(Ok(None)) };
    if !body.hold(hold(config, headers), length as u64).await? {
        return Ok(Err(Unread::TooLarge));
    }
    Ok(reader::decompress(headers, body.head()).map(|plain| match grpc::named(&plain) {
        Scan::Found(named) => Some(named.in_compressed(plain.into())),
        Scan::More | Scan::Missing => None,
    }))
}

/// How a body is held until a decision is made from it.
fn hold(config: &Config, headers: &HeaderMap) -> Hold {
    let timeouts = &config.timeouts;
    Hold {
        limit: config.limits.body,
        pause: span(timeouts.request),
        all: span(timeouts.upload),
        asks_first: asks_first(headers),
    }
}

/// Bodies of at least this size are read one at a time, and in parts.
const LARGE: usize = 256 << 10;

/// Reads the requested values, and the lists of rows, from a held body.
async fn scan(
    worker: &Worker,
    mut reader: Reader<'_>,
    body: &mut Arriving,
) -> Result<(Option<Value>, Vec<RowList>), Unread> {
    let alone = reader.is_costly() || body.len() > LARGE;
    let _alone = if alone { Some(worker.reading.lock().await) } else { None };
    let mut read = 0;
    for piece in body.pieces() {
        for part in piece.chunks(LARGE) {
            if !reader.push(part) {
                return reader.end();
            }
            read += part.len();
            if alone && read >= LARGE {
                // Lets other calls of this thread proceed.
                read = 0;
                tokio::task::yield_now().await;
            }
        }
    }
    reader.end()
}

/// What rules read of a body.
#[derive(Debug, Default)]
pub(super) struct ReadBody {
    /// The requested values; `None` if the body contains none.
    pub(super) found: Option<Value>,
    /// Those of the drawn row alone, if there are several rows. Null: they could not be read.
    pub(super) row: Option<Value>,
}

impl Call<'_> {
    /// The values that are needed from the body.
    pub(crate) fn asks(&self) -> &Asks {
        if self.target.is_response() { &self.table.response_asks } else { &self.table.asks }
    }

    /// The decompressed body of a request, if it can be decompressed within the limit for kept bodies.
    pub(super) fn plain(&self, body: &Bytes) -> Option<Bytes> {
        match Decoder::of(&self.headers, self.config.limits.keep_body as u64).ok()? {
            Some(decoder) => decoder.whole(body).ok().map(Bytes::from),
            None => Some(body.clone()),
        }
    }

    /// Reads the values that the rules need from the body, which is held meanwhile.
    pub(crate) async fn read(&self, body: &mut Arriving) -> Result<Result<ReadBody, Unread>, Refusal> {
        let hold = hold(&self.config, &self.headers);
        let (asks, id) = (self.asks(), self.id.as_str());
        if self.target.wire != Wire::Grpc {
            if !body.hold(hold, u64::MAX).await? {
                return Ok(Err(Unread::TooLarge));
            }
            return Ok(self.read_json(body).await);
        }
        // The first message of a gRPC stream decides.
        let length = |head: &[u8]| grpc::first_message(head).map_or(Scan::More, Scan::Found);
        let Some(length) = body.look(grpc::PREFIX, hold.pause, length).await? else {
            return Ok(Ok(ReadBody::default()));
        };
        if !body.hold(hold, length as u64).await? {
            return Ok(Err(Unread::TooLarge));
        }
        let _alone = if length > LARGE { Some(self.worker.reading.lock().await) } else { None };
        Ok(reader::message(&self.headers, body.head()).map(|found| {
            let tensors = found.as_ref().and_then(|found| found.get("inputs")?.as_array());
            let several = |tensor: &Value| rows::of_tensor(tensor).is_some_and(|rows| rows > 1);
            let reads = self.table.reads_rows && tensors.into_iter().flatten().any(several);
            let row = reads.then(|| reader::row_of_message(&self.headers, body.head(), asks, id)).flatten();
            ReadBody { found, row }
        }))
    }

    /// Reads a body over HTTP/1 or HTTP/2 that is not gRPC. If it has several rows, the drawn row is read a second time.
    async fn read_json(&self, body: &mut Arriving) -> Result<ReadBody, Unread> {
        let reader = || Reader::new(&self.headers, self.asks(), self.config.limits.body);
        let (promise, id) = (self.target.promise(), self.id.as_str());
        let lists = RowLists { instances: promise == Promise::Predictions, ..RowLists::default() };
        let (found, counted) = scan(self.worker, reader().with_rows(lists), body).await?;
        let starts = found.as_ref().filter(|_| self.table.reads_rows);
        let Some(starts) = starts.and_then(|found| rows::starts(found, &counted, lists.instances, id)) else {
            return Ok(ReadBody { found, row: None });
        };
        let lists = RowLists { starts: &starts, drawn: Some(id), ..lists };
        let row = scan(self.worker, reader().with_rows(lists), body).await.ok().and_then(|(row, _)| row);
        Ok(ReadBody { found, row: Some(row.unwrap_or_default()) })
    }

    /// Takes the body for sending. A kept part of it is used for copies and for a fallback.
    pub(super) async fn take(&self, body: Arriving, wanted: bool) -> Result<Taken, Refusal> {
        let (limits, timeouts) = (&self.config.limits, &self.config.timeouts);
        let streams = self.target.both_stream;
        let taking = Taking {
            limit: if streams { u64::MAX } else { limits.body },
            keep: limits.keep_body,
            wanted: wanted && !streams,
            whole: span(timeouts.request),
            pause: if streams { span(timeouts.stream) } else { span(timeouts.request) },
            upload: (!streams).then(|| span(timeouts.upload)),
            asks_first: asks_first(&self.headers),
        };
        body.take(taking).await.map_err(Refusal::from)
    }
}
