"""What schemathesis has to be told about this API."""
import itertools

import schemathesis

EXAMPLE = '"5b1f"'  # the write id of the description
numbers = itertools.count(1)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Names every write anew: with one name for all of them, all but the first would be `write_id_reused`."""
    headers = case.headers
    if headers and headers.get("Idempotency-Key") == EXAMPLE:
        headers["Idempotency-Key"] = f'"check-{next(numbers)}"'
    # Each is valid, both together are not, and a description cannot say so.
    if headers and "If-Match" in headers and case.method != "GET":
        headers.pop("If-None-Match", None)


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """The description says text: what stands in its lines is the items' own matter."""
    return value if isinstance(value, bytes) else str(value).encode()
