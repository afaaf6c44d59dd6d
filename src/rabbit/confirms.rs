//! Gives each sent message what the broker said about it.
//!
//! Owns: which confirm and which returned message belong together. With confirms of several
//! messages at once the client library hands a returned message to any of them; so no message
//! counts as accepted before all confirms of its batch have been looked at.
//! Never: publishes again.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::poll_fn;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::{Channel, Confirmation, ConnectionStatus};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::error::BrokerError;
use super::publisher::{Confirmed, Content, send};

/// How finely a confirm's timeout is measured.
const TICK: Duration = Duration::from_millis(100);

/// By what a returned message is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) message_id: String,
    pub(super) routing_key: String,
}

/// A message on its way to the channel.
pub(super) struct Sent {
    pub(super) content: Content,
    pub(super) identity: Identity,
    pub(super) reply: oneshot::Sender<Confirmed>,
    pub(super) permit: OwnedSemaphorePermit,
}

/// What the client library said about a message, without what was returned along with it.
enum Answer {
    Ack,
    Nack,
    Lost(BrokerError),
}

/// A message that the broker would not route.
struct Return {
    code: u16,
    text: String,
}

type Sending = Pin<Box<dyn Future<Output = (u64, lapin::Result<Confirmation>)> + Send>>;

struct Waiting {
    identity: Identity,
    reply: oneshot::Sender<Confirmed>,
    /// Dropped with the answer: that makes room for another message.
    _permit: OwnedSemaphorePermit,
}

/// The other half of a publisher: sends, and gives out the answers.
pub struct Confirms {
    channel: Channel,
    status: ConnectionStatus,
    received: mpsc::Receiver<Sent>,
    sending: FuturesUnordered<Sending>,
    waiting: HashMap<u64, Waiting>,
    answered: Vec<(u64, Answer)>,
    returned: HashMap<Identity, VecDeque<Return>>,
    patience: Patience,
    ended: Arc<AtomicBool>,
    next: u64,
}

impl Confirms {
    pub(super) fn new(
        channel: Channel,
        status: ConnectionStatus,
        received: mpsc::Receiver<Sent>,
        confirm_timeout: Duration,
        ended: Arc<AtomicBool>,
    ) -> Self {
        Self {
            channel,
            status,
            received,
            sending: FuturesUnordered::new(),
            waiting: HashMap::new(),
            answered: Vec::new(),
            returned: HashMap::new(),
            patience: Patience::new(confirm_timeout),
            ended,
            next: 0,
        }
    }

    /// Runs until the publisher is dropped and everything is answered.
    pub async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        while open || !self.waiting.is_empty() {
            tokio::select! {
                biased;
                Some((number, answer)) = self.sending.next(), if !self.sending.is_empty() => {
                    self.note(number, answer);
                    self.settle().await;
                }
                sent = self.received.recv(), if open => match sent {
                    Some(sent) => self.start(sent).await,
                    None => open = false,
                },
                now = tick.tick() => self.give_up(now),
            }
        }
        self.ended.store(true, Ordering::Release);
    }

    /// Puts a message on the channel. The first poll queues its frames, so it happens here, in the
    /// order of the calls, and not when `FuturesUnordered` gets to it.
    async fn start(&mut self, sent: Sent) {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let Sent { content, identity, reply, permit } = sent;
        let channel = self.channel.clone();
        let mut sending: Sending =
            Box::pin(send(channel, content).map(move |answer| (number, answer)));
        self.waiting.insert(number, Waiting { identity, reply, _permit: permit });
        self.patience.started(number);
        let polled = poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await;
        match polled {
            Poll::Ready((number, answer)) => {
                self.note(number, answer);
                self.settle().await;
            }
            Poll::Pending => self.sending.push(sending),
        }
    }

    /// Gives out what was answered, after everything that came in the same batch is here too.
    async fn settle(&mut self) {
        while !self.answered.is_empty() {
            self.collect().await;
            let whole = self.answered.len();
            // The library marks a batch of confirms under a lock, and this takes that lock for a
            // moment: when it is back, every confirm of the batches seen so far is marked.
            drop(self.channel.wait_for_confirms().now_or_never());
            self.collect().await;
            for (number, answer) in self.answered.drain(..whole) {
                if let Some(waiting) = self.waiting.remove(&number) {
                    let confirmed = judge(answer, &waiting.identity, &mut self.returned);
                    // Who asked may be gone.
                    drop(waiting.reply.send(confirmed));
                }
            }
        }
    }

    /// Takes what is answered already, without waiting.
    async fn collect(&mut self) {
        let ready = poll_fn(|context| {
            let mut ready = Vec::new();
            while let Poll::Ready(Some(answer)) = self.sending.poll_next_unpin(context) {
                ready.push(answer);
            }
            Poll::Ready(ready)
        });
        for (number, answer) in ready.await {
            self.note(number, answer);
        }
    }

    /// Keeps an answer, and apart from it the returned message that it carries: it may be another's.
    fn note(&mut self, number: u64, answer: lapin::Result<Confirmation>) {
        let (answer, returned) = match answer {
            Ok(Confirmation::Ack(returned)) => (Answer::Ack, returned),
            Ok(Confirmation::Nack(returned)) => (Answer::Nack, returned),
            Ok(Confirmation::NotRequested) => {
                let state = lapin::ChannelState::Connected;
                let kind = lapin::ErrorKind::InvalidChannelState(state, "confirms are off");
                (Answer::Lost(BrokerError::Protocol(kind.into())), None)
            }
            Err(error) => (Answer::Lost(error.into()), None),
        };
        if matches!(answer, Answer::Lost(_)) {
            self.ended.store(true, Ordering::Release);
        }
        self.answered.push((number, answer));
        if let Some(returned) = returned {
            let message_id = returned.properties.message_id().as_ref();
            let identity = Identity {
                message_id: message_id.map(ToString::to_string).unwrap_or_default(),
                routing_key: returned.routing_key.to_string(),
            };
            let reason =
                Return { code: returned.reply_code, text: returned.reply_text.to_string() };
            self.returned.entry(identity).or_default().push_back(reason);
        }
    }

    fn give_up(&mut self, now: Instant) {
        let Self { patience, waiting, status, .. } = self;
        patience.pass(now, status.blocked());
        while let Some(number) = patience.expired(|number| waiting.contains_key(&number)) {
            if let Some(waiting) = waiting.remove(&number) {
                drop(waiting.reply.send(Confirmed::Silent { within: patience.timeout }));
            }
        }
        if self.waiting.is_empty() {
            self.returned.clear();
        }
    }
}

fn judge(
    answer: Answer,
    identity: &Identity,
    returned: &mut HashMap<Identity, VecDeque<Return>>,
) -> Confirmed {
    let reason = returned.get_mut(identity).and_then(VecDeque::pop_front);
    if returned.get(identity).is_some_and(VecDeque::is_empty) {
        returned.remove(identity);
    }
    match (reason, answer) {
        (Some(Return { code, text }), _) => Confirmed::Returned { code, text },
        (None, Answer::Ack) => Confirmed::Accepted,
        (None, Answer::Nack) => Confirmed::Refused,
        (None, Answer::Lost(error)) => Confirmed::Lost(error),
    }
}

/// How long messages have waited, not counting the time in which an alarm stopped everything.
struct Patience {
    timeout: Duration,
    waited: Duration,
    last: Option<Instant>,
    deadlines: VecDeque<(Duration, u64)>,
}

impl Patience {
    /// A longer pause is one of this process (stopped, suspended), not of the broker.
    const STEP_MAX: Duration = Duration::from_secs(1);

    const fn new(timeout: Duration) -> Self {
        Self { timeout, waited: Duration::ZERO, last: None, deadlines: VecDeque::new() }
    }

    fn started(&mut self, number: u64) {
        self.deadlines.push_back((self.waited.saturating_add(self.timeout), number));
    }

    fn pass(&mut self, now: Instant, blocked: bool) {
        if let Some(last) = self.last.replace(now)
            && !blocked
        {
            let step = now.saturating_duration_since(last).min(Self::STEP_MAX);
            self.waited = self.waited.saturating_add(step);
        }
    }

    /// The next message that still waits and has waited too long.
    fn expired(&mut self, waits: impl Fn(u64) -> bool) -> Option<u64> {
        while let Some(&(deadline, number)) = self.deadlines.front() {
            if waits(number) {
                if deadline > self.waited {
                    return None;
                }
                self.deadlines.pop_front();
                return Some(number);
            }
            self.deadlines.pop_front();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(message_id: &str) -> Identity {
        Identity { message_id: message_id.into(), routing_key: "k".into() }
    }

    #[test]
    fn a_returned_message_blames_the_one_that_it_names() {
        let mut returned = HashMap::new();
        let reason = Return { code: 312, text: "NO_ROUTE".into() };
        returned.insert(identity("b"), VecDeque::from([reason]));
        let carrier = judge(Answer::Ack, &identity("a"), &mut returned);
        assert!(matches!(carrier, Confirmed::Accepted));
        let named = judge(Answer::Ack, &identity("b"), &mut returned);
        assert!(matches!(named, Confirmed::Returned { code: 312, .. }));
        let again = judge(Answer::Ack, &identity("b"), &mut returned);
        assert!(matches!(again, Confirmed::Accepted));
        assert!(returned.is_empty());
    }

    #[test]
    fn time_does_not_pass_while_an_alarm_lasts() {
        let mut patience = Patience::new(Duration::from_secs(2));
        let start = Instant::now();
        patience.pass(start, false);
        patience.started(1);
        patience.started(2);
        let mut seconds = 0;
        let mut pass = |patience: &mut Patience, blocked| {
            seconds += 1;
            patience.pass(start + Duration::from_secs(seconds), blocked);
        };
        pass(&mut patience, false);
        pass(&mut patience, true);
        pass(&mut patience, true);
        assert_eq!(patience.expired(|_| true), None);
        pass(&mut patience, false);
        assert_eq!(patience.expired(|number| number != 1), Some(2));
        assert_eq!(patience.expired(|_| true), None);
        assert!(patience.deadlines.is_empty());
    }
}
