//! Every method of the engine's trait that reads something, and their answers in one map that can be compared.

use std::collections::BTreeMap;

use matrix_sdk_crypto::{
    Session,
    olm::{InboundGroupSession, SenderDataType},
    store::CryptoStore,
    vodozemac::Curve25519PublicKey,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    mutation::{CUSTOM, VERSIONS},
    pool::{self, pool},
};

/// What each read method answered, by the method and its arguments.
pub(crate) type Observation = BTreeMap<String, Value>;

/// What may be asked: a store without an account or without its own device is asked for nothing that leans on them,
/// as the engine never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct May {
    pub(crate) account: bool,
    pub(crate) own_device: bool,
}

const TYPES: [SenderDataType; 2] = [SenderDataType::UnknownDevice, SenderDataType::DeviceInfo];

fn value<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap()
}

/// Of no particular order.
fn set(values: impl IntoIterator<Item = Value>) -> Value {
    let mut values: Vec<Value> = values.into_iter().collect();
    values.sort_by_cached_key(Value::to_string);
    Value::Array(values)
}

async fn inbounds(sessions: Vec<InboundGroupSession>) -> Value {
    let mut pickles = Vec::new();
    for session in sessions {
        pickles.push(value(&session.pickle().await));
    }
    set(pickles)
}

async fn olm_sessions(sessions: Vec<Session>) -> Value {
    let mut pickles = Vec::new();
    for session in sessions {
        pickles.push(value(&session.pickle().await));
    }
    set(pickles)
}

/// Ask everything.
pub(crate) async fn observe<S>(store: &S, may: May) -> Result<Observation, S::Error>
where
    S: CryptoStore,
    S::Error: Send,
{
    let mut seen = Observation::new();
    own(store, may, &mut seen).await?;
    olm(store, may, &mut seen).await?;
    megolm(store, may, &mut seen).await?;
    backup(store, &mut seen).await?;
    others(store, &mut seen).await?;
    requests(store, &mut seen).await?;
    rooms(store, &mut seen).await?;
    Ok(seen)
}

async fn own<S>(store: &S, may: May, seen: &mut Observation) -> Result<(), S::Error>
where
    S: CryptoStore,
    S::Error: Send,
{
    let account = store.load_account().await?.map(|account| account.pickle());
    seen.insert("load_account".to_owned(), value(&account));
    let identity = match store.load_identity().await? {
        Some(identity) => value(&identity.pickle().await),
        None => Value::Null,
    };
    seen.insert("load_identity".to_owned(), identity);
    if may.own_device {
        seen.insert("get_own_device".to_owned(), value(&store.get_own_device().await?));
    }
    let key = store.load_dehydrated_device_pickle_key().await?;
    seen.insert("load_dehydrated_device_pickle_key".to_owned(), value(&key));
    seen.insert("next_batch_token".to_owned(), value(&store.next_batch_token().await?));
    for key in CUSTOM {
        let custom = store.get_custom_value(key).await?;
        seen.insert(format!("get_custom_value({key})"), value(&custom));
    }
    Ok(())
}

async fn olm<S>(store: &S, may: May, seen: &mut Observation) -> Result<(), S::Error>
where
    S: CryptoStore,
    S::Error: Send,
{
    for index in 0..pool::HASHES {
        let known = store.is_message_known(&pool::hash(index)).await?;
        seen.insert(format!("is_message_known({index})"), value(&known));
    }
    if !may.own_device {
        return Ok(());
    }
    for sender in &pool().olm_senders {
        let sessions = match store.get_sessions(sender).await? {
            Some(sessions) => olm_sessions(sessions).await,
            None => Value::Null,
        };
        seen.insert(format!("get_sessions({sender})"), sessions);
    }
    Ok(())
}

async fn megolm<S>(store: &S, may: May, seen: &mut Observation) -> Result<(), S::Error>
where
    S: CryptoStore,
    S::Error: Send,
{
    for (room, id) in &pool().inbound_ids {
        let session = store.get_inbound_group_session(room, id).await?;
        seen.insert(
            format!("get_inbound_group_session({room}, {id})"),
            inbounds(session.into_iter().collect()).await,
        );
    }
    let all = inbounds(store.get_inbound_group_sessions().await?).await;
    seen.insert("get_inbound_group_sessions".to_owned(), all);
    for index in 0..pool::ROOMS {
        let room = pool::room(index);
        let of_room = inbounds(store.get_inbound_group_sessions_by_room_id(room).await?).await;
        seen.insert(format!("get_inbound_group_sessions_by_room_id({room})"), of_room);
        if may.account {
            let outbound = match store.get_outbound_group_session(room).await? {
                Some(session) => value(&session.pickle().await),
                None => Value::Null,
            };
            seen.insert(format!("get_outbound_group_session({room})"), outbound);
        }
    }
    for key in &pool().sender_keys {
        for kind in TYPES {
            let batch = store
                .get_inbound_group_sessions_for_device_batch(*key, kind, None, 100)
                .await?;
            let name = format!(
                "get_inbound_group_sessions_for_device_batch({}, {kind:?})",
                key.to_base64()
            );
            seen.insert(name.clone() + " in pages", value(&paged(store, *key, kind).await?));
            seen.insert(name, inbounds(batch).await);
        }
    }
    Ok(())
}

/// The ids of a device's sessions, read one by one.
///
/// # Why ids
/// Two rooms may know a session of one id, and the trait's cursor is an id: a page that ends between the two does not
/// see the second, in the engine's own stores too. What is asked for is that no id is lost.
async fn paged<S>(store: &S, key: Curve25519PublicKey, kind: SenderDataType) -> Result<Vec<String>, S::Error>
where
    S: CryptoStore,
    S::Error: Send,
{
    let mut ids: Vec<String> = Vec::new();
    loop {
        let after = ids.last().cloned();
        let page = store
            .get_inbound_group_sessions_for_device_batch(key, kind, after, 1)
            .await?;
        assert!(page.len() <= 1, "a page is as long as was asked for");
        let Some(session) = page.first() else { break };
        let id = session.session_id().to_owned();
        assert!(!ids.contains(&id), "a page begins after the one before it");
        ids.push(id);
    }
    ids.sort();
    Ok(ids)
}

async fn backup<S>(store: &S, seen: &mut Observation) -> Result<(), S::Error>
where
    S: CryptoStore,
    S::Error: Send,
{
    let keys = store.load_backup_keys().await?;
    let key = keys.decryption_key.map(|key| key.to_base64());
    seen.insert("load_backup_keys".to_owned(), json!([key, keys.backup_version]));
    for version in [None, Some(VERSIONS[0]), Some(VERSIONS[1])] {
        let counts = store.inbound_group_session_counts(version).await?;
        seen.insert(
            format!("inbound_group_session_counts({version:?})"),
            json!([counts.total, counts.backed_up]),
        );
    }
    for version in VERSIONS {
        let missing = store.inbound_group_sessions_for_backup(version, 100).await?;
        seen.insert(
            format!("inbound_group_sessions_for_backup({version})"),
            inbounds(missing).await,
        );
    }
    // Which one comes first is not said.
    let one = store.inbound_group_sessions_for_backup(VERSIONS[0], 1).await?.len();
    seen.insert("inbound_group_sessions_for_backup, at most one".to_owned(), value(&one));
    Ok(())
}

async fn others<S>(store: &S, seen: &mut Observation) -> Result<(), S::Error>
where
    S: CryptoStore,
    S::Error: Send,
{
    let tracked = store.load_tracked_users().await?;
    seen.insert("load_tracked_users".to_owned(), set(tracked.iter().map(value)));
    for (user, device) in &pool().device_ids {
        let found = store.get_device(user, device).await?;
        seen.insert(format!("get_device({user}, {device})"), value(&found));
    }
    for user in pool::users() {
        let devices: BTreeMap<_, _> = store.get_user_devices(user).await?.into_iter().collect();
        seen.insert(format!("get_user_devices({user})"), value(&devices));
        let identity = store.get_user_identity(user).await?;
        seen.insert(format!("get_user_identity({user})"), value(&identity));
    }
    Ok(())
}

async fn requests<S>(store: &S, seen: &mut Observation) -> Result<(), S::Error>
where
    S: CryptoStore,
    S::Error: Send,
{
    for index in 0..3 {
        let request = store.get_outgoing_secret_requests(&pool::request_id(index)).await?;
        seen.insert(format!("get_outgoing_secret_requests({index})"), value(&request));
    }
    for index in [0, 3, 4, 5] {
        let info = pool::request(index).info;
        let request = store.get_secret_request_by_info(&info).await?;
        seen.insert(
            format!("get_secret_request_by_info({})", info.as_key()),
            value(&request),
        );
    }
    let unsent = store.get_unsent_secret_requests().await?;
    seen.insert("get_unsent_secret_requests".to_owned(), set(unsent.iter().map(value)));
    for index in 0..2 {
        let name = pool::secret_name(index);
        // A store may keep the same secret once or twice, the engine's suite says.
        let mut secrets: Vec<String> = Vec::new();
        for secret in store.get_secrets_from_inbox(&name).await? {
            secrets.push((*secret).clone());
        }
        secrets.sort();
        secrets.dedup();
        seen.insert(format!("get_secrets_from_inbox({name})"), value(&secrets));
    }
    Ok(())
}

async fn rooms<S>(store: &S, seen: &mut Observation) -> Result<(), S::Error>
where
    S: CryptoStore,
    S::Error: Send,
{
    for index in 0..pool::ROOMS {
        let room = pool::room(index);
        let settings = store.get_room_settings(room).await?;
        seen.insert(format!("get_room_settings({room})"), value(&settings));
        let pending = store.get_pending_key_bundle_details_for_room(room).await?;
        seen.insert(
            format!("get_pending_key_bundle_details_for_room({room})"),
            value(&pending),
        );
        let downloaded = store.has_downloaded_all_room_keys(room).await?;
        seen.insert(format!("has_downloaded_all_room_keys({room})"), value(&downloaded));
        let withheld = store.get_withheld_sessions_by_room_id(room).await?;
        seen.insert(
            format!("get_withheld_sessions_by_room_id({room})"),
            set(withheld.iter().map(value)),
        );
        for session in ["one", "two"] {
            let entry = store.get_withheld_info(room, session).await?;
            seen.insert(format!("get_withheld_info({room}, {session})"), value(&entry));
        }
        for user in &pool::users()[..2] {
            let bundle = store.get_received_room_key_bundle_data(room, user).await?;
            seen.insert(
                format!("get_received_room_key_bundle_data({room}, {user})"),
                value(&bundle),
            );
        }
    }
    let pending = store.get_all_rooms_pending_key_bundles().await?;
    seen.insert(
        "get_all_rooms_pending_key_bundles".to_owned(),
        set(pending.iter().map(value)),
    );
    Ok(())
}
