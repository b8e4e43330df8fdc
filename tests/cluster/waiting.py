"""Waiting for a condition, with a limit."""

import time


class Failure(Exception):
    """A promise that does not hold, or a cluster that cannot be had."""


def wait_for(what, within_s, condition, every_s=0.25):
    """Calls `condition` until what it returns is true, and returns that."""
    deadline = time.monotonic() + within_s
    while True:
        met = condition()
        if met:
            return met
        if time.monotonic() > deadline:
            raise Failure(f"waited {within_s} s for {what}")
        time.sleep(every_s)
