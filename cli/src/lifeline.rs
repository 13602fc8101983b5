//! Processes that must not outlive the one that started them.
//!
//! The parent keeps the write end of a pipe whose read end is the child's standard input. However the parent dies, the
//! kernel closes its end, and the child sees the end of its input. On Linux the child also asks for a kill signal at its
//! parent's death, which works even if the child hangs.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How long a child takes to stop in order after its input ended.
const GRACE: Duration = Duration::from_secs(8);

/// In a child: ties this process to its parent. The receiver fires when the parent closed the pipe or died; if the
/// process has not ended by itself after the grace, it is ended.
///
/// With `sudden` the kernel kills this process at once when its parent dies; without, it has the grace for a parent's
/// death too (a supervisor that still has to clean up).
pub fn tie(sudden: bool) -> oneshot::Receiver<()> {
    if sudden {
        // A failure leaves the pipe, which is enough on its own.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    }
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new()
        .name("lifeline".to_owned())
        .spawn(move || {
            // Whatever arrives is not for us; an error is as final as the end.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = tell.send(());
            if sudden {
                end_after(GRACE);
            }
        })
        .expect("a process that just started can start a thread");
    told
}

/// Ends the process after a while, unless it has ended by then.
fn end_after(grace: Duration) {
    let until = Instant::now() + grace;
    while let Some(rest) = until.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
        std::thread::park_timeout(rest);
    }
    std::process::exit(i32::from(crate::failure::exit_code(crate::failure::Kind::Bug)));
}
