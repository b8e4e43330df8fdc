"""The programs that the test needs: Debian's, which are installed if missing, and those that `build` builds."""

import os
import shutil
import subprocess
from pathlib import Path

from waiting import Failure

BUILD = Path(__file__).resolve().parent / "build"
# Program: Debian's package.
FOR_A_MADE_CLUSTER = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "conntrack": "conntrack",
    "iptables": "iptables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "sysctl": "procps",
    "openssl": "openssl",
    "curl": "curl",
}


def install(programs):
    """Installs missing programs, or fails with one line."""
    missing = {package for program, package in programs.items() if not shutil.which(program)}
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Failure(f"missing packages, which root must install: {' '.join(sorted(missing))}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in ("update", "install -y --no-install-recommends " + " ".join(sorted(missing))):
        subprocess.run(["apt-get", "-qq", *words.split()], check=True, env=environment, stdout=2)


def build(*what):
    """Builds the programs that are not in the cache, and puts all of them first on the PATH."""
    result = subprocess.run([BUILD, *what], stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        raise Failure(f"cannot build {' '.join(what)}")
    os.environ["PATH"] = f"{result.stdout.strip()}:{os.environ['PATH']}"
