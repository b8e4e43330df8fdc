"""The hosts of the cluster made here: this network namespace for the control plane, one for each node, a bridge between.

There is no route out of them.
"""

import os
import subprocess
from pathlib import Path

CONTROL_PLANE = "10.80.0.1"


def ip(*words):
    subprocess.run(["ip", *words], check=True)


class Log:
    """The folder of the logs, one for each process."""

    folder = None


def start(name, command):
    """Starts a process that runs until the namespaces are removed."""
    with open(Log.folder / name, "wb") as log:
        # In its own session, so that Ctrl-C reaches only this program.
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
            # kube-proxy redirects packets for a Service only if there is a route for them.
            f"route add default via {CONTROL_PLANE}",
        ):
            ip("-n", self.name, *words.split())
        subprocess.run(self.command("sysctl", "-qw", "net.ipv4.ip_forward=1"), check=True)
        ip("route", "add", self.pods, "via", self.address)

    def add_route_to(self, other):
        """Adds the route to another node's pods."""
        ip("-n", self.name, "route", "add", other.pods, "via", other.address)

    def command(self, *words):
        """Returns a command that runs on this node.

        `ip netns exec` would give each process its own mounts, and containerd would not see the kubelet's.
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
                node.add_route_to(other)
    return nodes
