//! Asking many at once, without waiting for the slowest.

use std::future::Future;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

/// Runs all, until all are done, or `enough` of them succeeded and `straggler` more has passed. What was not done by
/// then is dropped.
pub(crate) async fn gather<T, E, F>(
    calls: impl IntoIterator<Item = F>,
    enough: usize,
    straggler: Duration,
) -> Vec<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut running: FuturesUnordered<F> = calls.into_iter().collect();
    let (mut done, mut good) = (Vec::with_capacity(running.len()), 0);
    let mut deadline = None;
    loop {
        let next = match deadline {
            None => running.next().await,
            Some(deadline) => match tokio::time::timeout_at(deadline, running.next()).await {
                Ok(next) => next,
                Err(_) => return done,
            },
        };
        let Some(answer) = next else { return done };
        good += usize::from(answer.is_ok());
        done.push(answer);
        if good >= enough && deadline.is_none() {
            deadline = Some(tokio::time::Instant::now() + straggler);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: all are waited for while too few have answered, stragglers are not once enough have. Method: paused time.
    #[tokio::test(start_paused = true)]
    async fn stragglers_are_dropped_only_when_enough_answered() {
        let calls = |delays: [u64; 3]| {
            delays.map(|ms| async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Ok::<u64, ()>(ms)
            })
        };
        let straggler = Duration::from_millis(50);
        assert_eq!(gather(calls([1, 20, 40]), 2, straggler).await.len(), 3);
        assert_eq!(gather(calls([1, 20, 5_000]), 2, straggler).await.len(), 2);
        assert_eq!(gather(calls([1, 20, 5_000]), 3, straggler).await.len(), 3);
    }
}
