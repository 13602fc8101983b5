//! Strangers that announce much and send little.

use super::*;

/// Opens a stream and sends the beginning of a request.
async fn announce(served: &Served, seed: u8, header: &[u8], header_len: usize, payload_len: usize) -> Pipe {
    let mut bytes = Vec::new();
    let mut writer = FrameWriter::new(&mut bytes, Pulse::new(), forever());
    writer.bare(Kind::Open, 0, &[]).await.expect("written");
    let head_at = bytes.len();
    let mut writer = FrameWriter::new(&mut bytes, Pulse::new(), forever());
    writer.frame(Kind::Request, 1, header, &[]).await.expect("written");
    let length = |length: usize| u32::try_from(length).expect("small").to_le_bytes();
    bytes[head_at..head_at + 4].copy_from_slice(&length(header_len));
    bytes[head_at + 4..head_at + 8].copy_from_slice(&length(payload_len));
    let mut pipe = served.connect(seed);
    pipe.write_all(&bytes).await.expect("written");
    pipe
}

/// Announces 4 MiB on each of four streams of each of 20 keys, more than there is, and sends a byte every 9 s.
async fn trickle_from_strangers(served: &Served) {
    let header = encode(&store());
    for seed in 100..120 {
        for _ in 0..4 {
            let mut pipe = announce(served, seed, &header, header.len(), FRAME_PAYLOAD_MAX).await;
            tokio::spawn(async move {
                while pipe.write_all(&[0]).await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(9)).await;
                }
            });
        }
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
}

async fn seconds_to_store(served: &Served, caller: &Caller) -> u64 {
    let start = Instant::now();
    let stored = call(caller, store(), Bytes::from(vec![0; FRAME_PAYLOAD_MAX])).await;
    assert!(stored.is_ok(), "{stored:?}, free: {}", served.hub.budget().free());
    start.elapsed().as_secs()
}

/// Goal: memory for a long header is taken from the budget before the header is read, within a stranger's share, and
/// given back. Method: one key announces the longest header on 16 streams and sends a byte of each.
#[tokio::test(start_paused = true)]
async fn long_headers_are_paid_for() {
    let tuning = Tuning::default();
    let served = serve(tuning.clone());
    let free = served.hub.budget().free();
    let mut pipes = Vec::new();
    for _ in 0..16 {
        pipes.push(announce(&served, 1, b"R", FRAME_HEADER_MAX, 0).await);
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let held = free - served.hub.budget().free();
    let each = units_at_most(FRAME_HEADER_MAX, 0) as usize;
    let share = to_units(tuning.stranger_memory) as usize;
    assert_eq!(held, share / each * each, "as many as the share holds");
    assert!(held >= FRAME_HEADER_MAX / 1024);
    served.tasks_end().await;
    assert_eq!(served.hub.budget().free(), free);
}

/// Goal: requests around the length that needs memory first are answered, and what they held is given back. Method:
/// long nonsense, then a good request, then one that asks for payload in a long header.
#[tokio::test(start_paused = true)]
async fn long_requests_are_answered() {
    let served = serve(Tuning::default());
    let free = served.hub.budget().free();
    let (mut raw, _) = served.raw().await;
    for (id, length) in (1..).zip([HEADER_FREE, HEADER_FREE + 1, FRAME_HEADER_MAX]) {
        raw.send(Kind::Request, id, &vec![0; length], &[7; 100]).await.expect("sent");
        let (head, header, _) = raw.next_message().await.expect("an answer");
        assert_eq!(head.id, id);
        assert!(matches!(decode(&header), Ok(Response::Failed(fault)) if fault.code() == Code::Malformed));
    }
    raw.send(Kind::Request, 9, &encode(&receipt()), &[]).await.expect("sent");
    let (_, header, _) = raw.next_message().await.expect("an answer");
    assert_eq!(decode::<Response>(&header), Ok(Response::Receipt(None)));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(served.hub.budget().free(), free);
    let long = |request: &Request| {
        crate::exchange::check_request(&Rule::of(request), &vec![0; HEADER_FREE + 1], &[]).is_ok()
    };
    assert!(long(&store()) && !long(&read(1)));
}

/// Goal: strangers that announce all memory and trickle can't shut out another stranger for longer than it has
/// patience. Method: 320 MiB announced, then an honest store.
#[tokio::test(start_paused = true)]
async fn trickling_strangers_are_cut_off() {
    let tuning = Tuning::default();
    let served = serve(tuning.clone());
    trickle_from_strangers(&served).await;
    let honest = Caller::open(served.connect(1), &tuning).await.expect("opens");
    assert!(seconds_to_store(&served, &honest).await < 60);
}

/// Goal: who holds a lease here does not wait for strangers at all. Method: a store before the strangers come, and
/// one while they hold what they can.
#[tokio::test(start_paused = true)]
async fn strangers_do_not_hold_up_known_peers() {
    let tuning = Tuning::default();
    let served = serve(tuning.clone());
    let free = served.hub.budget().free();
    let known = Caller::open(served.connect(1), &tuning).await.expect("opens");
    assert_eq!(seconds_to_store(&served, &known).await, 1, "the service's own second");
    trickle_from_strangers(&served).await;
    let left = served.hub.budget().free();
    assert!(left >= free / 2 && left < free * 6 / 10, "{left} of {free}");
    drop(known);
    let again = Caller::open(served.connect(1), &tuning).await.expect("opens");
    assert_eq!(seconds_to_store(&served, &again).await, 1, "known on a new connection, too");
}

/// A link that moves so many bytes each 100 ms, with that delay.
async fn slow_link(served: &Served, seed: u8, bytes: usize, tuning: &Tuning) -> Caller {
    let (near, relay) = pipe();
    let (mut near_in, mut near_out) = relay.split();
    let (mut far_in, mut far_out) = served.connect(seed).split();
    tokio::spawn(async move {
        let mut piece = vec![0; bytes];
        while let Ok(count @ 1..) = near_in.read(&mut piece).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if far_out.write_all(&piece[..count]).await.is_err() {
                break;
            }
        }
    });
    tokio::spawn(async move {
        let mut piece = vec![0; bytes];
        while let Ok(count @ 1..) = far_in.read(&mut piece).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if near_out.write_all(&piece[..count]).await.is_err() {
                break;
            }
        }
    });
    Caller::open(near, tuning).await.expect("opens")
}

/// Goal: 5 Mbit/s with 100 ms are enough, shared by nine streams while strangers take what they can, and by a hundred
/// otherwise. Method: the largest store and read on links that move as many bytes.
#[tokio::test(start_paused = true)]
async fn slow_links_are_served() {
    let tuning = Tuning::default();
    let link = 5_000_000 / 8 / 10;
    for (streams, strangers) in [(9, true), (100, false)] {
        let served = serve(tuning.clone());
        if strangers {
            trickle_from_strangers(&served).await;
        }
        let caller = slow_link(&served, 1, link / streams, &tuning).await;
        seconds_to_store(&served, &caller).await;
        let reply = call(&caller, read(4 << 20), Bytes::new()).await.expect("read");
        assert_eq!(reply.payload.len(), 4 << 20, "{streams}");
    }
}
