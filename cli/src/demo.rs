//! `tallow demo`: the whole of it on one machine. A network of 13 processes; a tree stored, looked for in every file of
//! theirs, and got back after 8 of 12 seeders were killed.
//!
//! Every step is a check; the first that does not hold ends the demo with an error. Whatever happens, processes and files
//! are gone afterwards.

mod hunt;
mod network;
mod search;
mod story;
mod tree;

use std::path::PathBuf;

use serde_json::{Value, json};
use tallow_client::{Access, ContractReport, GetOptions, GetTarget, PutReport, Source};
use tallow_seal::phrase::Phrase;
use tallow_types::Fuel;

use crate::args::Demo;
use crate::commands::wallet::endow;
use crate::context::Context;
use crate::demo::hunt::Hunt;
use crate::demo::network::{DemoNetwork, seeder_id};
use crate::demo::story::{STEPS, Story};
use crate::failure::{Failure, Kind, Result, file_failed};
use crate::session::{Session, explain};
use crate::stop::Stop;
use crate::wallet::Entropy;
use crate::{human, output, progress};

/// The name under which the tree is stored.
const NAME: &str = "demo";

/// Runs the demo; it stops at Ctrl-C and SIGTERM and cleans up then too.
pub async fn run(ctx: &Context, args: Demo) -> Result<()> {
    let mut stop = Stop::listen()?;
    let mut story = Story::begin(ctx.out);
    let subject = subject(args, &mut story)?;
    let network = tokio::select! {
        network = DemoNetwork::start(ctx) => network?,
        failure = stop.asked() => return Err(failure),
    };
    story.held(
        &format!("a validator and {} in processes of their own, over TCP on loopback", human::count(network.seeders().len() as u64, "seeder")),
        json!({ "processes": network.state.nodes.iter().map(|node| node.pid).collect::<Vec<_>>(), "network": network.state.network()?.to_string() }),
    );
    let outcome = tokio::select! {
        outcome = steps(ctx, &network, &subject, &mut story) => outcome,
        failure = stop.asked() => Err(failure),
    };
    let clean = network.finish().await;
    let report = outcome.map_err(|failure| in_step(failure, story.told()))?;
    if !clean {
        return Err(in_step(Failure::bug("processes or files of the demo are left"), story.told()));
    }
    story.held("all processes and files of the demo are gone", json!({}));
    if story.end(report.bytes, report.files) {
        Ok(())
    } else {
        Err(Failure::bug("a step of the demo was left out"))
    }
}

fn in_step(mut failure: Failure, told: usize) -> Failure {
    if failure.kind != Kind::Interrupted {
        failure.message = format!(
            "step '{}' of the demo did not hold: {}",
            STEPS[told.min(STEPS.len() - 1)],
            failure.message
        );
    }
    failure
}

/// What is stored.
struct Subject {
    path: PathBuf,
    measure: tree::Measure,
}

fn subject(args: Demo, story: &mut Story) -> Result<Subject> {
    let path = match args.path {
        Some(path) => path,
        None => tree::find()?,
    };
    let path = path.canonicalize().map_err(|error| file_failed("read", &path, &error))?;
    let measure = tree::Measure::of(&path, u64::MAX).map_err(|error| file_failed("read", &path, &error))?;
    story.held(
        &format!(
            "{}: {}, {}; {} of 4 KiB or less, {} of 1 MiB or more",
            path.display(),
            human::size(measure.bytes),
            human::count(measure.files, "file"),
            measure.small,
            measure.large,
        ),
        json!({ "path": path.display().to_string(), "bytes": measure.bytes, "files": measure.files }),
    );
    Ok(Subject { path, measure })
}

async fn steps(
    ctx: &Context,
    network: &DemoNetwork,
    subject: &Subject,
    story: &mut Story,
) -> Result<PutReport> {
    let chosen = network.chosen()?;
    let entropy: Entropy = crate::keyfile::random()?;
    let account = Phrase::generate(&entropy).seed().policy().account();
    let gift = endow(&chosen, account).await?;
    let owner = Session::with(&network.context(ctx, "home")?, &chosen, &entropy, Access::Write, None).await?;
    let balance = owner.client.balance().await.map_err(explain)?;
    ensure(balance.free >= gift && gift > Fuel::ZERO, "the wallet did not get its money")?;
    story.held(
        &format!("a new account {} with {}", account.short(), human::fuel(balance.free)),
        json!({ "account": account.to_string(), "free_units": balance.free.get().to_string() }),
    );

    let hunt = Hunt::prepare(network, &subject.path)?;
    let report = put(ctx, &owner, subject, story).await?;
    let contract = holders(ctx, &owner, network, story).await?;
    owner.close().await?;
    hunt.run(network, story)?;

    let (lost, left) = network.seeders().split_at(usize::from(contract.profile.parity()));
    for node in lost {
        network.kill(node).await?;
    }
    story.held(
        &format!("kill -9 of {} of {} seeders", lost.len(), network.seeders().len()),
        json!({ "killed": lost.iter().map(|node| node.name.clone()).collect::<Vec<_>>() }),
    );
    get(ctx, network, &entropy, subject, &report, story).await?;
    one_more(ctx, network, &entropy, &left[0].name, story).await?;
    Ok(report)
}

fn ensure(holds: bool, otherwise: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Failure::bug(otherwise)) }
}

async fn put(ctx: &Context, owner: &Session, subject: &Subject, story: &mut Story) -> Result<PutReport> {
    let source = Source::path(subject.path.clone());
    let report = owner.client.put(source, NAME, progress::bar(ctx.out)).await.map_err(explain)?;
    let left_out = report.skipped.len() as u64;
    ensure(
        report.files + left_out >= subject.measure.files,
        "not every file was stored, and none was left out",
    )?;
    story.held(
        &format!(
            "{} with profile 4 of 12; acknowledged by {} of {} seeders, {} sent to them",
            human::size(report.bytes),
            report.signers,
            report.slots,
            human::size(report.stored),
        ),
        json!({ "bytes": report.bytes, "sent_bytes": report.stored, "signers": report.signers }),
    );
    for skipped in &report.skipped {
        story.detail(&format!("left out {}: {}", skipped.path, skipped.reason));
    }
    Ok(report)
}

/// Waits for all twelve and shows what each holds.
async fn holders(
    ctx: &Context,
    owner: &Session,
    network: &DemoNetwork,
    story: &mut Story,
) -> Result<ContractReport> {
    let mut contract = owner.client.contract().await.map_err(explain)?;
    if contract.healthy < contract.profile.slots() || contract.width < contract.profile.slots() {
        owner.client.repair(progress::bar(ctx.out)).await.map_err(explain)?;
        contract = owner.client.contract().await.map_err(explain)?;
    }
    ensure(contract.healthy == contract.profile.slots(), "not every seeder has countersigned")?;
    ensure(contract.slots.iter().all(|slot| slot.missing == 0), "a seeder misses slices")?;
    let mut rows = Vec::new();
    let mut facts = Vec::new();
    for node in network.seeders() {
        let id = seeder_id(node);
        let slot = contract.slots.iter().find(|slot| slot.seeder == id);
        let slot = slot.ok_or_else(|| Failure::bug(format!("{} holds nothing", node.name)))?;
        let disk = crate::commands::dev::disk_bytes(&network.disk_of(node));
        rows.push(vec![
            node.name.clone(),
            node.pid.to_string(),
            id.map_or_else(String::new, |id| id.short()),
            slot.slot.to_string(),
            human::size(slot.bytes.get()),
            human::size(disk),
        ]);
        facts.push(
            json!({ "seeder": node.name, "slot": slot.slot, "bytes": slot.bytes.get(), "disk_bytes": disk }),
        );
    }
    story.held(
        &format!(
            "all {} hold their slices of {}",
            contract.healthy,
            human::count(contract.stripes, "stripe")
        ),
        Value::from(facts),
    );
    let head = ["seeder", "process", "id", "slot", "holds", "disk in use"];
    story.detail(&output::table(&head, &[false, true, false, true, true, true], &rows));
    Ok(contract)
}

/// Gets everything with a second, empty home that knows the 24 words only, and compares.
async fn get(
    ctx: &Context,
    network: &DemoNetwork,
    entropy: &Entropy,
    subject: &Subject,
    put: &PutReport,
    story: &mut Story,
) -> Result<()> {
    let chosen = network.chosen()?;
    let other = network.context(ctx, "other-home")?;
    let session = Session::with(&other, &chosen, entropy, Access::Read, None).await?;
    let target = network.folder.path("back");
    let options = GetOptions { force: false };
    let report = session
        .client
        .get(NAME, GetTarget::Path(target.clone()), options, progress::bar(ctx.out))
        .await
        .map_err(explain)?;
    session.close().await?;
    let mut differences = tree::differences(&subject.path, &target)?;
    let root = format!("{}/", subject.path.display());
    let left_out = |line: &String| {
        put.skipped.iter().any(|skipped| {
            skipped.path.strip_prefix(&root).is_some_and(|name| *line == format!("{name} is missing"))
        })
    };
    differences.retain(|line| !left_out(line));
    if let Some(first) = differences.first() {
        let count = human::count(differences.len() as u64, "difference");
        return Err(Failure::bug(format!(
            "what came back is not what was stored: {count}, the first: {first}"
        )));
    }
    ensure(report.files == put.files, "not every file came back")?;
    story.held(
        &format!(
            "{} in {} back from the {} seeders left, on an empty home with only the 24 words; every byte is the same",
            human::size(report.bytes),
            human::count(report.files, "file"),
            network.seeders().len() - usize::from(put.slots - 4),
        ),
        json!({ "bytes": report.bytes, "files": report.files, "differences": 0 }),
    );
    Ok(())
}

/// With one seeder fewer than the code needs, the answer must be a clear error.
async fn one_more(
    ctx: &Context,
    network: &DemoNetwork,
    entropy: &Entropy,
    name: &str,
    story: &mut Story,
) -> Result<()> {
    let node = network.seeders().iter().find(|node| node.name == name).expect("it is one of them");
    network.kill(node).await?;
    let chosen = network.chosen()?;
    let other = network.context(ctx, "third-home")?;
    let target = network.folder.path("not-back");
    let attempt = async {
        let session = Session::with(&other, &chosen, entropy, Access::Read, None).await?;
        let options = GetOptions { force: false };
        let got = session.client.get(NAME, GetTarget::Path(target), options, progress::bar(ctx.out)).await;
        got.map(drop).map_err(explain)
    };
    let failure = match attempt.await {
        Ok(()) => return Err(Failure::bug("3 seeders gave back what takes 4")),
        Err(failure) => failure,
    };
    ensure(failure.kind == Kind::Unavailable, &format!("the error is of the wrong kind: {failure}"))?;
    story.held(
        &format!("kill -9 of {name}: with 3 of the 4 needed, getting it back fails, and says why"),
        json!({ "killed": name, "error": failure.to_json() }),
    );
    story.detail(&failure.render());
    Ok(())
}

#[cfg(test)]
mod testing {
    use std::path::Path;

    /// A file with the folders above it.
    pub fn write(path: &Path, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().expect("has one")).expect("makes");
        std::fs::write(path, bytes).expect("writes");
    }
}
