//! `tallow demo`: the whole of it on one machine. A network of 13 processes; a tree stored, looked for in every file of
//! theirs, and got back after 8 of 12 seeders were killed.
//!
//! Every step is a check; the first that does not hold ends the demo with an error. Whatever happens, processes and files
//! are gone afterwards.

mod network;
mod search;
mod story;
mod tree;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tallow_client::{Access, ContractReport, GetOptions, GetTarget, PutReport, Source};
use tallow_seal::phrase::Phrase;
use tallow_types::Fuel;

use crate::args::Demo;
use crate::commands::wallet::endow;
use crate::context::Context;
use crate::demo::network::{DemoNetwork, seeder_id};
use crate::demo::search::{Find, NAME_MIN, Needles, Searched, What};
use crate::demo::story::{STEPS, Story};
use crate::failure::{Failure, Kind, Result, file_failed};
use crate::session::{Session, explain};
use crate::stop::Stop;
use crate::wallet::Entropy;
use crate::{human, output, progress};

/// How much plaintext is sampled for the search. Bytes.
const SAMPLE: usize = 1 << 20;
/// It is taken in pieces of this size, from all over the tree. Bytes.
const SAMPLE_PIECE: u64 = 64 << 10;
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
    outcome.map_err(|failure| in_step(failure, story.told()))?;
    if !clean {
        return Err(in_step(Failure::bug("processes or files of the demo are left"), story.told()));
    }
    story.held("all processes and files of the demo are gone", json!({}));
    if story.end(subject.measure.bytes, subject.measure.files) {
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

async fn steps(ctx: &Context, network: &DemoNetwork, subject: &Subject, story: &mut Story) -> Result<()> {
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

    let hunt = Hunt::prepare(network, subject)?;
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
    one_more(ctx, network, &entropy, &left[0].name, story).await
}

fn ensure(holds: bool, otherwise: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Failure::bug(otherwise)) }
}

async fn put(ctx: &Context, owner: &Session, subject: &Subject, story: &mut Story) -> Result<PutReport> {
    let source = Source::path(subject.path.clone());
    let report = owner.client.put(source, NAME, progress::bar(ctx.out)).await.map_err(explain)?;
    ensure(report.files == subject.measure.files, "not every file was stored")?;
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

/// The search for plaintext, prepared before anything is stored.
struct Hunt {
    needles: Needles,
    /// Names too short to be looked for without their folder, or at all.
    unsearchable: usize,
    poor: u64,
    known: usize,
}

impl Hunt {
    fn prepare(network: &DemoNetwork, subject: &Subject) -> Result<Self> {
        let (names, unsearchable) = names(&subject.path)?;
        let samples = sample(&subject.path)?;
        let (mut needles, poor) = Needles::new(names.iter().map(Vec::as_slice), &samples);
        // What stands in the network's files before it has seen any of our data proves nothing later.
        let before = search(&needles, network)?;
        needles.leave_out(&before.finds);
        Ok(Self { needles, unsearchable, poor, known: before.finds.len() })
    }

    fn run(&self, network: &DemoNetwork, story: &mut Story) -> Result<()> {
        let searched = search(&self.needles, network)?;
        if let Some(find) = searched.finds.first() {
            return Err(Failure::bug(format!("plaintext in {}: {}", find.file.display(), describe(find))));
        }
        let planted = self.plant(network)?;
        story.held(
            &format!(
                "{} names and {} windows of 16 bytes: none in {} of {}",
                self.needles.names(),
                self.needles.windows(),
                human::size(searched.bytes),
                human::count(searched.files, "seeder and ledger file"),
            ),
            json!({
                "names": self.needles.names(),
                "windows": self.needles.windows(),
                "short_names": self.unsearchable,
                "poor_windows": self.poor,
                "known_before": self.known,
                "files": searched.files,
                "bytes": searched.bytes,
                "planted_found": planted,
            }),
        );
        story.detail(&format!(
            "planted plaintext, a name and a window, is found by the same search: {planted} finds"
        ));
        story.detail(&format!(
            "not searched: {} of fewer than {NAME_MIN} bytes, {} of few distinct bytes, {} found before the put",
            human::count(self.unsearchable as u64, "name"),
            human::count(self.poor, "window"),
            human::count(self.known as u64, "string"),
        ));
        Ok(())
    }

    /// Puts plaintext into a seeder's folder, and finds it.
    fn plant(&self, network: &DemoNetwork) -> Result<usize> {
        let name = self.needles.any_name();
        let window = self.needles.any_window();
        let disk = network.disk_of(&network.seeders()[0]);
        let path = disk.join("planted");
        let mut bytes = vec![0x5a; 4099];
        bytes.extend(window.unwrap_or_default());
        bytes.extend([0xa5; 31]);
        bytes.extend(name.unwrap_or_default());
        std::fs::write(&path, &bytes).map_err(|error| file_failed("write", &path, &error))?;
        let searched = search(&self.needles, network)?;
        std::fs::remove_file(&path).map_err(|error| file_failed("remove", &path, &error))?;
        let wanted = usize::from(name.is_some()) + usize::from(window.is_some());
        let found = searched.finds.iter().filter(|find| find.file == path).count();
        ensure(wanted > 0, "there is nothing to search for: the tree has neither names nor bytes")?;
        ensure(found >= wanted, "the search does not find a planted plaintext")?;
        Ok(found)
    }
}

fn search(needles: &Needles, network: &DemoNetwork) -> Result<Searched> {
    needles
        .search(&network.disks())
        .map_err(|error| Failure::unavailable("cannot read the seeders' files").because(&error))
}

fn describe(find: &Find) -> String {
    match &find.what {
        What::Name(name) => format!("the name {}", String::from_utf8_lossy(name)),
        What::Window(window) => format!("the bytes {}", hex::encode(window)),
    }
}

/// Every name in the tree; a short one together with its folder's. The number of those that stay too short.
fn names(root: &Path) -> Result<(BTreeSet<Vec<u8>>, usize)> {
    let mut names = BTreeSet::new();
    let mut short = BTreeSet::new();
    let top = root.file_name().map(PathBuf::from).unwrap_or_default();
    for relative in tree::entries(root)?.into_keys() {
        let path = top.join(relative);
        let Some(name) = path.file_name() else { continue };
        let with_folder = path.parent().and_then(Path::file_name).map(|folder| Path::new(folder).join(name));
        let candidates = [Some(PathBuf::from(name)), with_folder];
        let long = candidates.into_iter().flatten().find(|name| name.as_os_str().len() >= NAME_MIN);
        match long {
            Some(name) => names.insert(name.into_os_string().into_encoded_bytes()),
            None => short.insert(path.into_os_string().into_encoded_bytes()),
        };
    }
    Ok((names, short.len()))
}

/// A MiB of the tree's bytes, or all of them if there are fewer: pieces from files spread over the whole.
fn sample(root: &Path) -> Result<Vec<Vec<u8>>> {
    let entries = tree::entries(root)?;
    let files: Vec<(PathBuf, u64)> = entries
        .into_iter()
        .filter(|(_, meta)| meta.is_file() && meta.len() > 0)
        .map(|(relative, meta)| {
            (if relative.as_os_str().is_empty() { root.to_owned() } else { root.join(relative) }, meta.len())
        })
        .collect();
    let total: u64 = files.iter().map(|(_, len)| len).sum();
    let pieces = (SAMPLE as u64).div_ceil(SAMPLE_PIECE);
    let stride = (total / pieces).max(SAMPLE_PIECE);
    let (mut samples, mut passed) = (Vec::new(), 0_u64);
    // A piece begins at each multiple of the stride in the concatenation of all files and goes on into the next file.
    let (mut due, mut owed) = (0_u64, 0_u64);
    for (path, len) in files {
        let mut at = 0;
        while at < len {
            if owed == 0 {
                let next = due.saturating_sub(passed).max(at);
                if next >= len || samples.iter().map(Vec::len).sum::<usize>() >= SAMPLE {
                    break;
                }
                (at, due, owed) = (next, due + stride, SAMPLE_PIECE);
            }
            let bytes = read_part(&path, at, owed)?;
            let read = bytes.len() as u64;
            samples.push(bytes);
            at += read;
            owed -= read;
            if read == 0 {
                break;
            }
        }
        passed += len;
    }
    Ok(samples)
}

fn read_part(path: &Path, from: u64, most: u64) -> Result<Vec<u8>> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.take(most).read_to_end(&mut bytes)
    });
    read.map_err(|error| file_failed("read", path, &error))?;
    Ok(bytes)
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
    differences.retain(|line| !put.skipped.iter().any(|skipped| line.starts_with(&skipped.path)));
    if let Some(first) = differences.first() {
        let count = human::count(differences.len() as u64, "difference");
        return Err(Failure::bug(format!(
            "what came back is not what was stored: {count}, the first: {first}"
        )));
    }
    ensure(report.files == subject.measure.files, "not every file came back")?;
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
