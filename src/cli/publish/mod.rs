//! `keylane publish FILE`: sends the writes of a file, and says which ones the broker confirmed.
//!
//! Owns: the command's arguments, its progress, its summary and its exit code.
//! Never: sends a line twice. Running the command again is how to do that, and it is harmless.

pub mod read;
pub mod report;
pub mod send;

use std::io::{IsTerminal, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::{mpsc, oneshot};

use self::read::{Checked, Source};
use self::report::Report;
use self::send::Sender;
use crate::operate::front_door::FrontDoor;
use crate::settings::Settings;

/// Most messages that are unconfirmed at once: enough to keep broker and disk busy (measured).
const WINDOW_MAX: usize = 2000;
/// Bundles of checked lines that wait for the channel.
const BUNDLES_MAX: usize = 8;
/// How often the progress bar moves.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What `publish` is given.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Newline-delimited JSON, compressed if the name ends in `.gz`; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// At most so many writes a second
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
}

/// Publishes the file; the exit code is 1 if any line was not confirmed.
pub async fn run(
    settings: &Settings,
    args: &Args,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let source =
        Source::open(&args.file).with_context(|| format!("open {}", args.file.display()))?;
    let door = FrontDoor::open(settings, "keylane publish", WINDOW_MAX).await?;
    let FrontDoor { publisher, confirms, exchange } = door;
    let progress = Progress::start(&source);
    let (lines, reading) = read_aside(source)?;
    let report = Report::new(out, progress.bar.clone());
    let sender = Sender::new(&publisher, exchange, report, args.rate);
    let mut report = tokio::select! {
        report = sender.send_all(lines) => report.context("write what failed")?,
        () = confirms.run() => bail!("the confirms ended before their publisher"),
        () = progress.follow() => bail!("the progress bar ended before what it shows"),
    };
    progress.bar.finish_and_clear();
    let read = reading.await.context("the reader was dropped")?;
    // Everything is answered or given up; a close that fails changes nothing about it.
    publisher.close().await;
    report.summary().context("write the summary")?;
    let lines = read.with_context(|| format!("read {}", args.file.display()))?;
    tracing::debug!(lines, "Read the file to its end");
    Ok(if report.all_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Reading = oneshot::Receiver<std::io::Result<u64>>;

/// Reads on a thread. It is not one of the runtime's: those are waited for at the end, and reading
/// standard input may never end.
fn read_aside(source: Source) -> anyhow::Result<(mpsc::Receiver<Vec<Checked>>, Reading)> {
    let (bundles, lines) = mpsc::channel(BUNDLES_MAX);
    let (done, reading) = oneshot::channel();
    std::thread::Builder::new()
        .name("publish-reader".into())
        .spawn(move || drop(done.send(source.read(&bundles))))
        .map_err(|error| anyhow!(error).context("start the reader"))?;
    Ok((lines, reading))
}

/// A progress bar, on a terminal only.
struct Progress {
    bar: ProgressBar,
    bytes_read: Arc<AtomicU64>,
}

impl Progress {
    fn start(source: &Source) -> Self {
        let bytes_read = Arc::clone(&source.bytes_read);
        if !std::io::stderr().is_terminal() {
            return Self { bar: ProgressBar::hidden(), bytes_read };
        }
        let (bar, template) = match source.bytes {
            Some(bytes) => (
                ProgressBar::new(bytes),
                "{wide_bar} {bytes}/{total_bytes} {msg} {elapsed}, {eta} left",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg} {elapsed}"),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, bytes_read }
    }

    /// Moves the bar, for ever.
    async fn follow(&self) {
        let mut every = tokio::time::interval(PROGRESS_EVERY);
        loop {
            every.tick().await;
            self.bar.set_position(self.bytes_read.load(Ordering::Relaxed));
        }
    }
}
