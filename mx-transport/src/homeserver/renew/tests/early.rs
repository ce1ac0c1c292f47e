//! Before it is refused: renewed when it is due, and no harm done when that fails.

use std::time::{Duration, SystemTime};

use super::*;

/// Our token works, and expires in an hour.
fn expires_later() -> (Homeserver, Arc<Script>) {
    let (homeserver, script) = expired(SOFT);
    *script.valid.lock().unwrap() = "access-1";
    let mut held = tokens(1);
    held.expires_at = Some(SystemTime::now() + Duration::from_secs(3600));
    homeserver.set_tokens(held, Some(Arc::new(Keeper(script.clone()))));
    (homeserver, script)
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_is_refused() {
    let (homeserver, script) = expires_later();
    ask(&homeserver).await.unwrap();
    tokio::time::advance(Duration::from_secs(3580)).await;
    *script.valid.lock().unwrap() = "access-2";
    script.renews_with(&[(200, &pair(2, r#","expires_in_ms":60000"#))]);
    let (one, other) = tokio::join!(ask(&homeserver), ask(&homeserver));
    one.unwrap();
    other.unwrap();
    let expected = [
        "ask with access-1",
        "renew with refresh-1",
        "keep access-2 refresh-2",
        "ask with access-2",
        "ask with access-2",
    ];
    assert_eq!(script.done(), expected);
    let expires_at = script.kept.lock().unwrap().clone().unwrap().expires_at.unwrap();
    assert!(expires_at > SystemTime::now() + Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn while_the_old_token_works_a_failed_renewal_costs_nothing() {
    for answer in [LOST, (502, ""), (401, HARD)] {
        let (homeserver, script) = expires_later();
        tokio::time::advance(Duration::from_secs(3580)).await;
        script.renews_with(&[answer]);
        for _ in 0..3 {
            ask(&homeserver).await.unwrap();
        }
        let expected = [
            "renew with refresh-1",
            "ask with access-1",
            "ask with access-1",
            "ask with access-1",
        ];
        assert_eq!(script.done(), expected, "and is not repeated with each request");
    }
    // Nor does a disk that is full.
    let (homeserver, script) = expires_later();
    *script.disk_fails.lock().unwrap() = true;
    tokio::time::advance(Duration::from_secs(3580)).await;
    script.renews_with(&[(200, &pair(2, ""))]);
    ask(&homeserver).await.unwrap();
    assert_eq!(script.done(), ["renew with refresh-1", "ask with access-1"]);
}
