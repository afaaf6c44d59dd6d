//! Hours of load, with everything failing now and then: no write suffers, and nothing grows.
//!
//! Not in an ordinary run: `make soak`, for `MINUTES` minutes.

use std::env;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::support::numbered::{self, Numbered};
use crate::support::{OwnServers, Scene, Worker};

/// One failure each so often.
const ROUND: Duration = Duration::from_secs(20);
/// Writes that must flow again before the next failure.
const SOME: i64 = 500;
/// What the last third of the rounds may have more than the first, in the mean.
const MEMORY_MIB_MORE: f64 = 16.0;
const FILES_MORE: f64 = 10.0;
const SERIES_MORE: f64 = 5.0;

/// What a process has in use.
struct Sample {
    memory_mib: f64,
    files: f64,
    series: f64,
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
async fn sample(worker: &Worker) -> Sample {
    let page = worker.get("/metrics").await.unwrap().1;
    let series = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    Sample {
        memory_mib: worker.status_kb("VmRSS") as f64 / 1024.0,
        files: worker.open_files() as f64,
        series: series as f64,
    }
}

/// A worker that has the partitions it names to itself: whichever version the broker is of, each
/// has work.
async fn worker(scene: &Scene, id: &str, partitions: &str) -> Worker {
    let settings = [
        ("worker.id", id),
        ("worker.partitions", partitions),
        ("amqp.partitions", "4"),
        // The queues of rings that are gone would be there for an hour.
        ("generations.keep_minutes", "1"),
        ("database.connections_max", "8"),
    ];
    Worker::spawn(&scene.config(), &settings).ready().await
}

/// What fails in a round beside the worker that is killed in each.
const fn failure(round: usize) -> Option<&'static str> {
    match round % 12 {
        2 => Some("restart-rabbit"),
        5 => Some("restart-postgres"),
        8 => Some("kill-rabbit"),
        11 => Some("kill-postgres"),
        _ => None,
    }
}

fn mean(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let count = u32::try_from(samples.len()).unwrap();
    samples.iter().map(of).sum::<f64>() / f64::from(count)
}

/// Compares the last third with the first; says of what there is too much more.
fn grown(samples: &[Sample]) -> Vec<&'static str> {
    let third = samples.len() / 3;
    let (first, last) = (&samples[..third], &samples[samples.len() - third..]);
    let bounds: [(&str, fn(&Sample) -> f64, f64); 3] = [
        ("MiB resident", |sample| sample.memory_mib, MEMORY_MIB_MORE),
        ("open files", |sample| sample.files, FILES_MORE),
        ("series", |sample| sample.series, SERIES_MORE),
    ];
    let mut grown = Vec::new();
    for (what, of, more) in bounds {
        let (before, after) = (mean(first, of), mean(last, of));
        let most = samples.iter().map(of).fold(0.0, f64::max);
        eprintln!("{what}: {before:.1} in the first third, {after:.1} in the last, {most:.1} most");
        if after > before + more {
            grown.push(what);
        }
    }
    grown
}

#[test]
fn what_grows_is_told_of_and_a_peak_is_not() {
    let samples =
        |grows: fn(f64) -> Sample| (0..9_u8).map(f64::from).map(grows).collect::<Vec<_>>();
    let peak = samples(|n| Sample {
        memory_mib: if n < 5.0 { 40.0 } else { 50.0 },
        files: if (3.5..4.5).contains(&n) { 100.0 } else { 20.0 },
        series: 160.0,
    });
    assert_eq!(grown(&peak), Vec::<&str>::new());
    let leak = samples(|n| Sample {
        memory_mib: 40.0 + 3.0 * n,
        files: 20.0 + 2.0 * n,
        series: 160.0 + n,
    });
    assert_eq!(grown(&leak), ["MiB resident", "open files", "series"]);
}

#[tokio::test]
async fn nothing_is_lost_and_nothing_grows_however_long_everything_fails_now_and_then() {
    let minutes = env::var("MINUTES").map_or(60, |minutes| minutes.parse::<u32>().unwrap());
    let own = OwnServers::start().await;
    let scene = Scene::on_own(&own.servers, numbered::TABLES, numbered::ENTITIES).await;
    let steady = worker(&scene, "steady", "0,1").await;
    let mut victim = worker(&scene, "victim", "2,3").await;
    scene.has_a_ring().await;
    let numbered = Numbered::new(&scene);
    let stop = CancellationToken::new();
    let mut samples = Vec::new();
    let trouble = async {
        let begun = Instant::now();
        for round in 0..minutes * 60 / u32::try_from(ROUND.as_secs()).unwrap() {
            victim.kill();
            if let Some(failure) = failure(usize::try_from(round).unwrap()) {
                own.run(failure).await;
            }
            victim = worker(&scene, "victim", "2,3").await;
            numbered.flows(SOME).await;
            sleep_until(begun + ROUND * (round + 1)).await;
            samples.push(sample(&steady).await);
        }
        stop.cancel();
    };
    tokio::join!(numbered.run(&stop), trouble);
    numbered.drained().await;
    let verdict = numbered.verdict().await;
    eprintln!("{minutes} minutes, {} rounds: {verdict}", samples.len());
    assert_eq!((verdict.lost, verdict.twice, verdict.overtaken), (0, 0, 0), "{verdict}");
    assert_eq!(grown(&samples), Vec::<&str>::new());
}
