//! Logs, metrics and traces.

pub mod database;
pub mod help;
pub mod metrics;
pub mod rolls;
pub mod traces;
pub mod upkeep;

use std::io::IsTerminal;

use anyhow::Context;
use tracing::Subscriber;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, registry, reload};

use crate::settings::{LogFormat, Telemetry};

use traces::Export;

/// What is logged, as long as the process runs.
pub struct Filter(reload::Handle<EnvFilter, Registry>);

impl Filter {
    /// Logs by another filter from now on.
    pub fn set(&self, filter: &str) -> anyhow::Result<()> {
        let filter = EnvFilter::try_new(filter).context("read telemetry.log")?;
        self.0.reload(filter).context("change what is logged")
    }
}

/// Starts logging to standard error, and traces if the environment asks for them.
pub fn start(settings: &Telemetry) -> anyhow::Result<(Filter, Export)> {
    let filter = EnvFilter::try_new(&settings.log).context("read telemetry.log")?;
    let (filter, handle) = reload::Layer::new(filter);
    let export = Export::start().context("start traces")?;
    let started = match export.layer() {
        None => registry().with(filter).with(lines(settings)).try_init(),
        Some(spans) => {
            // What is logged is no reason to record less.
            let logged = filter.and(filter_fn(|metadata| !traces::is_span(metadata)));
            registry().with(lines(settings).with_filter(logged)).with(spans).try_init()
        }
    };
    started.context("start logging")?;
    Ok((Filter(handle), export))
}

/// Log lines: text on a terminal, JSON otherwise.
fn lines<S>(settings: &Telemetry) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let json = match settings.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let colours = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_ansi(colours).with_writer(std::io::stderr);
    if json { lines.json().boxed() } else { lines.boxed() }
}
