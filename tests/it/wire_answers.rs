//! What is no answer of a homeserver is no success (row NW-06), and what it will never take is not sent for ever (NW-37).

use mx_test_homeserver::Fault;

use crate::keys_cast::Cast;

/// What stands between a device and its homeserver, with a status that says that all is well, or that nothing is.
const BODIES: [(u16, &str); 7] = [
    (200, "<html>Welcome to the hotel</html>"),
    (200, "{}"),
    (200, "[]"),
    (200, "null"),
    (200, ""),
    (204, ""),
    (403, "<html>Pay first</html>"),
];

#[tokio::test]
async fn nw_06_what_is_no_answer_of_a_homeserver_sends_nothing_and_loses_nothing() {
    for path in [
        "/keys/query",
        "/keys/claim",
        "/sendToDevice/",
        "/send/m.room.encrypted/",
    ] {
        for (status, body) in BODIES {
            if path == "/sendToDevice/" && body == "{}" {
                continue; // That is its answer.
            }
            let mut cast = Cast::fresh().await;
            cast.bob.publish();
            cast.sync().await;
            cast.server.fault(Fault::status(path, status, body).for_ever());
            let sent = cast.server.say(&cast.room, "lost").await;
            let error = sent.expect_err(&format!("{path} answered {status} {body:?} is no success"));
            cast.server.examine(&error);
            cast.server.behave();
            cast.sync().await;
            cast.send("kept").await;
            let read = cast.read_by(&mut cast.bob.clone());
            assert!(read.contains(&"kept".to_owned()), "{path} {status} {body:?}: {read:?}");
        }
    }
}

#[tokio::test]
async fn nw_06_keys_that_were_not_taken_are_not_published() {
    for (status, body) in BODIES {
        let cast = Cast::fresh().await;
        cast.server.exhaust_keys(cast.alice.user_id(), cast.alice.device_id());
        cast.server
            .fault(Fault::status("/keys/upload", status, body).for_ever());
        cast.sync().await;
        let error = cast
            .alice
            .publish_keys()
            .await
            .expect_err("these are no counts of keys");
        cast.server.examine(&error);
    }
}

#[tokio::test]
async fn nw_06_a_sync_that_is_none_leaves_the_token_where_it_was() {
    for (status, body) in BODIES {
        let cast = Cast::fresh().await;
        let before = cast.next_batch().await;
        cast.server.fault(Fault::status("/sync", status, body));
        let synced = cast.alice.sync().await;
        assert!(synced.is_err(), "{status} {body:?}");
        assert_eq!(cast.next_batch().await, before, "{status} {body:?}");
        cast.sync().await;
    }
}

#[tokio::test]
async fn nw_37_a_room_key_that_is_never_taken_is_an_error_and_no_loop() {
    for (status, body) in [
        (413, r#"{"errcode":"M_TOO_LARGE","error":"too large"}"#),
        (413, "<html>Request Entity Too Large</html>"),
        (400, r#"{"errcode":"M_TOO_LARGE","error":"too large"}"#),
        (400, r#"{"errcode":"M_BAD_JSON","error":"no"}"#),
    ] {
        let mut cast = Cast::fresh().await;
        cast.bob.publish();
        cast.sync().await;
        let mark = cast.mark().await;
        cast.server
            .fault(Fault::status("/sendToDevice/", status, body).for_ever());
        let error = cast
            .server
            .say(&cast.room, "lost")
            .await
            .expect_err("its key was not taken");
        cast.server.examine(&error);
        assert_eq!(error.code(), "key_share_incomplete", "{status} {body}");
        let puts = |cast: &Cast| cast.requests(&mark, "PUT", "/sendToDevice/").len();
        assert_eq!(puts(&cast), 1, "{status} {body}");
        for _ in 0..20 {
            cast.sync().await;
        }
        assert!(puts(&cast) <= 2, "{} times: {status} {body}", puts(&cast));
        cast.server.behave();
        cast.send("kept").await;
        let read = cast.read_by(&mut cast.bob.clone());
        assert!(read.contains(&"kept".to_owned()), "{status} {body}: {read:?}");
    }
}
