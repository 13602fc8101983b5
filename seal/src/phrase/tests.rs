use super::*;

const ZERO: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                    abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art";

fn error(text: &str) -> PhraseError {
    match Phrase::parse(text) {
        Ok(_) => panic!("'{text}' is no phrase"),
        Err(error) => error,
    }
}

/// Swaps one word, counted from 1.
fn with(position: usize, word: &str) -> String {
    let mut words: Vec<&str> = ZERO.split_whitespace().collect();
    words[position - 1] = word;
    words.join(" ")
}

/// Goal: bytes, words and seed belong together as BIP-39 says. Method: the standard's own zero vector, with the seed of
/// an empty passphrase, and round trips of other bytes.
#[test]
fn words_and_bytes_agree() {
    let phrase = Phrase::generate(&[0; 32]);
    assert_eq!(phrase.words().collect::<Vec<_>>(), ZERO.split_whitespace().collect::<Vec<_>>());
    for fill in [0, 1, 0x7f, 0x80, 0xff] {
        let mut random = [fill; 32];
        random[31] ^= 0x5a;
        let phrase = Phrase::generate(&random);
        let text = phrase.words().collect::<Vec<_>>().join(" ");
        let again = Phrase::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(*again.entropy(), random);
    }
}

/// Goal: case and white space don't matter. Method: odd ones.
#[test]
fn typing_is_forgiven() {
    let odd = format!("\n  {}\t\r\n", ZERO.to_uppercase().replace(' ', "   \n"));
    assert!(Phrase::parse(&odd).is_ok_and(|phrase| *phrase.entropy() == [0; 32]));
}

/// Goal: a wrong number of words is said before anything else. Method: none, 23, 25, and 12 right ones.
#[test]
fn word_count() {
    assert_eq!(error(""), PhraseError::WordCount { found: 0 });
    assert_eq!(error(ZERO.strip_suffix(" art").expect("ends so")), PhraseError::WordCount { found: 23 });
    assert_eq!(error(&format!("{ZERO} zzz")), PhraseError::WordCount { found: 25 });
    assert_eq!(error("zzz"), PhraseError::WordCount { found: 1 });
}

/// Goal: an unknown word is answered with its position and what it may have meant. Method: a table of typing mistakes.
#[test]
fn unknown_words_get_suggestions() {
    let table = [
        ("abandn", "abandon"),
        ("aban", "abandon"),
        ("bandaon", "abandon"),
        ("zebera", "zebra"),
        ("recieve", "receive"),
        ("brige", "bridge"),
        ("wrold", "world"),
    ];
    for (position, (typed, meant)) in (1..).zip(table) {
        match error(&with(position, typed)) {
            PhraseError::UnknownWord { position: found, nearest } => {
                assert_eq!(found, position);
                assert!(nearest.len() <= SUGGESTIONS_MAX);
                assert!(nearest.contains(&meant), "{typed}: {nearest:?}");
            }
            other => panic!("{other}"),
        }
    }
    let nothing =
        error(&with(7, "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq\u{e9}"));
    assert_eq!(nothing, PhraseError::UnknownWord { position: 7, nearest: vec![] });
    assert_eq!(nothing.to_string(), "word 7 is not in the word list");
    let first = error(&with(20, "abandn").replacen("abandon", "abandx", 1));
    assert!(matches!(first, PhraseError::UnknownWord { position: 1, .. }));
    assert!(first.to_string().contains("did you mean abandon"));
}

/// Goal: one known but wrong word is found again by its correction. Method: swap similar words, and look for the way
/// back among the nearest; check that each correction told does open.
#[test]
fn checksum_corrections_lead_back() {
    let phrase = Phrase::generate(&[0x3c; 32]);
    let words: Vec<&str> = phrase.words().collect();
    let mut mistyped = words.clone();
    // A neighbour in the list that is one keystroke away is the likeliest mistake there is.
    let list = Language::English.word_list();
    let (at, slip) = (0..WORDS)
        .find_map(|at| {
            let near = list.iter().find(|word| **word != words[at] && distance(word, words[at]) == 1)?;
            let mut trial = words.clone();
            trial[at] = near;
            Phrase::parse(&trial.join(" ")).is_err().then_some((at, *near))
        })
        .expect("some word of 24 has a near neighbour");
    mistyped[at] = slip;
    let PhraseError::Checksum { nearest, total } = error(&mistyped.join(" ")) else {
        panic!("all words are known");
    };
    assert!((100..350).contains(&total), "about 192 are expected, not {total}");
    assert_eq!(nearest.len(), CORRECTIONS_MAX);
    let back = Correction { position: at + 1, word: words[at], distance: 1 };
    assert!(nearest.contains(&back), "{nearest:?} lacks {back:?}");
    assert!(nearest.is_sorted_by_key(|correction| correction.distance));
    for correction in nearest {
        let mut trial = mistyped.clone();
        trial[correction.position - 1] = correction.word;
        assert!(Phrase::parse(&trial.join(" ")).is_ok());
    }
}

/// Goal: distances are what a typist would say. Method: a table.
#[test]
fn distances() {
    let table = [("", "abc", 3), ("abc", "abc", 0), ("acb", "abc", 1), ("ab", "abc", 1), ("xbc", "abc", 1)];
    for (typed, word, expected) in table {
        assert_eq!(distance(typed, word), expected, "{typed} {word}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]

    /// Goal: nothing that is typed panics. Method: random text, and 24 random scraps of it.
    #[test]
    fn any_text_is_answered(text in "\\PC{0,60}", scraps in proptest::collection::vec("[a-z\u{e9}]{1,9}", 24)) {
        proptest::prop_assert!(Phrase::parse(&text).is_err());
        match Phrase::parse(&scraps.join(" ")) {
            Err(error) => proptest::prop_assert!(!error.to_string().is_empty()),
            Ok(phrase) => proptest::prop_assert!(phrase.words().eq(scraps.iter().map(String::as_str))),
        }
    }
}
