//! The book as readers see it: the local database, brought to the newest commit.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tallow_types::commit::SignedCommit;

use super::{Inner, Sight, Whose};
use crate::book::Book;
use crate::error::SessionError;
use crate::fetch::Fetcher;
use crate::progress::Progress;
use crate::sync::bring;

impl Inner {
    /// The book at the newest commit, and a fetcher for what it names.
    pub async fn view(
        &self,
        progress: Arc<dyn Progress>,
        whose: Whose,
    ) -> Result<(Arc<Book>, Fetcher, Sight), SessionError> {
        let sight = self.sight(whose).await?;
        let fetcher = self.fetcher(&sight, progress);
        let book = match &sight.newest {
            Some(newest) => self.book_at(&fetcher, newest).await?,
            None => Book::default(),
        };
        Ok((Arc::new(book), fetcher, sight))
    }

    /// The book at a commit, or at a newer one that is known here: only acknowledged commits are kept in the database, and they
    /// count even if those who signed them can't be asked now.
    async fn book_at(&self, fetcher: &Fetcher, newest: &SignedCommit) -> Result<Book, SessionError> {
        let is_there = |book: &Book| {
            let is_newer = |known: &SignedCommit| known.commit.rank() > newest.commit.rank();
            book.hash() == newest.commit.hash() || book.commit.as_ref().is_some_and(is_newer)
        };
        let deadline = tokio::time::Instant::now() + self.options.tuning.patience;
        loop {
            let book = self.load().await?;
            if is_there(&book) {
                return Ok(book);
            }
            // Our own committer has just made it, and writes it down in a moment.
            let held =
                self.writer.lock().await.as_ref().and_then(|writer| *writer.works.keeper.held.borrow());
            if held != Some(newest.commit.lease) || tokio::time::Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let _alone = self.db.bringing.lock().await;
        let book = self.load().await?;
        if is_there(&book) {
            return Ok(book);
        }
        bring(fetcher, &self.db, book, newest, self.options.tuning.straggler).await
    }

    /// The book of the local database.
    async fn load(&self) -> Result<Book, SessionError> {
        let known = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let db = self.db.clone();
        let loaded = tokio::task::spawn_blocking(move || Book::load(&db, known.as_ref())).await;
        let book = loaded.map_err(|error| SessionError::Internal(error.to_string()))??;
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = Some((book.hash(), book.rows.clone()));
        Ok(book)
    }
}
