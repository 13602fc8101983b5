//! Taking a snapshot from a peer that nobody trusts: the state it carries must have the root that a header signed by
//! the genesis validator names, or nothing of it is kept.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use redb::WriteTransaction;
use tallow_ledger::tree::{self, NodeRead};
use tallow_ledger::{ReadError, Writes, light};
use tallow_types::block::Header;
use tallow_types::limits::{STATE_KEY_MAX, STATE_VALUE_MAX};
use tallow_types::params::Genesis;
use tallow_types::wire::ChainStatus;
use tallow_types::{Height, Signature, StateRoot, Tagged, decode};

use super::export::Head;
use super::schema::{BLOCKS, NODES, STATE, Tip, UNDO};
use super::{Chain, ChainError, commit, view};

/// Records between two versions of the tree that is built: what import holds in memory at once.
const BATCH_RECORDS: usize = 1024;
/// Bytes of records held in memory at once.
const BATCH_BYTES: usize = 4 << 20;

/// Checks that a header is the network's and signed by its validator.
pub(crate) fn check_certificate(
    genesis: &Genesis,
    header: &Header,
    signature: &Signature,
) -> Result<(), String> {
    if header.chain != genesis.chain() {
        return Err("the header is another network's".to_owned());
    }
    light::certified(header, signature, &genesis.validators).map(drop).map_err(|error| error.to_string())
}

impl Chain {
    /// Replaces everything by the snapshot in `file`, whose length is `len`, if it is valid and of a later block, or of
    /// a later incarnation. Blocks kept so far go: they do not lead to it.
    pub(crate) fn import(&self, file: &File, len: u64) -> Result<ChainStatus, ChainError> {
        let mut stream = Stream::of_file(file, len)?;
        let head = self.read_head(&mut stream)?;
        let write = self.db.begin_write()?;
        let before = self.view()?;
        let tip = before.tip().clone();
        drop(before);
        let newer = (head.header.incarnation, head.header.height)
            > (tip.header.incarnation, tip.header.height)
            && head.header.incarnation >= tip.header.incarnation;
        if !newer {
            return Err(bad("it is not newer than the ledger here"));
        }
        write.delete_table(STATE)?;
        write.delete_table(NODES)?;
        write.delete_table(BLOCKS)?;
        write.delete_table(UNDO)?;
        write.open_table(BLOCKS)?;
        write.open_table(UNDO)?;
        let (root, version) = fill(&write, &mut stream, head.records, tip.version + 1)?;
        if root != head.header.state {
            return Err(bad("its records do not make the state that its header names"));
        }
        let oldest = head.header.height.get() + 1;
        commit::put_tip(&write, &Tip { header: head.header, signature: head.signature, version, oldest })?;
        write.commit()?;
        self.publish()
    }

    /// Checks the beginning of a snapshot, as far as its first piece shows it.
    pub(crate) fn check_snapshot(&self, first_piece: &[u8]) -> Result<(), ChainError> {
        self.read_head(&mut Stream { bytes: first_piece, left: first_piece.len() as u64 }).map(|_| ())
    }

    fn read_head<R: Read>(&self, stream: &mut Stream<R>) -> Result<Head, ChainError> {
        let head: Head = decode(&stream.part(Head::MAX)?).map_err(|error| bad(&error.to_string()))?;
        if head.genesis.chain() != self.id() {
            return Err(bad("it is another network's"));
        }
        check_certificate(self.genesis(), &head.header, &head.signature).map_err(|reason| bad(&reason))?;
        Ok(head)
    }
}

/// Puts the records of a snapshot into empty tables, and answers root and version of their tree.
fn fill(
    write: &WriteTransaction,
    stream: &mut Stream<impl Read>,
    records: u64,
    first: u64,
) -> Result<(StateRoot, u64), ChainError> {
    let (mut left, mut version, mut last) = (records, first, None::<Vec<u8>>);
    let mut root = None;
    while left > 0 || root.is_none() {
        let (mut batch, mut size) = (Writes::new(), 0);
        while left > 0 && batch.len() < BATCH_RECORDS && size < BATCH_BYTES {
            let (key, value) = (stream.part(STATE_KEY_MAX)?, stream.part(STATE_VALUE_MAX)?);
            if last.as_ref().is_some_and(|last| *last >= key) {
                return Err(bad("its records are not in order"));
            }
            size += key.len() + value.len();
            last = Some(key.clone());
            batch.insert(key, Some(value));
            left -= 1;
        }
        commit::put_state(write, &batch)?;
        let (next, update) = if root.is_none() {
            let records = batch.into_iter().filter_map(|(key, value)| Some((key, value?)));
            tree::rebuild(Height::new(version), records)?
        } else {
            version += 1;
            tree::update(&Nodes(write), Height::new(version), &batch)?
        };
        commit::put_tree(write, &update)?;
        root = Some(next);
    }
    if stream.left > 0 {
        return Err(bad("bytes follow its last record"));
    }
    Ok((root.expect("the loop runs until there is a root"), version))
}

/// Reads the nodes that this transaction has written.
struct Nodes<'a>(&'a WriteTransaction);

impl NodeRead for Nodes<'_> {
    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        view::node(&self.0.open_table(NODES).map_err(ReadError::new)?, key)
    }
}

fn bad(reason: &str) -> ChainError {
    ChainError::BadSnapshot { reason: reason.to_owned() }
}

/// Reads length-prefixed byte strings, never beyond the end nor a limit.
struct Stream<R> {
    bytes: R,
    left: u64,
}

impl<'a> Stream<BufReader<&'a File>> {
    fn of_file(mut file: &'a File, len: u64) -> Result<Self, ChainError> {
        file.seek(SeekFrom::Start(0)).map_err(|error| ChainError::io(&error))?;
        Ok(Self { bytes: BufReader::with_capacity(1 << 18, file), left: len })
    }
}

impl<R: Read> Stream<R> {
    fn take(&mut self, out: &mut [u8]) -> Result<(), ChainError> {
        self.left = self.left.checked_sub(out.len() as u64).ok_or_else(|| bad("it ends too early"))?;
        self.bytes.read_exact(out).map_err(|error| ChainError::io(&error))
    }

    fn part(&mut self, max: usize) -> Result<Vec<u8>, ChainError> {
        let mut len = [0; 4];
        self.take(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > max {
            return Err(bad(&format!("a part of {len} bytes is larger than the limit of {max}")));
        }
        let mut bytes = vec![0; len];
        self.take(&mut bytes)?;
        Ok(bytes)
    }
}
