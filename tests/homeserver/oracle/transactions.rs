//! I9: the same transaction id always carries the same bytes.

use std::collections::HashMap;

use bytes::Bytes;

use super::{Call, Found, Invariant, Owner};

/// What was sent under which transaction id.
#[derive(Clone, Debug, Default)]
pub(super) struct Transactions(HashMap<(Owner, String), (String, Bytes)>);

impl Transactions {
    /// Whether this request was seen before.
    pub(super) fn knows(&self, call: &Call<'_>) -> bool {
        place(call).is_some_and(|place| self.0.contains_key(&place))
    }

    pub(super) fn request(&mut self, call: &Call<'_>) -> Found {
        let Some(place) = place(call) else {
            return Found::new();
        };
        let path = call.parts.path.join("/");
        let sent = (path, call.parts.request.body().clone());
        let transaction = place.1.clone();
        let before = self.0.entry(place).or_insert_with(|| sent.clone());
        if before.0 != sent.0 {
            let words = format!("the transaction id {transaction} is used for another request");
            return vec![(Invariant::I9, words)];
        }
        if before.1 != sent.1 {
            let words = format!("the transaction id {transaction} is used again with other bytes");
            return vec![(Invariant::I9, words)];
        }
        Found::new()
    }

    pub(super) fn retain(&mut self, lives: impl Fn(&Owner) -> bool) {
        self.0.retain(|(owner, _), _| lives(owner));
    }
}

fn place(call: &Call<'_>) -> Option<(Owner, String)> {
    let transaction = match (call.event_put(), call.to_device_put()) {
        (Some((_, _, transaction)), _) | (None, Some((_, transaction))) => transaction,
        (None, None) => return None,
    };
    Some((call.owner.clone(), transaction.to_owned()))
}
