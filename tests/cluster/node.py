"""A node of the cluster made here: containerd, kubelet and kube-proxy on their own host."""

import json
import os
import subprocess

import isolation
from cluster import TEST_IMAGE
from control_plane import DNS
from waiting import wait_for

# The folder of Debian's packages, and that of Kubernetes's own.
CNI_PLUGINS = ["/usr/lib/cni", "/opt/cni/bin"]


class Node:
    """A node that has been started. The API server reports when it is ready."""

    def __init__(self, host, keys, folder):
        self.host = host
        self.folder = folder / host.name
        self.folder.mkdir()
        self.socket = self.folder / "containerd.sock"
        self._start_containerd()
        wait_for("containerd", 30, lambda: self.socket.exists() and self._ctr("version").returncode == 0)
        self._start_kubelet(keys)
        self._start_kube_proxy(keys)

    def load(self, archive):
        """Loads an image onto the node."""
        self._ctr("images", "import", "--no-unpack", str(archive)).check_returncode()

    def _ctr(self, *words):
        return subprocess.run(
            ["ctr", f"--address={self.socket}", "--namespace=k8s.io", *words], capture_output=True, text=True
        )

    def _start_containerd(self):
        plugins = next(folder for folder in CNI_PLUGINS if os.path.exists(f"{folder}/ptp"))
        network = self.folder / "network"
        network.mkdir()
        # Not the bridge plugin: without br_netfilter, a response between two pods of a node would bypass the address
        # translation of its request.
        address_management = {
            "type": "host-local",
            "dataDir": f"{self.folder}/addresses",
            "ranges": [[{"subnet": self.host.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        pods = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [{"type": "ptp", "ipam": address_management}],
        }
        (network / "pods.conflist").write_text(json.dumps(pods))
        config = self.folder / "containerd.toml"
        # restrict_oom_score_adj is for machines without CAP_SYS_RESOURCE.
        config.write_text(f"""
            version = 2
            root = "{self.folder}/containerd"
            state = "{self.folder}/containerd-state"
            [grpc]
              address = "{self.socket}"
            [plugins."io.containerd.grpc.v1.cri"]
              sandbox_image = "{TEST_IMAGE}"
              restrict_oom_score_adj = true
              disable_apparmor = true
              [plugins."io.containerd.grpc.v1.cri".cni]
                bin_dir = "{plugins}"
                conf_dir = "{network}"
              [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
                runtime_type = "io.containerd.runc.v2"
            """)
        self.host.start("containerd", "--config", str(config))

    def _start_kubelet(self, keys):
        node = self.host.name
        kubeconfig = keys.kubeconfig(
            node, f"/O=system:nodes/CN=system:node:{node}", f"DNS:{node},IP:{self.host.address}"
        )
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": keys.path("ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": keys.path(f"{node}.crt"),
            "tlsPrivateKeyFile": keys.path(f"{node}.key"),
            "containerRuntimeEndpoint": f"unix://{self.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{make_cgroups(node)}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            "podLogsDir": f"{self.folder}/pod-logs",
            "volumePluginDir": f"{self.folder}/volume-plugins",
            "healthzPort": 0,
            # Do not evict pods because the machine's disk is nearly full.
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
        }
        path = self.folder / "kubelet.json"
        path.write_text(json.dumps(config))
        self.host.start(
            "kubelet",
            f"--config={path}",
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={node}",
            f"--node-ip={self.host.address}",
            f"--root-dir={self.folder}/kubelet",
            f"--cert-dir={self.folder}/kubelet-keys",
        )

    def _start_kube_proxy(self, keys):
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": keys.kubeconfig(f"proxy-{self.host.name}", "/CN=system:kube-proxy")},
            "hostnameOverride": self.host.name,
            "clusterCIDR": "10.244.0.0/16",
            # 0 keeps kube-proxy from setting the machine's own limit.
            "conntrack": {"maxPerCore": 0},
        }
        path = self.folder / "kube-proxy.json"
        path.write_text(json.dumps(config))
        self.host.start("kube-proxy", f"--config={path}")


def make_cgroups(node):
    """Creates the control groups above those of the node's pods, in each hierarchy if there are several (version 1)."""
    name = f"{isolation.name()}-{node}"
    if (isolation.CGROUPS / "cgroup.controllers").exists():
        (isolation.CGROUPS / name).mkdir()
        return name
    for hierarchy in isolation.CGROUPS.iterdir():
        if not hierarchy.is_dir() or hierarchy.is_symlink():
            continue
        group = hierarchy / name
        group.mkdir()
        # A new cpuset is empty, and processes can enter it only once it is not.
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (hierarchy / file).exists():
                (group / file).write_text((hierarchy / file).read_text())
    return name
