#!/usr/bin/env python3
"""Write to keylane over HTTP: once however often it is sent, onto the version that was read, many at once, without waiting.

    KEYLANE_URL=http://127.0.0.1:8080 [KEYLANE_TOKEN=…] shop.py CUSTOMER

Needs nothing but Python. CUSTOMER is a key of your choice; the entity is `customer` of examples/shop.
"""
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

URL = os.environ.get("KEYLANE_URL", "http://127.0.0.1:8080")
TRIES = 5


def call(method, path, body=None, headers=()):
    """One request; status, headers and body of its answer, whatever the status."""
    headers = {"Content-Type": "application/json", **dict(headers)}
    if "KEYLANE_TOKEN" in os.environ:
        headers["Authorization"] = "Bearer " + os.environ["KEYLANE_TOKEN"]
    data = None if body is None else body.encode()
    request = urllib.request.Request(URL + path, data, headers, method=method)
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as problem:  # an answer too: its body says what is wrong
        answer = problem
    with answer:
        return answer.status, answer.headers, answer.read().decode()


def write(method, path, body, headers=()):
    """One write. It has one key for all its tries, so that it is applied once even if only the answers were lost."""
    headers = {"Idempotency-Key": f'"{uuid.uuid4()}"', **dict(headers)}
    for attempt in range(1, TRIES + 1):
        try:
            status, answered, text = call(method, path, json.dumps(body), headers)
            if status not in (408, 500, 503):
                return status, answered, json.loads(text)
            pause = float(answered.get("Retry-After", 1))
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pause = 1
        if attempt < TRIES:
            time.sleep(pause)
    raise SystemExit(f"{method} {path}: not accepted in {TRIES} tries")


def update(path, change):
    """Reads the row and writes it back, unless somebody else was faster: then reads it again."""
    while True:
        _, headers, text = call("GET", path)
        row = json.loads(text)
        answer = write("PATCH", path, change(row), {"If-Match": headers["ETag"]})
        if answer[0] != 412:  # a new decision is a new write, so the next turn has a new key
            return answer


def main(customer):
    path = "/v1/customer/" + urllib.parse.quote(customer, safe="")

    status, _, outcome = write("PATCH", path, {"name": "Ada", "balance": "100.00"}, {"If-None-Match": "*"})
    print("create:", status, outcome.get("effect") or outcome["code"])  # already_exists, the second time

    status, headers, outcome = update(path, lambda row: {"tags": sorted({*(row["tags"] or []), "vip"})})
    print("update:", status, outcome["effect"], "is now", headers["ETag"])

    items = [
        {"entity": "customer", "change": "increment", "key": customer, "id": str(uuid.uuid4()), "body": {"balance": n}}
        for n in (1, 2, 3)
    ]
    lines = "".join(json.dumps(item) + "\n" for item in items)
    status, _, text = call("POST", "/v1/writes", lines, {"Content-Type": "application/x-ndjson"})
    results = [json.loads(line) for line in text.splitlines()]  # one an item, in the order sent
    print("bulk:", status, *[result["outcome"] for result in results])

    status, headers, _ = write("PATCH", path, {"email": "ada@example.com"}, {"Prefer": "respond-async"})
    print("async:", status, "accepted")
    for _ in range(30):  # accepted is never lost: it will have an outcome
        status, polled, text = call("GET", headers["Location"])
        if status == 200:
            print("outcome:", json.loads(text)["outcome"])
            break
        time.sleep(float(polled["Retry-After"]))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
