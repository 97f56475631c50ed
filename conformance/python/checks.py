"""What the Python programs share: the address, unique names, and one printed line per check."""

import contextlib
import os
import sys
import traceback
import uuid

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
DEADLINE_S = 20


def unique(client, subject):
    """A name that no earlier run can have left behind."""
    return f"conformance.{client}.{subject}.{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def check(client, name):
    """Prints `ok` or `FAIL`; the first failure ends the program."""
    try:
        yield
    except Exception as error:  # Whatever a client throws is a failed check.
        print(f"FAIL {client}: {name}: {type(error).__name__}: {error}", flush=True)
        traceback.print_exc()
        # Threads and connections of the client must not keep the program alive.
        sys.stderr.flush()
        os._exit(1)
    print(f"ok {client}: {name}", flush=True)


def equal(expected, actual):
    if expected != actual:
        raise AssertionError(f"expected {expected!r}, got {actual!r}")
