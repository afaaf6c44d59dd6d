#!/usr/bin/env bash
# Write to keylane over HTTP with curl: once however often it is sent, onto the version that was read, many at once, without
# waiting.
#
#   KEYLANE_URL=http://127.0.0.1:8080 [KEYLANE_TOKEN=…] shop.sh CUSTOMER
#
# CUSTOMER is a key of your choice, of letters, digits and hyphens; the entity is `customer` of examples/shop.
set -euo pipefail
url=${KEYLANE_URL:-http://127.0.0.1:8080} customer=${1:?which customer? shop.sh CUSTOMER}
row=$url/v1/customer/$customer

call() { curl -sS --max-time 30 ${KEYLANE_TOKEN:+-H "Authorization: Bearer $KEYLANE_TOKEN"} "$@"; }
# One key for all tries of a write, so that it is applied once even if only the answers were lost: curl sends the very same
# request again, after 408, 429, 500, 502, 503 and 504, and heeds Retry-After.
write() {
  call --retry 4 --retry-connrefused -o /dev/null -w '%{http_code} %header{etag} %header{location}\n' \
    -H "Idempotency-Key: \"$(cat /proc/sys/kernel/random/uuid)\"" -H 'Content-Type: application/json' "$@"
}

echo "create: $(write -X PATCH -H 'If-None-Match: *' -d '{"name":"Ada","balance":"100.00"}' "$row")" # 412, the second time

etag=$(call -o /dev/null -w '%header{etag}' "$row")
echo "update: $(write -X PATCH -H "If-Match: $etag" -d '{"tags":["vip"]}' "$row")" # 412: somebody was faster, read it again

for n in 1 2 3; do
  printf '{"entity":"customer","change":"increment","key":"%s","id":"%s","body":{"balance":%d}}\n' \
    "$customer" "$(cat /proc/sys/kernel/random/uuid)" "$n"
done | call -H 'Content-Type: application/x-ndjson' --data-binary @- "$url/v1/writes" |
  sed 's/.*"outcome":"\([a-z_]*\)".*/bulk: \1/' # a result an item, in the order sent

read -r status location < <(write -X PATCH -H 'Prefer: respond-async' -d '{"email":"ada@example.com"}' "$row")
echo "async: $status"
until [[ $(call -o /dev/null -w '%{http_code}' "$url$location") == 200 ]]; do sleep 1; done # accepted is never lost
echo "outcome: $(call "$url$location" | sed 's/.*"outcome":"\([a-z_]*\)".*/\1/')"
