//! What stands in the path of a request arrives as it is: `%` is encoded, which ruma leaves as it stands.
//!
//! # Why before ruma, by name
//! `#x%41:example.org` in a path would be read as `#xA:example.org`, which is another room. Once ruma has made a path, a `%2F` of
//! its own cannot be told from one of an id's; so it is done to the request's fields, of which nothing but each endpoint's
//! own type knows the names. An endpoint that is not in the table (it is none of ruma's stable ones) is refused where
//! its path holds a `%` that ruma has not written.
#![expect(deprecated, reason = "older homeservers have no other endpoints for files")]

use std::{
    any::Any,
    borrow::Cow,
    fmt::{self, Display},
};

use ruma::api::{OutgoingRequest, SupportedVersions};

use super::{Authenticate, PathInput};
use crate::{AccessToken, RequestError};

/// A request in HTTP, in whose path everything is one part that arrives as it was given.
pub(super) fn in_http<R>(
    mut request: R,
    base_url: &str,
    token: Option<&AccessToken>,
    versions: &SupportedVersions,
) -> Result<http::Request<Vec<u8>>, RequestError>
where
    R: OutgoingRequest + 'static,
    R::Authentication: Authenticate,
    R::PathBuilder: PathInput,
{
    let known = escape(&mut request).map_err(RequestError::build)?;
    let request: http::Request<Vec<u8>> = request
        .try_into_http_request(
            base_url,
            R::Authentication::input(token),
            R::PathBuilder::input(Cow::Borrowed(versions)),
        )
        .map_err(RequestError::build)?;
    let uri = request.uri().to_string();
    let uri = uri.strip_prefix(base_url).unwrap_or(&uri);
    let path = uri.split('?').next().unwrap_or_default();
    if !known && !is_encoded(path) {
        return Err(RequestError::build(NotForPaths));
    }
    Ok(request)
}

/// What cannot stand in a path so that it arrives as it is.
#[derive(Debug)]
struct NotForPaths;

impl Display for NotForPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id with % in it cannot stand in the path of this endpoint")
    }
}

impl std::error::Error for NotForPaths {}

/// Whether ruma has written every `%` of a path.
fn is_encoded(path: &str) -> bool {
    path.split('%').skip(1).all(|after| match after.as_bytes() {
        [
            high @ (b'0'..=b'9' | b'A'..=b'F'),
            low @ (b'0'..=b'9' | b'A'..=b'F'),
            ..,
        ] => {
            let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
            let byte = digit(*high) * 16 + digit(*low);
            !byte.is_ascii_graphic() || b"\"#<>?`{}/".contains(&byte)
        }
        _ => false,
    })
}

/// A part of a path with what ruma leaves as it is, and what readers of URLs do not.
fn escape_part<T: ToString + TryFrom<String>>(part: &mut T) -> Result<(), NotForPaths> {
    let text = part.to_string();
    if !text.contains(['%', '\\', '^']) {
        return Ok(());
    }
    let text = text.replace('%', "%25").replace('\\', "%5C").replace('^', "%5E");
    *part = T::try_from(text).map_err(|_| NotForPaths)?;
    Ok(())
}

macro_rules! endpoints {
    ($($($module:ident)::+ { $($field:ident),+ })*) => {
        /// Escape what the request puts into its path. `Ok(false)`: the endpoint is not in the table.
        fn escape(request: &mut dyn Any) -> Result<bool, NotForPaths> {
            $(
                if let Some(request) = request.downcast_mut::<ruma::api::client::$($module)::+::Request>() {
                    $( escape_part(&mut request.$field)?; )+
                    return Ok(true);
                }
            )*
            Ok(false)
        }
    };
}

endpoints! {
    account::request_openid_token::v3 { user_id }
    admin::get_user_info::v3 { user_id }
    admin::is_user_locked::v1 { user_id }
    admin::is_user_suspended::v1 { user_id }
    admin::lock_user::v1 { user_id }
    admin::suspend_user::v1 { user_id }
    alias::create_alias::v3 { room_alias }
    alias::delete_alias::v3 { room_alias }
    alias::get_alias::v3 { room_alias }
    appservice::request_ping::v1 { appservice_id }
    appservice::set_room_visibility::v3 { network_id, room_id }
    authenticated_media::get_content::v1 { media_id }
    authenticated_media::get_content_as_filename::v1 { media_id, filename }
    authenticated_media::get_content_thumbnail::v1 { media_id }
    backup::add_backup_keys_for_room::v3 { room_id }
    backup::add_backup_keys_for_session::v3 { room_id, session_id }
    backup::delete_backup_keys_for_room::v3 { room_id }
    backup::delete_backup_keys_for_session::v3 { room_id, session_id }
    backup::delete_backup_version::v3 { version }
    backup::get_backup_info::v3 { version }
    backup::get_backup_keys_for_room::v3 { room_id }
    backup::get_backup_keys_for_session::v3 { room_id, session_id }
    backup::update_backup_version::v3 { version }
    config::get_global_account_data::v3 { user_id, event_type }
    config::get_room_account_data::v3 { user_id, room_id, event_type }
    config::set_global_account_data::v3 { user_id, event_type }
    config::set_room_account_data::v3 { user_id, room_id, event_type }
    context::get_context::v3 { room_id, event_id }
    dehydrated_device::get_events::unstable { device_id }
    device::delete_device::v3 { device_id }
    device::get_device::v3 { device_id }
    device::update_device::v3 { device_id }
    directory::get_room_visibility::v3 { room_id }
    directory::set_room_visibility::v3 { room_id }
    filter::create_filter::v3 { user_id }
    filter::get_filter::v3 { user_id, filter_id }
    knock::knock_room::v3 { room_id_or_alias }
    media::create_content_async::v3 { media_id }
    media::get_content::v3 { media_id }
    media::get_content_as_filename::v3 { media_id, filename }
    media::get_content_thumbnail::v3 { media_id }
    membership::ban_user::v3 { room_id }
    membership::forget_room::v3 { room_id }
    membership::get_member_events::v3 { room_id }
    membership::invite_user::v3 { room_id }
    membership::join_room_by_id::v3 { room_id }
    membership::join_room_by_id_or_alias::v3 { room_id_or_alias }
    membership::joined_members::v3 { room_id }
    membership::kick_user::v3 { room_id }
    membership::leave_room::v3 { room_id }
    membership::unban_user::v3 { room_id }
    message::get_message_events::v3 { room_id }
    message::send_message_event::v3 { room_id, event_type, txn_id }
    peeking::get_current_state::v3 { room_id }
    presence::get_presence::v3 { user_id }
    presence::set_presence::v3 { user_id }
    profile::delete_profile_field::v3 { user_id, field }
    profile::get_avatar_url::v3 { user_id }
    profile::get_display_name::v3 { user_id }
    profile::get_profile::v3 { user_id }
    profile::get_profile_field::v3 { user_id, field }
    profile::set_avatar_url::v3 { user_id }
    profile::set_display_name::v3 { user_id }
    push::delete_pushrule::v3 { kind, rule_id }
    push::get_pushrule::v3 { kind, rule_id }
    push::get_pushrule_actions::v3 { kind, rule_id }
    push::get_pushrule_enabled::v3 { kind, rule_id }
    push::set_pushrule_actions::v3 { kind, rule_id }
    push::set_pushrule_enabled::v3 { kind, rule_id }
    read_marker::set_read_marker::v3 { room_id }
    receipt::create_receipt::v3 { room_id, receipt_type, event_id }
    redact::redact_event::v3 { room_id, event_id, txn_id }
    relations::get_relating_events::v1 { room_id, event_id }
    relations::get_relating_events_with_rel_type::v1 { room_id, event_id, rel_type }
    relations::get_relating_events_with_rel_type_and_event_type::v1 { room_id, event_id, rel_type, event_type }
    reporting::report_user::v3 { user_id }
    room::aliases::v3 { room_id }
    room::get_event_by_timestamp::v1 { room_id }
    room::get_room_event::v3 { room_id, event_id }
    room::get_summary::v1 { room_id_or_alias }
    room::report_content::v3 { room_id, event_id }
    room::report_room::v3 { room_id }
    room::upgrade_room::v3 { room_id }
    session::sso_login_with_provider::v3 { idp_id }
    space::get_hierarchy::v1 { room_id }
    state::get_state_event_for_key::v3 { room_id, event_type, state_key }
    state::get_state_events::v3 { room_id }
    state::send_state_event::v3 { room_id, event_type, state_key }
    tag::create_tag::v3 { user_id, room_id, tag }
    tag::delete_tag::v3 { user_id, room_id, tag }
    tag::get_tags::v3 { user_id, room_id }
    thirdparty::get_location_for_protocol::v3 { protocol }
    thirdparty::get_protocol::v3 { protocol }
    thirdparty::get_user_for_protocol::v3 { protocol }
    threads::get_threads::v1 { room_id }
    to_device::send_event_to_device::v3 { event_type, txn_id }
    typing::create_typing_event::v3 { room_id, user_id }
    uiaa::get_uiaa_fallback_page::v3 { auth_type }
}
