//! `tallow wallet`: the keys of an account on one network.

use std::path::Path;

use serde_json::json;
use tallow_client::{Access, Identity, RestoreReport};
use tallow_net::Transport as _;
use tallow_seal::keys::Seed;
use tallow_seal::phrase::{Phrase, PhraseError};
use tallow_types::contract::contract_id;
use tallow_types::wire::Request;
use tallow_types::{AccountId, Fuel};
use zeroize::Zeroizing;

use crate::args::{Line, Wallet};
use crate::commands::contract::afford;
use crate::context::{Chosen, Context};
use crate::failure::{Failure, Result, file_failed};
use crate::home::{Current, private_dir};
use crate::keyfile::random;
use crate::session::{Session, connect, explain, open_wallet};
use crate::wallet::{Entropy, Fresh, Kdf, seal, write_secret};
use crate::{human, progress, secret};

/// What a new wallet gets from the faucet of a development network. Fuel.
const GIFT: u128 = 10_000;

/// Runs one of the wallet commands.
pub async fn run(ctx: &Context, command: Wallet) -> Result<()> {
    match command {
        Wallet::New => new(ctx).await,
        Wallet::Restore => restore(ctx).await,
        Wallet::Send { account, amount } => send(ctx, account, amount).await,
        Wallet::Holders { words } => holders(ctx, words).await,
        Wallet::Show { phrase } => show(ctx, phrase).await,
    }
}

async fn new(ctx: &Context) -> Result<()> {
    let chosen = ctx.network()?;
    refuse_second(ctx, &chosen)?;
    let password = ctx.password(&chosen).choose()?;
    let entropy: Entropy = random()?;
    let phrase = Phrase::generate(&entropy);
    let account = phrase.seed().policy().account();
    // Money first: a wallet that exists is a wallet that works.
    let gift = endow(&chosen, account).await?;
    keep(ctx, &chosen, &entropy, &password)?;
    let words: Vec<&str> = phrase.words().collect();
    let value = json!({
        "words": words,
        "account": account.to_string(),
        "network": chosen.network.to_string(),
        "endowed_units": gift.get().to_string(),
        "file": ctx.home.wallet(&chosen.network.chain).display().to_string(),
    });
    ctx.out.result("wallet-new", value, || {
        let mut text =
            String::from("the 24 words, the only way back to everything you store; write them down:\n\n");
        for (row, words) in words.chunks(6).enumerate() {
            let cells: Vec<String> = words
                .iter()
                .enumerate()
                .map(|(i, word)| format!("{:2} {word:<10}", row * 6 + i + 1))
                .collect();
            text.push_str(cells.join("").trim_end());
            text.push('\n');
        }
        text.push_str(&format!("\naccount  {account}\n"));
        if gift > Fuel::ZERO {
            text.push_str(&format!(
                "balance  {}, from the development network's faucet\n",
                human::fuel(gift)
            ));
        }
        text
    });
    Ok(())
}

/// What the faucet of a development network gives; nothing elsewhere.
pub async fn endow(chosen: &Chosen, account: AccountId) -> Result<Fuel> {
    endow_all(chosen, &[account]).await
}

/// The same for each of some accounts.
pub async fn endow_all(chosen: &Chosen, accounts: &[AccountId]) -> Result<Fuel> {
    let Some(folder) = &chosen.dev else { return Ok(Fuel::ZERO) };
    let gift = Fuel::ONE.mul_div_floor(GIFT, 1).expect("a small multiple fits");
    let faucet = Session::fleeting(chosen, Seed::new(folder.faucet()?), Access::Write).await?;
    for account in accounts {
        faucet.client.transfer(*account, gift).await.map_err(explain)?;
    }
    faucet.close().await?;
    Ok(gift)
}

async fn restore(ctx: &Context) -> Result<()> {
    let chosen = ctx.network()?;
    refuse_second(ctx, &chosen)?;
    let password = ctx.password(&chosen).choose()?;
    let text = secret::phrase()?;
    let phrase = Phrase::parse(&text).map_err(|error| not_a_phrase(&error))?;
    let entropy = phrase.entropy();
    // Nothing is left on this machine by words that turn out to be nobody's.
    let dir = ctx.home.restoring(&chosen.network.chain);
    let found = find(ctx, &chosen, phrase.seed(), &dir).await;
    let report = match found {
        Ok(report) => report,
        Err(failure) => {
            let _gone = std::fs::remove_dir_all(&dir);
            return Err(failure);
        }
    };
    keep(ctx, &chosen, &entropy, &password)?;
    // What was fetched need not be fetched again. A folder that is there already knows as much.
    let client = ctx.home.client(&chosen.network.chain, &report.balance.account);
    if let Some(parent) = client.parent() {
        private_dir(parent)?;
    }
    if std::fs::rename(&dir, &client).is_err() {
        let _gone = std::fs::remove_dir_all(&dir);
    }
    let value = json!({
        "account": report.balance.account.to_string(),
        "network": chosen.network.to_string(),
        "free_units": report.balance.free.get().to_string(),
        "in_contracts_units": report.balance.in_contracts.get().to_string(),
        "contracts": report.contracts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "files": report.files,
        "bytes": report.bytes,
        "file": ctx.home.wallet(&chosen.network.chain).display().to_string(),
    });
    ctx.out.result("wallet-restore", value, || {
        format!(
            "account  {}\nbalance  {}\nstored   {} in {}\n",
            report.balance.account,
            human::fuel(report.balance.free),
            human::size(report.bytes),
            human::count(report.files, "file"),
        )
    });
    Ok(())
}

/// Finds all that belongs to the words, with the catalog in a folder.
async fn find(ctx: &Context, chosen: &Chosen, seed: Seed, dir: &Path) -> Result<RestoreReport> {
    let session = Session::trying(chosen, seed, Access::Read, Some(dir.to_owned())).await?;
    let report = session.client.restore(progress::bar(ctx.out)).await.map_err(explain)?;
    session.close().await?;
    Ok(report)
}

fn not_a_phrase(error: &PhraseError) -> Failure {
    let failure = Failure::user("these are not the 24 words of a wallet").because(error);
    let PhraseError::Checksum { nearest, .. } = error else { return failure };
    nearest.iter().fold(failure, |failure, correction| {
        failure.hint(format!("it would fit if word {} were '{}'", correction.position, correction.word))
    })
}

async fn send(ctx: &Context, to: AccountId, amount: Fuel) -> Result<()> {
    let chosen = ctx.network()?;
    let session = Session::open(ctx, &chosen, Access::Write, None).await?;
    afford(&session, amount).await?;
    let paid = session.client.transfer(to, amount).await.map_err(explain)?;
    session.close().await?;
    let value = json!({
        "to": to.to_string(),
        "amount_units": amount.get().to_string(),
        "height": paid.height.get(),
    });
    ctx.out.result("wallet-send", value, || format!("sent {} to {}\n", human::fuel(amount), to.short()));
    Ok(())
}

/// Who holds the account's data, by the table of nodes and by what they say themselves.
async fn holders(ctx: &Context, from_words: bool) -> Result<()> {
    let chosen = ctx.network()?;
    let phrase = if from_words {
        Phrase::parse(&secret::phrase()?).map_err(|error| not_a_phrase(&error))?
    } else {
        Phrase::generate(&*open_wallet(ctx, &chosen)?)
    };
    let seed = phrase.seed();
    let contract = contract_id(&chosen.network.chain, &seed.policy().account(), 0);
    let identity = Identity::new(seed, u64::from_le_bytes(*random()?));
    let node = connect(&chosen, &identity, &Line::default()).await?;
    let found = node.holders(contract).await;
    let calls = found.iter().map(|peer| async {
        let question = Request::Hello { chain: chosen.network.chain };
        let answer = node.call(peer, question, bytes::Bytes::new()).await;
        (peer.key, answer.err().map(|fault| fault.to_string()))
    });
    let holders = futures::future::join_all(calls).await;
    node.shutdown().await;
    let value = json!({
        "contract": contract.to_string(),
        "holders": holders
            .iter()
            .map(|(key, failure)| json!({ "seeder": key.to_string(), "failure": failure }))
            .collect::<Vec<_>>(),
    });
    ctx.out.result("wallet-holders", value, || {
        let mut text = format!("contract  {contract}\n");
        for (key, failure) in &holders {
            let state = failure.as_deref().unwrap_or("answers");
            text.push_str(&format!("seeder    {key}  {state}\n"));
        }
        text
    });
    if holders.is_empty() {
        return Err(Failure::unavailable("nobody says to hold this account's data")
            .hint("name another node of the network with --network, and check that it is up"));
    }
    Ok(())
}

async fn show(ctx: &Context, with_phrase: bool) -> Result<()> {
    let chosen = ctx.network()?;
    let entropy = open_wallet(ctx, &chosen)?;
    let session = Session::with(ctx, &chosen, &entropy, Access::Read, None).await?;
    let balance = session.client.balance().await.map_err(explain)?;
    session.close().await?;
    let phrase = Phrase::generate(&entropy);
    let words: Vec<&str> = if with_phrase { phrase.words().collect() } else { Vec::new() };
    let mut value = json!({
        "account": balance.account.to_string(),
        "chain": balance.chain.to_string(),
        "network": chosen.network.to_string(),
        "free_units": balance.free.get().to_string(),
        "in_contracts_units": balance.in_contracts.get().to_string(),
        "file": ctx.home.wallet(&chosen.network.chain).display().to_string(),
    });
    if with_phrase {
        value["words"] = json!(words);
    }
    ctx.out.result("wallet", value, || {
        let mut text = format!(
            "account  {}\nbalance  {}, and {} in contracts\nnetwork  {}\n",
            balance.account,
            human::fuel(balance.free),
            human::fuel(balance.in_contracts),
            chosen.network,
        );
        if with_phrase {
            text.push_str(&format!("words    {}\n", words.join(" ")));
        }
        text
    });
    Ok(())
}

/// A wallet is never overwritten: it may be the only copy of somebody's keys.
fn refuse_second(ctx: &Context, chosen: &Chosen) -> Result<()> {
    let path = ctx.home.wallet(&chosen.network.chain);
    if path.exists() {
        let chain = chosen.network.chain.short();
        return Err(Failure::user(format!("there is a wallet for network {chain} already"))
            .hint("look at it with: tallow wallet show")
            .hint(format!("to use another, move {} away", path.display())));
    }
    Ok(())
}

/// Writes the wallet file; a network named on the command line becomes the current one.
fn keep(ctx: &Context, chosen: &Chosen, entropy: &Entropy, password: &Zeroizing<String>) -> Result<()> {
    let path = ctx.home.wallet(&chosen.network.chain);
    private_dir(path.parent().expect("wallets have a folder"))?;
    // A development network's password file holds 256 random bits: nothing to stretch.
    let random_password = chosen.dev.is_some() && ctx.global.password_file.is_none();
    let kdf = if random_password { Kdf::RANDOM } else { Kdf::PEOPLE };
    let fresh = Fresh { salt: *random()?, nonce: *random()? };
    let bytes = seal(entropy, password.as_bytes(), kdf, &fresh)
        .map_err(|error| Failure::unavailable("cannot seal the wallet").because(&error))?;
    write_secret(&path, &bytes, false).map_err(|error| file_failed("write", &path, &error))?;
    if ctx.global.network.is_some() && chosen.dev.is_none() {
        ctx.home.set_current(&Current::Named(chosen.network.clone()))?;
    }
    Ok(())
}
