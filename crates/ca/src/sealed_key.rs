//! A node's private key as it is kept: PEM, plain or sealed by the unlock key, with the version of the lock in a header.
//!
//! Sealed it is PKCS #8's `ENCRYPTED PRIVATE KEY` under PBES2 with PBKDF2-HMAC-SHA-1 and AES-256-CBC, which is what dockerd
//! writes and the only thing it reads. The derivation adds nothing (an unlock key is 256 random bits) and takes nothing
//! away. The cipher does not tell a wrong key from a right one; that the key inside is the certificate's does.

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;

use aws_lc_rs::{
    cipher::{
        AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
        PaddedBlockEncryptingKey, UnboundCipherKey,
    },
    iv::FixedLength,
    pbkdf2,
};
use pem::Pem;
use rcgen::KeyPair;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    certificate_dir::Lock,
    der::{Element, INTEGER, OCTET_STRING, SEQUENCE, element, elements},
    pem_text,
    unlock_key::UnlockKey,
};

/// Version of the cluster object that the lock comes from.
const VERSION_HEADER: &str = "kek-version";
const PLAIN_LABEL: &str = "PRIVATE KEY";
const SEALED_LABEL: &str = "ENCRYPTED PRIVATE KEY";
const ITERATIONS: u32 = 2048;
/// More is not derived: a file must not keep a start busy for long. 100,000 take about 50 ms.
const ITERATIONS_MAX: u32 = 100_000;
const SALT_BYTES: usize = 8;
const IV_BYTES: usize = 16;
const CIPHER_KEY_BYTES: usize = 32;

// Object identifiers with tag and length.
/// 1.2.840.113549.1.5.13
const PBES2: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13];
/// 1.2.840.113549.1.5.12
const PBKDF2: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 12];
/// 2.16.840.1.101.3.4.1.42
const AES_256_CBC: &[u8] = &[6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 42];
/// 1.2.840.113549.2.7
const HMAC_SHA1: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 7];
/// 1.2.840.113549.2.9
const HMAC_SHA256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 9];

/// A key file, read.
pub(crate) struct StoredKey {
    der: Zeroizing<Vec<u8>>,
    is_sealed: bool,
    label: String,
    /// 0 if it was never locked.
    pub(crate) version: u64,
}

/// Why a key does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotOpened {
    /// It is sealed, and there is no unlock key.
    Locked,
    /// It is sealed with another unlock key, or damaged.
    WrongKey,
    /// It is no private key.
    Malformed,
}

// === impl StoredKey ===

impl StoredKey {
    pub(crate) fn read(text: &str) -> Option<Self> {
        let blocks = pem_text::read(text.as_bytes())?;
        let mut blocks = blocks.into_iter();
        let block = blocks.find(|block| block.tag().ends_with(PLAIN_LABEL))?;
        let version = block.headers().get(VERSION_HEADER);
        Some(Self {
            version: version.and_then(|text| text.parse().ok()).unwrap_or(0),
            is_sealed: block.tag() == SEALED_LABEL,
            label: block.tag().to_owned(),
            der: Zeroizing::new(block.into_contents()),
        })
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// The key in PEM without headers. An unlock key given for a plain one is ignored.
    pub(crate) fn open(&self, unlock: Option<&UnlockKey>) -> Result<Opened, NotOpened> {
        let (der, label, failure) = if self.is_sealed {
            let unlock = unlock.ok_or(NotOpened::Locked)?;
            let der = decrypt(&self.der, unlock).ok_or(NotOpened::WrongKey)?;
            (der, PLAIN_LABEL, NotOpened::WrongKey)
        } else {
            (self.der.clone(), &*self.label, NotOpened::Malformed)
        };
        let pair = KeyPair::try_from(&der[..]).map_err(|_| failure)?;
        Ok(Opened {
            pem: encode(label, &der, None),
            pair,
        })
    }
}

/// A key that was opened.
pub(crate) struct Opened {
    pub(crate) pem: Zeroizing<String>,
    pub(crate) pair: KeyPair,
}

/// The file's text for a key (PEM) under `lock`; `None` if it is no key.
pub(crate) fn seal(key_pem: &str, lock: &Lock) -> Option<Zeroizing<String>> {
    let plain = StoredKey::read(key_pem).filter(|key| !key.is_sealed)?;
    let version = (lock.key.is_some() || lock.version != 0).then_some(lock.version);
    let Some(unlock) = &lock.key else {
        return Some(encode(&plain.label, &plain.der, version));
    };
    let sealed = encrypt(&plain.der, unlock)?;
    Some(encode(SEALED_LABEL, &sealed, version))
}

fn encode(label: &str, der: &[u8], version: Option<u64>) -> Zeroizing<String> {
    let mut block = Pem::new(label, der);
    if let Some(version) = version {
        let headers = block.headers_mut();
        let added = headers.add(VERSION_HEADER, &version.to_string());
        added.expect("name and number have no colon and no line break");
    }
    let text = Zeroizing::new(pem_text::write(&block));
    block.into_contents().zeroize();
    text
}

fn encrypt(plain: &[u8], unlock: &UnlockKey) -> Option<Vec<u8>> {
    let mut random = [0; SALT_BYTES + IV_BYTES];
    getrandom::fill(&mut random).expect("the kernel gives random bytes");
    let (salt, iv) = random.split_first_chunk::<SALT_BYTES>()?;
    let iv = <[u8; IV_BYTES]>::try_from(iv).ok()?;
    let key = derive(pbkdf2::PBKDF2_HMAC_SHA1, ITERATIONS, salt, unlock)?;
    let mut data = Zeroizing::new(plain.to_vec());
    let context = EncryptionContext::Iv128(FixedLength::from(&iv));
    let cipher = PaddedBlockEncryptingKey::cbc_pkcs7(key).ok()?;
    cipher.less_safe_encrypt(&mut *data, context).ok()?;
    let iterations = ITERATIONS.to_be_bytes();
    let derivation = element(
        SEQUENCE,
        &[
            &element(OCTET_STRING, &[salt]),
            &element(INTEGER, &[&iterations[2..]]),
        ],
    );
    let derivation = element(SEQUENCE, &[PBKDF2, &derivation]);
    let scheme = element(SEQUENCE, &[AES_256_CBC, &element(OCTET_STRING, &[&iv])]);
    let parameters = element(SEQUENCE, &[&derivation, &scheme]);
    let algorithm = element(SEQUENCE, &[PBES2, &parameters]);
    Some(element(
        SEQUENCE,
        &[&algorithm, &element(OCTET_STRING, &[&data])],
    ))
}

fn decrypt(sealed: &[u8], unlock: &UnlockKey) -> Option<Zeroizing<Vec<u8>>> {
    let [algorithm, data] = inside(only(sealed)?)?;
    let [scheme, parameters] = inside(algorithm)?;
    let [derivation, cipher] = inside(parameters)?;
    let [derivation, derivation_parameters] = inside(derivation)?;
    let [cipher, iv] = inside(cipher)?;
    let is_known =
        scheme.whole == PBES2 && derivation.whole == PBKDF2 && cipher.whole == AES_256_CBC;
    if !is_known || data.tag != OCTET_STRING || iv.tag != OCTET_STRING {
        return None;
    }
    let derivation = elements(derivation_parameters.content)?;
    let [salt, iterations, rest @ ..] = &derivation[..] else {
        return None;
    };
    // The length of the derived key may come before the function, and either may be left out.
    let function = rest.iter().find(|element| element.tag == SEQUENCE);
    let function = match function.map(|function| inside::<2>(*function)) {
        None => pbkdf2::PBKDF2_HMAC_SHA1,
        Some(Some([id, _])) if id.whole == HMAC_SHA1 => pbkdf2::PBKDF2_HMAC_SHA1,
        Some(Some([id, _])) if id.whole == HMAC_SHA256 => pbkdf2::PBKDF2_HMAC_SHA256,
        Some(_) => return None,
    };
    let iterations = match iterations.content {
        digits if iterations.tag == INTEGER && digits.len() <= 4 => digits
            .iter()
            .fold(0_u32, |number, &digit| number << 8 | u32::from(digit)),
        _ => return None,
    };
    if iterations > ITERATIONS_MAX {
        return None;
    }
    let key = derive(function, iterations, salt.content, unlock)?;
    let iv = <[u8; IV_BYTES]>::try_from(iv.content).ok()?;
    let context = DecryptionContext::Iv128(FixedLength::from(&iv));
    let cipher = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
    let mut data = Zeroizing::new(data.content.to_vec());
    let plain = cipher.decrypt(&mut data, context).ok()?;
    Some(Zeroizing::new(plain.to_vec()))
}

fn derive(
    function: pbkdf2::Algorithm,
    iterations: u32,
    salt: &[u8],
    unlock: &UnlockKey,
) -> Option<UnboundCipherKey> {
    let mut key = Zeroizing::new([0; CIPHER_KEY_BYTES]);
    let iterations = NonZeroU32::new(iterations)?;
    pbkdf2::derive(function, iterations, salt, unlock.expose(), &mut *key);
    UnboundCipherKey::new(&AES_256, &*key).ok()
}

fn only(bytes: &[u8]) -> Option<Element<'_>> {
    let all = elements(bytes)?;
    let [only] = all[..] else { return None };
    Some(only)
}

/// The elements in a sequence of `N`.
fn inside<const N: usize>(sequence: Element<'_>) -> Option<[Element<'_>; N]> {
    let all = elements(sequence.content).filter(|_| sequence.tag == SEQUENCE)?;
    all.try_into().ok()
}
