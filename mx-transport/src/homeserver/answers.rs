//! From an answer of 2xx to what it says, if it is a homeserver's.
//!
//! # Why a second look
//! Many endpoints answer `{}`, and for those ruma reads nothing of the body: the welcome page of a hotel, with status 200,
//! would be a room key delivered. And where every field may be left out, serde reads `[]` as an object without any. What
//! is no object is no answer, where an object would be one.

use bytes::Bytes;
use ruma::api::{IncomingResponse, OutgoingRequest};
use serde::de::IgnoredAny;

use crate::RequestError;

/// Endpoints whose answers may be files.
const FILES: &str = "/media/";

pub(super) fn decode<R: OutgoingRequest>(
    response: http::Response<Bytes>,
    endpoint: &'static str,
) -> Result<R::IncomingResponse, RequestError> {
    let unreadable = |source: String| RequestError::Decode {
        endpoint,
        source: source.into(),
    };
    if !endpoint.contains(FILES) && !is_object(response.body()) && takes_an_object::<R>() {
        return Err(unreadable("it is no object of JSON".to_owned()));
    }
    R::IncomingResponse::try_from_http_response(response).map_err(|error| unreadable(error.to_string()))
}

fn is_object(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

/// The least object is an answer to such a request.
fn takes_an_object<R: OutgoingRequest>() -> bool {
    let least = http::Response::new(Bytes::from_static(b"{}"));
    R::IncomingResponse::try_from_http_response(least).is_ok()
}

#[cfg(test)]
mod tests {
    use ruma::api::client::{
        authenticated_media::get_content, keys::get_keys, state::get_state_events, to_device::send_event_to_device,
    };

    use super::*;

    fn reads<R: OutgoingRequest>(body: &'static str, endpoint: &'static str) -> bool {
        let response = http::Response::builder().header("content-type", "application/json");
        decode::<R>(response.body(Bytes::from_static(body.as_bytes())).unwrap(), endpoint).is_ok()
    }

    #[test]
    fn nw_06_what_is_no_object_is_no_answer_where_an_object_would_be() {
        for body in ["", "[]", "null", "<html>", "\"{}\"", "{", "{}{}", "7"] {
            assert!(
                !reads::<send_event_to_device::v3::Request>(body, "/sendToDevice"),
                "{body}"
            );
            assert!(!reads::<get_keys::v3::Request>(body, "/keys/query"), "{body}");
        }
        assert!(reads::<send_event_to_device::v3::Request>("{}", "/sendToDevice"));
        assert!(reads::<send_event_to_device::v3::Request>(
            " {\"more\":[1]} ",
            "/sendToDevice"
        ));
        assert!(reads::<get_keys::v3::Request>(r#"{"device_keys":{}}"#, "/keys/query"));
        assert!(
            reads::<get_state_events::v3::Request>("[]", "/state"),
            "a list is one where it is asked for"
        );
        assert!(!reads::<get_state_events::v3::Request>("{}", "/state"));
        assert!(reads::<get_content::v1::Request>(
            "any file",
            "/_matrix/client/v1/media/download"
        ));
    }
}
