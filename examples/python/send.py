#!/usr/bin/env python3
"""Send writes to keylane and print what became of each; written by the wire contract alone.

    AMQP_URL=amqp://… send.py ENTITY CHANGE KEY ID BODY-JSON [ENTITY CHANGE KEY ID BODY-JSON …]

Exit code 0: every write has an outcome and none was rejected; 1: otherwise. Sending again with the same ids is harmless.
"""
import json
import os
import sys
import time
import uuid

import pika

EXCHANGE = "keylane.writes"
REPLIES = "amq.rabbitmq.reply-to"  # answers come back on this very channel, no queue is needed
DEADLINE_SECONDS = 15


def publish(channel, entity, change, key, write_id, body):
    """Returns once the broker has the write for good; raises if it does not take it."""
    correlation_id = str(uuid.uuid4())
    properties = pika.BasicProperties(
        message_id=write_id,
        type=f"{entity}.{change}",
        content_type="application/json",
        delivery_mode=pika.DeliveryMode.Persistent.value,
        reply_to=REPLIES,
        correlation_id=correlation_id,
    )
    # The routing key is the business key: it decides the partition, and so the order.
    channel.basic_publish(EXCHANGE, key, body.encode(), properties, mandatory=True)
    return correlation_id


def main(arguments):
    if not arguments or len(arguments) % 5:
        print(__doc__, file=sys.stderr)
        return 2
    writes = [arguments[i : i + 5] for i in range(0, len(arguments), 5)]
    for *_, body in writes:
        json.loads(body)  # a typing mistake is cheaper to find here

    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    channel.confirm_delivery()
    outcomes = {}

    def on_outcome(_channel, _method, properties, body):
        outcomes[properties.correlation_id] = body.decode()

    channel.basic_consume(REPLIES, on_outcome, auto_ack=True)
    sent = [publish(channel, *write) for write in writes]

    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(outcomes) < len(sent) and time.monotonic() < deadline:
        connection.process_data_events(time_limit=deadline - time.monotonic())
    connection.close()

    ok = True
    for write, correlation_id in zip(writes, sent):
        outcome = outcomes.get(correlation_id)
        if outcome is None:
            # Not lost: the broker has it. The outcome will be in the ledger.
            print(f"no outcome of {write[3]} in {DEADLINE_SECONDS} s", file=sys.stderr)
        else:
            print(outcome)  # the text as it came
        ok = ok and outcome is not None and json.loads(outcome)["outcome"] != "rejected"
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
