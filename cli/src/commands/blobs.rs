//! `put`, `get`, `ls`, `stat NAME`, `rm`: what is stored, by path.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tallow_client::{
    Access, Blame, Client, GetError, GetOptions, GetReport, GetTarget, Listed, ListedKind, PutError,
    PutReport, SessionError, Skipped, Source, Stat,
};
use tallow_types::TimeMs;
use tokio::io::AsyncWriteExt as _;

use crate::args::{ByteRange, Get, Ls, Put, Rm};
use crate::commands::contract;
use crate::context::Context;
use crate::failure::{Failure, Kind, Result, file_failed};
use crate::output::{Output, Table};
use crate::session::{Session, explain};
use crate::{human, progress};

/// Stores a file, a folder or a stream.
pub async fn put(ctx: &Context, args: Put) -> Result<()> {
    let stream = args.source == Path::new("-");
    let name = match args.name {
        Some(name) => trimmed(&name),
        None if stream => {
            return Err(Failure::config("a stream has no name of its own").hint("name it: tallow put - NAME"));
        }
        None => own_name(&args.source)?,
    };
    let source =
        if stream { Source::reader(Box::new(std::io::stdin())) } else { Source::path(args.source.clone()) };
    let chosen = ctx.network()?;
    let session = Session::open_within(ctx, &chosen, Access::Write, args.profile, &args.line).await?;
    let report = session.client.put(source, &name, progress::bar(ctx.out)).await.map_err(put_failed)?;
    session.close().await?;
    for lost in &report.lost {
        ctx.out.note(format!("{lost}; `tallow repair` fills what it misses"));
    }
    ctx.out.result("put", put_json(&name, &report), || {
        format!(
            "stored {} as {}: {}, {} sent, acknowledged by {} of {} seeders\n",
            human::count(report.files, "file"),
            shown(&name),
            human::size(report.bytes),
            human::size(report.stored),
            report.signers,
            report.slots,
        )
    });
    all_stored(&report)
}

/// What was left out is said once more by the exit code: a script that keeps backups must not take it for all.
fn all_stored(report: &PutReport) -> Result<()> {
    if report.skipped.is_empty() {
        return Ok(());
    }
    let left_out = human::entries(report.skipped.len());
    let mut failure = Failure::user(format!("{left_out} of the source could not be stored; all else is"));
    failure.details =
        report.skipped.iter().map(|item| format!("{}: {}", shown(&item.path), item.reason)).collect();
    Err(failure.hint("rename or move what is named above, or leave it out of the source"))
}

fn put_json(name: &str, report: &PutReport) -> Value {
    json!({
        "name": name,
        "files": report.files,
        "folders": report.folders,
        "links": report.links,
        "bytes": report.bytes,
        "reused_bytes": report.reused,
        "stored_bytes": report.stored,
        "signers": report.signers,
        "slots": report.slots,
        "skipped": skipped_json(&report.skipped),
        "lost": blames_json(&report.lost),
    })
}

fn put_failed(error: PutError) -> Failure {
    let resume = matches!(error, PutError::TooFew { .. });
    let failure = explain(error);
    if resume {
        failure.hint("typing the same command again sends only what is still missing")
    } else {
        failure
    }
}

/// Gets a blob or a folder back.
pub async fn get(ctx: &Context, args: Get) -> Result<()> {
    let name = trimmed(&args.name);
    let chosen = ctx.network()?;
    let target = match &args.output {
        Some(target) => target.clone(),
        None => PathBuf::from(last_part(&name)?),
    };
    let session = Session::open_within(ctx, &chosen, Access::Read, None, &args.line).await?;
    let report = if target == Path::new("-") {
        to_stdout(ctx.out, &session.client, &name, args.range).await?
    } else if let Some(range) = args.range {
        range_to_file(ctx.out, &session.client, &name, range, &target, args.force).await?
    } else {
        let options = GetOptions { force: args.force };
        let bar = progress::bar(ctx.out);
        session
            .client
            .get(&name, GetTarget::Path(target.clone()), options, bar)
            .await
            .map_err(|e| forced(get_failed(e, &name), args.force))?
    };
    session.close().await?;
    for note in &report.notes {
        ctx.out.warn(format!("{}: {}", shown(&note.path), note.reason));
    }
    for bad in &report.bad {
        ctx.out.note(format!("done without {bad}"));
    }
    if target == Path::new("-") {
        return Ok(());
    }
    ctx.out.result("get", get_json(&name, &target, &report), || {
        let links = if report.links == 0 {
            String::new()
        } else {
            format!(" and {}", human::count(report.links, "link"))
        };
        format!(
            "got {}{links}, {}, into {}\n",
            human::count(report.files, "file"),
            human::size(report.bytes),
            shown(&target.to_string_lossy()),
        )
    });
    Ok(())
}

fn get_json(name: &str, target: &Path, report: &GetReport) -> Value {
    json!({
        "name": name,
        "target": target.display().to_string(),
        "files": report.files,
        "folders": report.folders,
        "links": report.links,
        "bytes": report.bytes,
        "notes": skipped_json(&report.notes),
        "bad": blames_json(&report.bad),
    })
}

async fn to_stdout(out: Output, client: &Client, name: &str, range: Option<ByteRange>) -> Result<GetReport> {
    let range = resolve(client, name, range).await?;
    let mut stdout = tokio::io::stdout();
    let report = match client.get_to(name, range, &mut stdout, progress::bar(out)).await {
        Ok(report) => report,
        // A reader that went away (`| head`) has what it wanted.
        Err(GetError::Target { source, .. }) if source.kind() == ErrorKind::BrokenPipe => {
            return Ok(GetReport::default());
        }
        Err(error) => return Err(get_failed(error, name)),
    };
    stdout.flush().await.map_err(|error| file_failed("write", Path::new("standard output"), &error))?;
    Ok(report)
}

/// Part of a blob as a file: under a temporary name beside the target until it is whole.
async fn range_to_file(
    out: Output,
    client: &Client,
    name: &str,
    range: ByteRange,
    target: &Path,
    force: bool,
) -> Result<GetReport> {
    let failed = |error: &std::io::Error| file_failed("write", target, error);
    if !force && target.symlink_metadata().is_ok() {
        return Err(get_failed(GetError::Exists { path: target.display().to_string() }, name));
    }
    let range = resolve(client, name, Some(range)).await?;
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let file =
        tempfile::Builder::new().prefix(".tallow-").tempfile_in(dir).map_err(|error| failed(&error))?;
    let (file, path) = file.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    let report =
        client.get_to(name, range, &mut file, progress::bar(out)).await.map_err(|e| get_failed(e, name))?;
    file.flush().await.map_err(|error| failed(&error))?;
    file.sync_all().await.map_err(|error| failed(&error))?;
    let named = if force { path.persist(target) } else { path.persist_noclobber(target) };
    named.map_err(|error| failed(&error.error))?;
    Ok(report)
}

/// The range in bytes; its end needs the blob's size.
async fn resolve(
    client: &Client,
    name: &str,
    range: Option<ByteRange>,
) -> Result<Option<std::ops::Range<u64>>> {
    let Some(range) = range else { return Ok(None) };
    let stat = client.stat(name).await.map_err(|error| get_failed(error, name))?;
    Ok(Some(range.within(stat.entry.size)))
}

fn get_failed(error: GetError, name: &str) -> Failure {
    let full = matches!(&error, GetError::Target { source, .. }
        if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded));
    let hint = match &error {
        GetError::Exists { .. } => {
            Some("to replace a file that is there: --force; to write elsewhere: -o TARGET".to_owned())
        }
        GetError::NotFound { near, .. } if near.is_empty() => {
            Some("see what there is with: tallow ls".to_owned())
        }
        GetError::NotAFile { what, .. } if what.contains("link") => Some(format!(
            "a link has no bytes of its own: make it with: tallow get {} -o TARGET",
            shown(name)
        )),
        GetError::NotAFile { .. } => Some(format!("see what is in it with: tallow ls {}", shown(name))),
        GetError::Target { .. } if full => Some("free some space and type it again".to_owned()),
        _ => None,
    };
    let mut failure = explain(error);
    if full {
        failure.kind = Kind::Unavailable;
    }
    if let Some(hint) = hint {
        failure.hints = vec![hint];
    }
    failure
}

/// With `--force` what is still in the way is no file.
fn forced(mut failure: Failure, force: bool) -> Failure {
    for hint in &mut failure.hints {
        if force && hint.contains("--force") {
            *hint =
                "what is there is no file and is left alone: move it away, or write elsewhere with -o TARGET"
                    .to_owned();
        }
    }
    failure
}

/// Rows of a listing that are lined up together: what comes is shown while the rest is looked up.
const LS_ROWS: usize = 2048;

/// Lists blobs.
pub async fn ls(ctx: &Context, args: Ls) -> Result<()> {
    let chosen = ctx.network()?;
    let session = Session::open(ctx, &chosen, Access::Read, None).await?;
    let prefix = trimmed(&args.prefix);
    let listing = match session.client.list(&prefix, args.recursive).await {
        Ok(listing) => Some(listing),
        // Nothing was stored yet: nothing is there, which is an answer.
        Err(GetError::Session(SessionError::NoContract(_))) if prefix.is_empty() => None,
        Err(error) => return Err(get_failed(error, &prefix)),
    };
    session.close().await?;
    let mut table = Table::new(&["mode", "size", "modified", "name"], &[false, true, false, false]);
    let (mut rows, mut count) = (Vec::new(), 0);
    for entry in listing.into_iter().flatten() {
        let entry = entry.map_err(|error| get_failed(error, &prefix))?;
        count += 1;
        if ctx.out.json {
            ctx.out.result("entry", entry_json(&entry), String::new);
            continue;
        }
        rows.push(entry_row(&entry));
        if rows.len() == LS_ROWS {
            ctx.out.say(table.lines(&std::mem::take(&mut rows)).trim_end());
        }
    }
    if !rows.is_empty() {
        ctx.out.say(table.lines(&rows).trim_end());
    }
    ctx.out.note(human::entries(count));
    Ok(())
}

fn entry_row(entry: &Listed) -> Vec<String> {
    let (size, name) = match &entry.kind {
        ListedKind::File => (human::size(entry.size), shown(&entry.path)),
        ListedKind::Folder => (String::new(), format!("{}/", shown(&entry.path))),
        ListedKind::Link(to) => (String::new(), format!("{} -> {}", shown(&entry.path), shown(to))),
    };
    let mode = format!("{:04o}", entry.mode & 0o7777);
    vec![mode, size, modified(entry.mtime_ms), name]
}

fn modified(mtime_ms: i64) -> String {
    u64::try_from(mtime_ms).map_or_else(|_| "before 1970".to_owned(), |ms| human::date(TimeMs::new(ms)))
}

fn entry_json(entry: &Listed) -> Value {
    let (kind, target) = match &entry.kind {
        ListedKind::File => ("file", None),
        ListedKind::Folder => ("folder", None),
        ListedKind::Link(to) => ("link", Some(to)),
    };
    json!({
        "path": entry.path,
        "kind": kind,
        "target": target,
        "bytes": entry.size,
        "modified_ms": entry.mtime_ms,
        "mode": entry.mode,
        "stored": human::rfc3339(entry.stored_at),
    })
}

/// Shows one blob or folder.
pub async fn stat(ctx: &Context, name: &str) -> Result<()> {
    let chosen = ctx.network()?;
    let session = Session::open(ctx, &chosen, Access::Read, None).await?;
    let name = trimmed(name);
    let stat = session.client.stat(&name).await.map_err(|error| get_failed(error, &name))?;
    session.close().await?;
    let mut value = entry_json(&stat.entry);
    value["files"] = json!(stat.files);
    value["all_bytes"] = json!(stat.bytes);
    value["stripes"] = json!(stat.stripes);
    value["inline"] = json!(stat.inline);
    value["contract"] = contract::to_json(&stat.contract);
    ctx.out.result("stat", value, || stat_text(&stat));
    Ok(())
}

fn stat_text(stat: &Stat) -> String {
    let entry = &stat.entry;
    let what = match &entry.kind {
        ListedKind::File => format!("file of {}", human::size(entry.size)),
        ListedKind::Folder => {
            format!("folder of {}, {}", human::count(stat.files, "file"), human::size(stat.bytes))
        }
        ListedKind::Link(to) => format!("link to {}", shown(to)),
    };
    let place = match (stat.stripes, stat.inline) {
        (0, _) => "in the catalog".to_owned(),
        (stripes, 0) => format!("in {}", human::count(stripes, "stripe")),
        (stripes, inline) => format!("in {}, {inline} in the catalog", human::count(stripes, "stripe")),
    };
    format!(
        "name      {}\nwhat      {what}\nmode      {:04o}\nmodified  {}\nstored    {}, {place}\nhealth    {}\npaid      {}\n",
        shown(&entry.path),
        entry.mode & 0o7777,
        modified(entry.mtime_ms),
        human::date(entry.stored_at),
        contract::health(&stat.contract),
        contract::paid(&stat.contract),
    )
}

/// Removes blobs.
pub async fn rm(ctx: &Context, args: Rm) -> Result<()> {
    let chosen = ctx.network()?;
    let session = Session::open(ctx, &chosen, Access::Write, None).await?;
    let (mut entries, mut bytes, mut dead) = (0, 0, 0);
    for name in &args.names {
        let name = trimmed(name);
        let report = session.client.rm(&name, args.recursive).await.map_err(|error| {
            let is_folder = matches!(error, GetError::NotAFile { .. });
            let failure = get_failed(error, &name);
            if is_folder {
                failure.hint("to remove it with all that is in it: tallow rm -r")
            } else {
                failure
            }
        })?;
        entries += report.entries;
        bytes += report.bytes;
        dead += report.dead_stripes;
    }
    session.close().await?;
    let value = json!({ "entries": entries, "bytes": bytes, "dead_stripes": dead });
    ctx.out.result("rm", value, || {
        format!(
            "removed {}, {}\n",
            human::entries(usize::try_from(entries).unwrap_or(usize::MAX)),
            human::size(bytes)
        )
    });
    Ok(())
}

/// A blob path as people type it: no slash at either end; `/` is everything.
fn trimmed(name: &str) -> String {
    name.trim_matches('/').to_owned()
}

fn last_part(name: &str) -> Result<&str> {
    name.rsplit('/').next().filter(|part| !part.is_empty()).ok_or_else(|| {
        Failure::config("everything has no name of its own")
            .hint("say where to write it: tallow get / -o TARGET")
    })
}

/// The name that a file or folder has on this machine.
fn own_name(source: &Path) -> Result<String> {
    // `.` and `..` have no name; what they lead to has.
    let real = match source.file_name() {
        Some(_) => source.to_owned(),
        None => source.canonicalize().map_err(|error| file_failed("read", source, &error))?,
    };
    let name = real.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| {
        Failure::user(format!("{} has no name to store it under", source.display()))
            .hint("name it: tallow put SOURCE NAME")
    })
}

/// A name without the control characters that would play with a terminal.
pub fn shown(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn skipped_json(list: &[Skipped]) -> Value {
    list.iter().map(|item| json!({ "path": item.path, "reason": item.reason })).collect()
}

/// Seeders that failed, as JSON.
pub fn blames_json(list: &[Blame]) -> Value {
    list.iter()
        .map(|blame| json!({ "slot": blame.slot, "seeder": blame.seeder, "reason": blame.reason }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: names come out as people expect. Method: table.
    #[test]
    fn names_are_trimmed() {
        assert_eq!(trimmed("/a/b/"), "a/b");
        assert_eq!(trimmed("/"), "");
        assert_eq!(last_part("a/b").expect("has one"), "b");
        assert!(last_part("").is_err());
        assert_eq!(own_name(Path::new("/x/letter.txt")).expect("has one"), "letter.txt");
        assert!(own_name(Path::new("/")).is_err());
        assert_eq!(shown("a\u{1b}[31mb\n"), "a?[31mb?");
    }
}
