"""Namespaces of the test's own, in which everything that it starts lives and with which everything ends.

The made cluster runs in new PID, mount and network namespaces. When the first process in them ends, however that comes about,
the kernel kills every other one (containers and their shims, too), and with the last process go all mounts, interfaces and
packet filters. Only two things outlast that, and are put right here: control groups, and the kernel parameters that a
kubelet sets.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from waiting import Failure

CGROUPS = Path("/sys/fs/cgroup")
# What a kubelet sets for the whole machine, below /proc/sys.
KERNEL_PARAMETERS = [
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
]
UNSHARE = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
# Set inside: the name that the test's control groups begin with.
NAME_VARIABLE = "HTTPSERVER_CLUSTER_TEST"


def name():
    """The name that the test's control groups begin with; None outside of the namespaces."""
    return os.environ.get(NAME_VARIABLE)


def require():
    """Fails in one line if this machine cannot make the namespaces."""
    if os.geteuid() != 0:
        raise Failure("making a cluster needs root; name one with --kubeconfig instead")
    result = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/run"], capture_output=True, text=True)
    if result.returncode != 0:
        raise Failure(f"making a cluster needs namespaces: {result.stderr.strip().splitlines()[-1]}")
    if not (CGROUPS / "cgroup.controllers").exists() and not (CGROUPS / "memory").exists():
        raise Failure(f"making a cluster needs control groups at {CGROUPS}")


def run_inside(arguments):
    """Runs this program in the namespaces; returns its exit status once nothing of it is left."""
    parameters = {path: path.read_text() for path in (Path("/proc/sys") / one for one in KERNEL_PARAMETERS) if path.exists()}
    groups = f"httpserver-cluster-{os.getpid()}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    child = subprocess.Popen([*UNSHARE, sys.executable, *arguments], env={**os.environ, NAME_VARIABLE: groups})
    try:
        return child.wait()
    finally:
        # Ctrl-C reaches the child as well: it has a moment to say how far it came.
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            # With --kill-child the first process inside goes too, and so do all.
            child.kill()
            child.wait()
        for path, value in parameters.items():
            path.write_text(value)
        remove_cgroups(groups)


def remove_cgroups(groups):
    """Removes the empty control groups whose names begin so. They are empty once their processes are reaped."""
    for _ in range(50):
        left = [
            folder
            for pattern in (f"{groups}*", f"*/{groups}*")
            for top in CGROUPS.glob(pattern)
            if top.is_dir() and not top.parent.is_symlink()
            for folder, _, _ in os.walk(top, topdown=False)
        ]
        if not left:
            return
        for folder in left:
            try:
                os.rmdir(folder)
            except OSError:
                pass
        time.sleep(0.1)
    print(f"control groups {groups}* are left below {CGROUPS}", file=sys.stderr)


def furnish():
    """Inside: gives the namespaces what a machine has, without touching this one's files."""
    mount = lambda *words: subprocess.run(["mount", *words], check=True)
    # The kubelet's mounts must reach the container runtime.
    mount("--make-rshared", "/")
    for folder in ("/run", "/var/log", "/var/lib/cni"):
        Path(folder).mkdir(exist_ok=True)
        mount("-t", "tmpfs", "tmpfs", folder)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
