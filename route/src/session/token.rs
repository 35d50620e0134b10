//! Session tokens: sealed statements "this client was answered by that pod of that Service", which only the
//! mesh can make or read.
//!
//! ```text
//! version (1) | key id (1) | nonce (12) | sealed: backend UID (16), pod UID (16), issued (4) | tag (16)
//! ```
//!
//! 66 bytes, 88 characters of base64url without padding. AES-256-GCM-SIV (RFC 8452): many proxies seal with
//! one key and random nonces, and should two ever be equal, nothing but that is given away. Version, key id
//! and scope are bound as additional data. A pod's UID and never an address: addresses are used again.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey},
    hmac,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::SessionError;
use crate::name::Uid;

const VERSION: u8 = 1;

const HEADER: usize = 2;
const NONCE: usize = 12;
const PAYLOAD: usize = 16 + 16 + 4;
const TAG: usize = 16;
const SEALED: usize = HEADER + NONCE + PAYLOAD + TAG;
/// The length of a token's text, in bytes.
pub const TOKEN_LENGTH: usize = SEALED / 3 * 4;

/// Who answered a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    /// The Service or XBackend.
    pub backend: Uid,
    /// The pod.
    pub pod: Uid,
}

/// What an opened token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Who answered.
    pub placement: Placement,
    /// When the session began, in whole seconds.
    pub issued: SystemTime,
    /// Which key had sealed it.
    pub key: u8,
}

/// Why a text is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Not a token at all, or one of another version.
    Malformed,
    /// Sealed for another scope, with a key that isn't ours (any more), or forged: nobody can tell which.
    Foreign,
    /// Ours, but its time is over.
    Expired,
}

/// A token as it travels. Whoever has it can claim the session: `Debug` doesn't show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token([u8; TOKEN_LENGTH]);

/// The keys of one scope.
pub struct Keyring {
    scope: Box<str>,
    /// The first seals, all open.
    keys: Box<[Key]>,
}

struct Key {
    id: u8,
    key: LessSafeKey,
    /// What tokens of this key are bound to.
    additional: Box<[u8]>,
}

/// The key of one scope, derived from the installation's secret: HKDF-SHA256 (RFC 5869) with the scope as
/// info, so that a proxy which has the keys of the routes it serves can make no token for another.
pub fn derive(master: &[u8], scope: &str) -> [u8; 32] {
    // One block of output is all that is needed: extract, and expand once.
    let extracted = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"gamut session key v1"), master);
    let expanded = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, extracted.as_ref()),
        &[scope.as_bytes(), &[1]].concat(),
    );
    let mut key = [0; 32];
    key.copy_from_slice(expanded.as_ref());
    key
}

impl Keyring {
    /// The keys of a scope, by id, derived for it already. The first seals, all open.
    pub fn new(scope: &str, keys: &[(u8, [u8; 32])]) -> Result<Self, SessionError> {
        if keys.is_empty() {
            return Err(SessionError::NoKeys { scope: scope.to_owned() });
        }
        let keys = keys.iter().map(|(id, key)| {
            let key = UnboundKey::new(&AES_256_GCM_SIV, key).map_err(|_| SessionError::Cryptography)?;
            let additional = [&[VERSION, *id], scope.as_bytes()].concat().into();
            Ok(Key { id: *id, key: LessSafeKey::new(key), additional })
        });
        Ok(Self { scope: scope.into(), keys: keys.collect::<Result<_, SessionError>>()? })
    }

    /// A token that says so, issued now. Fails only if the cryptographic library does.
    pub fn seal(&self, placement: &Placement, now: SystemTime) -> Result<Token, SessionError> {
        let Some(key) = self.keys.first() else {
            return Err(SessionError::NoKeys { scope: self.scope.to_string() });
        };
        let mut nonce = [0; NONCE];
        // To differ is all that it is for: the thread's generator, which the system has seeded, is much faster.
        rand::fill(&mut nonce);

        let mut bytes = [0; SEALED];
        let (header, rest) = bytes.split_at_mut(HEADER);
        let (nonce_part, rest) = rest.split_at_mut(NONCE);
        let (payload, tag_part) = rest.split_at_mut(PAYLOAD);
        header.copy_from_slice(&[VERSION, key.id]);
        nonce_part.copy_from_slice(&nonce);
        write_payload(payload, placement, now);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(&key.additional), payload)
            .map_err(|_| SessionError::Cryptography)?;
        tag_part.copy_from_slice(tag.as_ref());

        let mut text = [0; TOKEN_LENGTH];
        match URL_SAFE_NO_PAD.encode_slice(bytes, &mut text) {
            Ok(TOKEN_LENGTH) => Ok(Token(text)),
            _ => Err(SessionError::Cryptography),
        }
    }

    /// Opens a text. With an absolute timeout, a token is good until that long after it was issued.
    pub fn open(
        &self,
        text: &[u8],
        now: SystemTime,
        absolute_timeout: Option<Duration>,
    ) -> Result<Opened, Unusable> {
        let mut bytes = [0; SEALED];
        if text.len() != TOKEN_LENGTH || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(SEALED) {
            return Err(Unusable::Malformed);
        }
        let [VERSION, id, ..] = bytes else { return Err(Unusable::Malformed) };
        // Ids are reused after 256 rotations, and two keys may share one for a while.
        let opened = self.keys.iter().filter(|key| key.id == id).find_map(|key| key.open(bytes));
        let (placement, issued) = opened.ok_or(Unusable::Foreign)?;
        // A clock behind the one that issued it sees a token from the future: its age is none.
        let age = Duration::from_secs(seconds(now).saturating_sub(issued.into()));
        if absolute_timeout.is_some_and(|timeout| age >= timeout) {
            return Err(Unusable::Expired);
        }
        let issued = UNIX_EPOCH + Duration::from_secs(issued.into());
        Ok(Opened { placement, issued, key: id })
    }
}

impl Key {
    fn open(&self, mut bytes: [u8; SEALED]) -> Option<(Placement, u32)> {
        let (head, sealed) = bytes.split_at_mut(HEADER + NONCE);
        let nonce = Nonce::try_assume_unique_for_key(head.get(HEADER..)?).ok()?;
        let payload = self.key.open_in_place(nonce, Aad::from(&self.additional), sealed).ok()?;
        let (backend, rest) = payload.split_first_chunk()?;
        let (pod, rest) = rest.split_first_chunk()?;
        let (issued, []) = rest.split_first_chunk()? else { return None };
        Some((Placement { backend: Uid(*backend), pod: Uid(*pod) }, u32::from_be_bytes(*issued)))
    }
}

fn write_payload(payload: &mut [u8], placement: &Placement, now: SystemTime) {
    // Seconds fit 32 bits until 2106.
    let issued = u32::try_from(seconds(now)).unwrap_or(u32::MAX).to_be_bytes();
    let parts = placement.backend.0.iter().chain(&placement.pod.0).chain(&issued);
    payload.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
}

pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Token {
    /// The text that travels: letters, digits, `-` and `_`.
    pub fn as_str(&self) -> &str {
        // It is what the encoder wrote: ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Unusable {
    /// The outcome's name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Foreign => "foreign",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u8> = self.keys.iter().map(|key| key.id).collect();
        f.debug_struct("Keyring").field("scope", &self.scope).field("key_ids", &ids).finish_non_exhaustive()
    }
}
