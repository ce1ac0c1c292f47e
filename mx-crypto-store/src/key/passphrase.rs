//! A passphrase as a key: Argon2id, with its cost in the store's header.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use super::StoreKey;
use crate::{Result, StoreError, random};

const SALT: usize = 16;

/// The least that a passphrase costs whoever guesses it: 64 MiB and 3 passes, above OWASP's recommendation
/// (Password Storage Cheat Sheet: Argon2id, 19 MiB and 2 passes, or more).
const MIN_MEMORY_KIB: u32 = 65_536;
const MIN_PASSES: u32 = 3;
/// More than this in a header is taken for damage: it would stop the process before a wrong key is told.
const MAX_MEMORY_KIB: u32 = 1_048_576;
const MAX_PASSES: u32 = 100;
const MAX_LANES: u32 = 16;

/// A passphrase, taken byte for byte: it is neither trimmed nor normalised. Wiped from memory when dropped.
///
/// ```
/// use mx_crypto_store::{KeySource, Passphrase};
///
/// // Byte for byte: cut off the line feed of a file, and nothing else.
/// let read = "correct horse battery staple\n";
/// let key = KeySource::Passphrase(Passphrase::new(read.trim_end_matches(['\r', '\n'])));
/// assert!(!format!("{key:?}").contains("horse"));
/// ```
#[derive(Clone)]
pub struct Passphrase {
    secret: Zeroizing<String>,
    cost: PassphraseCost,
}

impl Passphrase {
    /// With the default cost, where a store is made or rekeyed. A store that exists says itself what it costs.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self {
            secret: Zeroizing::new(secret.into()),
            cost: PassphraseCost::default(),
        }
    }

    /// With another cost. To raise that of a store, [`rekey`](crate::SealedStore::rekey) it to the same passphrase.
    #[must_use]
    pub const fn with_cost(mut self, cost: PassphraseCost) -> Self {
        self.cost = cost;
        self
    }

    pub(crate) const fn cost(&self) -> PassphraseCost {
        self.cost
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passphrase")
            .field("cost", &self.cost)
            .finish_non_exhaustive()
    }
}

/// What it costs to try a passphrase. Default: 64 MiB, 3 passes, one lane.
///
/// ```
/// use mx_crypto_store::{Passphrase, PassphraseCost};
///
/// // A quarter of a gibibyte, five times over, for whoever guesses; and at every opening for us.
/// let passphrase = Passphrase::new("correct horse battery staple").with_cost(PassphraseCost::new(256 * 1024, 5));
/// assert_eq!(PassphraseCost::new(1, 1), PassphraseCost::default(), "it is never cheaper than the default");
/// # drop(passphrase);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassphraseCost {
    memory_kib: u32,
    passes: u32,
}

impl PassphraseCost {
    /// `memory_kib` KiB of memory, `passes` passes over it. What is below the default is raised to it, what is above
    /// 1 GiB and 100 passes is lowered to that.
    #[must_use]
    pub fn new(memory_kib: u32, passes: u32) -> Self {
        Self {
            memory_kib: memory_kib.clamp(MIN_MEMORY_KIB, MAX_MEMORY_KIB),
            passes: passes.clamp(MIN_PASSES, MAX_PASSES),
        }
    }
}

impl Default for PassphraseCost {
    fn default() -> Self {
        Self::new(MIN_MEMORY_KIB, MIN_PASSES)
    }
}

/// How the key that opens a store is made of what the caller has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kdf {
    /// It is the key.
    Raw,
    /// RFC 9106.
    Argon2id {
        memory_kib: u32,
        passes: u32,
        lanes: u32,
        salt: [u8; SALT],
    },
}

impl Kdf {
    pub(crate) fn new(cost: PassphraseCost) -> Result<Self> {
        Ok(Self::Argon2id {
            memory_kib: cost.memory_kib,
            passes: cost.passes,
            lanes: 1,
            salt: random::bytes("a salt")?,
        })
    }

    pub(crate) const fn is_passphrase(&self) -> bool {
        matches!(self, Self::Argon2id { .. })
    }

    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        if let Self::Argon2id {
            memory_kib,
            passes,
            lanes,
            salt,
        } = self
        {
            for number in [memory_kib, passes, lanes] {
                to.extend_from_slice(&number.to_be_bytes());
            }
            to.extend_from_slice(salt);
        }
    }

    /// Read the cost of a passphrase; returns what follows. `None`: it is damaged, or no computer's.
    pub(crate) fn decode(from: &[u8]) -> Option<(Self, &[u8])> {
        let (memory_kib, rest) = number(from)?;
        let (passes, rest) = number(rest)?;
        let (lanes, rest) = number(rest)?;
        let (salt, rest) = rest.split_first_chunk::<SALT>()?;
        let sane = (lanes.saturating_mul(8)..=MAX_MEMORY_KIB).contains(&memory_kib)
            && (1..=MAX_PASSES).contains(&passes)
            && (1..=MAX_LANES).contains(&lanes);
        sane.then_some((
            Self::Argon2id {
                memory_kib,
                passes,
                lanes,
                salt: *salt,
            },
            rest,
        ))
    }

    /// The key of a passphrase. Takes a tenth of a second or more, on a thread that may be busy.
    pub(crate) async fn derive(&self, passphrase: &Passphrase) -> Result<StoreKey> {
        let Self::Argon2id {
            memory_kib,
            passes,
            lanes,
            salt,
        } = *self
        else {
            return Err(StoreError::WrongKeyKind { passphrase: false });
        };
        let secret = passphrase.secret.clone();
        let impossible = || StoreError::Encode { what: "a passphrase" };
        let derived = tokio::task::spawn_blocking(move || {
            let params = Params::new(memory_kib, passes, lanes, Some(32)).ok()?;
            let mut key = Zeroizing::new([0; 32]);
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(secret.as_bytes(), &salt, key.as_mut())
                .ok()?;
            Some(StoreKey::from_bytes(*key))
        });
        derived.await.ok().flatten().ok_or_else(impossible)
    }
}

fn number(from: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = from.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_never_below_the_default() {
        assert_eq!(PassphraseCost::new(1, 1), PassphraseCost::default());
        assert_eq!(
            PassphraseCost::new(u32::MAX, u32::MAX),
            PassphraseCost::new(MAX_MEMORY_KIB, MAX_PASSES)
        );
        assert!(PassphraseCost::new(131_072, 4) != PassphraseCost::default());
    }

    #[test]
    fn a_passphrase_is_not_printed() {
        assert!(!format!("{:?}", Passphrase::new("hunter2")).contains("hunter2"));
    }

    #[test]
    fn a_cost_that_would_stop_us_is_damage() {
        for (memory, passes, lanes) in [
            (u32::MAX, 3, 1),
            (65_536, 0, 1),
            (65_536, 3, 0),
            (7, 1, 1),
            (65_536, 3, 17),
            (65_536, 3, u32::MAX),
        ] {
            let mut encoded = Vec::new();
            Kdf::Argon2id {
                memory_kib: memory,
                passes,
                lanes,
                salt: [1; SALT],
            }
            .encode(&mut encoded);
            assert!(Kdf::decode(&encoded).is_none());
        }
    }
}
