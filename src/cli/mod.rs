#[derive(clap::Parser)]
pub struct Cli {}
pub async fn run(_c: Cli, _o: &mut dyn std::io::Write) -> anyhow::Result<std::process::ExitCode> {
    let s: crate::settings::Settings = serde_json::from_str("{}")?;
    crate::worker::run(s).await
}
