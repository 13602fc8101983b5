//! The caller's end of one stream.
//!
//! Guarantees: requests never exceed the server's credit: a call waits for it, first come, first served. An answer
//! with an unknown id, of another kind, longer than asked for or undecodable ends the stream as `Garbage`. While
//! something is outstanding, a time without any byte ends it as `Unreachable`, and so does a much longer time in which
//! the server only says that it lives. Dropping a call never disturbs another one.
//!
//! Does not: open streams (see `node`), repeat anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite};
use tallow_types::decode;
use tallow_types::fault::Fault;
use tallow_types::wire::Response;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Tuning;
use crate::exchange::{Rule, SMALL_HEADER_MAX, garbage, unreachable};
use crate::frame::{FrameError, FrameReader, FrameWriter, Head, Kind, Pace, Pulse, Ready};
use crate::stream::{CREDIT_MIN, to_units, units};
use crate::transport::Reply;

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The stream broke before a byte of the request was sent: it may be sent again on another.
    Unsent,
    /// The request may have reached the server.
    Sent(Fault),
}

/// One stream, open for calls until it breaks. Dropping it closes it.
pub(crate) struct Caller {
    calls: Arc<Calls>,
    queue: mpsc::UnboundedSender<Out>,
    /// Units in all.
    granted: usize,
    credit: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    _driver: AbortOnDropHandle<()>,
}

/// What the driver writes. The queue is as long as the credit allows, plus one `Cancel` for each request.
enum Out {
    Request { id: u64, header: Bytes, payload: Bytes },
    Cancel(u64),
}

/// The calls that wait for answers.
struct Calls {
    state: Mutex<State>,
    begun: Notify,
    pulse: Arc<Pulse>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    waiting: BTreeMap<u64, Waiting>,
    broken: bool,
}

struct Waiting {
    rule: Rule,
    answer: oneshot::Sender<Result<Reply, Failure>>,
    written: bool,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Caller {
    /// Shakes hands on a fresh stream.
    pub(crate) async fn open<S>(stream: S, tuning: &Tuning) -> Result<Self, FrameError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let pulse = Pulse::new();
        let rate = tuning.rate;
        let pace = Pace::new(tuning.idle, tuning.grace, move || rate).within(&tuning.down);
        let (reader, writer) = stream.split();
        let mut reader = FrameReader::new(reader, pulse.clone(), pace);
        // A server short of memory may stop reading for a while, as long as it shows that it lives.
        let patient = Pace::new(tuning.patience, 4 * tuning.patience, move || rate).within(&tuning.up);
        let mut writer = FrameWriter::new(writer, pulse.clone(), patient);
        writer.bare(Kind::Open, 0, &[]).await?;
        writer.flush().await?;
        let head = reader.head().await?;
        if head.kind != Kind::Ready {
            return Err(FrameError::Protocol(format!("{:?} instead of a grant", head.kind)));
        }
        let ready: Ready = decode(&reader.header(head.header_len).await?)
            .map_err(|error| FrameError::Protocol(error.to_string()))?;
        if ready.credit < CREDIT_MIN || ready.requests == 0 {
            return Err(FrameError::Protocol("it grants too little for one request".to_owned()));
        }
        let granted = ready.credit.min(to_units(tuning.credit_max as usize).max(CREDIT_MIN)) as usize;
        let calls = Arc::new(Calls { state: Mutex::default(), begun: Notify::new(), pulse });
        let (queue, orders) = mpsc::unbounded_channel();
        let requests = (ready.requests as usize).min(tuning.outstanding_max.max(1));
        let (credit, requests) = (Arc::new(Semaphore::new(granted)), Arc::new(Semaphore::new(requests)));
        let driver = Driver {
            calls: calls.clone(),
            idle: tuning.idle,
            patience: tuning.patience,
            semaphores: [credit.clone(), requests.clone()],
        };
        let driver = AbortOnDropHandle::new(tokio::spawn(driver.run(reader, writer, orders)));
        Ok(Self { calls, queue, granted, credit, requests, _driver: driver })
    }

    /// Whether calls can still be made.
    pub(crate) fn is_broken(&self) -> bool {
        self.calls.lock().broken
    }

    /// Credit that calls hold now. Units.
    pub(crate) fn credit_used(&self) -> usize {
        self.granted - self.credit.available_permits().min(self.granted)
    }

    /// Sends a request when there is credit for it, and waits for its answer. The header is the encoded request, its
    /// size and that of the payload checked against `rule`.
    pub(crate) async fn call(&self, rule: Rule, header: Bytes, payload: Bytes) -> Result<Reply, Failure> {
        let units = units(&rule, header.len(), payload.len());
        let request = self.requests.clone().acquire_owned().await.map_err(|_| Failure::Unsent)?;
        let credit = self.credit.clone().acquire_many_owned(units).await.map_err(|_| Failure::Unsent)?;
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut state = self.calls.lock();
            if state.broken {
                return Err(Failure::Unsent);
            }
            state.next_id += 1;
            let id = state.next_id;
            if state.waiting.is_empty() {
                self.calls.pulse.beat(true);
            }
            let _permits = [request, credit];
            state.waiting.insert(id, Waiting { rule, answer, written: false, _permits });
            id
        };
        self.calls.begun.notify_one();
        // The guard first: whenever this future is dropped from here on, the request is called back.
        let _guard = Recall { calls: &self.calls, queue: &self.queue, id };
        // A closed queue means a broken stream, which has answered everything that waited.
        let _ = self.queue.send(Out::Request { id, header, payload });
        answered.await.unwrap_or(Err(Failure::Unsent))
    }
}

/// Calls a request back when its call is dropped before the answer.
struct Recall<'a> {
    calls: &'a Calls,
    queue: &'a mpsc::UnboundedSender<Out>,
    id: u64,
}

impl Drop for Recall<'_> {
    fn drop(&mut self) {
        let mut state = self.calls.lock();
        match state.waiting.get(&self.id) {
            Some(waiting) if waiting.written => {
                // It stays outstanding, with its credit, until the server has answered.
                let _ = self.queue.send(Out::Cancel(self.id));
            }
            Some(_) => {
                state.waiting.remove(&self.id);
            }
            None => {}
        }
    }
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a request is about to be written; false if its call is gone.
    fn begin_writing(&self, id: u64) -> bool {
        match self.lock().waiting.get_mut(&id) {
            Some(waiting) => {
                waiting.written = true;
                true
            }
            None => false,
        }
    }

    /// The rule of the request that an answer is for.
    fn rule(&self, id: u64) -> Option<Rule> {
        self.lock().waiting.get(&id).filter(|waiting| waiting.written).map(|waiting| waiting.rule)
    }

    fn answer(&self, id: u64, result: Result<Reply, Fault>) {
        if let Some(waiting) = self.lock().waiting.remove(&id) {
            // Nobody listens any more if the call was dropped.
            let _ = waiting.answer.send(result.map_err(Failure::Sent));
        }
    }

    /// Ends all calls.
    fn fail(&self, fault: &Fault) {
        let waiting = {
            let mut state = self.lock();
            state.broken = true;
            std::mem::take(&mut state.waiting)
        };
        for (_, call) in waiting {
            let failure = if call.written { Failure::Sent(fault.clone()) } else { Failure::Unsent };
            let _ = call.answer.send(Err(failure));
        }
    }

    /// When the peer will count as gone, unless something happens; `None` while nothing is outstanding.
    fn deadline(&self, idle: Duration, patience: Duration) -> Option<(Instant, FrameError)> {
        let wait_ms = self.lock().waiting.values().map(|waiting| waiting.rule.wait_ms).max()?;
        let silent = self.pulse.last_byte() + idle;
        // A wait so long that it overflows is no limit.
        let stuck = Duration::from_millis(wait_ms)
            .checked_add(patience)
            .and_then(|wait| self.pulse.last_message_byte().checked_add(wait))
            .unwrap_or(silent);
        Some(if silent <= stuck { (silent, FrameError::Silent) } else { (stuck, FrameError::Stuck) })
    }
}

/// Moves the bytes of one stream until it breaks.
struct Driver {
    calls: Arc<Calls>,
    idle: Duration,
    patience: Duration,
    semaphores: [Arc<Semaphore>; 2],
}

impl Driver {
    async fn run<R, W>(
        self,
        mut reader: FrameReader<R>,
        mut writer: FrameWriter<W>,
        mut orders: mpsc::UnboundedReceiver<Out>,
    ) where
        R: AsyncRead + Send + Unpin,
        W: AsyncWrite + Send + Unpin,
    {
        let error = tokio::select! {
            error = self.read(&mut reader) => error,
            error = self.write(&mut writer, &mut orders) => error,
            error = self.watch() => error,
        };
        let fault =
            if error.is_violation() { garbage(error.to_string()) } else { unreachable(error.to_string()) };
        tracing::debug!(%fault, "stream ended");
        self.calls.fail(&fault);
        for semaphore in &self.semaphores {
            semaphore.close();
        }
    }

    async fn read<R: AsyncRead + Unpin>(&self, reader: &mut FrameReader<R>) -> FrameError {
        loop {
            if let Err(error) = self.read_frame(reader).await {
                return error;
            }
        }
    }

    async fn read_frame<R: AsyncRead + Unpin>(&self, reader: &mut FrameReader<R>) -> Result<(), FrameError> {
        let head = reader.head().await?;
        let rule = match head.kind {
            Kind::Alive => return Ok(()),
            Kind::Answer => self.calls.rule(head.id),
            kind => return Err(FrameError::Protocol(format!("{kind:?} from a server"))),
        };
        let Head { id, header_len, payload_len, .. } = head;
        let rule = rule.ok_or_else(|| FrameError::Protocol(format!("an answer to no request, id {id}")))?;
        // A fault may take the place of any answer.
        if header_len > rule.answer_header.max(SMALL_HEADER_MAX) || payload_len > rule.answer_payload {
            return Err(FrameError::TooLong { header_len, payload_len });
        }
        let header = reader.header(header_len).await?;
        let payload = reader.body(payload_len).await?;
        let response: Response =
            decode(&header).map_err(|error| FrameError::Protocol(format!("in an answer, {error}")))?;
        let peers_own_fault = matches!(response, Response::Failed(_));
        match rule.judge(Reply { response, payload }) {
            Err(fault) if !peers_own_fault => Err(FrameError::Protocol(fault.text.as_str().to_owned())),
            result => {
                self.calls.answer(id, result);
                Ok(())
            }
        }
    }

    async fn write<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut FrameWriter<W>,
        orders: &mut mpsc::UnboundedReceiver<Out>,
    ) -> FrameError {
        loop {
            if let Err(error) = self.write_some(writer, orders).await {
                return error;
            }
        }
    }

    /// Writes what is queued, then hands it to the network.
    async fn write_some<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut FrameWriter<W>,
        orders: &mut mpsc::UnboundedReceiver<Out>,
    ) -> Result<(), FrameError> {
        let mut next = orders.recv().await;
        while let Some(order) = next {
            match order {
                Out::Request { id, header, payload } if self.calls.begin_writing(id) => {
                    writer.frame(Kind::Request, id, &header, &payload).await?;
                }
                Out::Request { .. } => {}
                Out::Cancel(id) => writer.bare(Kind::Cancel, id, &[]).await?,
            }
            next = orders.try_recv().ok();
        }
        writer.flush().await
    }

    /// Ends when the peer must be taken for gone.
    async fn watch(&self) -> FrameError {
        loop {
            let Some((deadline, reason)) = self.calls.deadline(self.idle, self.patience) else {
                self.calls.begun.notified().await;
                continue;
            };
            if Instant::now() >= deadline {
                return reason;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}
