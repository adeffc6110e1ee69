//! Signatures as the Standard Webhooks specification 1.0 has them: HMAC-SHA256 over
//! `id.timestamp.body`, in base64, `v1,` before each; one per secret, so that a receiver with the
//! old or the new secret accepts during a rotation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cdc_shared::config::Secret;
use hmac::{Hmac, Mac};
use sha2::Sha256;

const PREFIX: &str = "whsec_";
/// Bytes of a secret, by the specification.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs with every configured secret.
#[derive(Clone, Default)]
pub(super) struct Signer {
    /// Keyed and fed with nothing yet: cloning one saves hashing the key again.
    keyed: Vec<Hmac<Sha256>>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({} secrets)", self.keyed.len())
    }
}

impl Signer {
    /// Reads the secrets.
    ///
    /// # Errors
    /// What is wrong with the first bad one, without showing it.
    pub(super) fn new(secrets: &[Secret]) -> Result<Self, String> {
        let keyed = secrets.iter().enumerate().map(|(index, secret)| {
            key(secret).map_err(|problem| format!("signing_secrets[{index}]: {problem}"))
        });
        Ok(Self { keyed: keyed.collect::<Result<_, _>>()? })
    }

    /// The value of `webhook-signature`; `None` without secrets.
    pub(super) fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> Option<String> {
        if self.keyed.is_empty() {
            return None;
        }
        let mut value = String::with_capacity(self.keyed.len() * 48);
        for keyed in &self.keyed {
            let mut mac = keyed.clone();
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                mac.update(part);
            }
            if !value.is_empty() {
                value.push(' ');
            }
            value.push_str("v1,");
            STANDARD.encode_string(mac.finalize().into_bytes(), &mut value);
        }
        Some(value)
    }
}

fn key(secret: &Secret) -> Result<Hmac<Sha256>, String> {
    let text = secret.expose();
    let encoded = text
        .strip_prefix(PREFIX)
        .ok_or_else(|| format!("does not begin with {PREFIX} (Standard Webhooks)"))?;
    let bytes = STANDARD
        .decode(encoded)
        .map_err(|_| format!("is not base64 with padding after {PREFIX}"))?;
    if !LENGTH.contains(&bytes.len()) {
        let (least, most) = (LENGTH.start(), LENGTH.end());
        return Err(format!("holds {} bytes, {least} to {most} are needed", bytes.len()));
    }
    Hmac::new_from_slice(&bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(bytes: usize) -> Secret {
        Secret::from(format!("{PREFIX}{}", STANDARD.encode(vec![7_u8; bytes])))
    }

    #[test]
    fn signs_as_the_reference_libraries_do() {
        // The vector of the test suites of the standard-webhooks libraries.
        let signer = Signer::new(&[Secret::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]);
        let signature = signer.unwrap().sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            br#"{"test": 2432232314}"#,
        );
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signature.as_deref(), Some(expected));
    }

    #[test]
    fn two_secrets_sign_side_by_side() {
        let sign = |secrets: &[Secret]| Signer::new(secrets).unwrap().sign("a", "1", b"x").unwrap();
        let (old, new) = (secret(24), secret(64));
        let both = sign(&[old.clone(), new.clone()]);
        assert_eq!(both, format!("{} {}", sign(&[old]), sign(&[new])));
        assert_eq!(Signer::default().sign("a", "1", b"x"), None);
    }

    #[test]
    fn a_bad_secret_is_refused_without_being_shown() {
        for (bad, problem) in [
            (Secret::from("hunter2"), "does not begin"),
            (Secret::from("whsec_hunter2!"), "base64"),
            (secret(23), "23 bytes"),
            (secret(65), "65 bytes"),
        ] {
            let error = Signer::new(&[secret(32), bad]).unwrap_err();
            assert!(error.contains("signing_secrets[1]") && error.contains(problem), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
