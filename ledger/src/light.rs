//! For those who read the ledger without running it: records by type, and proofs against a signed header.
