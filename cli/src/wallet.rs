//! The wallet file: the entropy behind the 24 words, sealed under a password.
//!
//! Guarantees: the file has mode 0600 and is replaced whole or not at all; a wrong password is told apart from a
//! damaged file; a forged file cannot make the program take more memory than [`Kdf::MEMORY_KIB_MAX`]. `docs/formats/wallet.md`
//! draws the bytes.
//!
//! Does not protect against somebody who can read this process's memory, or who knows the password.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use borsh::{BorshDeserialize, BorshSerialize};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use tallow_types::codec::{Bounded, BoundedBytes, DecodeError, decode, encode};
use tallow_types::{domain, tagged};
use zeroize::Zeroizing;

/// The secret of a wallet: what the 24 words spell.
pub type Entropy = Zeroizing<[u8; 32]>;

/// How the password becomes a key: Argon2id (RFC 9106), version 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Kdf {
    /// Memory. KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Kdf {
    /// Most memory that a file may ask for. KiB.
    pub const MEMORY_KIB_MAX: u32 = 1 << 20;
    /// Most passes that a file may ask for.
    pub const PASSES_MAX: u32 = 16;
    /// Most lanes that a file may ask for.
    pub const LANES_MAX: u32 = 16;

    /// For passwords that people choose: the second recommendation of RFC 9106, section 4.
    pub const PEOPLE: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 4 };
    /// For passwords of 256 random bits, which no dictionary holds: the cheapest that Argon2 allows for.
    pub const RANDOM: Self = Self { memory_kib: 64, passes: 1, lanes: 1 };

    fn is_allowed(&self) -> bool {
        self.memory_kib <= Self::MEMORY_KIB_MAX
            && (1..=Self::PASSES_MAX).contains(&self.passes)
            && (1..=Self::LANES_MAX).contains(&self.lanes)
            && self.memory_kib >= 8 * self.lanes
    }

    /// The 32 bytes from which the file's key and check value derive.
    fn stretch(&self, password: &[u8], salt: &[u8; 16]) -> Result<Zeroizing<[u8; 32]>, WalletError> {
        if !self.is_allowed() {
            return Err(WalletError::TooCostly { kdf: *self });
        }
        let params = argon2::Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
            .map_err(|_| WalletError::TooCostly { kdf: *self })?;
        let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut out = Zeroizing::new([0; 32]);
        argon.hash_password_into(password, salt, &mut *out).map_err(|_| WalletError::OutOfMemory)?;
        Ok(out)
    }
}

/// Why a wallet file does not open.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// The bytes are not what was written.
    #[error("the wallet file is damaged: {0}")]
    Damaged(String),
    /// Written by a later program.
    #[error("{0}")]
    Version(DecodeError),
    /// The file is intact, the password is another.
    #[error("wrong password for this wallet")]
    WrongPassword,
    /// The file asks for more work than any wallet of ours.
    #[error("the wallet file asks for {} KiB, {} passes and {} lanes, more than is allowed", .kdf.memory_kib, .kdf.passes, .kdf.lanes)]
    TooCostly {
        /// What it asks for.
        kdf: Kdf,
    },
    /// The machine lacks the memory that the password check takes.
    #[error("not enough memory to check the password")]
    OutOfMemory,
}

/// Length of tag, version, costs, salt, check value and nonce: what the seal authenticates beside the secret.
const HEADER_LEN: usize = 3 + 12 + 16 + 16 + 24;
/// Length of the digest at the end.
const DIGEST_LEN: usize = 16;

/// The file as it is on disk.
#[derive(Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct WalletFile {
    kdf: Kdf,
    salt: [u8; 16],
    check: [u8; 16],
    nonce: [u8; 24],
    sealed: BoundedBytes<128>,
    digest: [u8; DIGEST_LEN],
}
tagged!(WalletFile, b"WF", 1, "wallet file", 512);

/// The random bytes of one sealing.
pub struct Fresh {
    /// For the key derivation.
    pub salt: [u8; 16],
    /// For the cipher.
    pub nonce: [u8; 24],
}

/// The bytes of a wallet file.
///
/// # Errors
/// [`WalletError::OutOfMemory`] or [`WalletError::TooCostly`].
pub fn seal(entropy: &Entropy, password: &[u8], kdf: Kdf, fresh: &Fresh) -> Result<Vec<u8>, WalletError> {
    let stretched = kdf.stretch(password, &fresh.salt)?;
    let mut file = WalletFile {
        kdf,
        salt: fresh.salt,
        check: check_value(&stretched),
        nonce: fresh.nonce,
        sealed: Bounded::empty(),
        digest: [0; DIGEST_LEN],
    };
    let header = encode(&file)[..HEADER_LEN].to_vec();
    let sealed = cipher(&stretched)
        .encrypt(&XNonce::from(fresh.nonce), Payload { msg: &entropy[..], aad: &header })
        .expect("a message of 32 bytes is not too long");
    file.sealed = Bounded::new(sealed).expect("32 bytes and a tag fit");
    let mut bytes = encode(&file);
    let body = bytes.len() - DIGEST_LEN;
    let digest = digest(&bytes[..body]);
    bytes[body..].copy_from_slice(&digest);
    Ok(bytes)
}

/// The secret inside the bytes of a wallet file.
///
/// # Errors
/// See [`WalletError`].
pub fn open(bytes: &[u8], password: &[u8]) -> Result<Entropy, WalletError> {
    let file: WalletFile = decode(bytes).map_err(|error| match error {
        DecodeError::UnknownVersion { .. } => WalletError::Version(error),
        other => WalletError::Damaged(other.to_string()),
    })?;
    if digest(&bytes[..bytes.len() - DIGEST_LEN]) != file.digest {
        return Err(WalletError::Damaged("its digest is not that of its bytes".to_owned()));
    }
    let stretched = file.kdf.stretch(password, &file.salt)?;
    if check_value(&stretched) != file.check {
        return Err(WalletError::WrongPassword);
    }
    let opened = cipher(&stretched)
        .decrypt(&XNonce::from(file.nonce), Payload { msg: &file.sealed[..], aad: &bytes[..HEADER_LEN] })
        .map(Zeroizing::new)
        .map_err(|_| WalletError::Damaged("its seal is broken".to_owned()))?;
    let entropy = <[u8; 32]>::try_from(&opened[..])
        .map_err(|_| WalletError::Damaged("its secret has another length".to_owned()))?;
    Ok(Zeroizing::new(entropy))
}

fn cipher(stretched: &[u8; 32]) -> XChaCha20Poly1305 {
    let key = Zeroizing::new(domain::WALLET_FILE.hash(&[stretched]));
    XChaCha20Poly1305::new(&Key::from(*key))
}

fn check_value(stretched: &[u8; 32]) -> [u8; 16] {
    first_half(domain::WALLET_CHECK.hash(&[stretched]))
}

fn digest(body: &[u8]) -> [u8; DIGEST_LEN] {
    first_half(domain::WALLET_DIGEST.hash(&[body]))
}

fn first_half(hash: [u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    half
}

/// Writes a secret file whole: mode 0600 from its first byte, durable before it takes its name. Without `replace` an
/// existing file is left alone, and the error is `AlreadyExists`.
pub fn write_secret(path: &Path, bytes: &[u8], replace: bool) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".tallow-")
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    if replace {
        file.persist(path).map_err(|error| error.error)?;
    } else {
        file.persist_noclobber(path).map_err(|error| error.error)?;
    }
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Kdf = Kdf { memory_kib: 8, passes: 1, lanes: 1 };
    const FRESH: Fresh = Fresh { salt: [1; 16], nonce: [2; 24] };

    fn sample() -> Vec<u8> {
        seal(&Zeroizing::new([7; 32]), b"password", CHEAP, &FRESH).expect("seals")
    }

    /// Goal: a wallet of this version opens for ever. Method: a golden file, both ways.
    #[test]
    fn golden_file() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/wallet/v1.json");
        let entropy = Zeroizing::new([7; 32]);
        let kdf = Kdf { memory_kib: 64, passes: 2, lanes: 2 };
        let bytes = seal(&entropy, b"correct horse", kdf, &FRESH).expect("seals");
        let vector = serde_json::json!({
            "what": "A wallet file. Every later version must open it.",
            "password": "correct horse",
            "entropy": hex::encode(&entropy[..]),
            "salt": hex::encode(FRESH.salt),
            "nonce": hex::encode(FRESH.nonce),
            "memory_kib": kdf.memory_kib,
            "passes": kdf.passes,
            "lanes": kdf.lanes,
            "file": hex::encode(&bytes),
        });
        let text = serde_json::to_string_pretty(&vector).expect("plain data") + "\n";
        if std::env::var_os("TALLOW_BLESS").is_some() {
            std::fs::write(&path, &text).expect("writes the vector");
        }
        let golden = std::fs::read_to_string(&path).expect("is there");
        assert_eq!(text, golden);
        let golden: serde_json::Value = serde_json::from_str(&golden).expect("JSON");
        let file = hex::decode(golden["file"].as_str().expect("a text")).expect("hexadecimal");
        assert_eq!(open(&file, b"correct horse").expect("opens"), entropy);
    }

    /// Goal: a wrong password is not called damage, and damage is not called a wrong password. Method: other
    /// passwords, then every byte changed and every length cut.
    #[test]
    fn wrong_password_is_not_damage() {
        let bytes = sample();
        assert!(matches!(open(&bytes, b"Password"), Err(WalletError::WrongPassword)));
        assert!(matches!(open(&bytes, b""), Err(WalletError::WrongPassword)));
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0x10;
            let error = open(&broken, b"password").expect_err("broken");
            let named = matches!(error, WalletError::Damaged(_) | WalletError::Version(_));
            assert!(named, "byte {at}: {error}");
        }
        for len in 0..bytes.len() {
            assert!(matches!(open(&bytes[..len], b"password"), Err(WalletError::Damaged(_))), "length {len}");
        }
    }

    /// Goal: a forged file whose digest is right still cannot ask for the machine. Method: one above each limit.
    #[test]
    fn costs_are_bounded() {
        let over = [
            Kdf { memory_kib: Kdf::MEMORY_KIB_MAX + 1, ..CHEAP },
            Kdf { passes: Kdf::PASSES_MAX + 1, ..CHEAP },
            Kdf { lanes: Kdf::LANES_MAX + 1, memory_kib: 1 << 10, ..CHEAP },
            Kdf { memory_kib: 7, ..CHEAP },
            Kdf { passes: 0, ..CHEAP },
        ];
        for kdf in over {
            let mut bytes = sample();
            bytes[3..15].copy_from_slice(&borsh::to_vec(&kdf).expect("encodes"));
            let body = bytes.len() - DIGEST_LEN;
            let fixed = digest(&bytes[..body]);
            bytes[body..].copy_from_slice(&fixed);
            assert!(matches!(open(&bytes, b"password"), Err(WalletError::TooCostly { .. })), "{kdf:?}");
        }
    }

    /// Goal: the seal covers the header. Method: another nonce with a right digest.
    #[test]
    fn header_is_authenticated() {
        let mut bytes = sample();
        bytes[HEADER_LEN - 1] ^= 1;
        let body = bytes.len() - DIGEST_LEN;
        let fixed = digest(&bytes[..body]);
        bytes[body..].copy_from_slice(&fixed);
        assert!(matches!(open(&bytes, b"password"), Err(WalletError::Damaged(_))));
    }

    /// Goal: secret files are private, and never lost to a second one. Method: write twice, look at mode and bytes.
    #[test]
    fn secret_files_are_private_and_whole() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("wallet");
        write_secret(&path, b"one", false).expect("writes");
        let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = write_secret(&path, b"two", false).expect_err("exists");
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).expect("reads"), b"one");
        write_secret(&path, b"three", true).expect("replaces");
        assert_eq!(std::fs::read(&path).expect("reads"), b"three");
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1);
    }
}
