//! Two devices on one account.
