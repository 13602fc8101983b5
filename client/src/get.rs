//! `get`: looks up what is wanted, fetches it in spans, a few at a time, and writes it in order.
//!
//! Memory: four spans of at most 4 MiB of sealed chunks, with the columns they are made from.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use tallow_seal::catalog::{Catalog, within};
use tallow_seal::chunk::ChunkRef;
use tallow_seal::entry::{ChunkList, Content, Entry, Kind};
use tallow_seal::path::BlobPath;
use tallow_types::codec::decode;
use tallow_types::unit::LeafIndex;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::book::Book;
use crate::client::Client;
use crate::error::{GetError, SessionError};
use crate::fetch::{Fetcher, Under};
use crate::progress::{Progress, Stage};
use crate::report::GetReport;
use crate::target::{GetOptions, GetTarget, Target};

/// Sealed bytes that are fetched at once, unless a single chunk has more.
const SPAN_MAX: u32 = 4 << 20;
/// Spans on their way at once.
const SPANS_AHEAD: usize = 4;
/// A gap between wanted chunks that is fetched along.
const GAP_MAX: u32 = 64 << 10;

/// Neighbouring chunks of one stripe, with the file that each is of.
struct Span {
    leaf: LeafIndex,
    chunks: Vec<(usize, ChunkRef)>,
    first: u32,
    end: u32,
}

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
        let (book, fetcher, _) = self.inner.view(progress.clone()).await?;
        let GetTarget::Path(to) = to;
        let found = lookup(&book.catalog, from)?;
        let mut target = prepare(&found, from, to, options)?;
        progress.stage(Stage::Fetching);
        let mut report = GetReport::default();
        let mut files = Vec::new();
        let prefix = if from.is_empty() { 0 } else { from.len() + 1 };
        for (path, entry) in found {
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
        let bytes = files.iter().map(|file| file.entry.size().get()).sum();
        progress.expect(files.len() as u64, bytes);
        // In the order of the stripes, so that files that share one are fetched together.
        files.sort_by_key(|file| file.chunks.first().map(|chunk| (chunk.leaf, chunk.offset)));
        let target = write_files(&fetcher, &book, files, target, &progress, &mut report).await?;
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
        let (book, fetcher, _) = self.inner.view(progress.clone()).await?;
        let path = BlobPath::parse(from).map_err(|_| missing(&book.catalog, from))?;
        let entry = book.catalog.get(&path);
        let not_a_file = |what| GetError::NotAFile { path: from.to_owned(), what, wanted: "streamed" };
        let content = match entry.map(|entry| &entry.kind) {
            Some(Kind::File(content)) => content,
            Some(Kind::Dir) => return Err(not_a_file("folder")),
            Some(Kind::Symlink(_)) => return Err(not_a_file("link")),
            None if within(&book.catalog, &path).next().is_some() => return Err(not_a_file("folder")),
            None => return Err(missing(&book.catalog, from)),
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
            let mut spans = spans(vec![chunks], &fetcher, &book);
            while let Some(plain) = spans.try_next().await.map_err(named(from))? {
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

/// Everything at or below a path.
pub(crate) fn lookup<'a>(
    catalog: &'a Catalog,
    from: &str,
) -> Result<Vec<(&'a BlobPath, &'a Entry)>, GetError> {
    if from.is_empty() {
        return Ok(catalog.iter().collect());
    }
    let path = BlobPath::parse(from).map_err(|_| missing(catalog, from))?;
    let found: Vec<_> = within_owned(catalog, &path);
    if found.is_empty() { Err(missing(catalog, from)) } else { Ok(found) }
}

fn within_owned<'a>(catalog: &'a Catalog, path: &BlobPath) -> Vec<(&'a BlobPath, &'a Entry)> {
    let itself = catalog.get_key_value(path);
    let first = format!("{}/", path.as_str());
    let from = (std::ops::Bound::Included(first.as_str()), std::ops::Bound::Unbounded);
    let below = catalog.range::<str, _>(from).take_while(|(other, _)| other.is_within(path));
    itself.into_iter().chain(below).collect()
}

/// The error for a path that is not there, with the nearest names that are.
pub(crate) fn missing(catalog: &Catalog, from: &str) -> GetError {
    let mut near: Vec<(usize, &str)> = catalog
        .keys()
        .map(|path| (distance(path.as_str(), from), path.as_str()))
        .filter(|(distance, _)| *distance <= 2)
        .collect();
    near.sort_unstable();
    let near = near.into_iter().take(3).map(|(_, path)| path.to_owned()).collect();
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
fn prepare(
    found: &[(&BlobPath, &Entry)],
    from: &str,
    to: PathBuf,
    options: GetOptions,
) -> Result<Target, GetError> {
    match found {
        [(path, entry)] if path.as_str() == from && entry.kind != Kind::Dir => {
            let to = if to.is_dir() { to.join(path.name()) } else { to };
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
                let row = row_of(book, list.leaf)?;
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

fn row_of(book: &Book, leaf: LeafIndex) -> Result<&crate::stripes::Row, SessionError> {
    book.row(leaf).ok_or_else(|| SessionError::Damaged {
        what: format!("leaf {leaf}"),
        reason: "the catalog names a stripe that was dropped".into(),
    })
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

/// Groups chunks, in their order, into spans.
fn group(files: Vec<Vec<ChunkRef>>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (file, chunks) in files.into_iter().enumerate() {
        for chunk in chunks {
            let (begin, end) = (chunk.offset, chunk.offset + chunk.sealed_len);
            match spans.last_mut() {
                Some(span)
                    if span.leaf == chunk.leaf
                        && begin >= span.end
                        && begin - span.end <= GAP_MAX
                        && end - span.first <= SPAN_MAX =>
                {
                    span.end = end;
                    span.chunks.push((file, chunk));
                }
                _ => spans.push(Span { leaf: chunk.leaf, chunks: vec![(file, chunk)], first: begin, end }),
            }
        }
    }
    spans
}

type Plain = Vec<(usize, Vec<u8>)>;

/// The plain chunks of files in order, fetched a few spans ahead.
fn spans<'a>(
    files: Vec<Vec<ChunkRef>>,
    fetcher: &'a Fetcher,
    book: &'a Book,
) -> impl futures::Stream<Item = Result<Plain, SessionError>> + Unpin + 'a {
    let fetched = futures::stream::iter(group(files)).map(move |span| async move {
        let row = row_of(book, span.leaf)?;
        let refs: Vec<ChunkRef> = span.chunks.iter().map(|(_, chunk)| *chunk).collect();
        let plain = fetcher.chunks(&row.into(), &refs, Under::Catalog).await?;
        Ok(span.chunks.iter().map(|(file, _)| *file).zip(plain).collect())
    });
    Box::pin(fetched.buffered(SPANS_AHEAD))
}

/// Fetches and writes files in the order given.
async fn write_files(
    fetcher: &Fetcher,
    book: &Book,
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
    let mut spans = spans(lists, fetcher, book);
    loop {
        let next = spans.try_next().await;
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
        target = blocking(move || perform(target, work)).await??;
    }
    Ok(target)
}

enum Step {
    Begin(String, Entry),
    Write(Vec<u8>),
    End,
}

fn perform(mut target: Target, work: Vec<Step>) -> Result<Target, GetError> {
    for step in work {
        match step {
            Step::Begin(relative, entry) => target.begin(&relative, entry)?,
            Step::Write(bytes) => target.write(&bytes)?,
            Step::End => target.end()?,
        }
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tallow_seal::chunk::ChunkId;

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

    /// Goal: spans stay in one stripe, in order and in bounds, and lose nothing. Method: neighbours, gaps, other stripes.
    #[test]
    fn spans_group_neighbours() {
        let files = vec![
            vec![chunk(0, 0, 100), chunk(0, 100, 100)],
            vec![chunk(0, 200 + GAP_MAX, 10), chunk(0, 211 + 2 * GAP_MAX, 10), chunk(0, 0, 5)],
            vec![chunk(1, 0, SPAN_MAX), chunk(1, SPAN_MAX, 1)],
        ];
        let spans = group(files);
        let sizes: Vec<_> = spans.iter().map(|span| (span.leaf.get(), span.chunks.len())).collect();
        assert_eq!(sizes, [(0, 3), (0, 1), (0, 1), (1, 1), (1, 1)]);
        assert_eq!(spans[0].chunks[2].0, 1);
    }

    /// Goal: near names are offered, far ones are not. Method: a small catalog's distances.
    #[test]
    fn typing_errors_are_near() {
        assert_eq!(distance("photo.jpg", "phtoo.jpg"), 2);
        assert_eq!(distance("a", "a"), 0);
        assert!(distance("abc", "xyz") > 2);
    }
}
