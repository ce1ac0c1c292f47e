//! I5 and I6: a device has one pair of identity keys, and an id of a one-time key has one content.

use std::collections::HashMap;

use serde_json::Value;

use super::{Call, Found, Invariant, Owner};

/// What each device uploaded.
#[derive(Clone, Debug, Default)]
pub(super) struct Identities {
    pairs: HashMap<Owner, Value>,
    /// One-time keys and fallback keys are counted apart, so that an id may stand for one of each.
    keys: HashMap<(Owner, &'static str, String), Value>,
}

impl Identities {
    pub(super) fn request(&mut self, call: &Call<'_>) -> Found {
        let mut found = Found::new();
        if call.parts.method != "POST" || call.parts.endpoint() != ["keys", "upload"] {
            return found;
        }
        let body = &call.parts.body;
        let pair = &body["device_keys"]["keys"];
        if pair.is_object() && self.pairs.entry(call.owner.clone()).or_insert_with(|| pair.clone()) != pair {
            let words = "another pair of identity keys is uploaded for the same device".to_owned();
            found.push((Invariant::I5, words));
        }
        for section in ["one_time_keys", "fallback_keys"] {
            for (id, key) in body[section].as_object().into_iter().flatten() {
                let place = (call.owner.clone(), section, id.clone());
                if self.keys.entry(place).or_insert_with(|| key.clone()) != key {
                    found.push((Invariant::I6, format!("the key {id} is uploaded with another content")));
                }
            }
        }
        found
    }

    pub(super) fn retain(&mut self, lives: impl Fn(&Owner) -> bool) {
        self.pairs.retain(|owner, _| lives(owner));
        self.keys.retain(|(owner, ..), _| lives(owner));
    }
}
