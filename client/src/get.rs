//! `get`: looks up what is wanted, fetches it ahead of the disk, and writes it in order.
//!
//! Memory: what [`Ahead`] says, and the plain bytes of a few spans that wait for the disk.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes as Payload;
use tallow_seal::chunk::ChunkRef;
use tallow_seal::entry::{ChunkList, Content, Entry, Kind};
use tallow_seal::path::BlobPath;
use tallow_types::codec::decode;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::ahead::{Ahead, dropped};
use crate::book::Book;
use crate::client::Client;
use crate::entries::{Entries, Sum};
use crate::error::{GetError, SessionError};
use crate::fetch::{Fetcher, Under};
use crate::gather::Whose;
use crate::progress::{Progress, Stage};
use crate::report::GetReport;
use crate::target::{GetOptions, GetTarget, Target};

/// Spans that wait for the disk at most.
const WRITES_WAITING: usize = 2;
/// Files that are looked up and fetched together: memory is bounded by it however many there are.
const WINDOW: usize = 8192;

/// One file to write.
struct Wanted {
    relative: String,
    entry: Entry,
    chunks: Vec<ChunkRef>,
}

impl Client {
    /// Writes a blob to a file, or a folder with everything below it to a folder. An empty path means everything.
    ///
    /// # Errors
    /// See [`GetError`]. Files written whole before the failure stay.
    pub async fn get(
        &self,
        from: &str,
        to: GetTarget,
        options: GetOptions,
        progress: Arc<dyn Progress>,
    ) -> Result<GetReport, GetError> {
        progress.stage(Stage::Connecting);
        let (book, fetcher, _) = self.inner.view(progress.clone(), Whose::Quorum).await?;
        let fetcher = Arc::new(fetcher);
        let GetTarget::Path(to) = to;
        let mut found = lookup(&book.entries, from)?;
        let mut target = prepare(&book.entries, from, to, options)?;
        progress.stage(Stage::Fetching);
        let all = total(&book.entries, from)?;
        progress.expect(all.files, all.bytes);
        let mut report = GetReport::default();
        let mut files = Vec::new();
        let prefix = if from.is_empty() { 0 } else { from.len() + 1 };
        loop {
            let next = found.next().transpose()?;
            if files.len() >= WINDOW || next.is_none() {
                // In the order of the stripes, so that files that share one are fetched together.
                files
                    .sort_by_key(|file: &Wanted| file.chunks.first().map(|chunk| (chunk.leaf, chunk.offset)));
                let window = std::mem::take(&mut files);
                target = write_files(&fetcher, &book, window, target, &progress, &mut report).await?;
            }
            let Some((path, entry)) = next else { break };
            let relative = path.as_str().get(prefix..).unwrap_or_default().to_owned();
            match &entry.kind {
                Kind::Dir => {
                    target.dir(&relative, entry.clone())?;
                    report.folders += 1;
                }
                Kind::Symlink(link) => {
                    target.link(&relative, entry.clone(), link.as_bytes())?;
                    report.links += 1;
                }
                Kind::File(content) => {
                    let chunks = chunks_of(&fetcher, &book, content).await.map_err(named(path.as_str()))?;
                    files.push(Wanted { relative, entry: entry.clone(), chunks });
                }
            }
        }
        let finished = blocking(move || target.finish()).await??;
        report.notes = finished;
        report.bad = fetcher.blames();
        Ok(report)
    }

    /// Writes a blob, or a range of it, to a stream.
    ///
    /// # Errors
    /// See [`GetError`]. What was written before the failure is right.
    pub async fn get_to(
        &self,
        from: &str,
        range: Option<Range<u64>>,
        to: &mut (dyn AsyncWrite + Unpin + Send),
        progress: Arc<dyn Progress>,
    ) -> Result<GetReport, GetError> {
        progress.stage(Stage::Connecting);
        let (book, fetcher, _) = self.inner.view(progress.clone(), Whose::Quorum).await?;
        let fetcher = Arc::new(fetcher);
        let path = BlobPath::parse(from).map_err(|_| missing(&book.entries, from))?;
        let entry = book.entries.get(path.as_str())?;
        let not_a_file = |what| GetError::NotAFile { path: from.to_owned(), what, wanted: "streamed" };
        let content = match entry.as_ref().map(|entry| &entry.kind) {
            Some(Kind::File(content)) => content,
            Some(Kind::Dir) => return Err(not_a_file("folder")),
            Some(Kind::Symlink(_)) => return Err(not_a_file("link")),
            None if book.entries.is_there(path.as_str())? => return Err(not_a_file("folder")),
            None => return Err(missing(&book.entries, from)),
        };
        let size = content.size().get();
        let range = range.unwrap_or(0..size);
        if range.start > size {
            return Err(GetError::BadRange { path: from.to_owned(), start: range.start, size });
        }
        let range = range.start..range.end.min(size);
        progress.stage(Stage::Fetching);
        progress.expect(1, range.end.saturating_sub(range.start));
        let written = |source| GetError::Target { path: "the output".into(), source };
        let mut report = GetReport { files: 1, ..GetReport::default() };
        if let Content::Inline(bytes) = content {
            let part = usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0);
            let part = bytes.get(part).unwrap_or_default();
            to.write_all(part).await.map_err(written)?;
            report.bytes = part.len() as u64;
            progress.plain(report.bytes);
        } else {
            let chunks = chunks_of(&fetcher, &book, content).await.map_err(named(from))?;
            let (chunks, mut skip) = cut_range(chunks, &range);
            let mut left = range.end.saturating_sub(range.start);
            let mut ahead = Ahead::new(vec![chunks], fetcher.clone(), book.clone());
            while let Some(plain) = ahead.next().await.map_err(named(from))? {
                for (_, bytes) in plain {
                    let begin = usize::try_from(skip).unwrap_or(0).min(bytes.len());
                    let end =
                        bytes.len().min(begin.saturating_add(usize::try_from(left).unwrap_or(usize::MAX)));
                    skip = 0;
                    let part = &bytes[begin..end];
                    to.write_all(part).await.map_err(written)?;
                    left -= part.len() as u64;
                    report.bytes += part.len() as u64;
                    progress.plain(part.len() as u64);
                }
            }
        }
        to.flush().await.map_err(written)?;
        progress.blob(from);
        report.bad = fetcher.blames();
        Ok(report)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, GetError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| SessionError::Internal(error.to_string()).into())
}

/// Names the blob in an error about its stripes.
fn named(path: &str) -> impl FnOnce(SessionError) -> GetError {
    let path = path.to_owned();
    move |error| {
        GetError::Session(match error {
            SessionError::Unreadable { have, need, failed, .. } => {
                SessionError::Unreadable { what: path, have, need, failed }
            }
            SessionError::Damaged { reason, .. } => SessionError::Damaged { what: path, reason },
            other => other,
        })
    }
}

/// Everything at or below a path, in order.
pub(crate) fn lookup(
    entries: &Entries,
    from: &str,
) -> Result<impl Iterator<Item = Result<(BlobPath, Entry), GetError>> + Send + use<>, GetError> {
    if !from.is_empty() && (BlobPath::parse(from).is_err() || !entries.is_there(from)?) {
        return Err(missing(entries, from));
    }
    Ok(entries.within(from)?.map(|item| item.map_err(GetError::from)))
}

/// What is at a path and below it, all together.
fn total(entries: &Entries, from: &str) -> Result<Sum, GetError> {
    let mut sum = entries.sum(from)?;
    if let Some(own) = entries.get(from)?
        && let Kind::File(content) = own.kind
    {
        sum.files += 1;
        sum.bytes += content.size().get();
    }
    Ok(sum)
}

/// Names that are compared with one that is not there.
const NEAR_MAX: usize = 10_000;

/// The error for a path that is not there, with the nearest names that are, of those in the deepest folder above it that is.
pub(crate) fn missing(entries: &Entries, from: &str) -> GetError {
    let is_folder = |folder: &str| folder.is_empty() || entries.sum(folder).is_ok_and(|sum| sum.entries > 0);
    let mut folder = from;
    let mut wanted = from;
    while !folder.is_empty() {
        wanted = folder;
        folder = folder.rfind('/').map_or("", |at| &folder[..at]);
        if is_folder(folder) {
            break;
        }
    }
    let mut near: Vec<(usize, String)> = Vec::new();
    if let Ok(mut children) = entries.children(folder) {
        for _ in 0..NEAR_MAX {
            let Ok(Some(child)) = children.next(entries) else { break };
            let distance = distance(&child.path, wanted);
            if distance <= 2 {
                near.push((distance, child.path));
            }
        }
    }
    near.sort_unstable();
    let near = near.into_iter().take(3).map(|(_, path)| path).collect();
    GetError::NotFound { path: from.to_owned(), near }
}

/// Edits that lead from one text to the other. Long texts are as far apart as can be: this is for typing errors.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 || b.len() > 64 || a.len().abs_diff(b.len()) > 16 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Checks the target before anything is fetched.
fn prepare(entries: &Entries, from: &str, to: PathBuf, options: GetOptions) -> Result<Target, GetError> {
    match entries.get(from)? {
        Some(entry) if entry.kind != Kind::Dir => {
            let name = from.rsplit('/').next().unwrap_or(from);
            let to = if to.is_dir() { to.join(name) } else { to };
            Target::file(to, options.force)
        }
        _ => Target::folder(to, options.force),
    }
}

/// All chunks of a content, lists resolved.
async fn chunks_of(fetcher: &Fetcher, book: &Book, content: &Content) -> Result<Vec<ChunkRef>, SessionError> {
    match content {
        Content::Inline(_) => Ok(Vec::new()),
        Content::Chunks(chunks) => Ok(chunks.to_vec()),
        Content::Lists { lists, .. } => {
            let mut all = Vec::new();
            for list in lists.iter() {
                let row = book.row(list.leaf).ok_or_else(|| dropped(list.leaf))?;
                for bytes in fetcher.chunks(&row.into(), &[*list], Under::Catalog).await? {
                    let list: ChunkList = decode(&bytes).map_err(|error| SessionError::Damaged {
                        what: "a list of chunks".into(),
                        reason: error.to_string(),
                    })?;
                    all.extend(list.chunks.iter().copied());
                }
            }
            Ok(all)
        }
    }
}

/// The chunks that hold a range, and how many bytes of the first lie before it.
fn cut_range(chunks: Vec<ChunkRef>, range: &Range<u64>) -> (Vec<ChunkRef>, u64) {
    let (mut at, mut skip, mut kept) = (0u64, 0, Vec::new());
    for chunk in chunks {
        let end = at + u64::from(chunk.plain_len);
        if !range.is_empty() && end > range.start && at < range.end {
            if kept.is_empty() {
                skip = range.start.saturating_sub(at);
            }
            kept.push(chunk);
        }
        at = end;
    }
    (kept, skip)
}

/// Fetches and writes files in the order given.
async fn write_files(
    fetcher: &Arc<Fetcher>,
    book: &Arc<Book>,
    mut files: Vec<Wanted>,
    mut target: Target,
    progress: &Arc<dyn Progress>,
    report: &mut GetReport,
) -> Result<Target, GetError> {
    let lists = files.iter_mut().map(|file| std::mem::take(&mut file.chunks)).collect::<Vec<_>>();
    let mut left: Vec<usize> = lists.iter().map(Vec::len).collect();
    for (file, _) in files.iter().zip(&left).filter(|(_, left)| **left == 0) {
        target.begin(&file.relative, file.entry.clone())?;
        if let Kind::File(Content::Inline(bytes)) = &file.entry.kind {
            target.write(bytes)?;
            report.bytes += bytes.len() as u64;
            progress.plain(bytes.len() as u64);
        }
        target.end()?;
        report.files += 1;
        progress.blob(&file.relative);
    }
    let mut current: Option<usize> = None;
    let mut ahead = Ahead::new(lists, fetcher.clone(), book.clone());
    let (queue, steps) = mpsc::channel(WRITES_WAITING);
    let writing = tokio::task::spawn_blocking(move || perform(target, steps));
    loop {
        let next = ahead.next().await;
        let name = || current.and_then(|at| files.get(at)).map_or("a file", |file| file.relative.as_str());
        let Some(plain) = next.map_err(named(name()))? else { break };
        let mut work: Vec<Step> = Vec::new();
        for (file, bytes) in plain {
            if current != Some(file) {
                work.push(Step::Begin(files[file].relative.clone(), files[file].entry.clone()));
                current = Some(file);
            }
            report.bytes += bytes.len() as u64;
            progress.plain(bytes.len() as u64);
            work.push(Step::Write(bytes));
            left[file] -= 1;
            if left[file] == 0 {
                work.push(Step::End);
                report.files += 1;
                progress.blob(&files[file].relative);
            }
        }
        if queue.send(work).await.is_err() {
            // The writer failed, and says why.
            break;
        }
    }
    drop(queue);
    writing.await.map_err(|error| SessionError::Internal(error.to_string()))?
}

enum Step {
    Begin(String, Entry),
    Write(Payload),
    End,
}

/// Writes what comes until nothing comes any more. Runs on a thread that may block.
fn perform(mut target: Target, mut steps: mpsc::Receiver<Vec<Step>>) -> Result<Target, GetError> {
    while let Some(work) = steps.blocking_recv() {
        for step in work {
            match step {
                Step::Begin(relative, entry) => target.begin(&relative, entry)?,
                Step::Write(bytes) => target.write(&bytes)?,
                Step::End => target.end()?,
            }
        }
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tallow_seal::chunk::ChunkId;
    use tallow_types::unit::LeafIndex;

    fn chunk(leaf: u64, offset: u32, len: u32) -> ChunkRef {
        ChunkRef {
            id: ChunkId::new([0; 32]),
            leaf: LeafIndex::new(leaf),
            offset,
            sealed_len: len,
            plain_len: len,
        }
    }

    /// Goal: a range keeps the chunks that it touches and no others. Method: the edges of three chunks.
    #[test]
    fn ranges_touch_their_chunks_only() {
        let all = || vec![chunk(0, 0, 10), chunk(0, 10, 10), chunk(1, 0, 10)];
        for (range, kept, skip) in
            [(0..30, 3, 0), (0..10, 1, 0), (10..11, 1, 0), (9..11, 2, 9), (25..30, 1, 5), (5..5, 0, 0)]
        {
            let (chunks, skipped) = cut_range(all(), &range);
            assert_eq!((chunks.len(), skipped), (kept, skip), "{range:?}");
        }
    }

    /// Goal: near names are offered, far ones are not. Method: a small catalog's distances.
    #[test]
    fn typing_errors_are_near() {
        assert_eq!(distance("photo.jpg", "phtoo.jpg"), 2);
        assert_eq!(distance("a", "a"), 0);
        assert!(distance("abc", "xyz") > 2);
    }
}
