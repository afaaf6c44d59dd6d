//! The flag that says who gives a command that changes something.

use crate::operate::actor::Actor;

/// What every command that changes something is given.
#[derive(Debug, Clone, clap::Args)]
pub struct ActorArgs {
    /// Who does this, for the audit; default: the user of the operating system
    #[arg(long = "as", value_name = "NAME", env = "KEYLANE_OPERATOR", hide_env_values = true)]
    name: Option<String>,
}

impl From<ActorArgs> for Actor {
    fn from(args: ActorArgs) -> Self {
        Self::new(args.name)
    }
}
