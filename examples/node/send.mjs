#!/usr/bin/env node
// Send writes to keylane and print what became of each; written by the wire contract alone.
//
//   AMQP_URL=amqp://… send.mjs ENTITY CHANGE KEY ID BODY-JSON [ENTITY CHANGE KEY ID BODY-JSON …]
//
// Exit code 0: every write has an outcome and none was rejected; 1: otherwise. Sending again with the same ids is harmless.
import { randomUUID } from "node:crypto";
import amqp from "amqplib";

const EXCHANGE = "keylane.writes";
const REPLIES = "amq.rabbitmq.reply-to"; // answers come back on this very channel, no queue is needed
const DEADLINE_MS = 15_000;

const args = process.argv.slice(2);
if (args.length === 0 || args.length % 5 !== 0) {
  console.error("usage: AMQP_URL=… send.mjs ENTITY CHANGE KEY ID BODY-JSON …");
  process.exit(2);
}
const writes = [];
for (let i = 0; i < args.length; i += 5) {
  const [entity, change, key, id, body] = args.slice(i, i + 5);
  JSON.parse(body); // a typing mistake is cheaper to find here
  writes.push({ entity, change, key, id, body, correlationId: randomUUID() });
}

const connection = await amqp.connect(process.env.AMQP_URL);
const channel = await connection.createConfirmChannel();

const outcomes = new Map();
let deadline;
const complete = new Promise((resolve) => {
  deadline = setTimeout(resolve, DEADLINE_MS);
  channel.on("outcome", () => outcomes.size === writes.length && resolve());
});
await channel.consume(
  REPLIES,
  (message) => {
    // The text as it came: parsing would round numbers that a double cannot hold.
    outcomes.set(message.properties.correlationId, message.content.toString());
    channel.emit("outcome");
  },
  { noAck: true },
);

const unroutable = new Set();
channel.on("return", (message) => unroutable.add(message.properties.messageId));
for (const { entity, change, key, id, body, correlationId } of writes) {
  // The routing key is the business key: it decides the partition, and so the order.
  channel.publish(EXCHANGE, key, Buffer.from(body), {
    messageId: id,
    type: `${entity}.${change}`,
    contentType: "application/json",
    persistent: true,
    mandatory: true,
    replyTo: REPLIES,
    correlationId,
  });
}
await channel.waitForConfirms(); // the broker has them for good, or this throws
if (unroutable.size > 0) throw new Error(`the broker has no way for ${[...unroutable].join(", ")}`);
await complete;
clearTimeout(deadline);
await connection.close();

for (const { id, correlationId } of writes) {
  const outcome = outcomes.get(correlationId);
  if (outcome === undefined) {
    // Not lost: the broker has it. The outcome will be in the ledger.
    console.error(`no outcome of ${id} in ${DEADLINE_MS / 1000} s`);
  } else {
    console.log(outcome);
  }
  if (outcome === undefined || JSON.parse(outcome).outcome === "rejected") process.exitCode = 1;
}
