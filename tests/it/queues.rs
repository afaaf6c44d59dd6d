//! `keylane dead-letters replay --queue`: messages of a former consumer become writes, each once.

use lapin::options::{
    ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};

use crate::support::{Cli, Scene, Sender, Worker, Write, entities, wait, write};

/// A broker clears the queues away itself.
const EXPIRES_MS: i32 = 120_000;

/// An exchange with a queue of its own, and keylane beside it.
struct Former {
    scene: Scene,
    cli: Cli,
    /// To the former exchange.
    sender: Sender,
    queue: String,
    channel: Channel,
    _connection: Connection,
    worker: Worker,
}

impl Former {
    async fn new() -> Self {
        let scene = Scene::new(entities::ITEMS, entities::ITEM).await;
        let worker = scene.worker().await;
        let url = &scene.servers.amqp;
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let queue = format!("{}-former", scene.prefix);
        declare(&channel, &queue, FieldTable::default()).await;
        let sender = Sender::connect(url, &queue).await.unwrap();
        let cli = Cli::new(&scene);
        Self { scene, cli, sender, queue, channel, _connection: connection, worker }
    }

    async fn ready(&self) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let name = self.queue.as_str().into();
        let declared = self.channel.queue_declare(name, options, FieldTable::default()).await;
        declared.unwrap().message_count()
    }

    async fn applied(&self, writes: i64) {
        wait::until_equal(wait::SOON, "all writes applied", writes, async || {
            self.scene.number("select count(*) from keylane.ledger where outcome = 'applied'").await
        })
        .await;
        assert_eq!(self.scene.number("select sum(stock) from items").await, writes);
        assert_eq!(self.scene.number("select count(*) from keylane.dead_letters").await, 0);
    }

    fn replay<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["dead-letters", "replay", "--queue", &self.queue], more].concat()
    }
}

/// A fanout exchange with a queue of the same name.
async fn declare(channel: &Channel, name: &str, mut arguments: FieldTable) {
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-expires".into(), AMQPValue::LongInt(EXPIRES_MS));
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.into(), options, arguments).await.unwrap();
    let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
    let table = FieldTable::default;
    channel.exchange_declare(name.into(), ExchangeKind::Fanout, options, table()).await.unwrap();
    let options = QueueBindOptions::default();
    channel.queue_bind(name.into(), name.into(), "".into(), options, table()).await.unwrap();
}

fn increments(count: u32) -> Vec<Write> {
    let increment = |number: u32| {
        write(
            "item.increment",
            &format!("k{}", number % 7),
            &format!("n{number}"),
            r#"{"stock":1}"#,
        )
    };
    (0..count).map(increment).collect()
}

#[tokio::test]
async fn a_queue_is_moved_and_what_is_not_meant_stays_in_it() {
    let former = Former::new().await;
    former.sender.send(&increments(70)).await;
    let asked = former.cli.run(&former.replay(&[])).await.ended(1);
    assert!(asked.error.contains("70 messages are in that queue: --yes"), "{}", asked.error);
    let output = ["--yes", "--output", "ndjson"];
    let said = former.cli.run(&former.replay(&[&["--key", "k3"], &output[..]].concat())).await;
    let said = said.ended(0);
    assert!(said.out.contains(r#""moved":10,"filtered":60,"refused":0"#), "{}", said.out);
    former.applied(10).await;
    assert_eq!(former.ready().await, 60);
    let said = former.cli.run(&former.replay(&[&["--limit", "5"], &output[..]].concat())).await;
    assert!(said.ended(0).out.contains(r#""moved":5"#));
    former.applied(15).await;
    former.cli.run(&former.replay(&output)).await.ended(0);
    former.applied(70).await;
    assert_eq!(former.ready().await, 0);
    let audit = "select count, result from keylane.operator_actions order by id desc limit 1";
    let audit = former.scene.rows(audit).await;
    assert_eq!(audit[0]["count"], 55, "{audit:?}");
}

#[tokio::test]
async fn messages_without_an_id_stay_unless_one_is_to_be_made() {
    let former = Former::new().await;
    let mut writes = increments(4);
    writes[1].id = None;
    writes[2].id = None;
    former.sender.send(&writes).await;
    let said = former.cli.run(&former.replay(&["--yes"])).await.ended(1);
    assert!(said.error.contains("2 moved, 0 not meant, 2 refused"), "{}", said.error);
    assert_eq!(former.ready().await, 2);
    former.cli.run(&former.replay(&["--yes", "--derive-ids"])).await.ended(0);
    former.applied(4).await;
    let derived = "select count(*) from keylane.ledger where write_id ~ '^derived-[0-9a-f]{64}$'";
    assert_eq!(former.scene.number(derived).await, 2);
}

#[tokio::test]
async fn a_dead_lettered_message_goes_to_the_key_that_it_was_sent_to() {
    let former = Former::new().await;
    let work = format!("{}-work", former.scene.prefix);
    let mut arguments = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(text.into());
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(&former.queue));
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    declare(&former.channel, &work, arguments).await;
    let sender = Sender::connect(&former.scene.servers.amqp, &work).await.unwrap();
    sender.send(&increments(8)).await;
    wait::until_equal(wait::SOON, "dead-lettered", 7, async || former.ready().await).await;
    former.cli.run(&former.replay(&["--yes"])).await.ended(0);
    former.applied(7).await;
    assert_eq!(former.scene.number("select count(*) from items").await, 7);
}

#[tokio::test]
async fn a_move_that_is_killed_or_interrupted_loses_nothing_and_doubles_nothing() {
    let former = Former::new().await;
    former.sender.send(&increments(600)).await;
    for signal in ["KILL", "INT"] {
        let before = former.scene.number("select count(*) from keylane.ledger").await;
        let running = former.cli.start(&former.replay(&["--yes", "--rate", "300"]));
        wait::until(wait::SOON, "some are moved", async || {
            former.scene.number("select count(*) from keylane.ledger").await > before + 40
        })
        .await;
        running.signal(signal);
        let said = running.ended().await;
        assert_ne!(said.code, Some(0), "{}", said.error);
    }
    assert!(former.scene.number("select count(*) from keylane.ledger").await < 600);
    wait::until(wait::SOON, "the rest is back", async || former.ready().await > 0).await;
    former.cli.run(&former.replay(&["--yes"])).await.ended(0);
    former.applied(600).await;
    assert_eq!(former.ready().await, 0);
}

#[tokio::test]
async fn what_the_broker_does_not_take_stays_in_its_queue() {
    let mut former = Former::new().await;
    former.sender.send(&increments(20)).await;
    former.worker.kill();
    let (writes, ring, held) = ("writes", "ring.1", "held");
    let name = |name: &str| format!("{}.{name}", former.scene.prefix).as_str().into();
    let (unbind, delete) = (ExchangeUnbindOptions::default(), QueueDeleteOptions::default());
    let table = FieldTable::default();
    let unbound =
        former.channel.exchange_unbind(name(ring), name(writes), "".into(), unbind, table);
    unbound.await.unwrap();
    former.channel.queue_delete(name(held), delete).await.unwrap();
    let said = former.cli.run(&former.replay(&["--yes", "--output", "ndjson"])).await.ended(1);
    assert!(said.error.contains("stopped: no queue took it (312 NO_ROUTE)"), "{}", said.error);
    assert!(said.out.contains(r#""moved":0,"#), "{}", said.out);
    assert_eq!(former.ready().await, 20);
}

#[tokio::test]
async fn a_queue_that_cannot_be_moved_is_left_alone() {
    let former = Former::new().await;
    former.sender.send(&increments(2)).await;
    let prefix = &former.scene.prefix;
    let (own, held, dead) =
        (format!("{prefix}.1.000"), format!("{prefix}.held"), format!("{prefix}.dead"));
    for (queue, says) in [
        (own.as_str(), "keylane's own"),
        (&held, "keylane's own"),
        (&dead, "keylane's own"),
        ("there-is-none", "there is no queue there-is-none"),
    ] {
        let said = former.cli.run(&["dead-letters", "replay", "--queue", queue, "--yes"]).await;
        assert!(said.error.contains(says), "{queue}: {}", said.error);
        assert_eq!(said.code, Some(1));
    }
    let wrong = former.cli.run(&former.replay(&["--reason", "x"])).await.ended(2);
    assert!(wrong.error.contains("cannot be used with"), "{}", wrong.error);
    let away = [("KEYLANE__DATABASE__URL", "postgres://nobody@127.0.0.1:1/nothing")];
    let said = former.cli.run_with(&former.replay(&["--yes"]), &away).await.ended(1);
    assert!(said.error.contains("connect to the database"), "{}", said.error);
    assert_eq!(former.ready().await, 2);
}
