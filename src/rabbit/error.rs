//! What went wrong with the broker, named for what the caller does about it.
//!
//! Owns: the one table from AMQP reply codes to our errors.
//! Never: looks into an error's text, or decides to try again.

use std::time::Duration;

use lapin::ErrorKind;

/// Why the broker did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// Connect again, after a pause: the connection is gone, or the broker is not up.
    #[error("the broker is away")]
    Away(#[source] lapin::Error),
    /// Ask the operator for permissions, a user or a virtual host (403, 530).
    #[error("the broker refuses this user: {text}")]
    Refused {
        /// The broker's own words.
        text: String,
    },
    /// Mend the files of `amqp.tls_*`, or what the other side trusts.
    #[error("{text}")]
    Certificate {
        /// Which file, and what to do.
        text: String,
    },
    /// Declare it, or wait until somebody has (404).
    #[error("it is not on the broker: {text}")]
    Missing {
        /// The broker's own words.
        text: String,
    },
    /// Leave it alone and make another: it is there with other arguments (406).
    #[error("it is on the broker in another form: {text}")]
    Different {
        /// The broker's own words.
        text: String,
    },
    /// Somebody else holds it for himself alone (405).
    #[error("somebody else holds it: {text}")]
    Locked {
        /// The broker's own words.
        text: String,
    },
    /// Make the message smaller (311).
    #[error("the message is too large for the broker: {text}")]
    TooLarge {
        /// The broker's own words.
        text: String,
    },
    /// Enable a plugin or take a newer broker: it does not know what was asked for (503, 540).
    #[error("the broker cannot do this: {text}")]
    Unsupported {
        /// The broker's own words.
        text: String,
    },
    /// Ask again later, the broker did not answer in time.
    #[error("the broker did not answer within {within:?}")]
    Silent {
        /// How long was waited.
        within: Duration,
    },
    /// Shorten it: AMQP has no room for more than 255 bytes.
    #[error("{what} is longer than the 255 bytes of AMQP")]
    TooLong {
        /// Which name or property.
        what: &'static str,
    },
    /// A bug of ours or of the client library (501, 502, 504, 505).
    #[error("the protocol was broken")]
    Protocol(#[source] lapin::Error),
}

impl BrokerError {
    /// Whether the same may succeed on a new connection, without anybody changing anything.
    pub const fn passes(&self) -> bool {
        match self {
            Self::Away(_) | Self::Silent { .. } => true,
            Self::Refused { .. }
            | Self::Certificate { .. }
            | Self::Missing { .. }
            | Self::Different { .. }
            | Self::Locked { .. }
            | Self::TooLarge { .. }
            | Self::Unsupported { .. }
            | Self::TooLong { .. }
            | Self::Protocol(_) => false,
        }
    }
}

impl From<lapin::Error> for BrokerError {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(protocol) => {
                let text = protocol.get_message().to_string();
                by_code(protocol.get_id(), text, error.clone())
            }
            ErrorKind::InvalidProtocolVersion(_)
            | ErrorKind::ParsingError(_)
            | ErrorKind::SerialisationError(_)
            | ErrorKind::FutureCompleted
            | ErrorKind::NoDefaultRuntime => Self::Protocol(error),
            ErrorKind::AuthProviderError(text) => Self::Refused { text: text.clone() },
            // Channel and connection states, sockets, heartbeats: all of them end at a new one.
            _ => Self::Away(error),
        }
    }
}

fn by_code(code: u16, text: String, error: lapin::Error) -> BrokerError {
    match code {
        311 => BrokerError::TooLarge { text },
        403 | 530 => BrokerError::Refused { text },
        404 => BrokerError::Missing { text },
        405 => BrokerError::Locked { text },
        406 => BrokerError::Different { text },
        503 | 540 => BrokerError::Unsupported { text },
        501 | 502 | 504 | 505 => BrokerError::Protocol(error),
        // 320 closed by an operator, 506 out of resources, 541 internal (a node is missing), and
        // whatever a later broker invents.
        _ => BrokerError::Away(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::protocol::AMQPError;

    #[test]
    fn a_reply_code_says_what_to_do() {
        let table = [
            (311, "the message is too large for the broker: x", false),
            (320, "the broker is away", true),
            (403, "the broker refuses this user: x", false),
            (404, "it is not on the broker: x", false),
            (405, "somebody else holds it: x", false),
            (406, "it is on the broker in another form: x", false),
            (503, "the broker cannot do this: x", false),
            (505, "the protocol was broken", false),
            (530, "the broker refuses this user: x", false),
            (540, "the broker cannot do this: x", false),
            (541, "the broker is away", true),
        ];
        for (code, display, passes) in table {
            let protocol = AMQPError::from_id(code, "x".into()).unwrap();
            let error = BrokerError::from(lapin::Error::from(ErrorKind::ProtocolError(protocol)));
            assert_eq!(error.to_string(), display, "{code}");
            assert_eq!(error.passes(), passes, "{code}");
        }
    }
}
