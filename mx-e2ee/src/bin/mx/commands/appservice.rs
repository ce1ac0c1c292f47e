//! `mx appservice`, and the registration that a login is given.

use std::path::Path;

use anyhow::{Result, bail};
use mx_e2ee::{Error, ruma::OwnedServerName, transport::AppServiceRegistration, write_private_file};
use serde_json::{Map, Value, json};
use yaml_rust2::{Yaml, YamlLoader};
use zeroize::Zeroizing;

use super::secret::text_of;
use crate::{
    cli::AppServiceCommand,
    output::{Output, clean},
};

pub(crate) fn run(command: &AppServiceCommand, output: Output) -> Result<()> {
    let AppServiceCommand::New {
        id,
        server,
        prefix,
        file,
        force,
    } = command;
    let server = OwnedServerName::try_from(server.as_str()).map_err(|_| Error::Configuration {
        what: format!("{} is not the name of a server: it is like example.org", clean(server)),
    })?;
    let registration = AppServiceRegistration::new(id, &server, prefix);
    // JSON is YAML, too.
    let mut text = Zeroizing::new(serde_json::to_vec_pretty(&registration)?);
    text.push(b'\n');
    write_private_file(file, &text, *force)?;
    let namespace = registration.namespaces.users.first().map(|users| users.regex.as_str());
    let json = json!({
        "id": registration.id,
        "sender_localpart": registration.sender_localpart,
        "users": namespace,
        "file": file,
    });
    output.show(&json, &file.display().to_string())?;
    output.note(&format!(
        "give it to the homeserver (Synapse: app_service_config_files), which is restarted then; after that:\nmx login \
         --appservice {} --user @{prefix}…:{server}",
        file.display()
    ));
    Ok(())
}

/// The token in the registration of an application service (YAML or JSON), or in a file that holds nothing else.
pub(super) fn token(file: &Path) -> Result<Zeroizing<String>> {
    let text = text_of(file)?;
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    if let (Some(line), None) = (lines.next(), lines.next())
        && !line.contains([':', '{', ' '])
    {
        return Ok(Zeroizing::new(line.trim().to_owned()));
    }
    match registration(&text) {
        // What is wrong with it could quote a token.
        Some(registration) => Ok(Zeroizing::new(registration.as_token()?.expose().to_owned())),
        None => bail!(Error::Configuration {
            what: format!(
                "{} is neither the registration of an application service nor a token alone",
                file.display()
            ),
        }),
    }
}

fn registration(text: &str) -> Option<AppServiceRegistration> {
    let documents = YamlLoader::load_from_str(text).ok()?;
    let [document] = documents.as_slice() else {
        return None;
    };
    serde_json::from_value(json_of(document, DEPTH)?).ok()
}

/// Nothing in a registration is nested deeper.
const DEPTH: usize = 16;

/// The same in JSON. `None`: there is something in it that a registration does not hold.
fn json_of(yaml: &Yaml, depth: usize) -> Option<Value> {
    let deeper = depth.checked_sub(1)?;
    Some(match yaml {
        Yaml::String(text) => json!(text),
        Yaml::Integer(number) => json!(number),
        Yaml::Boolean(is) => json!(is),
        Yaml::Null => Value::Null,
        Yaml::Array(items) => Value::Array(items.iter().map(|item| json_of(item, deeper)).collect::<Option<_>>()?),
        Yaml::Hash(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| Some((name.as_str()?.to_owned(), json_of(value, deeper)?)));
            Value::Object(fields.collect::<Option<Map<_, _>>>()?)
        }
        Yaml::Real(_) | Yaml::Alias(_) | Yaml::BadValue => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATORS: &str = "\
# a comment
id: bots
url: null
as_token: \"wfghWEGh3wgWHEf3478sHFWE\"
hs_token: 'ugw8243igya57aaABGFfgeyu'
sender_localpart: _bots
namespaces:
  users:
    - exclusive: true
      regex: '@bot_.*'
  aliases: []
rate_limited: false
";

    fn of(text: &str) -> Result<String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("registration.yaml");
        std::fs::write(&file, text).unwrap();
        Ok(token(&file)?.to_string())
    }

    #[test]
    fn the_token_is_found_as_operators_write_it() {
        assert_eq!(of(OPERATORS).unwrap(), "wfghWEGh3wgWHEf3478sHFWE");
        assert_eq!(of("just-a-token\n").unwrap(), "just-a-token");
        let server = OwnedServerName::try_from("example.org").unwrap();
        let made = AppServiceRegistration::new("bots", &server, "bot_");
        let json = serde_json::to_string_pretty(&made).unwrap();
        assert_eq!(of(&json).unwrap(), made.as_token().unwrap().expose());
    }

    #[test]
    fn what_is_none_is_refused_and_not_quoted() {
        let deep = format!("as_token: {}secret-7{}", "[".repeat(500), "]".repeat(500));
        for text in [
            "",
            "as_token: secret-7",
            "as_token: secret-7\nhs_token: [",
            "as_token: &a secret-7\nhs_token: *a\n",
            "two secret-7\nlines\n",
            &deep,
            &format!("{OPERATORS}---\n{OPERATORS}"),
            &OPERATORS.replace("\"wfghWEGh3wgWHEf3478sHFWE\"", "secret-7.5e1\n1: 2"),
        ] {
            let error = format!("{:#}", of(text).unwrap_err());
            assert!(!error.contains("secret-7"), "{error}");
        }
    }
}
