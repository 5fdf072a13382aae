//! The data of a call at the time when its version is chosen.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use serin_schemas::ids::{EventTime, RequestId};

use crate::{
    content::request::Features,
    protocol::{Promise, Wire},
    report::trace::CallTrace,
    state::in_flight::Slot,
};

/// The data of a call at the time when its version is chosen.
#[derive(Clone)]
pub(crate) struct Called {
    pub(crate) request_id: RequestId,
    /// Event time of the arrival.
    pub(crate) arrived: EventTime,
    /// Event time stated by a replay.
    pub(crate) stated: Option<EventTime>,
    /// Values of the segment dimensions.
    pub(crate) segments: BTreeMap<String, String>,
    /// Body of the request, if it was kept and the answer is compared with it.
    pub(crate) request: Option<Bytes>,
    /// Features read from the request.
    pub(crate) features: Features,
    /// Whether the version keeps its answer, as it does at `/v1/responses`.
    pub(crate) is_kept: bool,
    /// The key of the chain of responses to which the call belongs, if it is split by that key.
    pub(crate) chain: Option<Arc<str>>,
    /// The protocol of the caller.
    pub(crate) wire: Wire,
    /// What the protocol guarantees about an answer.
    pub(crate) promise: Promise,
    /// Whether both sides may send messages for an unlimited time.
    pub(crate) streams: bool,
    /// The caller's timeout, if it sent one.
    pub(crate) patience: Option<Duration>,
    /// The trace of the call, if it is traced.
    pub(crate) trace: Option<Arc<CallTrace>>,
    /// Keeps the call counted as in flight.
    pub(crate) _slot: Arc<Slot>,
}
