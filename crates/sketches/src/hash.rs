//! The stable 64-bit hash that is used to split traffic, sample control, dither and order classes.
//!
//! `hash64(salt, key) = fmix64(fnv1a(seed = FNV_OFFSET xor fmix64(fnv1a(salt)), key))`: FNV-1a over the bytes, then the
//! finalizer of `MurmurHash3`, which spreads every input bit over the whole result. Its value is a contract between routers
//! and folds of all versions and languages; the vectors in the tests pin it. It does not defend against crafted keys: a
//! client that can choose keys can choose a bucket, so keep salts private where that matters.
//!
//! **Use a different salt for each purpose** (split, control sample, dither), so that the decisions are independent.
//!
//! Sources: Fowler, Noll, Vo (FNV-1a, 64 bit); Appleby, `MurmurHash3` (`fmix64`), both in the public domain.

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Number of buckets of a traffic split: weights are multiples of 1/10000.
pub const BUCKETS: u16 = 10_000;

fn fnv1a(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
}

fn fmix64(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// A salt, hashed once, so that the hot path only hashes keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(u64);

impl Salt {
    /// Prepares a salt, which consists of the purpose and whatever makes it unique (model, rollout).
    pub fn new(salt: &[u8]) -> Self {
        Self(FNV_OFFSET ^ fmix64(fnv1a(FNV_OFFSET, salt)))
    }

    /// Hash of a key (request id, user key) under this salt.
    pub fn hash(self, key: &[u8]) -> u64 {
        fmix64(fnv1a(self.0, key))
    }
}

/// Hash of `key` under `salt`; see the module documentation.
pub fn hash64(salt: &[u8], key: &[u8]) -> u64 {
    Salt::new(salt).hash(key)
}

/// The hash of the unit (user, session, account) that an external writer names for an answer, as in `Prediction::unit`. All
/// doors use the same hash, so a unit is the same whichever door its answers come through. The salt is the model, so that
/// the requests of a unit to one model cannot be joined with its requests to another.
pub fn unit(model: &str, id: &str) -> i64 {
    hash64(&[b"serin.unit/", model.as_bytes()].concat(), id.as_bytes()) as i64
}

/// Bucket in `0..10000` of a hash, by multiply-shift: bucket sizes differ by at most one in 2^64.
pub fn bucket(hash: u64) -> u16 {
    ((u128::from(hash) * u128::from(BUCKETS)) >> 64) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a_matches_its_published_vectors() {
        assert_eq!(fnv1a(FNV_OFFSET, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(FNV_OFFSET, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(FNV_OFFSET, b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn buckets_are_even_and_salts_independent() {
        let (split, control) = (Salt::new(b"split"), Salt::new(b"control"));
        let (mut low, mut both) = (0_u32, 0_u32);
        for id in 0..200_000_u32 {
            let key = format!("request-{id}");
            let first = bucket(split.hash(key.as_bytes())) < 1000;
            low += u32::from(first);
            both += u32::from(first && bucket(control.hash(key.as_bytes())) < 1000);
        }
        // Binomial standard deviations: 134 and 44.
        assert!(low.abs_diff(20_000) < 600, "{low}");
        assert!(both.abs_diff(2_000) < 200, "{both}");
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, 9999));
    }
}
