//! Answers of the homeserver, changed on their way: what a hostile or broken one would give.

use mx_test_homeserver::Homeserver;
use serde_json::Value;

/// From now on, change every answer to a sync of `device` that is JSON.
pub(crate) fn edit_syncs(server: &Homeserver, edit: impl Fn(&mut Value) + Send + Sync + 'static) {
    server.rewrite("/sync", move |_, response| {
        let Ok(mut body) = serde_json::from_slice::<Value>(response.body()) else {
            return response;
        };
        edit(&mut body);
        response.map(|_| body.to_string().into())
    });
}

/// From now on, change every event of every timeline in every sync.
pub(crate) fn edit_timelines(server: &Homeserver, edit: impl Fn(&mut Value) + Send + Sync + 'static) {
    edit_syncs(server, move |body| {
        for room in body
            .pointer_mut("/rooms/join")
            .and_then(Value::as_object_mut)
            .into_iter()
            .flat_map(|rooms| rooms.values_mut())
        {
            let events = room.pointer_mut("/timeline/events").and_then(Value::as_array_mut);
            events.into_iter().flatten().for_each(&edit);
        }
    });
}

/// Hold to-device events back, as a homeserver may.
pub(crate) fn hold_keys_back(server: &Homeserver) {
    edit_syncs(server, |body| {
        if let Some(fields) = body.as_object_mut() {
            fields.remove("to_device");
        }
    });
}
