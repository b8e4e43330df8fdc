"""The hosts of the made cluster: this network namespace for the control plane, one for each node, a bridge between them.

Nothing leads out of them.
"""

import os
import subprocess
from pathlib import Path

CONTROL_PLANE = "10.80.0.1"


def ip(*words):
    subprocess.run(["ip", *words], check=True)


class Log:
    """Where each process writes what it says."""

    folder = None


def start(name, command):
    """Starts a process that runs until the namespaces end."""
    with open(Log.folder / name, "wb") as log:
        # A session of its own: Ctrl-C is this program's to handle.
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def make_bridge():
    ip("link", "add", "cluster0", "type", "bridge")
    ip("address", "add", f"{CONTROL_PLANE}/24", "dev", "cluster0")
    ip("link", "set", "cluster0", "up")


class NodeHost:
    """The network of one node, with its pods' subnet behind it."""

    def __init__(self, number):
        self.name = f"node{number}"
        self.address = f"10.80.0.{10 + number}"
        self.pods = f"10.244.{number}.0/24"
        ip("netns", "add", self.name)
        ip("link", "add", f"to-{self.name}", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("link", "set", f"to-{self.name}", "master", "cluster0", "up")
        for words in (
            "link set lo up",
            "link set eth0 up",
            f"address add {self.address}/24 dev eth0",
            # kube-proxy redirects what goes to a Service, but only if there is a route for it.
            f"route add default via {CONTROL_PLANE}",
        ):
            ip("-n", self.name, *words.split())
        subprocess.run(self.command("sysctl", "-qw", "net.ipv4.ip_forward=1"), check=True)
        ip("route", "add", self.pods, "via", self.address)

    def lead_to(self, other):
        """Adds the route to another node's pods."""
        ip("-n", self.name, "route", "add", other.pods, "via", other.address)

    def command(self, *words):
        """A command to be run on this node.

        Not by `ip netns exec`, which gives each process mounts of its own: containerd would not see the kubelet's.
        """
        return ["nsenter", f"--net=/run/netns/{self.name}", *words]

    def start(self, program, *words):
        return start(f"{self.name}-{os.path.basename(program)}", self.command(program, *words))


def make(count):
    """Makes the bridge and the nodes' networks."""
    Path("/run/netns").mkdir(exist_ok=True)
    make_bridge()
    nodes = [NodeHost(number) for number in range(1, count + 1)]
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.lead_to(other)
    return nodes
