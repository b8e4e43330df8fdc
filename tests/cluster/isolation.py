"""The test's own namespaces, which contain everything that it starts and clean up after it.

The cluster made here runs in new PID, mount and network namespaces. When their first process exits for any reason, the
kernel kills every other one, including containers and their shims. With the last process, all mounts, interfaces and
packet filters disappear. Only control groups remain. The process outside removes them, or the next run if that process
is killed by SIGKILL.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from waiting import Failure

CGROUPS = Path("/sys/fs/cgroup")
# The parameters below /proc/sys that a kubelet sets for the whole machine. Inside, files replace them.
KERNEL_PARAMETERS = [
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
]
# Is killed when this program is, and then kills everything inside.
UNSHARE = "setpriv --pdeathsig=KILL unshare --mount --net --pid --fork --kill-child --mount-proc".split()
# Set only inside: the prefix of the names of the test's control groups.
NAME_VARIABLE = "HTTPSERVER_CLUSTER_TEST"


def name():
    """Returns the prefix of the names of the test's control groups, or None outside the namespaces."""
    return os.environ.get(NAME_VARIABLE)


def require():
    """Fails with one line if this machine cannot create the namespaces."""
    # root in a user namespace can create namespaces, but kubelets do not start in them.
    if os.geteuid() != 0 or Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        raise Failure("making a cluster needs root; name one with --kubeconfig instead")
    result = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/run"], capture_output=True, text=True)
    if result.returncode != 0:
        raise Failure(f"making a cluster needs namespaces: {result.stderr.strip().splitlines()[-1]}")
    if not (CGROUPS / "cgroup.controllers").exists() and not (CGROUPS / "memory").exists():
        raise Failure(f"making a cluster needs control groups at {CGROUPS}")


def run_inside(arguments):
    """Runs this program in the namespaces. Returns its exit status once everything is cleaned up."""
    for left in cgroups("httpserver-cluster-"):
        if not Path("/proc", left.name.split("-")[2]).exists():
            remove_cgroups(left.name)
    groups = f"httpserver-cluster-{os.getpid()}"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command = [*UNSHARE, sys.executable, *arguments]
    child = subprocess.Popen(command, env={**os.environ, NAME_VARIABLE: groups})
    try:
        return child.wait()
    finally:
        # Ctrl-C reaches the child, too: give it a moment to report how far it came.
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        remove_cgroups(groups)


def cgroups(prefix):
    """Returns the control groups with a prefix: at the top (version 2) or in each hierarchy (version 1)."""
    found = [*CGROUPS.glob(f"{prefix}*"), *CGROUPS.glob(f"*/{prefix}*")]
    return [group for group in found if group.is_dir() and not group.parent.is_symlink()]


def remove_cgroups(prefix):
    """Removes control groups and everything below them. They are empty once their processes are reaped."""
    for _ in range(50):
        left = [folder for top in cgroups(prefix) for folder, _, _ in os.walk(top, topdown=False)]
        if not left:
            return
        for folder in left:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        time.sleep(0.1)
    print(f"control groups {prefix}* are left below {CGROUPS}", file=sys.stderr)


def furnish():
    """Sets up the namespaces from inside like a machine, without changing this machine's files."""
    mount = lambda *words: subprocess.run(["mount", *words], check=True)
    # The kubelet's mounts must reach the container runtime.
    mount("--make-rshared", "/")
    for folder in ("/run", "/var/log", "/var/lib/cni"):
        Path(folder).mkdir(exist_ok=True)
        mount("-t", "tmpfs", "tmpfs", folder)
    for parameter in KERNEL_PARAMETERS:
        machine, ours = Path("/proc/sys", parameter), Path("/run", parameter.replace("/", "-"))
        if machine.exists():
            ours.write_text(machine.read_text())
            mount("--bind", str(ours), str(machine))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
