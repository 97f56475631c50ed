//! Signatures of requests that the server sends, by Standard Webhooks: whoever gets one can tell
//! that it comes from here, that it is recent, and that nobody has changed it.

use aws_lc_rs::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use std::fmt;

/// Octets of a shared secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const SEED_BYTES: usize = 32;

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a secret begins with whsec_, a private key with whsk_")]
    Prefix,
    #[error("behind the prefix a key is in base64")]
    Base64,
    #[error("a secret has 24 to 64 octets")]
    SecretLength,
    #[error("a private key is the 32 octets of an Ed25519 key, perhaps with its public key behind")]
    PrivateKey,
}

/// What requests are signed with.
pub struct SigningKey(Kind);

enum Kind {
    Shared(Box<hmac::Key>),
    Private(Box<Ed25519KeyPair>),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Shared(_) => "whsec_…",
            Kind::Private(_) => "whsk_…",
        })
    }
}

impl SigningKey {
    /// Reads `whsec_` or `whsk_` and the key in base64.
    ///
    /// # Errors
    /// [`KeyError`]; its message does not hold the key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let decode = |it: &str| BASE64_STANDARD.decode(it).map_err(|_| KeyError::Base64);
        if let Some(secret) = text.strip_prefix("whsec_") {
            let secret = decode(secret)?;
            let fits = SECRET_BYTES.contains(&secret.len());
            let key = || Kind::Shared(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
            return fits.then(key).map(Self).ok_or(KeyError::SecretLength);
        }
        let private = decode(text.strip_prefix("whsk_").ok_or(KeyError::Prefix)?)?;
        let pair = match private.split_at_checked(SEED_BYTES) {
            Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
            Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
            None => return Err(KeyError::PrivateKey),
        };
        pair.map(|it| Self(Kind::Private(Box::new(it)))).map_err(|_| KeyError::PrivateKey)
    }

    /// For whoever checks signatures: `whpk_…` of a private key; a shared secret has none.
    pub fn public_key(&self) -> Option<String> {
        match &self.0 {
            Kind::Shared(_) => None,
            Kind::Private(it) => {
                Some(format!("whpk_{}", BASE64_STANDARD.encode(it.public_key().as_ref())))
            }
        }
    }

    fn sign(&self, content: &[u8]) -> String {
        match &self.0 {
            Kind::Shared(key) => {
                format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(key, content).as_ref()))
            }
            Kind::Private(pair) => {
                format!("v1a,{}", BASE64_STANDARD.encode(pair.sign(content).as_ref()))
            }
        }
    }
}

/// The value of `webhook-signature`: one signature for each key, so that keys can change while
/// requests are under way. `id` is the same at every try, `timestamp_s` is of this one.
pub fn sign(keys: &[SigningKey], id: &str, timestamp_s: u64, body: &[u8]) -> String {
    let mut content = format!("{id}.{timestamp_s}.").into_bytes();
    content.extend_from_slice(body);
    let signatures: Vec<String> = keys.iter().map(|it| it.sign(&content)).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = b"{\"test\": 2432232314}";
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn key(text: &str) -> SigningKey {
        SigningKey::parse(text).expect("a key")
    }

    fn private(octets: &[u8]) -> Result<SigningKey, KeyError> {
        SigningKey::parse(&format!("whsk_{}", BASE64_STANDARD.encode(octets)))
    }

    /// The vector that Standard Webhooks publishes.
    #[test]
    fn the_published_vector_is_signed_alike() {
        assert_eq!(sign(&[key(SECRET)], ID, 1_614_265_330, BODY), SIGNED);
    }

    #[test]
    fn everything_that_is_sent_is_signed() {
        let keys = [key(SECRET)];
        assert_ne!(sign(&keys, "msg_other", 1_614_265_330, BODY), SIGNED);
        assert_ne!(sign(&keys, ID, 1_614_265_331, BODY), SIGNED);
        assert_ne!(sign(&keys, ID, 1_614_265_330, b"{\"test\":2432232314}"), SIGNED);
    }

    #[test]
    fn a_private_key_signs_what_its_public_key_verifies() {
        let key = private(&[7; 32]).expect("a seed");
        let public = key.public_key().expect("it has one");
        let public = public.strip_prefix("whpk_").expect("its prefix");
        let public = BASE64_STANDARD.decode(public).expect("base64");
        let signature = sign(&[key], ID, 5, BODY);
        let signature = signature.strip_prefix("v1a,").expect("its version");
        let signature = BASE64_STANDARD.decode(signature).expect("base64");
        let mut content = format!("{ID}.5.").into_bytes();
        content.extend_from_slice(BODY);
        let verifier = UnparsedPublicKey::new(&ED25519, &public);
        assert_eq!(public.len(), 32);
        assert!(verifier.verify(&content, &signature).is_ok());
        assert!(verifier.verify(b"other", &signature).is_err());
        let pair = [&[7; 32][..], &public].concat();
        assert!(private(&pair).is_ok(), "a seed with its public key");
        assert_eq!(private(&[7; 64]).err(), Some(KeyError::PrivateKey), "with another's");
    }

    #[test]
    fn while_keys_change_both_sign() {
        let new = format!("whsec_{}", BASE64_STANDARD.encode([1; 24]));
        let both = sign(&[key(SECRET), key(&new)], ID, 1_614_265_330, BODY);
        let parts: Vec<&str> = both.split(' ').collect();
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0], SIGNED);
        assert!(parts[1].starts_with("v1,") && parts[1] != SIGNED);
    }

    #[test]
    fn bad_keys_are_refused_and_no_key_is_shown() {
        let secret = |bytes: usize| format!("whsec_{}", BASE64_STANDARD.encode(vec![1; bytes]));
        for (text, why) in [
            (secret(23), KeyError::SecretLength),
            (secret(65), KeyError::SecretLength),
            ("whsec_%".to_owned(), KeyError::Base64),
            ("secret".to_owned(), KeyError::Prefix),
            ("whpk_AAAA".to_owned(), KeyError::Prefix),
        ] {
            assert_eq!(SigningKey::parse(&text).err(), Some(why), "{text}");
        }
        assert!(SigningKey::parse(&secret(24)).is_ok() && SigningKey::parse(&secret(64)).is_ok());
        assert_eq!(private(&[7; 31]).err(), Some(KeyError::PrivateKey));
        assert_eq!(format!("{:?}", key(SECRET)), "whsec_…");
    }
}
