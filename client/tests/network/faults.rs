//! Seeders that fail, lie or die.
