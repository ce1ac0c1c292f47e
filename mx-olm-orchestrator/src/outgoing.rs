//! The engine's requests and ruma's: one arm a kind, no policy.

use matrix_sdk_crypto::types::requests::{AnyIncomingResponse, AnyOutgoingRequest, KeysQueryRequest, ToDeviceRequest};
use mx_transport::{Call, Homeserver, RequestError};
use ruma::{
    api::client::{
        keys::{claim_keys, get_keys, upload_keys, upload_signatures},
        message::send_message_event,
        to_device::send_event_to_device,
    },
    owned_event_id,
};

use crate::Result;

/// A homeserver's answer to a request of the engine.
pub(crate) enum Answer {
    Upload(upload_keys::v3::Response),
    Query(get_keys::v3::Response),
    Claim(claim_keys::v3::Response),
    ToDevice(send_event_to_device::v3::Response),
    Signatures(upload_signatures::v3::Response),
    RoomMessage(send_message_event::v3::Response),
}

impl Answer {
    /// As the engine takes it.
    pub(crate) fn as_incoming(&self) -> AnyIncomingResponse<'_> {
        match self {
            Self::Upload(response) => AnyIncomingResponse::KeysUpload(response),
            Self::Query(response) => AnyIncomingResponse::KeysQuery(response),
            Self::Claim(response) => AnyIncomingResponse::KeysClaim(response),
            Self::ToDevice(response) => AnyIncomingResponse::ToDevice(response),
            Self::Signatures(response) => AnyIncomingResponse::SignatureUpload(response),
            Self::RoomMessage(response) => AnyIncomingResponse::RoomMessage(response),
        }
    }
}

impl Answer {
    /// An event that the engine wants in a room goes the way of all events, on which it is not lost: for the engine, it has
    /// left.
    pub(crate) fn room_message_is_on_its_way() -> Self {
        Self::RoomMessage(send_message_event::v3::Response::new(owned_event_id!("$on-its-way")))
    }
}

/// Send one request of the engine.
pub(crate) async fn send(homeserver: &Homeserver, request: &AnyOutgoingRequest) -> Result<Answer, RequestError> {
    match request {
        AnyOutgoingRequest::KeysUpload(request) => upload(homeserver, request.clone()).await.map(Answer::Upload),
        AnyOutgoingRequest::KeysQuery(request) => query(homeserver, request).await.map(Answer::Query),
        AnyOutgoingRequest::KeysClaim(request) => claim(homeserver, request.clone(), Call::default())
            .await
            .map(Answer::Claim),
        AnyOutgoingRequest::ToDeviceRequest(request) => to_device(homeserver, request).await.map(Answer::ToDevice),
        AnyOutgoingRequest::SignatureUpload(request) => homeserver
            .send_with(request.clone(), Call::repeatable())
            .await
            .map(Answer::Signatures),
        // It would leave as plaintext here.
        AnyOutgoingRequest::RoomMessage(_) => Err(RequestError::build("an event of a room goes the way of all events")),
    }
}

/// `/keys/upload`: the same keys again are accepted, so that it may be repeated.
pub(crate) async fn upload(
    homeserver: &Homeserver,
    request: upload_keys::v3::Request,
) -> Result<upload_keys::v3::Response, RequestError> {
    homeserver.send_with(request, Call::repeatable()).await
}

/// `/keys/query`: it only reads.
pub(crate) async fn query(
    homeserver: &Homeserver,
    request: &KeysQueryRequest,
) -> Result<get_keys::v3::Response, RequestError> {
    let mut query = get_keys::v3::Request::new();
    query.timeout = request.timeout;
    query.device_keys.clone_from(&request.device_keys);
    homeserver.send_with(query, Call::repeatable()).await
}

/// `/keys/claim`: it takes keys away, so that it is not repeated when its end is unknown.
pub(crate) async fn claim(
    homeserver: &Homeserver,
    request: claim_keys::v3::Request,
    call: Call,
) -> Result<claim_keys::v3::Response, RequestError> {
    homeserver.send_with(request, call).await
}

/// `/sendToDevice`: it has a transaction id, so that it may be repeated.
pub(crate) async fn to_device(
    homeserver: &Homeserver,
    request: &ToDeviceRequest,
) -> Result<send_event_to_device::v3::Response, RequestError> {
    let request = send_event_to_device::v3::Request::new_raw(
        request.event_type.clone(),
        request.txn_id.clone(),
        request.messages.clone(),
    );
    homeserver.send(request).await
}
