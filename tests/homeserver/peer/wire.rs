//! Olm and Megolm messages taken apart to bytes, and put together again with anything in them.

use serde_json::{Value, json};
use vodozemac::{base64_decode, base64_encode};

const VERSION: u8 = 3;
const OLM_MAC_BYTES: usize = 8;
const MEGOLM_MAC_BYTES: usize = 8;
const SIGNATURE_BYTES: usize = 64;

/// Flip one bit of what a text in base64 stands for, counted from 0; beyond its end, nothing changes.
///
/// ```
/// use mx_test_homeserver::peer::flip_bit;
///
/// assert_eq!(flip_bit("AAAA", 0), "AQAA");
/// assert_eq!(flip_bit(&flip_bit("AAAA", 13), 13), "AAAA");
/// ```
#[must_use]
pub fn flip_bit(base64: &str, bit: usize) -> String {
    let mut bytes = base64_decode(base64).unwrap_or_default();
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
    base64_encode(bytes)
}

/// What an `m.room.encrypted` event of Olm holds for one recipient.
///
/// ```
/// use mx_test_homeserver::peer::OlmBody;
///
/// let mut content = serde_json::json!({"ciphertext": {"their key": {"type": 0, "body": "AwoA"}}});
/// let Some(mut body) = OlmBody::of(&content, "their key") else { unreachable!() };
/// // A pre-key message that says to be a normal one.
/// body.message_type = 1;
/// body.put(&mut content, "their key");
/// assert_eq!(content["ciphertext"]["their key"]["type"], 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OlmBody {
    /// 0: a pre-key message, 1: a normal one.
    pub message_type: u64,
    /// The message, to be sent in base64.
    pub bytes: Vec<u8>,
}

impl OlmBody {
    /// What `content` holds for the device with this Curve25519 key.
    #[must_use]
    pub fn of(content: &Value, recipient: &str) -> Option<Self> {
        let body = &content["ciphertext"][recipient];
        Some(Self {
            message_type: body["type"].as_u64()?,
            bytes: base64_decode(body["body"].as_str()?).ok()?,
        })
    }

    /// Put it into `content` for the device with this Curve25519 key.
    pub fn put(&self, content: &mut Value, recipient: &str) {
        content["ciphertext"][recipient] = json!({"type": self.message_type, "body": base64_encode(&self.bytes)});
    }
}

/// A pre-key message. The keys have 32 bytes where nobody tampered.
///
/// ```
/// use mx_test_homeserver::peer::PreKeyParts;
///
/// let parts = PreKeyParts { one_time_key: vec![1; 32], base_key: vec![2; 32], identity_key: vec![3; 32], message: vec![4; 50] };
/// let cut = PreKeyParts { base_key: vec![2; 31], ..parts.clone() };
/// assert_eq!(PreKeyParts::parse(&parts.to_bytes()), Some(parts));
/// assert_eq!(PreKeyParts::parse(&cut.to_bytes()), Some(cut), "nothing is checked here: that is for who receives it");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreKeyParts {
    /// The recipient's one-time key that was used.
    pub one_time_key: Vec<u8>,
    /// The sender's ephemeral key.
    pub base_key: Vec<u8>,
    /// The sender's identity key.
    pub identity_key: Vec<u8>,
    /// A normal message inside.
    pub message: Vec<u8>,
}

impl PreKeyParts {
    /// Take a pre-key message apart.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let fields = Fields::parse(bytes)?;
        Some(Self {
            one_time_key: fields.bytes(0x0a)?,
            base_key: fields.bytes(0x12)?,
            identity_key: fields.bytes(0x1a)?,
            message: fields.bytes(0x22)?,
        })
    }

    /// Put it together.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for (tag, bytes) in [
            (0x0a, &self.one_time_key),
            (0x12, &self.base_key),
            (0x1a, &self.identity_key),
            (0x22, &self.message),
        ] {
            put_bytes(&mut out, tag, bytes);
        }
        out
    }
}

/// A normal Olm message.
///
/// ```
/// use mx_test_homeserver::peer::MessageParts;
///
/// let parts = MessageParts { ratchet_key: vec![1; 32], chain_index: 0, ciphertext: vec![2; 16], mac: vec![3; 8] };
/// // So far ahead that whoever follows it makes millions of keys.
/// let far = MessageParts { chain_index: u64::from(u32::MAX), ..parts };
/// assert_eq!(MessageParts::parse(&far.to_bytes()), Some(far));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageParts {
    /// The sender's current ratchet key.
    pub ratchet_key: Vec<u8>,
    /// The message's place in the chain.
    pub chain_index: u64,
    /// What was encrypted.
    pub ciphertext: Vec<u8>,
    /// 8 bytes.
    pub mac: Vec<u8>,
}

impl MessageParts {
    /// Take a normal message apart.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (message, mac) = bytes.split_at_checked(bytes.len().checked_sub(OLM_MAC_BYTES)?)?;
        let fields = Fields::parse(message)?;
        Some(Self {
            ratchet_key: fields.bytes(0x0a)?,
            chain_index: fields.number(0x10)?,
            ciphertext: fields.bytes(0x22)?,
            mac: mac.to_vec(),
        })
    }

    /// Put it together. The MAC is not made anew.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_bytes(&mut out, 0x0a, &self.ratchet_key);
        out.push(0x10);
        put_number(&mut out, self.chain_index);
        put_bytes(&mut out, 0x22, &self.ciphertext);
        out.extend(&self.mac);
        out
    }
}

/// A Megolm message.
///
/// ```
/// use mx_test_homeserver::peer::MegolmParts;
///
/// let parts = MegolmParts { index: 7, ciphertext: vec![1; 16], mac: vec![2; 8], signature: vec![3; 64] };
/// // The same message, said to be another one: its signature does not fit any more.
/// let moved = MegolmParts { index: 8, ..parts.clone() };
/// assert_ne!(moved.to_base64(), parts.to_base64());
/// assert_eq!(MegolmParts::parse(&moved.to_base64()), Some(moved));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MegolmParts {
    /// The message's place in the session.
    pub index: u64,
    /// What was encrypted.
    pub ciphertext: Vec<u8>,
    /// 8 bytes.
    pub mac: Vec<u8>,
    /// 64 bytes.
    pub signature: Vec<u8>,
}

impl MegolmParts {
    /// Take a message apart, as it stands in base64 in an event.
    #[must_use]
    pub fn parse(base64: &str) -> Option<Self> {
        let bytes = base64_decode(base64).ok()?;
        let (message, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE_BYTES)?)?;
        let (message, mac) = message.split_at_checked(message.len().checked_sub(MEGOLM_MAC_BYTES)?)?;
        let fields = Fields::parse(message)?;
        Some(Self {
            index: fields.number(0x08)?,
            ciphertext: fields.bytes(0x12)?,
            mac: mac.to_vec(),
            signature: signature.to_vec(),
        })
    }

    /// Put it together, in base64. Neither the MAC nor the signature is made anew.
    #[must_use]
    pub fn to_base64(&self) -> String {
        let mut out = vec![VERSION, 0x08];
        put_number(&mut out, self.index);
        put_bytes(&mut out, 0x12, &self.ciphertext);
        out.extend(&self.mac);
        out.extend(&self.signature);
        base64_encode(out)
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    put_number(out, bytes.len() as u64);
    out.extend(bytes);
}

/// The fields of a message, in the little of protocol buffers that Olm uses.
struct Fields(Vec<(u8, Field)>);

enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Fields {
    fn parse(message: &[u8]) -> Option<Self> {
        let (_version, mut rest) = message.split_first()?;
        let mut fields = Vec::new();
        while let Some((&tag, after)) = rest.split_first() {
            let (number, after) = number(after)?;
            let bytes = tag & 7 == 2;
            let (field, after) = if bytes {
                let (bytes, after) = after.split_at_checked(usize::try_from(number).ok()?)?;
                (Field::Bytes(bytes.to_vec()), after)
            } else {
                (Field::Number(number), after)
            };
            fields.push((tag, field));
            rest = after;
        }
        Some(Self(fields))
    }

    fn bytes(&self, wanted: u8) -> Option<Vec<u8>> {
        self.0.iter().find_map(|(tag, field)| match field {
            Field::Bytes(bytes) if *tag == wanted => Some(bytes.clone()),
            _ => None,
        })
    }

    fn number(&self, wanted: u8) -> Option<u64> {
        self.0.iter().find_map(|(tag, field)| match field {
            Field::Number(number) if *tag == wanted => Some(*number),
            _ => None,
        })
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (place, byte) in bytes.iter().enumerate().take(9) {
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(place + 1..)?));
        }
    }
    None
}
