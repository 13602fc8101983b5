//! Slices that come and go at random in a store that is nearly full.

use anyhow::Result;

/// Prints a line for each fill.
pub fn run() -> Result<()> {
    Ok(())
}
