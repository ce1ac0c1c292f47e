//! How the model says what is wrong.

use serde_json::Value;

use super::observe::Observation;

/// `Err`: the store is not what it should be.
pub(crate) type Checked<T = ()> = Result<T, String>;

/// It must hold.
pub(crate) fn that(holds: bool, what: &str) -> Checked {
    if holds {
        Ok(())
    } else {
        Err(format!("it does not hold that {what}"))
    }
}

/// A value in few words: bytes by their first ones.
fn short(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "nothing".to_owned(), |value| brief(value).to_string());
    match text.char_indices().nth(1_000) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

fn brief(value: &Value) -> Value {
    match value {
        Value::Array(values) if values.len() > 8 && values.iter().all(Value::is_number) => {
            let first: Vec<String> = values.iter().take(4).map(Value::to_string).collect();
            format!("{} and {} more", first.join(" "), values.len() - 4).into()
        }
        Value::Array(values) => values.iter().map(brief).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| (name.clone(), brief(field)))
            .collect(),
        other => other.clone(),
    }
}

/// The reads that differ, in words.
pub(crate) fn same(what: &str, expected: &Observation, found: &Observation) -> Checked {
    if expected == found {
        return Ok(());
    }
    let mut message = format!("{what}: reads differ");
    let keys = expected
        .keys()
        .chain(found.keys().filter(|key| !expected.contains_key(*key)));
    for key in keys.filter(|key| expected.get(*key) != found.get(*key)) {
        message += &format!(
            "\n  {key}\n    should be {}\n    is        {}",
            short(expected.get(key)),
            short(found.get(key))
        );
    }
    Err(message)
}
