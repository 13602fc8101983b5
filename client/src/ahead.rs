//! Reading ahead: chunks grouped into spans, as many of them on their way as the line carries in a moment.
//!
//! Memory: at most [`WINDOW_MAX`] bytes of sealed chunks are on their way or wait for the reader, and each is there at
//! most twice while it is opened: as it came, and where it is opened.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tallow_seal::chunk::ChunkRef;
use tallow_types::unit::LeafIndex;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::book::Book;
use crate::error::SessionError;
use crate::fetch::{Fetcher, Place, Under};

/// Sealed bytes that are fetched at once, unless a single chunk has more, on a slow line and on a fast one: spans end
/// within rows of tiles, whose other parts are read along, so the fewer there are the better.
const SPAN_MIN: u32 = 4 << 20;
const SPAN_MAX: u32 = 16 << 20;
/// A gap between wanted chunks that is fetched along.
const GAP_MAX: u32 = 64 << 10;
/// Sealed bytes on their way at most.
const WINDOW_MAX: u64 = 48 << 20;
/// Sealed bytes on their way at first.
const WINDOW_FIRST: u64 = 8 << 20;
/// A span that took less leaves room for more beside it; one that took longer than this times four had too many.
const SOON: Duration = Duration::from_secs(1);

/// Neighbouring chunks of one stripe, with the file that each is of.
struct Span {
    leaf: LeafIndex,
    chunks: Vec<(usize, ChunkRef)>,
    first: u32,
    end: u32,
}

/// Takes chunks off the front, as many as are neighbours and have at most `most` bytes; one at least.
fn take_span(chunks: &mut VecDeque<(usize, ChunkRef)>, most: u32) -> Option<Span> {
    let first = chunks.pop_front()?;
    let (leaf, begin) = (first.1.leaf, first.1.offset);
    let mut span = Span { leaf, first: begin, end: begin + first.1.sealed_len, chunks: vec![first] };
    while let Some((_, next)) = chunks.front() {
        let (begin, end) = (next.offset, next.offset + next.sealed_len);
        let is_near = next.leaf == span.leaf && begin >= span.end && begin - span.end <= GAP_MAX;
        if !is_near || end - span.first > most {
            break;
        }
        span.end = end;
        span.chunks.extend(chunks.pop_front());
    }
    Some(span)
}

/// How many bytes may be on their way: what the line carries in a second or so, so that no request waits for long
/// behind others on a slow line, and none is missing on a fast one.
struct Window(u64);

impl Window {
    /// The longest span, so that a few fit. Bytes.
    fn span(&self) -> u32 {
        u32::try_from(self.0 / 3).unwrap_or(u32::MAX).clamp(SPAN_MIN, SPAN_MAX)
    }

    /// Learns from a span.
    fn took(&mut self, bytes: u64, time: Duration) {
        if time < SOON {
            self.0 = (self.0 + bytes).min(WINDOW_MAX);
        } else if time > SOON * 4 {
            self.0 = (self.0 / 2).max(SPAN_MIN.into());
        }
    }
}

/// The plain chunks of a span, each with its file.
pub(crate) type Plain = Vec<(usize, bytes::Bytes)>;

/// A span on its way.
struct Coming {
    bytes: u64,
    plain: oneshot::Receiver<(Duration, Result<Plain, SessionError>)>,
}

/// The plain chunks of files in order, read ahead. Dropping it calls back what is on its way.
pub(crate) struct Ahead {
    fetcher: Arc<Fetcher>,
    book: Arc<Book>,
    /// What is not on its way yet.
    chunks: VecDeque<(usize, ChunkRef)>,
    coming: VecDeque<Coming>,
    window: Window,
    tasks: JoinSet<()>,
}

impl Ahead {
    pub fn new(files: Vec<Vec<ChunkRef>>, fetcher: Arc<Fetcher>, book: Arc<Book>) -> Self {
        let of_file =
            |(file, chunks): (usize, Vec<ChunkRef>)| chunks.into_iter().map(move |chunk| (file, chunk));
        let chunks = files.into_iter().enumerate().flat_map(of_file).collect();
        let window = Window(WINDOW_FIRST);
        Self { fetcher, book, chunks, coming: VecDeque::new(), window, tasks: JoinSet::new() }
    }

    /// The next span's chunks; nothing after the last.
    pub async fn next(&mut self) -> Result<Option<Plain>, SessionError> {
        self.fill()?;
        let Some(Coming { bytes, plain }) = self.coming.front_mut() else { return Ok(None) };
        let lost = |_| SessionError::Internal("a read stopped half-way".into());
        let (took, plain) = plain.await.map_err(lost)?;
        self.window.took(*bytes, took);
        self.coming.pop_front();
        self.fill()?;
        plain.map(Some)
    }

    /// Starts spans as far as the window reaches; one at least.
    fn fill(&mut self) -> Result<(), SessionError> {
        while self.tasks.try_join_next().is_some() {}
        let mut on_way: u64 = self.coming.iter().map(|span| span.bytes).sum();
        while on_way == 0 || on_way + u64::from(self.window.span()) <= self.window.0 {
            let Some(span) = take_span(&mut self.chunks, self.window.span()) else { break };
            let bytes = u64::from(span.end - span.first);
            on_way += bytes;
            let place = Place::from(self.book.row(span.leaf).ok_or_else(|| dropped(span.leaf))?);
            let (done, plain) = oneshot::channel();
            let fetcher = self.fetcher.clone();
            self.tasks.spawn(async move {
                let began = Instant::now();
                let (files, refs): (Vec<usize>, Vec<ChunkRef>) = span.chunks.into_iter().unzip();
                let plain = fetcher.payloads(&place, &refs, Under::Catalog).await;
                let plain = plain.map(|plain| files.into_iter().zip(plain).collect());
                // Nobody waits any more only if the read was dropped.
                let _unread = done.send((began.elapsed(), plain));
            });
            self.coming.push_back(Coming { bytes, plain });
        }
        Ok(())
    }
}

/// The error for a stripe that the catalog names and no lane has.
pub(crate) fn dropped(leaf: LeafIndex) -> SessionError {
    let reason = "the catalog names a stripe that was dropped".into();
    SessionError::Damaged { what: format!("leaf {leaf}"), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tallow_seal::chunk::ChunkId;

    fn chunk(leaf: u64, offset: u32, len: u32) -> ChunkRef {
        let (id, leaf) = (ChunkId::new([0; 32]), LeafIndex::new(leaf));
        ChunkRef { id, leaf, offset, sealed_len: len, plain_len: len }
    }

    /// Goal: spans stay in one stripe, in order and in bounds, and lose nothing. Method: neighbours, gaps, other stripes.
    #[test]
    fn spans_are_neighbours() {
        let mut chunks = VecDeque::from([
            (0, chunk(0, 0, 100)),
            (0, chunk(0, 100, 100)),
            (1, chunk(0, 200 + GAP_MAX, 10)),
            (1, chunk(0, 211 + 2 * GAP_MAX, 10)),
            (1, chunk(0, 0, 5)),
            (2, chunk(1, 0, SPAN_MIN)),
            (2, chunk(1, SPAN_MIN, 1)),
        ]);
        let spans: Vec<Span> = std::iter::from_fn(|| take_span(&mut chunks, SPAN_MIN)).collect();
        let sizes: Vec<_> = spans.iter().map(|span| (span.leaf.get(), span.chunks.len())).collect();
        assert_eq!(sizes, [(0, 3), (0, 1), (0, 1), (1, 1), (1, 1)]);
        assert_eq!((spans[0].first, spans[0].end, spans[0].chunks[2].0), (0, 210 + GAP_MAX, 1));
    }

    /// Goal: a fast line fills the window, a slow one ends with a span at a time, and neither leaves its bounds. Method:
    /// many fast spans, then many slow ones, then middling ones that change nothing.
    #[test]
    fn window_follows_the_line() {
        let mut window = Window(WINDOW_FIRST);
        (0..20).for_each(|_| window.took(SPAN_MIN.into(), SOON / 10));
        assert_eq!((window.0, window.span()), (WINDOW_MAX, SPAN_MAX));
        (0..20).for_each(|_| window.took(SPAN_MAX.into(), SOON * 5));
        assert_eq!((window.0, window.span()), (SPAN_MIN.into(), SPAN_MIN));
        window.took(SPAN_MIN.into(), SOON * 2);
        assert_eq!(window.0, u64::from(SPAN_MIN));
    }
}
