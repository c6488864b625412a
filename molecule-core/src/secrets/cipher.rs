//! How secrets are kept: AES-256-GCM, a random nonce of 12 bytes before what it encrypts, and the id of the key beside it.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Nonce},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::{
    clock::Entropy,
    error::{Error, ErrorKind, Result},
    store::pool::row,
};

/// How a value is kept where there is no key.
const PLAIN: i32 = 0;

/// How a value is kept where there is one: nonce, then ciphertext with its tag, and no associated data.
const AES_256_GCM: i32 = 1;

const NONCE_LENGTH: usize = 12;

row! {
    /// A value as it is kept.
    #[derive(Clone, PartialEq, Eq)]
    pub struct Sealed {
        /// The bytes.
        pub encrypted_value: Vec<u8>,
        /// What they are: 0 the value itself, 1 the value encrypted.
        pub encryption_version: i32,
        /// Which key they need; one that is not named may be any.
        pub key_id: Option<String>,
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { encrypted_value, encryption_version, key_id } = self;
        // Version 0 is the secret itself.
        write!(f, "Sealed({} bytes, version {encryption_version}, key {key_id:?})", encrypted_value.len())
    }
}

#[derive(Clone)]
struct Key {
    id: String,
    cipher: Aes256Gcm,
}

/// Seals values with the current key, and opens them with it or with an older one.
///
/// Without any key values are kept as they are.
#[derive(Clone, Default)]
pub struct Cipher {
    /// The current one first.
    keys: Vec<Key>,
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl Cipher {
    /// Seals with `current`; opens with it and with each of `older`, so that keys can be replaced one after the other.
    ///
    /// A key is 32 bytes, in base64 or as they are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a text that is neither; it is not repeated.
    pub fn new(current: &SecretString, older: &[SecretString]) -> Result<Self> {
        let keys =
            std::iter::once(current).chain(older).map(|text| parse(text.expose_secret())).collect::<Result<_>>()?;
        Ok(Self { keys })
    }

    /// The id of the key that values are sealed with: the first 8 hexadecimal digits of its SHA-256. `None` without one.
    pub fn key_id(&self) -> Option<&str> {
        self.keys.first().map(|key| key.id.as_str())
    }

    /// Brings `value` into the form in which it is kept.
    ///
    /// # Errors
    /// [`ErrorKind::Unexpected`] where the value is too long for the cipher (64 GiB).
    pub fn seal(&self, value: &SecretString, entropy: &dyn Entropy) -> Result<Sealed> {
        let value = value.expose_secret().as_bytes();
        let Some(key) = self.keys.first() else {
            return Ok(Sealed { encrypted_value: value.to_vec(), encryption_version: PLAIN, key_id: None });
        };
        let mut nonce = [0; NONCE_LENGTH];
        entropy.fill(&mut nonce);
        let sealed = key.cipher.encrypt(&Nonce::<Aes256Gcm>::from(nonce), value).map_err(|_| {
            Error::new(ErrorKind::Unexpected, format!("a value cannot be encrypted with the key {}", key.id))
        })?;
        Ok(Sealed {
            encrypted_value: [&nonce[..], &sealed].concat(),
            encryption_version: AES_256_GCM,
            key_id: Some(key.id.clone()),
        })
    }

    /// The value that was sealed.
    ///
    /// # Errors
    /// [`ErrorKind::Unexpected`] where its key is missing or wrong, or its bytes are not those that were kept. The
    /// message names the key.
    pub fn open(&self, sealed: &Sealed) -> Result<SecretString> {
        let refuse = |message: String| Err(Error::new(ErrorKind::Unexpected, message).during("decrypt"));
        let bytes = match sealed.encryption_version {
            PLAIN => sealed.encrypted_value.clone(),
            AES_256_GCM => {
                let named = |key: &&Key| sealed.key_id.as_ref().is_none_or(|id| *id == key.id);
                let mut keys = self.keys.iter().filter(named).peekable();
                let id = sealed.key_id.as_deref().unwrap_or("of no name");
                if keys.peek().is_none() {
                    return refuse(format!("the value needs the key {id}, and this server does not have it"));
                }
                let Some(bytes) = keys.find_map(|key| decrypt(&key.cipher, &sealed.encrypted_value)) else {
                    return refuse(format!("the value does not decrypt with the key {id}: it was changed or cut off"));
                };
                bytes
            }
            other => return refuse(format!("the value has the unknown encryption version {other}")),
        };
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text.into()),
            Err(_) => refuse("the value is no text".to_owned()),
        }
    }
}

fn decrypt(cipher: &Aes256Gcm, kept: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = kept.split_first_chunk::<NONCE_LENGTH>()?;
    cipher.decrypt(&Nonce::<Aes256Gcm>::from(*nonce), sealed).ok()
}

/// Base64 of 32 bytes comes first: 32 characters may be either, and as base64 they are too short.
fn parse(text: &str) -> Result<Key> {
    let text = text.trim();
    let decoded = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let bytes = decoded.or_else(|| text.as_bytes().try_into().ok()).ok_or_else(|| {
        Error::invalid("a key for secrets must be 32 bytes, as they are or in base64 (openssl rand -base64 32)")
    })?;
    let id = Sha256::digest(bytes)[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Key { id, cipher: Aes256Gcm::new(&bytes.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    const ONE: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const TWO: &str = "another key of thirty-two bytes!";

    fn cipher(current: &str, older: &[&str]) -> Cipher {
        let older: Vec<SecretString> = older.iter().map(|key| SecretString::from(*key)).collect();
        Cipher::new(&current.into(), &older).unwrap()
    }

    fn seal(cipher: &Cipher, value: &str) -> Sealed {
        cipher.seal(&value.into(), &SystemEntropy).unwrap()
    }

    fn open(cipher: &Cipher, sealed: &Sealed) -> Result<String> {
        cipher.open(sealed).map(|value| value.expose_secret().to_owned())
    }

    #[test]
    fn opens_what_it_sealed_and_never_seals_alike() {
        let cipher = cipher(ONE, &[]);
        for value in ["x", "", "näme\n", &"long".repeat(10_000)] {
            let (one, two) = (seal(&cipher, value), seal(&cipher, value));
            assert_ne!(one.encrypted_value, two.encrypted_value);
            assert_eq!((one.encryption_version, one.encrypted_value.len()), (1, 12 + value.len() + 16));
            assert_eq!(open(&cipher, &one).unwrap(), value);
        }
    }

    #[test]
    fn a_key_is_32_bytes_in_base64_or_as_they_are() {
        // Of 32 characters that are base64 as well, the characters are the key.
        for good in [ONE, TWO, "abcdefghijklmnopqrstuvwxyz012345", &format!(" {ONE}\n")] {
            assert!(Cipher::new(&good.into(), &[]).is_ok(), "{good}");
        }
        assert_eq!(cipher(ONE, &[]).key_id(), cipher("0123456789abcdef0123456789abcdef", &[]).key_id());
        for bad in ["", "short", "MDEyMzQ1Njc4OWFiY2RlZg==", &"x".repeat(33)] {
            let error = Cipher::new(&bad.into(), &[]).unwrap_err();
            assert!(error.message().starts_with("a key for secrets must be 32 bytes"), "{bad}");
        }
        assert!(Cipher::new(&ONE.into(), &["short".into()]).is_err());
    }

    #[test]
    fn keys_can_be_replaced() {
        let before = cipher(ONE, &[]);
        let kept = seal(&before, "v");
        let between = cipher(TWO, &[ONE]);
        assert_eq!(open(&between, &kept).unwrap(), "v");
        let renewed = seal(&between, "v");
        assert_eq!(renewed.key_id.as_deref(), between.key_id());
        let after = cipher(TWO, &[]);
        assert_eq!(open(&after, &renewed).unwrap(), "v");
        let error = open(&after, &kept).unwrap_err();
        let id = before.key_id().unwrap();
        assert_eq!(error.message(), format!("the value needs the key {id}, and this server does not have it"));
        let unnamed = Sealed { key_id: None, ..kept };
        assert_eq!(open(&between, &unnamed).unwrap(), "v");
    }

    #[test]
    fn without_a_key_values_stay_as_they_are_and_none_is_opened() {
        let none = Cipher::default();
        let plain = seal(&none, "v");
        assert_eq!((plain.encrypted_value.as_slice(), plain.encryption_version, &plain.key_id), (&b"v"[..], 0, &None));
        assert_eq!(open(&none, &plain).unwrap(), "v");
        assert_eq!(open(&cipher(ONE, &[]), &plain).unwrap(), "v");
        let error = open(&none, &seal(&cipher(ONE, &[]), "v")).unwrap_err();
        assert!(error.message().ends_with("and this server does not have it"), "{error}");
    }

    #[test]
    fn says_what_is_wrong_with_a_value_and_never_what_it_holds() {
        let cipher = cipher(ONE, &[]);
        let good = seal(&cipher, "hunter2");
        let id = cipher.key_id().unwrap();
        let changed = format!("the value does not decrypt with the key {id}: it was changed or cut off");
        let mut flipped = good.clone();
        flipped.encrypted_value[20] ^= 1;
        let cut = Sealed { encrypted_value: good.encrypted_value[..11].to_vec(), ..good.clone() };
        let renamed = Sealed { key_id: Some("cafe0000".to_owned()), ..good.clone() };
        let newer = Sealed { encryption_version: 7, ..good };
        let binary = Sealed { encrypted_value: vec![0xff], encryption_version: 0, key_id: None };
        for (sealed, expected) in [
            (flipped, changed.as_str()),
            (cut, changed.as_str()),
            (renamed, "the value needs the key cafe0000, and this server does not have it"),
            (newer, "the value has the unknown encryption version 7"),
            (binary, "the value is no text"),
        ] {
            let error = open(&cipher, &sealed).unwrap_err();
            assert_eq!(error.message(), expected);
        }
        assert!(!format!("{:?} {cipher:?}", seal(&Cipher::default(), "hunter2")).contains("hunter2"));
    }
}
