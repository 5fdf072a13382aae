//! The choice of the arm that answers a request. Pure: randomness is an argument.

use std::sync::Arc;

use serin_schemas::records::{Arm, Assignment};
use serin_sketches::hash::bucket;
use serin_spec::TargetArm;

use crate::tables::{route::Route, table::Table};

/// The chosen version, and the reason for the choice.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) route: Arc<Route>,
    pub(crate) assignment: Assignment,
    /// Salted hash of the sticky key, if the key decided.
    pub(crate) unit: Option<i64>,
}

/// The inputs that decide the arm of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// The version that the caller asks for.
    pub(crate) pin: Option<&'a str>,
    /// Whether a deciding value could not be read.
    pub(crate) unreadable: bool,
    /// The arm of the target that matches the request.
    pub(crate) target: Option<TargetArm>,
    /// The sticky key, if the table uses one and the request has it.
    pub(crate) key: Option<&'a str>,
    /// The version that keeps the previous response of the request.
    pub(crate) keeper: Option<&'a str>,
    /// 64 random bits.
    pub(crate) chance: u64,
    /// The local switch "all stable".
    pub(crate) all_stable: bool,
    /// Whether the table's lease has expired.
    pub(crate) expired: bool,
}

/// The caller asked for a version that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnknownVersion(pub(crate) String);

/// Chooses the arm in this order: the switch, a pin, the lease, unreadable values, a target, the split.
///
/// A request with an unreadable value goes to stable. A random choice would show a user both versions, and could show the canary to a
/// tenant that must stay on stable.
///
/// Buckets below the canary's share go to the canary, the next ones to control, the rest to stable. While the ramp grows, a sticky key
/// never leaves the canary.
pub(crate) fn choose(table: &Table, wanted: &Wanted<'_>) -> Result<Choice, UnknownVersion> {
    let plain = |route: &Arc<Route>, assignment| Choice { route: Arc::clone(route), assignment, unit: None };
    if wanted.all_stable {
        return Ok(plain(&table.stable, Assignment::SwitchedOff));
    }
    if let Some(pin) = wanted.pin {
        let route = table.find(pin).ok_or_else(|| UnknownVersion(pin.to_owned()))?;
        return Ok(plain(route, Assignment::Pinned));
    }
    if wanted.expired {
        return Ok(plain(&table.stable, Assignment::LeaseExpired));
    }
    if wanted.unreadable {
        return Ok(plain(&table.stable, Assignment::Unreadable));
    }
    // Before the ramp has started there is no canary that a target could select or exclude.
    if let (Some(target), Some(canary)) = (wanted.target, table.canary.as_ref().filter(|_| table.canary_end > 0)) {
        let route = if target == TargetArm::Canary { canary } else { &table.stable };
        return Ok(plain(route, Assignment::Targeted));
    }
    let (hash, assignment, unit) = match wanted.key {
        Some(key) => {
            let hash = table.salt.hash(key.as_bytes());
            (hash, Assignment::Sticky, Some(hash as i64))
        }
        None => (wanted.chance, Assignment::Random, None),
    };
    let route = arm(table, bucket(hash));
    // Only the version of the previous turn can continue. Without a key, or if the ramp has grown since, it was not chosen by the split.
    if let Some(keeper) = wanted.keeper.filter(|keeper| wanted.key.is_none() || *keeper != route.version.as_str())
        && let Some(route) = table.find(keeper)
    {
        return Ok(plain(route, Assignment::Targeted));
    }
    Ok(Choice { route: Arc::clone(route), assignment, unit })
}

/// The route of a bucket.
fn arm(table: &Table, bucket: u16) -> &Arc<Route> {
    let route = if bucket < table.canary_end {
        table.canary.as_ref()
    } else if bucket < table.control_end {
        table.control.as_ref()
    } else {
        None
    };
    route.unwrap_or(&table.stable)
}

/// Whether stable may answer if the version of this choice fails.
pub(crate) fn may_fall_back(table: &Table, choice: &Choice) -> bool {
    table.record.fallback && choice.route.arm == Arm::Canary && choice.assignment.is_compared()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::table::{Lease, Table, tests::record};
    use proptest::prelude::*;
    use rand_chacha::{
        ChaCha8Rng,
        rand_core::{Rng, SeedableRng as _},
    };

    fn table(canary: i32, control: i32) -> Table {
        Table::compile(record(1, canary, control), Lease::Forever, None, 0).unwrap()
    }

    fn arm_of(table: &Table, wanted: &Wanted<'_>) -> (Arm, Assignment) {
        let choice = choose(table, wanted).unwrap();
        (choice.route.arm, choice.assignment)
    }

    #[test]
    fn a_million_requests_match_their_shares() {
        let table = table(1234, 4321);
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut counts = [0_f64; 3];
        let n = 1_000_000;
        for _ in 0..n {
            let wanted = Wanted { chance: random.next_u64(), ..Wanted::default() };
            match choose(&table, &wanted).unwrap().route.arm {
                Arm::Canary => counts[0] += 1.0,
                Arm::Control => counts[1] += 1.0,
                _ => counts[2] += 1.0,
            }
        }
        let shares = [0.1234, 0.4321, 0.4445];
        let chi_square: f64 = counts
            .iter()
            .zip(shares)
            .map(|(count, share)| (count - share * f64::from(n)).powi(2) / (share * f64::from(n)))
            .sum();
        // 99.9 % quantile of chi-square with 2 degrees of freedom.
        assert!(chi_square < 13.82, "{chi_square} {counts:?}");
    }

    #[test]
    fn the_order_is_switch_pin_lease_unreadable_target_split() {
        let table = table(10_000, 0);
        let target = Some(TargetArm::Stable);
        let unreadable = true;
        let all = Wanted {
            pin: Some("v2"),
            unreadable,
            target,
            key: Some("k"),
            keeper: None,
            chance: 0,
            all_stable: true,
            expired: true,
        };
        assert_eq!(arm_of(&table, &all), (Arm::Stable, Assignment::SwitchedOff));
        let pinned = Wanted { all_stable: false, ..all };
        assert_eq!(arm_of(&table, &pinned), (Arm::Canary, Assignment::Pinned));
        let expired = Wanted { pin: None, ..pinned };
        assert_eq!(arm_of(&table, &expired), (Arm::Stable, Assignment::LeaseExpired));
        let unread = Wanted { expired: false, ..expired };
        assert_eq!(arm_of(&table, &unread), (Arm::Stable, Assignment::Unreadable));
        let targeted = Wanted { unreadable: false, ..unread };
        assert_eq!(arm_of(&table, &targeted), (Arm::Stable, Assignment::Targeted));
        let inside = Wanted { target: Some(TargetArm::Canary), ..targeted };
        assert_eq!(arm_of(&table, &inside), (Arm::Canary, Assignment::Targeted));
        assert_eq!(arm_of(&self::table(0, 0), &inside), (Arm::Stable, Assignment::Sticky), "the ramp has not started");
        let sticky = Wanted { target: None, ..inside };
        assert_eq!(arm_of(&table, &sticky), (Arm::Canary, Assignment::Sticky));
        let random = Wanted { key: None, ..sticky };
        assert_eq!(arm_of(&table, &random), (Arm::Canary, Assignment::Random));
        let unknown = Wanted { pin: Some("v9"), ..random };
        assert_eq!(choose(&table, &unknown).unwrap_err(), UnknownVersion("v9".into()));
    }

    #[test]
    fn a_chain_stays_with_the_version_that_keeps_it() {
        let first = Wanted { key: Some("k"), ..Wanted::default() };
        assert_eq!(arm_of(&table(0, 10_000), &first), (Arm::Control, Assignment::Sticky));
        let next = Wanted { keeper: Some("v1"), ..first };
        assert_eq!(arm_of(&table(0, 10_000), &next), (Arm::Control, Assignment::Sticky), "the same version");
        assert_eq!(arm_of(&table(10_000, 0), &next), (Arm::Stable, Assignment::Targeted), "the ramp has grown");
        let random = Wanted { key: None, ..next };
        for shares in [(0, 10_000), (10_000, 0)] {
            let table = table(shares.0, shares.1);
            assert_eq!(arm_of(&table, &random), (Arm::Stable, Assignment::Targeted), "chance did not choose it");
        }
        let gone = Wanted { keeper: Some("v0"), ..first };
        assert_eq!(arm_of(&table(10_000, 0), &gone), (Arm::Canary, Assignment::Sticky), "its version was removed");
    }

    /// A ramp of 1, 5, 25 and 100 %: a user on the canary stays there, a user in the comparison stays in it, and each step matches its
    /// shares.
    #[test]
    fn no_user_moves_back_while_the_ramp_grows() {
        let steps = [(100, 1000), (500, 5000), (2500, 7500), (10_000, 0)]
            .map(|(canary, control)| (canary, table(canary, control)));
        let n = 200_000;
        let mut counts = [0_u32; 4];
        for user in 0..n {
            let key = format!("user-{user}");
            let wanted = Wanted { key: Some(&key), ..Wanted::default() };
            let arms = steps.each_ref().map(|(_, table)| arm_of(table, &wanted).0);
            for (count, arm) in counts.iter_mut().zip(arms) {
                *count += u32::from(arm == Arm::Canary);
            }
            for pair in arms.windows(2) {
                assert!(pair[0] != Arm::Canary || pair[1] == Arm::Canary, "{key} moved back: {arms:?}");
                assert!(pair[0] != Arm::Control || pair[1] != Arm::Stable, "{key} left the comparison: {arms:?}");
            }
        }
        for (count, (share, _)) in counts.iter().zip(&steps) {
            let (expected, share) = (f64::from(n) * f64::from(*share) / 1e4, f64::from(*share) / 1e4);
            let deviation = (f64::from(n) * share * (1.0 - share)).sqrt();
            assert!((f64::from(*count) - expected).abs() <= 4.0 * deviation, "{counts:?}");
        }
    }

    proptest! {
        /// While the ramp grows no key leaves the canary, and with a share of 0 no key gets there.
        #[test]
        fn sticky_keys_never_move_back(key in ".{1,40}", first in 0..=10_000_i32, more in 0..=10_000_i32) {
            let (low, high) = (first.min(more), first.max(more));
            let wanted = Wanted { key: Some(&key), ..Wanted::default() };
            let before = arm_of(&table(low, 0), &wanted).0;
            let after = arm_of(&table(high, 0), &wanted).0;
            prop_assert!(before != Arm::Canary || after == Arm::Canary);
            prop_assert_eq!(arm_of(&table(0, 0), &wanted).0, Arm::Stable);
            prop_assert_eq!(arm_of(&table(10_000, 0), &wanted).0, Arm::Canary);
        }
    }
}
