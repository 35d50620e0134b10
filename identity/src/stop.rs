//! The end of a process of the control plane: told by SIGTERM, as Kubernetes does, or by SIGINT, from a terminal. It is here
//! because this is what these processes have in common.

use std::{future::Future, io, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// How long a replica goes on after SIGTERM: until everybody who has a share in leading connections to its Service knows that it
/// goes. Kubernetes tells them at the same time as the replica, and kube-proxy takes a second or two. Who was sent away before
/// would be led to where nobody answers any more.
const HANDOVER: Duration = Duration::from_secs(3);

/// Ready when the process is to end. `in_cluster`: it is a replica behind a Service, and lets [`HANDOVER`] pass after SIGTERM.
///
/// # Errors
/// If signals can't be received.
pub fn told_to_stop(in_cluster: bool) -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => return,
        }
        if in_cluster {
            tracing::info!("going away: whoever looks for a replica finds others from now on");
            tokio::select! {
                () = sleep(HANDOVER) => {}
                // Somebody is in a hurry.
                _ = interrupt.recv() => {}
            }
        }
    })
}
