//! Asking many at once, without waiting for the slowest.

use std::future::Future;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

/// When enough have answered, a reader waits for the others at least this long.
const SOON: Duration = Duration::from_millis(50);

/// Whose word is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// That of as many as have to agree, and of others who are not much slower.
    Quorum,
    /// That of all who answer in time: their health is asked for.
    Everybody,
}

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
    gather_until(calls, enough, |_| straggler).await
}

/// The same for those who only look: once enough succeeded, the others get twice as long again, at most `straggler`.
async fn gather_soon<T, E, F>(
    calls: impl IntoIterator<Item = F>,
    enough: usize,
    straggler: Duration,
) -> Vec<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    gather_until(calls, enough, |took| (took * 2).max(SOON).min(straggler)).await
}

/// One or the other.
pub(crate) async fn gather_of<T, E, F>(
    whose: Whose,
    calls: impl IntoIterator<Item = F>,
    enough: usize,
    straggler: Duration,
) -> Vec<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    match whose {
        Whose::Quorum => gather_soon(calls, enough, straggler).await,
        Whose::Everybody => gather(calls, enough, straggler).await,
    }
}

async fn gather_until<T, E, F>(
    calls: impl IntoIterator<Item = F>,
    enough: usize,
    patience: impl Fn(Duration) -> Duration,
) -> Vec<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut running: FuturesUnordered<F> = calls.into_iter().collect();
    let (mut done, mut good) = (Vec::with_capacity(running.len()), 0);
    let (began, mut deadline) = (Instant::now(), None);
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
            deadline = Some(Instant::now() + patience(began.elapsed()));
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

    /// Goal: a reader's patience is measured by those who answered, within its bounds. Method: paused time; the third is in
    /// time or not, for quick and for slow others.
    #[tokio::test(start_paused = true)]
    async fn readers_wait_as_long_as_the_others_took() {
        for (others, third, answers) in
            [(1, 45, 3), (1, 60, 2), (100, 290, 3), (100, 310, 2), (900, 2_100, 2)]
        {
            let calls = [others, others, third].map(|ms| async move {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Ok::<u64, ()>(ms)
            });
            let found = gather_soon(calls, 2, Duration::from_secs(1)).await;
            assert_eq!(found.len(), answers, "{others} ms, then {third} ms");
        }
    }
}
