//! The phrase: 24 English words (BIP-39) that are all an owner must keep.
//!
//! A phrase that was mistyped is met with what helps to mend it: the position of an unknown word with the words it may
//! have meant; or, where all words are known but the checksum fails, the single words whose change would make it right.
//!
//! Source: BIP-39, <https://github.com/bitcoin/bips/blob/master/bip-0039.mediawiki>, with an empty passphrase.

use bip39::{Language, Mnemonic};
use zeroize::Zeroizing;

use crate::keys::Seed;

/// How many words a phrase has.
pub const WORDS: usize = 24;
/// How many words are suggested for an unknown one, at most.
pub const SUGGESTIONS_MAX: usize = 3;
/// How many corrections of a failed checksum are told, at most.
pub const CORRECTIONS_MAX: usize = 8;

const BITS_PER_WORD: usize = 11;
/// More keystrokes away than this, a word is no suggestion.
const FAR: usize = 3;

/// A checked phrase. It is wiped when it goes, and has neither `Debug` nor `Clone`.
pub struct Phrase(Mnemonic);

/// One word that, in place of the one that was typed, would make the checksum right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Correction {
    /// Which word, from 1.
    pub position: usize,
    /// What it would have to be.
    pub word: &'static str,
    /// How many keystrokes it is from what was typed.
    pub distance: usize,
}

/// Why a text is no phrase. The texts show parts of what was typed, so they are for the owner's terminal only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum PhraseError {
    /// Not 24 words.
    #[error("a phrase has {WORDS} words, this has {found}")]
    WordCount { found: usize },
    /// A word that is not in the list.
    #[error("word {position} is not in the word list{}", suggest(.nearest))]
    UnknownWord { position: usize, nearest: Vec<&'static str> },
    /// All words are known, but they don't belong together.
    #[error("the words don't belong together: at least one is wrong or misplaced{}", correct(.nearest, *.total))]
    Checksum {
        /// The likeliest single-word corrections, likeliest first.
        nearest: Vec<Correction>,
        /// How many single-word corrections there are.
        total: usize,
    },
}

fn suggest(nearest: &[&str]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; did you mean {}?", nearest.join(", ")) }
}

fn correct(nearest: &[Correction], total: usize) -> String {
    let Some(first) = nearest.first() else { return String::new() };
    format!("; the nearest of {total} corrections: word {} is '{}'", first.position, first.word)
}

impl Phrase {
    /// From 32 random bytes.
    ///
    /// # Panics
    /// Never: 32 bytes make 24 words.
    #[must_use]
    pub fn generate(random: &[u8; 32]) -> Self {
        Self(from_entropy(random))
    }

    /// From what an owner typed: any case, any white space between the words.
    ///
    /// # Errors
    /// See [`PhraseError`].
    pub fn parse(text: &str) -> Result<Self, PhraseError> {
        let lower = Zeroizing::new(text.to_lowercase());
        let typed: Vec<&str> = lower.split_whitespace().collect();
        if typed.len() != WORDS {
            return Err(PhraseError::WordCount { found: typed.len() });
        }
        let mut indices = Zeroizing::new([0; WORDS]);
        for (at, word) in typed.iter().enumerate() {
            indices[at] = Language::English
                .find_word(word)
                .ok_or_else(|| PhraseError::UnknownWord { position: at + 1, nearest: nearest(word) })?;
        }
        match checked(&indices) {
            Some(mnemonic) => Ok(Self(mnemonic)),
            None => Err(corrections(&indices)),
        }
    }

    /// The words in order.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.words()
    }

    /// The 32 bytes that the words stand for: what a wallet file keeps.
    #[must_use]
    pub fn entropy(&self) -> Zeroizing<[u8; 32]> {
        let (all, _) = self.0.to_entropy_array();
        let all = Zeroizing::new(all);
        let mut entropy = Zeroizing::new([0; 32]);
        entropy.copy_from_slice(&all[..32]);
        entropy
    }

    /// The seed of all keys. This takes some milliseconds on purpose.
    #[must_use]
    pub fn seed(&self) -> Seed {
        Seed::new(Zeroizing::new(self.0.to_seed_normalized("")))
    }
}

fn from_entropy(entropy: &[u8; 32]) -> Mnemonic {
    Mnemonic::from_entropy_in(Language::English, entropy).expect("32 bytes make 24 words")
}

/// The phrase of these word numbers, if its checksum is right. The first 256 of 264 bits make the phrase anew; the
/// last word of that one holds the right checksum.
fn checked(indices: &[u16; WORDS]) -> Option<Mnemonic> {
    let mut entropy = Zeroizing::new([0_u8; 32]);
    for (at, byte) in entropy.iter_mut().enumerate() {
        for bit in at * 8..at * 8 + 8 {
            let word = indices[bit / BITS_PER_WORD];
            let is_set = word >> (BITS_PER_WORD - 1 - bit % BITS_PER_WORD) & 1 == 1;
            *byte = *byte << 1 | u8::from(is_set);
        }
    }
    let mnemonic = from_entropy(&entropy);
    let last = mnemonic.word_indices().last();
    (last == Some(usize::from(indices[WORDS - 1]))).then_some(mnemonic)
}

/// All changes of one word that make the checksum right: about 24 x 2,048 / 256 of them, so only the nearest help.
fn corrections(indices: &[u16; WORDS]) -> PhraseError {
    let list = Language::English.word_list();
    let mut found = Vec::new();
    for at in 0..WORDS {
        let mut trial = Zeroizing::new(*indices);
        let typed = list[usize::from(indices[at])];
        for (number, word) in (0_u16..).zip(list.iter()) {
            trial[at] = number;
            if number != indices[at] && checked(&trial).is_some() {
                found.push(Correction { position: at + 1, word, distance: distance(typed, word) });
            }
        }
    }
    let total = found.len();
    found.sort_by_key(|correction| (correction.distance, correction.position, correction.word));
    found.truncate(CORRECTIONS_MAX);
    PhraseError::Checksum { nearest: found, total }
}

/// The words that an unknown one may have meant, likeliest first. What begins as it does counts as near: four letters
/// name a word of the list.
fn nearest(typed: &str) -> Vec<&'static str> {
    let far = typed.chars().count().div_ceil(2).clamp(1, FAR);
    let rank = |word: &&'static str| {
        let is_begun = typed.len() >= 3 && word.starts_with(typed);
        let distance = if is_begun { 0 } else { distance(typed, word) };
        (distance <= far).then_some((distance, *word))
    };
    let mut ranked: Vec<_> = Language::English.word_list().iter().filter_map(rank).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(SUGGESTIONS_MAX).map(|(_, word)| word).collect()
}

/// Keystrokes between two words: insertions, deletions, substitutions, and swaps of neighbours (optimal string
/// alignment). What was typed is cut at 16 letters: words of the list have at most 8.
fn distance(typed: &str, word: &str) -> usize {
    let a: Vec<char> = typed.chars().take(16).collect();
    let b: Vec<char> = word.chars().collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let substituted = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = substituted.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests;
