//! Where passwords and phrases come from: the terminal, standard input, or a file. Never arguments, never the
//! environment: other users can read the first, and child processes inherit the second.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::failure::{Failure, Result, file_failed};

/// Words of a phrase.
const WORDS: usize = tallow_seal::phrase::WORDS;

/// A secret text; wiped when it goes.
pub type Secret = Zeroizing<String>;

/// Longest line that is taken for a password or a phrase. Bytes.
const LINE_MAX: u64 = 4096;

/// Where the wallet's password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// First line of a file.
    File(PathBuf),
    /// First line of standard input.
    Stdin,
    /// The person at the terminal.
    Terminal,
}

impl PasswordSource {
    /// From the option `--password-file`, where `-` is standard input.
    pub fn from_option(option: Option<&Path>) -> Option<Self> {
        option.map(|path| if path == Path::new("-") { Self::Stdin } else { Self::File(path.to_owned()) })
    }

    /// The password of a wallet that exists.
    pub fn read(&self) -> Result<Secret> {
        match self {
            Self::File(path) => first_line_of(path),
            Self::Stdin => line(&mut std::io::stdin().lock(), "password"),
            Self::Terminal => ask("wallet password: "),
        }
    }

    /// The password for a new wallet: asked for twice at a terminal.
    pub fn choose(&self) -> Result<Secret> {
        if *self != Self::Terminal {
            let password = self.read()?;
            if password.is_empty() {
                return Err(Failure::user("the password is empty").hint("put a password on the first line"));
            }
            return Ok(password);
        }
        let password = ask("new wallet password: ")?;
        if password.is_empty() {
            return Err(Failure::user("the password is empty")
                .hint("choose a password: it protects the wallet file on this machine"));
        }
        if *ask("the same again: ")? != *password {
            return Err(Failure::user("the two passwords differ; nothing was written"));
        }
        Ok(password)
    }
}

/// The 24 words: from standard input if that is no terminal, else asked for without echo. Over as many lines as they
/// take; the numbers that `wallet new` prints beside them don't count.
pub fn phrase() -> Result<Secret> {
    use std::io::IsTerminal as _;
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return ask("the 24 words: ").map(|typed| without_numbers(&typed));
    }
    words_of(&mut stdin.lock())
}

fn words_of(reader: &mut impl BufRead) -> Result<Secret> {
    let mut text = line(reader, "phrase")?;
    loop {
        text = without_numbers(&text);
        // A sane phrase is far shorter; an endless input must end.
        if text.split_whitespace().count() >= WORDS || text.len() as u64 > LINE_MAX {
            return Ok(text);
        }
        let Ok(more) = line(reader, "phrase") else { return Ok(text) };
        text.push(' ');
        text.push_str(&more);
    }
}

fn without_numbers(text: &str) -> Secret {
    let number = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let mut kept = Zeroizing::new(String::with_capacity(text.len()));
    for word in text.split_whitespace().filter(|word| !number(word)) {
        if !kept.is_empty() {
            kept.push(' ');
        }
        kept.push_str(word);
    }
    kept
}

fn ask(prompt: &str) -> Result<Secret> {
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| match error.kind() {
        std::io::ErrorKind::Interrupted => Failure::interrupted("stopped at the question for a secret"),
        _ => Failure::config("there is no terminal to ask for the password")
            .because(&error)
            .hint("give --password-file FILE, or --password-file - to read it from the first line of standard input"),
    })
}

fn first_line_of(path: &Path) -> Result<Secret> {
    let file = std::fs::File::open(path).map_err(|error| {
        let mut failure = file_failed("read the password file", path, &error);
        failure.kind = crate::failure::Kind::Config;
        failure
    })?;
    line(&mut std::io::BufReader::new(file), "password")
}

/// One line without its end. Standard input keeps what follows, so that `put -` may read on.
fn line(reader: &mut impl BufRead, what: &str) -> Result<Secret> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(256));
    reader
        .take(LINE_MAX + 1)
        .read_until(b'\n', &mut bytes)
        .map_err(|error| Failure::config(format!("cannot read the {what}")).because(&error))?;
    if bytes.is_empty() {
        return Err(Failure::config(format!("there is no {what} to read"))
            .hint(format!("put the {what} on one line")));
    }
    if bytes.len() as u64 > LINE_MAX {
        return Err(Failure::config(format!("the {what} is longer than {LINE_MAX} bytes")));
    }
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Failure::config(format!("the {what} is not UTF-8 text")))?
        .trim_end_matches(['\n', '\r']);
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a line is taken whole, its end is not, and the rest stays. Method: a reader with two lines.
    #[test]
    fn one_line_is_taken() {
        let mut reader = std::io::Cursor::new(b" pass word \r\ndata".to_vec());
        assert_eq!(*line(&mut reader, "password").expect("reads"), " pass word ");
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("reads");
        assert_eq!(rest, "data");
    }

    /// Goal: nothing, too much and garbage are refused by name. Method: one reader each, one byte above the limit.
    #[test]
    fn bad_lines_are_refused() {
        let limit = usize::try_from(LINE_MAX).expect("fits");
        assert!(line(&mut std::io::Cursor::new(vec![b'a'; limit]), "password").is_ok());
        for bytes in [vec![], vec![b'a'; limit + 1], vec![0xff, b'\n']] {
            assert!(line(&mut std::io::Cursor::new(bytes), "password").is_err());
        }
    }

    /// Goal: words are read however they were written down. Method: on one line, one a line, as `wallet new` prints them, and
    /// too few; what follows stays.
    #[test]
    fn words_are_read_in_any_form() {
        let words: Vec<String> = (0..24).map(|number| format!("w{}", char::from(b'a' + number))).collect();
        let numbered: Vec<String> =
            words.iter().enumerate().map(|(i, word)| format!("{:2} {word}", i + 1)).collect();
        let rows: Vec<String> = numbered.chunks(6).map(|row| row.join("  ")).collect();
        for text in [words.join(" "), words.join("\n"), rows.join("\n")] {
            let mut reader = std::io::Cursor::new(format!("{text}\nrest"));
            assert_eq!(*words_of(&mut reader).expect("reads"), words.join(" "));
            let mut rest = String::new();
            reader.read_to_string(&mut rest).expect("reads");
            assert_eq!(rest, "rest");
        }
        let few = words_of(&mut std::io::Cursor::new("one two\nthree")).expect("reads");
        assert_eq!(*few, "one two three");
    }

    /// Goal: `-` means standard input. Method: both forms of the option.
    #[test]
    fn option_names_the_source() {
        assert_eq!(PasswordSource::from_option(Some(Path::new("-"))), Some(PasswordSource::Stdin));
        let file = PathBuf::from("x");
        assert_eq!(PasswordSource::from_option(Some(&file)), Some(PasswordSource::File(file)));
        assert_eq!(PasswordSource::from_option(None), None);
    }
}
