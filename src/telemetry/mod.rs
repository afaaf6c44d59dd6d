//! Logs and metrics.

pub mod metrics;
pub mod rolls;
pub mod upkeep;

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, registry, reload};

use crate::settings::{LogFormat, Telemetry};

/// What is logged, as long as the process runs.
pub struct Filter(reload::Handle<EnvFilter, Registry>);

impl Filter {
    /// Logs by another filter from now on.
    pub fn set(&self, filter: &str) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(filter).context("read telemetry.log")?;
        self.0.reload(filter).context("change what is logged")
    }
}

/// Starts logging to standard error: text on a terminal, JSON otherwise.
pub fn start(settings: &Telemetry) -> anyhow::Result<Filter> {
    let filter = EnvFilter::try_new(&settings.log).context("read telemetry.log")?;
    let json = match settings.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let (filter, handle) = reload::Layer::new(filter);
    let colours = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_ansi(colours).with_writer(std::io::stderr);
    let lines = if json { lines.json().boxed() } else { lines.boxed() };
    registry().with(filter).with(lines).try_init().context("start logging")?;
    Ok(Filter(handle))
}
