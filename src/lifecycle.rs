//! Signals, the drain token, every long-lived task by name, and the exit code.

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

type Ended = Result<(&'static str, anyhow::Result<()>), JoinError>;

/// Owns the tasks of a process.
pub struct Lifecycle {
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    drain: CancellationToken,
    terminate: Signal,
    interrupt: Signal,
    drain_max: Duration,
}

impl Lifecycle {
    /// Listens for SIGTERM and SIGINT from now on.
    pub fn new(drain_max: Duration) -> std::io::Result<Self> {
        Ok(Self {
            tasks: JoinSet::new(),
            drain: CancellationToken::new(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            drain_max,
        })
    }

    /// Cancelled when the process is to stop.
    pub fn drain(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Runs `task` under `name` until it ends or the process does.
    pub fn spawn<Fut>(&mut self, name: &'static str, task: Fut)
    where
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Waits for a signal, or for the first task to end; then drains the rest.
    ///
    /// Past `drain_max` the tasks are dropped where they stand. That is safe: what was not
    /// committed was not acknowledged, so the broker delivers it again.
    pub async fn run(mut self) -> ExitCode {
        let mut clean = tokio::select! {
            _ = self.terminate.recv() => true,
            _ = self.interrupt.recv() => true,
            ended = self.tasks.join_next() => ended.is_some_and(|ended| ended_well(&ended)),
        };
        info!("Draining");
        self.drain.cancel();
        let draining = async {
            while let Some(ended) = self.tasks.join_next().await {
                clean &= ended_well(&ended);
            }
        };
        let in_time = timeout(self.drain_max, draining).await.is_ok();
        if !in_time {
            warn!(drain_max = ?self.drain_max, "The drain took too long; what is in hand comes again");
        }
        if clean && in_time { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn ended_well(ended: &Ended) -> bool {
    match ended {
        Ok((name, Ok(()))) => {
            info!(task = name, "Ended");
            true
        }
        Ok((name, Err(failure))) => {
            error!(task = name, "failed to run: {failure:#}");
            false
        }
        Err(panic) => {
            error!(error = %panic, "A task panicked; nothing of it was acknowledged");
            false
        }
    }
}
