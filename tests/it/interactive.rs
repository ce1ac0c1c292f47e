//! Requests that are answered with questions: the dialogue of a client with the homeserver of the tests.

use async_trait::async_trait;
use mx_e2ee::transport::{AccessToken, Answers, Asked, Challenge, Homeserver, InteractiveError, Unattended};
use ruma::{
    OwnedUserId,
    api::client::{
        device::delete_device::v3::Request as Delete,
        keys::upload_signing_keys::v3::Request as UploadSigningKeys,
        uiaa::{AuthData, AuthType, MatrixUserIdentifier, UserIdentifier},
    },
    serde::Raw,
};
use serde_json::json;

use crate::world::World;

fn alice_on(world: &World) -> (OwnedUserId, Homeserver) {
    let alice = world.register("alice", "password");
    let _old = world.token(&alice, "OLD");
    let homeserver = Homeserver::new("http://localhost", world.transport()).unwrap();
    homeserver.set_access_token(AccessToken::new(world.token(&alice, "DEVICE")).unwrap());
    (alice, homeserver)
}

fn by_password(password: &str) -> Unattended {
    let me = UserIdentifier::Matrix(MatrixUserIdentifier::new("alice".to_owned()));
    Unattended::new().password(me, password)
}

fn delete(auth: Option<AuthData>) -> Delete {
    let mut request = Delete::new("OLD".into());
    request.auth = auth;
    request
}

#[tokio::test]
async fn a_device_is_deleted_by_password_and_by_no_other() {
    let world = World::new();
    let (alice, homeserver) = alice_on(&world);
    let error = homeserver
        .authenticate(delete, &by_password("wrong"))
        .await
        .unwrap_err();
    world.examine(&error);
    assert_eq!(error.code(), "wrong_password");
    assert_eq!(world.devices_of(&alice), ["DEVICE", "OLD"]);
    homeserver.authenticate(delete, &by_password("password")).await.unwrap();
    assert_eq!(world.devices_of(&alice), ["DEVICE"]);
}

#[tokio::test]
async fn a_flow_of_several_stages_is_answered_stage_by_stage() {
    let world = World::new();
    let (alice, homeserver) = alice_on(&world);
    world.ask_for(&[
        &["m.login.recaptcha"],
        &["m.login.registration_token", "m.login.terms", "m.login.password"],
    ]);
    let answers = by_password("password").registration_token("registration");
    let error = homeserver.authenticate(delete, &answers).await.unwrap_err();
    assert_eq!(
        error.code(),
        "authentication_unanswerable",
        "nobody has accepted the terms"
    );
    homeserver.authenticate(delete, &answers.accept_terms()).await.unwrap();
    assert_eq!(world.devices_of(&alice), ["DEVICE"]);
}

/// A person before a browser.
#[derive(Debug)]
struct Person<'a> {
    world: &'a World,
    stage: AuthType,
}

#[async_trait]
impl Answers for Person<'_> {
    async fn answer(&self, challenge: &Challenge) -> Result<AuthData, InteractiveError> {
        assert!(challenge.page(&self.stage).is_some());
        // The first time the button is not found.
        if challenge.refusal().is_some() {
            self.world.do_in_browser(self.stage.as_str());
        }
        Ok(challenge.done_elsewhere(&self.stage).unwrap())
    }
}

#[tokio::test]
async fn what_is_done_in_a_browser_is_acknowledged_until_it_is_done() {
    for stage in [AuthType::Sso, AuthType::OAuth] {
        let world = World::new();
        let (alice, homeserver) = alice_on(&world);
        world.ask_for(&[&[stage.as_str()]]);
        let person = Person { world: &world, stage };
        homeserver.authenticate(delete, &person).await.unwrap();
        assert_eq!(world.devices_of(&alice), ["DEVICE"]);
    }
}

#[tokio::test]
async fn other_cross_signing_keys_are_asked_about_and_the_first_ones_are_not() {
    let world = World::new();
    let (alice, homeserver) = alice_on(&world);
    world.ask_for(&[&["m.login.password"]]);
    let keys = |name: &str| {
        let key = json!({"user_id": alice, "usage": ["master"], "keys": {format!("ed25519:{name}"): name}});
        move |auth| {
            let mut request = UploadSigningKeys::new();
            request.master_key = Some(Raw::from_json(serde_json::value::to_raw_value(&key).unwrap()));
            request.auth = auth;
            request
        }
    };
    assert!(matches!(homeserver.ask(keys("A")(None)).await.unwrap(), Asked::Done(_)));
    assert!(matches!(homeserver.ask(keys("A")(None)).await.unwrap(), Asked::Done(_)));
    assert!(matches!(
        homeserver.ask(keys("B")(None)).await.unwrap(),
        Asked::Challenged(_)
    ));
    homeserver
        .authenticate(keys("B"), &by_password("password"))
        .await
        .unwrap();
}
