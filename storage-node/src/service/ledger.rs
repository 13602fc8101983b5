//! Requests about the ledger. What only the validator can do is handed on to it.

use std::time::Duration;

use bytes::Bytes;
use tallow_consensus::Chain;
use tallow_ledger::StateRead;
use tallow_net::Reply;
use tallow_types::fault::{Code, Fault};
use tallow_types::limits::{BLOCK_MAX, FRAME_HEADER_MAX, PAGE_MAX, REQUEST_WAIT_MAX};
use tallow_types::wire::{ChainStatus, Request, Response, StateKey};
use tallow_types::{Bounded, DurationMs, Height, PublicKey, decode};

use super::StorageService;
use crate::seeder::{blocking, fitted};

/// How long a node waits to see a block that it was told of.
const SEEN: Duration = Duration::from_secs(2);
/// Room for records in one answer: the header limit without what lies around them. Bytes.
const RECORDS_MAX: usize = FRAME_HEADER_MAX - (16 << 10);

pub(super) async fn answer(
    service: &StorageService,
    from: PublicKey,
    request: Request,
    payload: Bytes,
) -> Result<Reply, Fault> {
    let chain = service.chain.clone();
    match request {
        Request::Status { above, wait } => Ok(Response::Status(wait_above(&chain, above, wait).await).into()),
        Request::Blocks { from, wait } => {
            wait_above(&chain, Height::new(from.get().saturating_sub(1)), wait).await;
            blocking(move || blocks(&chain, from)).await
        }
        Request::Submit => submit(service, from, payload).await,
        Request::Prove => prove(service, from, payload).await,
        Request::Tick { epochs } => match &service.validator {
            Some(validator) => Ok(Response::Ticked { epoch: validator.tick(epochs).await? }.into()),
            None => Err(Fault::new(Code::Unsupported, "only the validator moves the clock")),
        },
        Request::Receipt { key } => {
            blocking(move || Ok(Response::Receipt(chain.receipt(&key)?).into())).await
        }
        Request::State { keys } => blocking(move || state(&chain, &keys)).await,
        Request::Scan { prefix, after } => blocking(move || scan(&chain, &prefix, &after)).await,
        Request::Snapshot { height, piece } => {
            blocking(move || {
                let piece = chain.snapshot_piece(height, piece)?;
                let response = Response::Snapshot { height: piece.height, pieces: piece.pieces };
                Ok(Reply::with(response, piece.bytes.into()))
            })
            .await
        }
        _ => Err(Fault::new(Code::Internal, "a request went the wrong way")),
    }
}

/// Waits until the ledger is higher, or for so long.
async fn wait_above(chain: &Chain, above: Height, wait: DurationMs) -> ChainStatus {
    let mut tip = chain.subscribe();
    let wait = Duration::from_millis(wait.get().min(REQUEST_WAIT_MAX));
    // Time is up, or the ledger closes: either way the answer is where it stands.
    let _ = tokio::time::timeout(wait, tip.wait_for(|status| status.height > above)).await;
    chain.status()
}

fn blocks(chain: &Chain, from: Height) -> Result<Reply, Fault> {
    let mut blocks = Chain::blocks(chain, from)?;
    let mut size = 0;
    // At least one: a block is never larger than an answer.
    let fit = blocks.iter().take_while(|block| {
        size += block.len();
        size <= BLOCK_MAX
    });
    let fit = fit.count().max(1);
    blocks.truncate(fit.min(tallow_types::limits::BLOCKS_PAGE_MAX));
    let lengths = blocks.iter().map(|block| u32::try_from(block.len()).expect("a block is at most 1 MiB"));
    let response = Response::Blocks { lengths: fitted(lengths.collect()) };
    Ok(Reply::with(response, blocks.concat().into()))
}

fn state(chain: &Chain, keys: &[StateKey]) -> Result<Reply, Fault> {
    let view = chain.view()?;
    let (mut values, mut size) = (Vec::with_capacity(keys.len()), 0);
    for key in keys {
        let value = view.get(key).map_err(crate::seeder::storage)?;
        size += 8 + value.as_ref().map_or(0, Vec::len);
        if size > RECORDS_MAX {
            return Err(Fault::new(Code::Malformed, "these records don't fit one answer: ask for fewer"));
        }
        values.push(value.map(bounded).transpose()?);
    }
    Ok(Response::State { height: view.height(), values: fitted(values) }.into())
}

fn bounded<const MAX: usize>(bytes: Vec<u8>) -> Result<Bounded<u8, MAX>, Fault> {
    Bounded::new(bytes).ok_or_else(|| Fault::new(Code::Internal, "a record is larger than records may be"))
}

fn scan(chain: &Chain, prefix: &StateKey, after: &StateKey) -> Result<Reply, Fault> {
    let view = chain.view()?;
    // One more than is sent tells whether there are more.
    let mut found = view.scan(prefix, after, PAGE_MAX + 1).map_err(crate::seeder::storage)?;
    let mut size = 0;
    let fit = found.iter().take_while(|(key, value)| {
        size += 8 + key.len() + value.len();
        size <= RECORDS_MAX
    });
    let fit = fit.count().min(PAGE_MAX);
    let more = fit < found.len();
    found.truncate(fit);
    let records: Result<_, Fault> =
        found.into_iter().map(|(key, value)| Ok((bounded(key)?, bounded(value)?))).collect();
    Ok(Response::Scan { height: view.height(), records: fitted(records?), more }.into())
}

fn malformed(error: &tallow_types::DecodeError) -> Fault {
    Fault::new(Code::Malformed, error.to_string())
}

async fn submit(service: &StorageService, from: PublicKey, payload: Bytes) -> Result<Reply, Fault> {
    let tx = decode(&payload).map_err(|error| malformed(&error))?;
    if let Some(validator) = &service.validator {
        return Ok(Response::Applied(validator.submit(tx).await?).into());
    }
    let reply = hand_on(service, from, Request::Submit, payload).await?;
    if let Response::Applied(receipt) = &reply.response {
        // So that whoever asks here next sees what was just applied.
        let mut tip = service.chain.subscribe();
        let seen = tip.wait_for(|status| status.height >= receipt.height);
        let _ = tokio::time::timeout(SEEN, seen).await;
    }
    Ok(reply)
}

async fn prove(service: &StorageService, from: PublicKey, payload: Bytes) -> Result<Reply, Fault> {
    let proof = decode(&payload).map_err(|error| malformed(&error))?;
    match &service.validator {
        Some(validator) => {
            validator.prove(proof).await?;
            Ok(Response::Proven.into())
        }
        None => hand_on(service, from, Request::Prove, payload).await,
    }
}

/// Hands a request on to a node that knows more, never back to where it came from.
async fn hand_on(
    service: &StorageService,
    from: PublicKey,
    request: Request,
    payload: Bytes,
) -> Result<Reply, Fault> {
    if service.upstream.has(&from) {
        return Err(Fault::new(Code::Unsupported, "this node makes no blocks"));
    }
    service.upstream.call(&request, &payload).await
}
