//! Who has verified us: what this device was told when a verification ended well.
//!
//! # Why
//! A homeserver shows the signatures of a user-signing key to nobody but its owner (client-server API, section
//! "Cross-signing"). So nobody can ask who trusts them. What can be known is who compared keys with this device and said at
//! the end that they are right.

use mx_crypto_store::{Family, PickleStore, RecordId, Unit};
use ruma::{OwnedUserId, UserId};
use serde::{Deserialize, Serialize};

use crate::Result;

const VERIFIED_BY: Family = Family::new("verified-by").passing();

/// A user who has verified us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VerifiedBy {
    /// Who.
    pub user_id: OwnedUserId,
    /// When, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Our master key that they saw.
    pub master_key: String,
}

/// They have seen this master key of ours, and found it right.
pub(super) fn note(unit: &Unit, user: &UserId, master_key: String, since_ms: u64) -> Result<()> {
    let verified = VerifiedBy {
        user_id: user.to_owned(),
        since_ms,
        master_key,
    };
    Ok(unit.put(&RecordId::named(VERIFIED_BY, &[], user.as_str()), &verified)?)
}

/// Those who have verified the identity that we have now.
pub(crate) async fn of(store: &PickleStore, master_key: Option<&str>) -> Result<Vec<VerifiedBy>> {
    let mut all = Vec::new();
    for record in store.scan(VERIFIED_BY, &[], None, usize::MAX).await? {
        let verified: VerifiedBy = record.decode()?;
        if Some(verified.master_key.as_str()) == master_key {
            all.push(verified);
        }
    }
    Ok(all)
}
