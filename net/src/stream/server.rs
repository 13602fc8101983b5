//! The server's end of streams: what is read, held, served and answered, within bounds.
//!
//! Guarantees: a request's memory, and that of its answer, is granted by one budget of the whole node before its
//! payload is read, and before its header is if that has more than 16 KiB (see `budget`); until then the stream is not
//! read on, and the caller is shown that the node lives. Requests beyond the bounds of a peer or the node wait. A caller that exceeds its credit, repeats an id or breaks the layout is cut
//! off. Each request is answered once, cancelled ones too. What writes runs to its end even when its caller goes.
//!
//! Does not: judge requests beyond their form; that is the service's part.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, FutureExt};
use tallow_types::fault::{Code, Fault};
use tallow_types::wire::Request;
use tallow_types::{PublicKey, decode, encode};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::Tuning;
use crate::exchange::{self, Rule, malformed};
use crate::frame::{FrameError, FrameReader, FrameWriter, Head, Kind, Pace, Pulse, Ready};
use crate::stream::budget::{Budget, Memory, Share};
use crate::stream::{CREDIT_MIN, HEADER_FREE, to_units, units, units_at_most};
use crate::transport::{Reply, Service};

/// How long a caller may take to see the end of a stream when the node stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// What all streams of a node share.
pub(crate) struct Hub {
    service: Arc<dyn Service>,
    tuning: Tuning,
    budget: Budget,
    serving: Semaphore,
    peers: Mutex<BTreeMap<PublicKey, Arc<PeerLoad>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What one peer makes of this node.
struct PeerLoad {
    memory: Share,
    serving: Semaphore,
    streams: Arc<Semaphore>,
}

impl Hub {
    /// `tasks` tracks streams and the requests being served; `stop` begins the orderly end.
    pub(crate) fn new(
        service: Arc<dyn Service>,
        tuning: Tuning,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            service,
            budget: Budget::new(&tuning),
            serving: Semaphore::new(tuning.serving_max.max(1)),
            peers: Mutex::default(),
            tasks,
            stop,
            tuning,
        })
    }

    #[cfg(test)]
    pub(crate) const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Serves a stream in a task of its own; drops it if the peer has too many.
    pub(crate) fn accept<S>(self: &Arc<Self>, from: PublicKey, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let load = self.load(from);
        let Ok(place) = load.streams.clone().try_acquire_owned() else {
            tracing::debug!(peer = %from.short(), "stream refused: the peer has too many");
            return;
        };
        let hub = self.clone();
        self.tasks.spawn(async move {
            let error = Session::run(&hub, from, &load, stream).await;
            tracing::debug!(peer = %from.short(), %error, "stream ended");
            drop(place);
            drop(load);
            hub.forget_idle_peers();
        });
    }

    fn load(&self, peer: PublicKey) -> Arc<PeerLoad> {
        let new = || {
            Arc::new(PeerLoad {
                memory: self.budget.share(peer),
                serving: Semaphore::new(self.tuning.peer_serving_max.max(1)),
                streams: Arc::new(Semaphore::new(self.tuning.peer_streams_max.max(1))),
            })
        };
        self.lock_peers().entry(peer).or_insert_with(new).clone()
    }

    /// Forgets peers of whom neither a stream nor a request is left, so that strangers leave nothing behind.
    fn forget_idle_peers(&self) {
        self.lock_peers().retain(|_, load| Arc::strong_count(load) > 1);
    }

    fn lock_peers(&self) -> MutexGuard<'_, BTreeMap<PublicKey, Arc<PeerLoad>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream.
struct Session {
    hub: Arc<Hub>,
    from: PublicKey,
    load: Arc<PeerLoad>,
    state: Mutex<Outstanding>,
    answers: mpsc::UnboundedSender<Answer>,
    /// Wakes the writer when the first request comes, or the last one is forgotten.
    changed: Notify,
    closed: CancellationToken,
    _close: DropGuard,
}

/// What the caller waits for.
#[derive(Default)]
struct Outstanding {
    requests: BTreeMap<u64, Entry>,
    units: u64,
}

struct Entry {
    units: u32,
    cancel: CancellationToken,
    /// Whether it has been read and will be answered without further reading.
    complete: bool,
}

impl Outstanding {
    fn remove(&mut self, id: u64) {
        if let Some(entry) = self.requests.remove(&id) {
            self.units -= u64::from(entry.units);
        }
    }
}

struct Answer {
    id: u64,
    header: Vec<u8>,
    payload: Bytes,
    /// Given back when the answer is written.
    _memory: Memory,
}

impl Session {
    async fn run<S>(hub: &Arc<Hub>, from: PublicKey, load: &Arc<PeerLoad>, stream: S) -> FrameError
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let rate = {
            let (hub, load) = (hub.clone(), load.clone());
            move || hub.budget.rate(&load.memory)
        };
        let pace = Pace::new(hub.tuning.idle, hub.tuning.grace, rate);
        let pulse = Pulse::new();
        let (reader, writer) = stream.split();
        let mut reader = FrameReader::new(reader, pulse.clone(), pace.clone().within(&hub.tuning.down));
        let mut writer = FrameWriter::new(writer, pulse, pace.within(&hub.tuning.up));
        let opened = timeout(hub.tuning.connect, open(&mut reader, &mut writer, &hub.tuning));
        if let Err(error) = opened.await.unwrap_or(Err(FrameError::Silent)) {
            return error;
        }
        // Two tokens: `closed` ends with the stream, whatever ends it; `stop` of the hub asks it to end in order.
        let closed = CancellationToken::new();
        let (answers, mut queue) = mpsc::unbounded_channel();
        let session = Self {
            hub: hub.clone(),
            from,
            load: load.clone(),
            state: Mutex::default(),
            answers,
            changed: Notify::new(),
            closed: closed.clone(),
            _close: closed.drop_guard(),
        };
        let error = tokio::select! {
            error = session.read(&mut reader) => error,
            error = session.write(&mut writer, &mut queue) => error,
        };
        if matches!(error, FrameError::Stopped) {
            // Once the caller has seen the end, it has seen everything before it.
            let farewell = async {
                writer.close().await?;
                reader.drain().await;
                Ok::<_, FrameError>(())
            };
            let _ = timeout(FAREWELL, farewell).await;
        }
        error
    }

    /// Takes requests until the stream ends or the node stops.
    async fn read<R: AsyncRead + Unpin>(&self, reader: &mut FrameReader<R>) -> FrameError {
        loop {
            let taken = tokio::select! {
                biased;
                () = self.hub.stop.cancelled() => break,
                taken = self.take_frame(reader) => taken,
            };
            if let Err(error) = taken {
                return error;
            }
        }
        // The writer ends the session once everything that was read is answered.
        {
            let mut state = self.lock();
            state.requests.retain(|_, entry| entry.complete);
            state.requests.values().for_each(|entry| entry.cancel.cancel());
        }
        self.changed.notify_one();
        std::future::pending().await
    }

    async fn take_frame<R: AsyncRead + Unpin>(&self, reader: &mut FrameReader<R>) -> Result<(), FrameError> {
        let head = reader.head().await?;
        match head.kind {
            Kind::Request => self.take_request(head, reader).await,
            Kind::Cancel => {
                // Its answer may be on the way already.
                if let Some(entry) = self.lock().requests.get(&head.id) {
                    entry.cancel.cancel();
                }
                Ok(())
            }
            kind => Err(FrameError::Protocol(format!("{kind:?} from a caller"))),
        }
    }

    async fn take_request<R: AsyncRead + Unpin>(
        &self,
        head: Head,
        reader: &mut FrameReader<R>,
    ) -> Result<(), FrameError> {
        let Head { id, header_len, payload_len, .. } = head;
        let cancel = self.enter(id)?;
        // The header says how much memory the rest may take. One that is not small takes memory first, at once as much
        // as it may come to need: who held some while it waits for more could block others that do the same.
        let early = if header_len > HEADER_FREE {
            Some(self.memory(units_at_most(header_len, payload_len)).await)
        } else {
            None
        };
        let header = reader.header(header_len).await?;
        let request = decode::<Request>(&header).map_err(|error| malformed(error.to_string()));
        let request = request.and_then(|request| {
            let rule = Rule::of(&request);
            exchange::check_request_parts(&rule, header_len, payload_len)?;
            Ok((request, rule))
        });
        let rule = request.as_ref().map_or(Rule::nothing(), |(_, rule)| *rule);
        let payload_units = if request.is_ok() { payload_len } else { 0 };
        let units = units(&rule, header_len, payload_units);
        self.charge(id, units)?;
        let memory = match early {
            Some(mut memory) => {
                memory.shrink(units);
                memory
            }
            None => self.memory(units).await,
        };
        let work = match request {
            Ok((request, _)) => {
                let payload = reader.body(payload_len).await?;
                Work { id, rule, cancel, memory, request, payload }
            }
            Err(fault) => {
                reader.skip(payload_len).await?;
                self.complete(id);
                let (reply, header) = exchange::within_limits(&rule, fault.into());
                let _ = self.answers.send(Answer { id, header, payload: reply.payload, _memory: memory });
                return Ok(());
            }
        };
        self.complete(id);
        let (hub, load, from) = (self.hub.clone(), self.load.clone(), self.from);
        self.hub.tasks.spawn(work.serve(hub, load, from, self.answers.clone()));
        Ok(())
    }

    async fn memory(&self, units: u32) -> Memory {
        self.hub.budget.take(&self.load.memory, units).await
    }

    /// Notes that a request has been read to its end.
    fn complete(&self, id: u64) {
        if let Some(entry) = self.lock().requests.get_mut(&id) {
            entry.complete = true;
        }
    }

    /// Makes a request outstanding, if the caller keeps to the number it was granted.
    fn enter(&self, id: u64) -> Result<CancellationToken, FrameError> {
        let mut state = self.lock();
        if state.requests.contains_key(&id) {
            return violation("a request id is used twice");
        }
        if state.requests.len() >= self.hub.tuning.outstanding_max.max(1) {
            return violation("more requests than were granted");
        }
        let cancel = self.closed.child_token();
        state.requests.insert(id, Entry { units: 0, cancel: cancel.clone(), complete: false });
        self.changed.notify_one();
        Ok(cancel)
    }

    /// Takes the credit of an outstanding request, if the caller keeps to what it was granted.
    fn charge(&self, id: u64, units: u32) -> Result<(), FrameError> {
        let mut state = self.lock();
        if state.units + u64::from(units) > u64::from(granted(&self.hub.tuning)) {
            return violation("more bytes than were granted");
        }
        if let Some(entry) = state.requests.get_mut(&id) {
            entry.units = units;
            state.units += u64::from(units);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Outstanding> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes answers, and signs of life while there is none to write.
    async fn write<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut FrameWriter<W>,
        queue: &mut mpsc::UnboundedReceiver<Answer>,
    ) -> FrameError {
        let mut alive = interval(self.hub.tuning.alive);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let at_rest = self.lock().requests.is_empty();
            let step = tokio::select! {
                biased;
                Some(answer) = queue.recv() => self.write_answers(writer, queue, answer).await,
                () = self.hub.stop.cancelled(), if at_rest => Err(FrameError::Stopped),
                () = self.changed.notified() => {
                    if at_rest {
                        alive.reset();
                    }
                    Ok(())
                }
                _ = alive.tick(), if !at_rest => {
                    async { writer.bare(Kind::Alive, 0, &[]).await?; writer.flush().await }.await
                }
            };
            if let Err(error) = step {
                return error;
            }
        }
    }

    /// Writes an answer and those that came meanwhile.
    async fn write_answers<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut FrameWriter<W>,
        queue: &mut mpsc::UnboundedReceiver<Answer>,
        first: Answer,
    ) -> Result<(), FrameError> {
        let mut next = Some(first);
        while let Some(answer) = next {
            // The credit is free before the caller can know of the answer, so that it can use it at once; the memory
            // only when the answer is written.
            self.lock().remove(answer.id);
            writer.frame(Kind::Answer, answer.id, &answer.header, &answer.payload).await?;
            drop(answer);
            next = queue.try_recv().ok();
        }
        writer.flush().await
    }
}

/// One request, read and paid for from the budgets.
struct Work {
    id: u64,
    rule: Rule,
    cancel: CancellationToken,
    memory: Memory,
    request: Request,
    payload: Bytes,
}

impl Work {
    async fn serve(
        self,
        hub: Arc<Hub>,
        load: Arc<PeerLoad>,
        from: PublicKey,
        answers: mpsc::UnboundedSender<Answer>,
    ) {
        let Self { id, rule, cancel, memory, request, payload } = self;
        let work = async {
            let _of_peer = load.serving.acquire().await.expect("never closed");
            let _of_all = hub.serving.acquire().await.expect("never closed");
            if cancel.is_cancelled() {
                return called_back();
            }
            let serving = AssertUnwindSafe(hub.service.serve(from, request, payload)).catch_unwind();
            serving.await.unwrap_or_else(|_| Fault::new(Code::Internal, "the service panicked").into())
        };
        let reply = if rule.writes {
            work.await
        } else {
            tokio::select! {
                biased;
                () = cancel.cancelled() => called_back(),
                reply = work => reply,
            }
        };
        let (reply, header) = exchange::within_limits(&rule, reply);
        hub.budget.learn(from, &reply.response);
        // Nobody listens if the stream has ended.
        let _ = answers.send(Answer { id, header, payload: reply.payload, _memory: memory });
    }
}

/// Shakes hands.
async fn open<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
    tuning: &Tuning,
) -> Result<(), FrameError> {
    let head = reader.head().await?;
    if head.kind != Kind::Open {
        return Err(FrameError::Protocol(format!("{:?} before the stream is open", head.kind)));
    }
    let requests = u32::try_from(tuning.outstanding_max.max(1)).unwrap_or(u32::MAX);
    let ready = Ready { credit: granted(tuning), requests };
    writer.bare(Kind::Ready, 0, &encode(&ready)).await?;
    writer.flush().await
}

/// The credit of each stream. Units.
fn granted(tuning: &Tuning) -> u32 {
    to_units(tuning.credit as usize).max(CREDIT_MIN)
}

fn violation<T>(text: &str) -> Result<T, FrameError> {
    Err(FrameError::Protocol(text.to_owned()))
}

fn called_back() -> Reply {
    Fault::new(Code::Busy, "the request was called back").into()
}
