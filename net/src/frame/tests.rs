use futures::io::Cursor;
use proptest::prelude::*;
use tallow_types::{decode, encode};

use super::*;

/// A byte every 10 s, and 2 bytes a second after 20 s.
fn pace() -> Pace {
    Pace::new(Duration::from_secs(10), Duration::from_secs(20), || 2)
}

fn reader(bytes: Vec<u8>) -> FrameReader<Cursor<Vec<u8>>> {
    FrameReader::new(Cursor::new(bytes), Pulse::new(), pace())
}

const fn bare(kind: Kind, id: u64) -> Head {
    Head { kind, id, header_len: 0, payload_len: 0 }
}

/// Runs what never waits.
fn now<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    runtime.block_on(work)
}

/// Reads frames until the bytes end or are refused.
async fn read_all(bytes: Vec<u8>) -> (Vec<(Head, Bytes, Bytes)>, FrameError) {
    let mut reader = reader(bytes);
    let mut frames = Vec::new();
    loop {
        let frame = async {
            let head = reader.head().await?;
            let header = reader.body(head.header_len).await?;
            Ok((head, header, reader.body(head.payload_len).await?))
        };
        match frame.await {
            Ok(frame) => frames.push(frame),
            Err(error) => return (frames, error),
        }
    }
}

/// Goal: the layout is what the module draws. Method: one golden frame and one golden grant.
#[test]
fn golden_frame() {
    let mut bytes = Vec::new();
    now(FrameWriter::new(&mut bytes, Pulse::new(), pace()).frame(
        Kind::Answer,
        0x0102_0304_0506_0708,
        b"hd",
        b"pay",
    ))
    .expect("written");
    assert_eq!(bytes, b"\x02\0\0\0\x03\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\x04hdpay");
    let ready = Ready { credit: 16, requests: 2 };
    assert_eq!(encode(&ready), b"RY\x01\x10\0\0\0\x02\0\0\0");
    assert_eq!(decode::<Ready>(&encode(&ready)), Ok(ready));
}

/// Goal: each limit is checked one above, before a byte of the body is there. Method: heads alone.
#[test]
fn heads_over_a_limit_are_refused() {
    let with = |kind: Kind, header_len, payload_len| {
        let head = Head { kind, id: 1, header_len, payload_len };
        now(reader(head.to_bytes().to_vec()).head())
    };
    for kind in Kind::ALL {
        let (header, payload) = kind.limits();
        assert!(with(kind, header, payload).is_ok(), "{kind:?}");
        assert!(matches!(with(kind, header + 1, payload), Err(FrameError::TooLong { .. })), "{kind:?}");
        assert!(matches!(with(kind, header, payload + 1), Err(FrameError::TooLong { .. })), "{kind:?}");
    }
    let huge = [0xff; HEAD_LEN];
    assert!(matches!(now(reader(huge.to_vec()).head()), Err(FrameError::UnknownKind { number: 255 })));
    assert!(matches!(now(reader(vec![0; HEAD_LEN]).head()), Err(FrameError::UnknownKind { number: 0 })));
}

/// Goal: an end between frames is an end, within a frame too, and neither panics. Method: cut a frame everywhere.
#[test]
fn every_cut_is_an_end() {
    let mut bytes = Vec::new();
    now(FrameWriter::new(&mut bytes, Pulse::new(), pace()).frame(Kind::Request, 1, b"header", b"payload"))
        .expect("written");
    for cut in 0..bytes.len() {
        let (frames, error) = now(read_all(bytes[..cut].to_vec()));
        assert!(frames.is_empty() && matches!(error, FrameError::Ended), "cut at {cut}: {error}");
    }
    assert_eq!(now(read_all(bytes)).0.len(), 1);
}

/// Goal: `skip` leaves the stream at the next frame. Method: skip bodies around the size of a piece.
#[test]
fn skipping_lands_on_the_next_frame() {
    for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
        let mut bytes = vec![7; length];
        bytes.extend(bare(Kind::Alive, 9).to_bytes());
        let head = now(async {
            let mut reader = reader(bytes);
            reader.skip(length).await?;
            reader.head().await
        });
        assert_eq!(head.expect("the next frame"), bare(Kind::Alive, 9));
    }
}

/// A way that yields one byte every `every`.
struct Trickle {
    bytes: Vec<u8>,
    at: usize,
    every: Duration,
    sleep: std::pin::Pin<Box<tokio::time::Sleep>>,
}

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut [u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::task::ready!(self.sleep.as_mut().poll(cx));
        let next = Instant::now() + self.every;
        self.sleep.as_mut().reset(next);
        let Some(&byte) = self.bytes.get(self.at) else { return std::task::Poll::Ready(Ok(0)) };
        buf[0] = byte;
        self.at += 1;
        std::task::Poll::Ready(Ok(1))
    }
}

fn trickle(length: usize, every: Duration, pace: Pace) -> FrameReader<Trickle> {
    let inner = Trickle { bytes: vec![1; length], at: 0, every, sleep: Box::pin(tokio::time::sleep(every)) };
    FrameReader::new(inner, Pulse::new(), pace)
}

/// Goal: slow but moving is served however long it takes, silent is not, and what falls behind the rate ends when the
/// grace does. Method: bytes above the rate for ten minutes, pauses beyond `idle`, bytes at half the rate.
#[tokio::test(start_paused = true)]
async fn time_is_per_byte_and_by_rate() {
    let (third, second) = (Duration::from_millis(333), Duration::from_secs(1));
    assert!(trickle(1800, third, pace()).body(1800).await.is_ok());
    assert!(matches!(trickle(50, 11 * second, pace()).body(50).await, Err(FrameError::Silent)));
    for skip in [false, true] {
        let start = Instant::now();
        let mut slow = trickle(1000, second, pace());
        let ended = if skip { slow.skip(1000).await } else { slow.body(1000).await.map(drop) };
        assert!(matches!(ended, Err(FrameError::Slow { bytes: 39..=41, .. })), "{ended:?}");
        assert!((39 * second..42 * second).contains(&start.elapsed()), "{:?}", start.elapsed());
    }
}

/// Goal: a rate that rises ends what is too slow for it at once. Method: about a byte a second, enough for the
/// first minute.
#[tokio::test(start_paused = true)]
async fn a_frame_notices_that_the_rate_rises() {
    let (start, minute) = (Instant::now(), Duration::from_secs(60));
    let pace = Pace::new(Duration::from_secs(10), Duration::from_secs(20), move || {
        if start.elapsed() < minute { 1 } else { 100 }
    });
    let ended = trickle(1000, Duration::from_millis(900), pace).body(1000).await;
    assert!(matches!(ended, Err(FrameError::Slow { .. })), "{ended:?}");
    assert!((minute..minute + 2 * TICK).contains(&start.elapsed()), "{:?}", start.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Goal: what is written is read, frame by frame. Method: random frames in one stream.
    #[test]
    fn frames_round_trip(
        frames in proptest::collection::vec(
            (any::<u64>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200), 0..200_000usize),
            0..6,
        )
    ) {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for (id, request, header, payload_len) in frames {
            let kind = if request { Kind::Request } else { Kind::Answer };
            let payload = Bytes::from(vec![id.to_le_bytes()[0]; payload_len]);
            now(FrameWriter::new(&mut bytes, Pulse::new(), pace()).frame(kind, id, &header, &payload)).expect("written");
            let head = Head { kind, id, header_len: header.len(), payload_len };
            expected.push((head, Bytes::from(header), payload));
        }
        let (read, error) = now(read_all(bytes));
        prop_assert_eq!(read, expected);
        prop_assert!(matches!(error, FrameError::Ended));
    }

    /// Goal: any bytes are read without panic, and never more than came. Method: garbage behind a valid frame.
    #[test]
    fn garbage_is_refused_or_ends(garbage in proptest::collection::vec(any::<u8>(), 0..400), kind in 0u8..8) {
        let mut bytes = bare(Kind::Open, 0).to_bytes().to_vec();
        bytes.extend(&garbage);
        if let Some(at) = bytes.get_mut(HEAD_LEN + 16) {
            *at = kind;
        }
        let length = bytes.len();
        let (frames, _) = now(read_all(bytes));
        let taken: usize = frames.iter().map(|(_, header, payload)| HEAD_LEN + header.len() + payload.len()).sum();
        prop_assert!(taken <= length && !frames.is_empty());
    }
}
