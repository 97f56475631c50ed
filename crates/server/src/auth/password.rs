//! Passwords as they are kept: argon2id for ours, RabbitMQ's salted digests for imported ones.

use crate::{config::Secret, random};
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use aws_lc_rs::{constant_time, digest};
use broker::PasswordHash;
use node::PlainPassword;
use std::sync::LazyLock;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// What a hash from elsewhere may ask for: it must not be a way to fill the memory.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;
const SALT_BYTES: usize = 16;

/// Hashed in place of users who do not exist, so that they cost the same.
static NOBODY: LazyLock<PasswordHash> = LazyLock::new(|| hash(b"nobody"));

fn argon2id() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the numbers are in range");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// The password of the configuration.
pub(crate) struct Configured(pub(crate) Secret);

impl PlainPassword for Configured {
    fn hash(&self) -> PasswordHash {
        hash(self.0.expose().as_bytes())
    }

    fn fits(&self, record: &PasswordHash) -> bool {
        verify(record, self.0.expose().as_bytes())
    }
}

/// Hashes a new password with a random salt: 19 MiB, 2 passes, 1 lane.
pub fn hash(password: &[u8]) -> PasswordHash {
    let mut salt = [0; SALT_BYTES];
    random::fill(&mut salt);
    let salt = argon2::password_hash::SaltString::encode_b64(&salt).expect("16 octets are a salt");
    let hashed = argon2id().hash_password(password, &salt);
    PasswordHash::Argon2id(hashed.expect("password and salt are in range").to_string())
}

/// Whether the password is the one that was hashed. A no always costs one argon2id.
pub(super) fn verify(record: &PasswordHash, password: &[u8]) -> bool {
    let right = match record {
        _ if record.is_awaited() => false,
        PasswordHash::Argon2id(phc) => return verify_argon2id(phc, password),
        PasswordHash::Sha256 { salt, hash } => verify_salted(&digest::SHA256, salt, hash, password),
        PasswordHash::Sha512 { salt, hash } => verify_salted(&digest::SHA512, salt, hash, password),
        // An MD5 is worth nothing any more, and a user without password logs in otherwise.
        PasswordHash::None | PasswordHash::Md5 { .. } => false,
    };
    if !right && let PasswordHash::Argon2id(phc) = &*NOBODY {
        verify_argon2id(phc, password);
    }
    right
}

fn verify_argon2id(phc: &str, password: &[u8]) -> bool {
    let Ok(parsed) = argon2::PasswordHash::new(phc) else { return false };
    let Ok(params) = Params::try_from(&parsed) else { return false };
    params.m_cost() <= MEMORY_KIB_MAX
        && params.t_cost() <= PASSES_MAX
        && params.p_cost() <= LANES_MAX
        && argon2id().verify_password(password, &parsed).is_ok()
}

/// RabbitMQ hashes the salt, four octets, and the password in one go.
fn verify_salted(
    algorithm: &'static digest::Algorithm,
    salt: &[u8],
    hash: &[u8],
    password: &[u8],
) -> bool {
    let mut context = digest::Context::new(algorithm);
    context.update(salt);
    context.update(password);
    constant_time::verify_slices_are_equal(context.finish().as_ref(), hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, prelude::BASE64_STANDARD};

    #[test]
    fn a_hash_names_its_parameters_and_fits_its_password_only() {
        let record = hash(b"secret");
        let PasswordHash::Argon2id(phc) = &record else { panic!("not argon2id") };
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(verify(&record, b"secret"));
        assert!(!verify(&record, b"Secret"));
        assert!(!verify(&record, b""));
        assert_ne!(record, hash(b"secret"), "the salt is random");
    }

    #[test]
    fn no_password_fits_a_record_that_awaits_its_hash() {
        for password in [&b""[..], b"secret"] {
            assert!(!verify(&PasswordHash::awaited(), password));
        }
    }

    /// The hash that RabbitMQ's documentation gives for `test12`, with the salt 908D C60A.
    #[test]
    fn rabbitmqs_salted_sha256_is_accepted() {
        let stored = BASE64_STANDARD.decode("kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
        let stored = stored.unwrap();
        let record = PasswordHash::Sha256 {
            salt: stored[..4].try_into().unwrap(),
            hash: stored[4..].try_into().unwrap(),
        };
        assert!(verify(&record, b"test12"));
        assert!(!verify(&record, b"test13"));
    }

    #[test]
    fn salted_sha512_is_accepted() {
        let salt = [1, 2, 3, 4];
        let digest = digest::digest(&digest::SHA512, b"\x01\x02\x03\x04secret");
        let record = PasswordHash::Sha512 { salt, hash: digest.as_ref().try_into().unwrap() };
        assert!(verify(&record, b"secret"));
        assert!(!verify(&record, b"secreT"));
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        for record in [
            PasswordHash::None,
            PasswordHash::Md5 { salt: [0; 4], hash: [0; 16] },
            PasswordHash::Argon2id("x".into()),
            PasswordHash::Argon2id("$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHQ$AAAA".into()),
        ] {
            assert!(!verify(&record, b""));
        }
    }
}
