//! Every limit on what comes from outside, in one place. Each has a test one above it beside the code that checks it.

/// Largest header part of one frame on the wire: everything but slice bytes. Bytes.
pub const FRAME_HEADER_MAX: usize = 1 << 20;
/// Largest payload of one frame: one slice, or a batch of small ones. Bytes.
pub const FRAME_PAYLOAD_MAX: usize = 4 << 20;
/// Largest slice. Bytes.
pub const SLICE_MAX: u32 = 4 << 20;
/// Smallest slice, and the unit of slice lengths: one BLAKE3 chunk. Bytes.
pub const SLICE_UNIT: u32 = 1 << 10;
/// Width of one tile: a stripe is coded in rows of `data` tiles. Bytes.
pub const TILE: u32 = 64 << 10;
/// Most slots of one contract; the code works over GF(2^8) and a slot is one byte.
pub const SLOTS_MAX: usize = 255;
/// Most leaves of one lane tree.
pub const LANE_LEAVES_MAX: u64 = 1 << 40;
/// Largest plain chunk, and so the most that one sealed chunk may decompress to. Bytes.
pub const CHUNK_MAX: u32 = 4 << 20;
/// Largest sealed chunk: a plain chunk that did not compress, with header and tag. Bytes.
pub const SEALED_CHUNK_MAX: u32 = CHUNK_MAX + 256;
/// Largest sealed catalog head or repair index reference in a commit. Bytes.
pub const COMMIT_HEAD_MAX: usize = 256;
/// Blobs up to this size live in their catalog entry. Bytes.
pub const INLINE_BLOB_MAX: usize = 1 << 10;
/// Longest blob path. Bytes of UTF-8.
pub const PATH_MAX: usize = 4096;
/// Longest component of a blob path. Bytes of UTF-8; what common file systems take.
pub const PATH_COMPONENT_MAX: usize = 255;
/// Longest target of a symbolic link. Bytes.
pub const LINK_TARGET_MAX: usize = 4096;
/// Most chunks that a catalog entry names itself; a larger blob names lists of chunks.
pub const ENTRY_CHUNKS_MAX: usize = 4096;
/// Most chunks that one list of chunks names.
pub const CHUNK_LIST_MAX: usize = 16 << 10;
/// Most lists of chunks that a catalog entry names.
pub const ENTRY_LISTS_MAX: usize = 4096;
/// Largest encoded catalog or repair record. Bytes.
pub const RECORD_MAX: usize = 64 << 20;
/// Largest piece of a record, a chunk of its own. Bytes.
pub const RECORD_PIECE_MAX: usize = 1 << 20;
/// Most pieces of a record.
pub const RECORD_PIECES_MAX: usize = RECORD_MAX / RECORD_PIECE_MAX;
/// Most changes, entries or stripes of one record.
pub const RECORD_CHANGES_MAX: usize = 1 << 20;
/// Most leaves appended or dropped by one commit.
pub const COMMIT_CHANGES_MAX: usize = 8192;
/// Most commits in the chain that a seeder is shown to reach a newer one.
pub const COMMIT_CHAIN_MAX: usize = 64;
/// Most leaves in one page of a lane that is shown in pages.
pub const STAGE_PAGE_MAX: usize = 16 << 10;
/// Most leaves that wait in the memory of one seeder for the commits that they belong to, or are being taken into their
/// lanes: some 200 bytes each while that lasts.
pub const STAGED_LEAVES_MAX: usize = 1 << 20;
/// Most slices that come with their commit.
pub const COMMIT_SLICES_MAX: usize = 16;
/// Deepest owner policy.
pub const POLICY_DEPTH_MAX: usize = 8;
/// Most nodes in an owner policy.
pub const POLICY_NODES_MAX: usize = 64;
/// Most witnesses of one transaction.
pub const WITNESSES_MAX: usize = 64;
/// Longest hash-lock preimage. Bytes.
pub const PREIMAGE_MAX: usize = 64;
/// Largest encoded transaction. Bytes.
pub const TX_MAX: usize = 128 << 10;
/// Most transactions of one block.
pub const BLOCK_TXS_MAX: usize = 1024;
/// Most epoch proofs of one block.
pub const BLOCK_PROOFS_MAX: usize = 4096;
/// Largest encoded block. Bytes.
pub const BLOCK_MAX: usize = 1 << 20;
/// How far ahead of the chain's height a transaction may expire. Blocks.
pub const TX_LIFETIME_MAX: u64 = 100_000;
/// Most samples of one epoch proof: ordinary ones and those aimed at suspect lanes.
pub const PROOF_SAMPLES_MAX: usize = 8 + 64;
/// Largest opaque capacity sketch of one epoch proof. Bytes.
pub const PROOF_CAPACITY_MAX: usize = 1024;
/// Most addresses a seeder announces.
pub const ADDRESSES_MAX: usize = 8;
/// Longest announced address. Bytes.
pub const ADDRESS_MAX: usize = 256;
/// Longest region label. Bytes.
pub const REGION_MAX: usize = 16;
/// Most slices in one batch message.
pub const BATCH_SLICES_MAX: usize = 1024;
/// Most blocks in one answer.
pub const BLOCKS_PAGE_MAX: usize = 256;
/// Most records in one page of a list.
pub const PAGE_MAX: usize = 1024;
/// Largest key of a state record. Bytes.
pub const STATE_KEY_MAX: usize = 128;
/// Largest value of a state record. Bytes.
pub const STATE_VALUE_MAX: usize = 256 << 10;
/// Largest piece of a ledger snapshot in one answer. Bytes.
pub const SNAPSHOT_PIECE_MAX: usize = 1 << 20;
/// Most validators of one set.
pub const VALIDATORS_MAX: usize = 128;
/// Most accounts that a genesis endows.
pub const ENDOWMENTS_MAX: usize = 1024;
/// Longest text in a message for people. Bytes of UTF-8.
pub const TEXT_MAX: usize = 1024;
/// Most money that a network may ever hold. Leaves room below 2^128 for a product with a factor and a share.
pub const SUPPLY_MAX: u128 = 1 << 100;
/// Largest room of one lane. Bytes.
pub const ROOM_MAX: u64 = 1 << 60;
/// Recent write leases that a contract remembers, so that commits made under them can still be posted.
pub const LEASES_KEPT: usize = 8;
/// Expired idempotency keys that one block forgets at most; more than a block adds, so that none are left over.
pub const FORGET_PER_BLOCK: usize = 2 * BLOCK_TXS_MAX;
/// Largest proof that a record is, or is not, in the state: 256 siblings and a leaf. Bytes.
pub const STATE_PROOF_MAX: usize = 17 << 10;
/// Largest encoded body of a block: what header and signature leave. Bytes.
pub const BODY_MAX: usize = BLOCK_MAX - 1024;
/// Most pieces of a ledger snapshot that a follower takes.
pub const SNAPSHOT_PIECES_MAX: u32 = 1 << 14;
/// Most transactions that wait in a validator for a block.
pub const POOL_TXS_MAX: usize = 4096;
/// Most bytes of transactions that wait in a validator for a block.
pub const POOL_BYTES_MAX: usize = 16 << 20;
/// Most requests that wait for a validator to look at them.
pub const VALIDATOR_QUEUE_MAX: usize = 1024;
/// Most epochs that a manual clock is moved at once.
pub const TICK_EPOCHS_MAX: u32 = 10_000;
/// Most epochs that a contract is charged for at one time: their factors times all money stay below 2^128.
pub const SETTLE_MAX: u64 = 1 << 10;
/// Most bytes that a lane may hold above its room while slices wait for their commit.
pub const LANE_STAGING_MAX: u64 = 64 << 20;
/// Most acceptances that a seeder remembers until the ledger has them: asking for one costs nothing, so the oldest gives
/// way.
pub const ACCEPTANCES_WAITING_MAX: usize = 1 << 14;
/// Most writes that wait for a slice store.
pub const STORE_QUEUE_MAX: usize = 1024;
/// Most bytes of slices that wait for a slice store.
pub const STORE_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Most requests of one node at work on its disk.
pub const REQUESTS_DISK_MAX: usize = 128;
/// Most requests of one node that wait for a block, or for an answer from elsewhere.
pub const REQUESTS_WAITING_MAX: usize = 1024;
/// Most requests of one node that wait for a block they may need, without having asked to.
pub const REQUESTS_BEHIND_MAX: usize = 256;
/// Longest that a request may wait for a block. Milliseconds.
pub const REQUEST_WAIT_MAX: u64 = 60_000;
