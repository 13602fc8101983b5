//! Interrupted puts go on where they stopped.
