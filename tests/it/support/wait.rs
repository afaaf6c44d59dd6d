//! Waiting for something that must happen, with a deadline and never for a length of time.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Long enough for anything that does not involve a timeout of the product's own.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
pub(crate) async fn until(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let end = Instant::now() + deadline;
    while !condition().await {
        assert!(Instant::now() < end, "waited {deadline:?} in vain until {what}");
        sleep(LOOK_EVERY).await;
    }
}

/// Waits until `actual` gives `expected`; says what it gave instead.
pub(crate) async fn until_equal<T: PartialEq + Debug>(
    deadline: Duration,
    what: &str,
    expected: T,
    mut actual: impl AsyncFnMut() -> T,
) {
    let end = Instant::now() + deadline;
    loop {
        let seen = actual().await;
        if seen == expected {
            return;
        }
        assert!(
            Instant::now() < end,
            "waited {deadline:?} in vain for {what}: expected {expected:?}, found {seen:?}"
        );
        sleep(LOOK_EVERY).await;
    }
}
