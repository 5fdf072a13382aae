//! Chooses the version that answers a call. It reads what decides from the request, and counts values that cannot be read.

use std::sync::Arc;

use serin_schemas::{ids::Version, records::Assignment};
use serin_spec::StickyKey;

use crate::{
    call::request::Call,
    content::request::Seen,
    protocol::{Unread, refusal::Refusal},
    state::responses::Kept,
    tables::{
        split::{self, Choice, Wanted},
        undecided::{self, Needed},
    },
};

impl Call<'_> {
    /// Chooses the version. Also returns the key of the chain of responses to which the call belongs. `segment` is why the value of a
    /// segment could not be read.
    pub(super) fn choose(
        &self,
        seen: Seen<'_>,
        segment: Option<Unread>,
    ) -> Result<(Choice, Option<Arc<str>>), Refusal> {
        let table = &self.table;
        let chance = self.chance();
        let key = || match &table.sticky {
            Some(StickyKey::Session) if self.target.is_response() => self.chain(seen, chance),
            sticky => {
                let text = sticky.as_ref().map_or(Ok(None), |key| seen.sticky_key(key))?;
                let keeper = keeper_beside(text.is_some(), self.keeper(seen))?;
                Ok(Key { text: text.map(Arc::from), keeper, ..Key::default() })
            }
        };
        let (target, key, undecided) = match seen.target(&table.policy.targets) {
            Err(why) => (None, Key::default(), Some((Needed::Target, why))),
            Ok(Some(target)) => (Some(target.arm), key().unwrap_or_default(), None),
            Ok(None) => match (key(), segment) {
                (Err(why), _) => (None, Key::default(), Some((Needed::Sticky, why))),
                (Ok(key), Some(why)) => (None, key, Some((Needed::Segment, why))),
                (Ok(key), None) => (None, key, None),
            },
        };
        let wanted = Wanted {
            pin: self.pin.as_deref(),
            unreadable: undecided.is_some(),
            target,
            key: key.text.as_deref(),
            keeper: key.keeper.as_ref().map(Version::as_str),
            chance,
            all_stable: self.shared.switch.is_on(),
            expired: table.lease.expired(self.shared.clock.source().steady()),
        };
        let choice = split::choose(table, &wanted).map_err(|version| self.unknown(&version.0))?;
        let undecided = undecided.filter(|_| choice.assignment == Assignment::Unreadable);
        let absent = table.sticky.is_some() && choice.assignment == Assignment::Random;
        table.undecided.count(undecided, absent);
        let model = table.record.model.as_str();
        if let Some((needed, why)) = undecided {
            self.shared.metrics.undecided(model, needed.as_str(), why.as_str());
        } else if absent {
            self.shared.metrics.undecided(model, Needed::Sticky.as_str(), undecided::ABSENT);
        }
        let chain = key.text.filter(|_| key.is_chain);
        Ok((choice, chain))
    }

    /// The key of a call of `/v1/responses`: the key of its session, otherwise that of its chain. A new chain gets a new key. The chain of
    /// a response that was not split by such a key has no key, only a keeper.
    fn chain(&self, seen: Seen<'_>, chance: u64) -> Result<Key, Unread> {
        let session = seen.sticky_key(&StickyKey::Session)?;
        let previous = if session.is_some() { seen.previous().unwrap_or_default() } else { seen.previous()? };
        let kept = previous.as_deref().and_then(|id| self.kept(id));
        let text: Option<Arc<str>> = match (session, &kept, previous) {
            (Some(session), _, _) => Some(session.into()),
            (None, Some(kept), _) if kept.chain.is_some() || self.table.find(kept.version.as_str()).is_some() => {
                kept.chain.clone()
            }
            (None, _, Some(_)) => return Err(Unread::UnknownResponse),
            (None, _, None) => Some(format!("{chance:016x}").into()),
        };
        Ok(Key { text, keeper: kept.map(|kept| kept.version), is_chain: true })
    }

    /// The version that keeps the previous response of a call. While there is a canary, an error if it is not known.
    fn keeper(&self, seen: Seen<'_>) -> Result<Option<Version>, Unread> {
        if !self.target.is_response() {
            return Ok(None);
        }
        let keeper = seen.previous().and_then(|previous| {
            let Some(previous) = previous else { return Ok(None) };
            let keeper = self.kept(&previous).map(|kept| kept.version);
            let keeper = keeper.filter(|version| self.table.find(version.as_str()).is_some());
            keeper.map(Some).ok_or(Unread::UnknownResponse)
        });
        if self.table.canary.is_some() { keeper } else { Ok(keeper.unwrap_or_default()) }
    }

    /// A response of this model that the router remembers.
    fn kept(&self, id: &str) -> Option<Kept> {
        self.shared.responses.find(id).filter(|kept| *kept.model == *self.table.record.model.as_str())
    }

    fn chance(&self) -> u64 {
        match self.config.random_seed {
            Some(seed) => serin_sketches::hash::hash64(&seed.to_be_bytes(), self.id.as_str().as_bytes()),
            None => (self.shared.chance)(),
        }
    }
}

/// The keeper of the previous response. A call with a sticky key does not need it: the key has the same hash on every router, while only
/// one router knows the response.
fn keeper_beside(has_key: bool, keeper: Result<Option<Version>, Unread>) -> Result<Option<Version>, Unread> {
    if has_key { Ok(keeper.unwrap_or_default()) } else { keeper }
}

/// The key by which a call is split.
#[derive(Default)]
struct Key {
    text: Option<Arc<str>>,
    /// The version that keeps the previous response of the call.
    keeper: Option<Version>,
    /// Whether the answer is a response of a chain.
    is_chain: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_decides_where_the_previous_response_is_not_known() {
        let known = || Ok(Some(Version::from("v2")));
        assert_eq!(keeper_beside(true, known()), known());
        assert_eq!(keeper_beside(false, known()), known());
        for why in [Unread::UnknownResponse, Unread::TooLarge] {
            assert_eq!(keeper_beside(true, Err(why)), Ok(None));
            assert_eq!(keeper_beside(false, Err(why)), Err(why));
        }
    }
}
