//! Ctrl-C and its kin: the user, or the system, wants the program to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Result};

/// Listens from the moment it is made: a signal that comes between two waits is not lost.
pub struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    /// Begins to listen.
    pub fn listen() -> Result<Self> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::unavailable("cannot listen for signals").because(&error))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal. What was begun stays resumable.
    pub async fn asked(&mut self) -> Failure {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
        Failure::interrupted("interrupted")
            .hint("type the same command again; what a put had sent and got acknowledged is not sent again")
    }
}
