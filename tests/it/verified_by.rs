//! Who has verified us, as far as this device can know.

use crate::{
    identity::reset,
    verification::{Way, confirm_both, ready},
    verification_cast::two,
};

#[tokio::test]
async fn who_verified_us_counts_for_the_identity_that_they_saw() {
    let two = two().await;
    let (asked, answered) = ready(&two, &two.alice, &two.bob, Way::ToDevice).await;
    two.alice.client.orchestrator().start_sas(&asked).await.unwrap();
    two.settle().await;
    two.bob
        .client
        .orchestrator()
        .confirm_verification(&answered)
        .await
        .unwrap();
    two.settle().await;
    let one_sided = two.alice.client.identity_status().await.unwrap();
    assert!(one_sided.verified_by.is_empty() && one_sided.verified_users.is_empty());
    two.alice
        .client
        .orchestrator()
        .cancel_verification(&asked)
        .await
        .unwrap();
    two.settle().await;
    assert!(two.alice.client.identity_status().await.unwrap().verified_by.is_empty());

    let (asked, answered) = ready(&two, &two.bob, &two.alice, Way::ToDevice).await;
    two.bob.client.orchestrator().start_sas(&asked).await.unwrap();
    two.settle().await;
    confirm_both(&two, (&two.bob, &asked), (&two.alice, &answered)).await;
    let status = two.alice.client.identity_status().await.unwrap();
    assert_eq!(status.verified_by[0].user_id, *two.bob.client.user_id());
    // Another identity of ours is nobody's yet; another one of his is not verified any more.
    reset(&two.alice.client).await;
    two.settle().await;
    assert!(two.alice.client.identity_status().await.unwrap().verified_by.is_empty());
    let bobs = two.bob.client.identity_status().await.unwrap();
    assert_eq!(bobs.changed_users, [two.alice.client.user_id().to_owned()].into());
    assert!(bobs.verified_users.is_empty());
}
