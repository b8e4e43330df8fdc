"""A cluster made on this machine: a control plane and two nodes, in namespaces that exist only during the test.

See isolation.py.
"""

import hosts
from cluster import ROOT, Cluster
from control_plane import API, start_control_plane
from keys import Keys
from node import Node
from waiting import wait_for

NODES = 2
ADDONS = ROOT / "tests/cluster/addons"


class MadeCluster(Cluster):
    def __init__(self, folder, logs):
        hosts.Log.folder = logs
        networks = hosts.make(NODES)
        keys = Keys(folder / "keys", API)
        administrator = start_control_plane(keys, folder)
        super().__init__(administrator, folder)
        self.folder = folder
        self.nodes = [Node(network, keys, folder) for network in networks]

    def load(self, archive):
        for node in self.nodes:
            node.load(archive)

    def prepare(self):
        wait_for("the nodes", 60, self._nodes_are_ready)
        self.kubectl(f"apply -f {ADDONS}/coredns.yaml")

    def _nodes_are_ready(self):
        conditions = [one for node in self.get("nodes")["items"] for one in node["status"]["conditions"]]
        return sum(one["type"] == "Ready" and one["status"] == "True" for one in conditions) == NODES

    def provide_metrics(self):
        """Installs metrics-server."""
        self.kubectl(f"apply -f {ADDONS}/metrics-server.yaml")
        self.kubectl("rollout status -n kube-system deployment/metrics-server --timeout=60s")

    def provide_requests_in_flight(self):
        """Installs prometheus-adapter, with the rules that its chart would write into its configuration."""
        values = (ROOT / "yaml/monitoring/autoscaling/prometheus-adapter-values.yaml").read_text()
        config = self.folder / "config.yaml"
        config.write_text("rules:\n" + values.split("  custom:\n", 1)[1])
        self.kubectl(f"-n kube-system create configmap prometheus-adapter --from-file={config}")
        self.kubectl(f"apply -f {ADDONS}/prometheus-adapter.yaml")
        self.kubectl("rollout status -n kube-system deployment/prometheus-adapter --timeout=60s")

    def clients_command(self):
        return self.nodes[0].host.command("clients")

    def clients_node(self):
        """Returns None: the clients are not a pod, and draining the node whose network they use does not affect them."""

    def clean_up(self):
        """Does nothing: everything disappears with the namespaces."""
