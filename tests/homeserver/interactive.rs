//! User-interactive authentication: requests that are answered with questions first.
//!
//! As in the client-server API, and as Synapse does where that leaves room: what was asked once is asked until the
//! dialogue is done, a stage that was done stays done, and a wrong answer is a 401 with an error and the same questions.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::{
    Homeserver, lock,
    reply::Refusal,
    state::{Session, State},
};

/// What is asked, and how far each dialogue is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interactive {
    /// Lists of stages, of which one has to be done. `None`: by password, and other cross-signing keys than the first ones
    /// are taken from anybody.
    flows: Option<Vec<Vec<String>>>,
    registration_token: Option<String>,
    dialogues: BTreeMap<String, Dialogue>,
}

#[derive(Clone, Debug, Default)]
struct Dialogue {
    user: String,
    done: Vec<String>,
    /// What a person did in a browser, and the client has not acknowledged.
    elsewhere: BTreeSet<String>,
}

impl State {
    /// Whether a request that carries `auth` may be done: `user` has shown who it is.
    pub(crate) fn authenticated(&mut self, session: &Session, auth: &Value) -> Result<(), Refusal> {
        let flows = self
            .interactive
            .flows
            .clone()
            .unwrap_or_else(|| vec![vec!["m.login.password".to_owned()]]);
        let known = auth["session"].as_str().unwrap_or_default().to_owned();
        let open = self.interactive.dialogues.get(&known);
        let (id, mut dialogue) = match open.filter(|dialogue| dialogue.user == session.user) {
            Some(dialogue) => (known, dialogue.clone()),
            None => (self.name("dialogue-"), Dialogue::default()),
        };
        dialogue.user.clone_from(&session.user);
        let wrong = self.judge(session, auth, &mut dialogue).err();
        if flows
            .iter()
            .any(|flow| flow.iter().all(|stage| dialogue.done.contains(stage)))
        {
            self.interactive.dialogues.remove(&id);
            return Ok(());
        }
        let flows: Vec<Value> = flows.iter().map(|stages| json!({"stages": stages})).collect();
        let mut body = json!({"session": id, "flows": flows, "params": self.params(), "completed": dialogue.done});
        if let Some(error) = wrong {
            body["errcode"] = "M_FORBIDDEN".into();
            body["error"] = error.into();
        }
        self.interactive.dialogues.insert(id, dialogue);
        Err(Refusal { status: 401, body })
    }

    /// Other cross-signing keys than the ones that are there are taken from somebody who has shown who it is.
    pub(crate) fn may_replace_identity(&mut self, session: &Session, body: &Value) -> Result<(), Refusal> {
        let held = self
            .users
            .get(&session.user)
            .and_then(|user| user.cross_signing.get("master_key"));
        let other =
            held.is_some_and(|held| body["master_key"].is_object() && body["master_key"]["keys"] != held["keys"]);
        if self.interactive.flows.is_none() || !other {
            return Ok(());
        }
        self.authenticated(session, &body["auth"])
    }

    fn params(&self) -> Value {
        json!({
            "m.login.terms": {"policies": {"privacy": {"version": "1", "en": {"name": "Privacy", "url": "https://localhost/privacy"}}}},
            "m.oauth": {"url": "https://localhost/account?action=org.matrix.cross_signing_reset"},
        })
    }

    /// Take an answer to a stage.
    fn judge(&self, session: &Session, auth: &Value, dialogue: &mut Dialogue) -> Result<(), String> {
        let Some(stage) = auth["type"].as_str() else {
            // What was done in a browser is acknowledged without a type, or not at all.
            dialogue.done.extend(std::mem::take(&mut dialogue.elsewhere));
            return Ok(());
        };
        let right = match stage {
            "m.login.password" => {
                let user = self.users.get(&session.user);
                let name = auth["identifier"]["user"].as_str().unwrap_or_default();
                self.user_id(name) == session.user
                    && user.is_some_and(|user| auth["password"].as_str() == Some(&user.password))
            }
            "m.login.registration_token" => auth["token"].as_str() == self.interactive.registration_token.as_deref(),
            "m.login.dummy" | "m.login.terms" => true,
            other => dialogue.elsewhere.remove(other),
        };
        if !right {
            return Err(format!("Invalid answer to {stage}"));
        }
        if !dialogue.done.iter().any(|done| done == stage) {
            dialogue.done.push(stage.to_owned());
        }
        Ok(())
    }
}

impl Homeserver {
    /// From now on, requests that ask who is there want one of these lists of stages: to delete a device, and to replace
    /// cross-signing keys. `m.login.registration_token` wants the token `"registration"`.
    ///
    /// ```
    /// let server = mx_test_homeserver::Homeserver::new();
    /// // A password, or two stages one after the other.
    /// server.ask_for(&[&["m.login.password"], &["m.login.terms", "m.login.sso"]]);
    /// server.do_in_browser("m.login.sso");
    /// ```
    pub fn ask_for(&self, flows: &[&[&str]]) {
        let mut state = lock(&self.0.state);
        let owned = |flow: &&[&str]| flow.iter().map(|stage| (*stage).to_owned()).collect();
        state.interactive.flows = Some(flows.iter().map(owned).collect());
        state.interactive.registration_token = Some("registration".to_owned());
    }

    /// A person does this stage in a browser, in every dialogue that is open.
    pub fn do_in_browser(&self, stage: &str) {
        for dialogue in lock(&self.0.state).interactive.dialogues.values_mut() {
            dialogue.elsewhere.insert(stage.to_owned());
        }
    }
}
