#!/usr/bin/env node
// Write to keylane over HTTP: once however often it is sent, onto the version that was read, many at once, without waiting.
//
//   KEYLANE_URL=http://127.0.0.1:8080 [KEYLANE_TOKEN=…] shop.mjs CUSTOMER
//
// Needs nothing but node 18. CUSTOMER is a key of your choice; the entity is `customer` of examples/shop.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

const URL_BASE = process.env.KEYLANE_URL ?? "http://127.0.0.1:8080";
const TRIES = 5;

const call = (method, path, body, headers = {}) =>
  fetch(URL_BASE + path, {
    method,
    body,
    headers: {
      "Content-Type": "application/json",
      ...(process.env.KEYLANE_TOKEN && { Authorization: `Bearer ${process.env.KEYLANE_TOKEN}` }),
      ...headers,
    },
    signal: AbortSignal.timeout(30_000),
  });

// One write. It has one key for all its tries, so that it is applied once even if only the answers were lost.
async function write(method, path, body, headers = {}) {
  const named = { "Idempotency-Key": `"${randomUUID()}"`, ...headers };
  for (let attempt = 1; attempt <= TRIES; attempt++) {
    let pause = 1;
    try {
      const answer = await call(method, path, JSON.stringify(body), named);
      if (![408, 500, 503].includes(answer.status)) {
        return { status: answer.status, headers: answer.headers, body: await answer.json() };
      }
      pause = Number(answer.headers.get("Retry-After") ?? 1);
    } catch (error) {
      if (!(error instanceof TypeError || error.name === "TimeoutError")) throw error; // those are the network's
    }
    if (attempt < TRIES) await sleep(pause * 1000);
  }
  throw new Error(`${method} ${path}: not accepted in ${TRIES} tries`);
}

// Reads the row and writes it back, unless somebody else was faster: then reads it again.
async function update(path, change) {
  for (;;) {
    const row = await call("GET", path);
    const etag = row.headers.get("ETag");
    const answer = await write("PATCH", path, change(await row.json()), { "If-Match": etag });
    if (answer.status !== 412) return answer; // a new decision is a new write, so the next turn has a new key
  }
}

const customer = process.argv[2];
if (customer === undefined) {
  console.error("usage: KEYLANE_URL=… shop.mjs CUSTOMER");
  process.exit(2);
}
const path = `/v1/customer/${encodeURIComponent(customer)}`;

const created = await write("PATCH", path, { name: "Ada", balance: "100.00" }, { "If-None-Match": "*" });
console.log("create:", created.status, created.body.effect ?? created.body.code); // already_exists, the second time

const updated = await update(path, (row) => ({ tags: [...new Set([...(row.tags ?? []), "vip"])].sort() }));
console.log("update:", updated.status, updated.body.effect, "is now", updated.headers.get("ETag"));

const items = [1, 2, 3].map((n) => ({
  entity: "customer", change: "increment", key: customer, id: randomUUID(), body: { balance: n },
}));
const lines = items.map((item) => `${JSON.stringify(item)}\n`).join("");
const bulk = await call("POST", "/v1/writes", lines, { "Content-Type": "application/x-ndjson" });
const results = (await bulk.text()).trim().split("\n").map((line) => JSON.parse(line)); // one an item, in the order sent
console.log("bulk:", bulk.status, ...results.map(({ outcome }) => outcome));

const accepted = await write("PATCH", path, { email: "ada@example.com" }, { Prefer: "respond-async" });
console.log("async:", accepted.status, "accepted");
for (let turn = 0; turn < 30; turn++) {
  const status = await call("GET", accepted.headers.get("Location")); // accepted is never lost: it will have an outcome
  const text = await status.text();
  if (status.status === 200) {
    console.log("outcome:", JSON.parse(text).outcome);
    break;
  }
  await sleep(Number(status.headers.get("Retry-After")) * 1000);
}
