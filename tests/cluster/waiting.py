"""Waiting for a condition, with a limit."""

import time


class Failure(Exception):
    """A promise does not hold, or a cluster is not available."""


def wait_for(what, within_s, condition, every_s=0.25):
    """Calls `condition` until it returns a true value, and returns that value."""
    deadline = time.monotonic() + within_s
    while True:
        met = condition()
        if met:
            return met
        if time.monotonic() > deadline:
            raise Failure(f"waited {within_s} s for {what}")
        time.sleep(every_s)
