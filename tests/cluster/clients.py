"""Clients that load the server: `programs/clients`, in its own process."""

import json
import subprocess

from waiting import Failure


class Clients:
    """Running clients, which report what they measured by window."""

    def __init__(self, command, url, keep_alive=0, closing=0):
        self.process = subprocess.Popen(
            [*command, "-url", url, "-keep-alive", str(keep_alive), "-closing", str(closing)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def window(self):
        """Returns what the clients measured since the last window."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._report()

    def stop(self):
        """Stops the clients and returns what they measured since the last window."""
        self.process.stdin.close()
        report = self._report()
        if self.process.wait(timeout=30) != 0:
            raise Failure("the clients exited with an error")
        return report

    def _report(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failure("the clients exited too early")
        return Seen(**json.loads(line))


class Seen:
    """What clients measured in a window, with the names of programs/clients/main.go."""

    def __init__(self, answered, lost, retried, errors, seconds, p50, p90, p99, worst):
        self.answered, self.lost, self.retried, self.errors = answered, lost, retried, errors
        self.seconds, self.worst = seconds, worst
        self.quantiles = {0.5: p50, 0.9: p90, 0.99: p99}

    def __str__(self):
        statuses = ", ".join(f"{count} answered {status}" for status, count in sorted(self.answered.items()))
        quantiles = ", ".join(f"p{round(100 * q)} {seconds:.3f}" for q, seconds in self.quantiles.items())
        return (
            f"{statuses or 'none answered'}, {self.lost} lost, {self.retried} at the second attempt, "
            f"in {self.seconds:.0f} s; {quantiles}, worst {self.worst:.3f} s"
        )

    def require_all_answered(self):
        """Fails if a request was lost or not answered with 200."""
        if self.lost or set(self.answered) - {"200"}:
            raise Failure(f"{self}: {'; '.join(self.errors)}")
