#[derive(clap::Parser)]
pub struct Cli {
    #[arg(long)]
    config: Option<std::path::PathBuf>,
}
pub async fn run(c: Cli, _o: &mut dyn std::io::Write) -> anyhow::Result<std::process::ExitCode> {
    let s = crate::settings::load::load(c.config)?;
    crate::telemetry::start(&s.telemetry)?;
    crate::worker::run(s).await
}
