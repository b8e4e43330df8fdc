"""The cluster that the steps run on: one that the user names, or the one that was made here. See made.py for the latter."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from clients import Clients
from waiting import Failure, wait_for

ROOT = Path(__file__).resolve().parents[2]
# The image of the test's own programs.
TEST_IMAGE = "localhost/httpserver-cluster-test:1"
# Where the test's own pods run. Not the server's namespace, which must be empty in the end.
CLIENTS_NAMESPACE = "httpserver-test-clients"
SERVER_NAMESPACE = "httpserver-test"


class Cluster:
    """kubectl, with the server's namespace as the context's; and what of it the steps look at."""

    def __init__(self, kubeconfig, folder):
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(Path(kubeconfig).read_text())
        self.kubeconfig.chmod(0o600)
        # What the test has created outside of the server's manifests: what `kubectl delete` takes.
        self.created = []

    def kubectl(self, words, stdin=None):
        """Runs `kubectl WORDS`; returns what it printed."""
        return self.kubectl_result(words, stdin).stdout

    def kubectl_result(self, words, stdin=None):
        """The same, with standard error beside."""
        return self._run(["kubectl", *(shlex.split(words) if isinstance(words, str) else words)], stdin)

    def shell(self, command):
        """Runs a command line in which `kubectl` is for this cluster."""
        return self._run(["bash", "-euo", "pipefail", "-c", command]).stdout

    def _run(self, command, stdin=None):
        result = subprocess.run(
            command,
            input=stdin,
            stdin=None if stdin else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )
        if result.returncode != 0:
            raise Failure(f"{shlex.join(command)}: {result.stderr.strip() or result.stdout.strip()}")
        return result

    def get(self, words):
        """`kubectl get`, as JSON."""
        return json.loads(self.kubectl(f"get {words} -o json"))

    def create_namespace(self, name, security):
        """Creates a namespace that enforces a Pod Security Standard, and is deleted in the end."""
        if self.exists(f"namespace/{name}"):
            raise Failure(f"the namespace {name} exists: the test deletes it, so it must be the test's own")
        labels = {f"pod-security.kubernetes.io/{mode}": security for mode in ("enforce", "warn")}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.kubectl("create -f -", json.dumps(namespace))
        self.created.append(f"namespace/{name}")
        # Pods are refused until there is an account for them.
        wait_for("the namespace's service account", 30, lambda: self.exists(f"-n {name} serviceaccount/default"))

    def exists(self, words):
        return bool(self.kubectl(f"get {words} --ignore-not-found -o name").strip())

    def pods(self):
        """The server's pods that are not about to end."""
        items = self.get(f"pods -n {SERVER_NAMESPACE} -l app.kubernetes.io/component=server")["items"]
        return [Pod(item) for item in items if "deletionTimestamp" not in item["metadata"]]

    def ready_pods(self, count, within_s):
        """Waits until there are so many pods, all of them ready and none about to end; returns them."""

        def settled():
            items = self.get(f"pods -n {SERVER_NAMESPACE} -l app.kubernetes.io/component=server")["items"]
            pods = [Pod(item) for item in items]
            return pods if len(pods) == count and all(pod.ready and not pod.ending for pod in pods) else None

        return wait_for(f"{count} ready pods and no other", within_s, settled)

    def metrics(self, pod):
        """The samples of a pod's exposition, {series: value}."""
        page = self.kubectl(f"get --raw /api/v1/namespaces/{SERVER_NAMESPACE}/pods/{pod.name}:19004/proxy/metrics")
        samples = (line.split(" # ")[0].rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        return {series: float(value) for series, value in samples}

    def service_url(self):
        """The Service by its address."""
        return f"http://{self.get('service/httpsvc')['spec']['clusterIP']}/"

    def clients(self, url, keep_alive=0, closing=0):
        """Starts clients, which end with `stop` or with this process."""
        return Clients(self.clients_command(), url, keep_alive, closing)

    def start_test_pod(self, name, security, spec):
        """Runs a pod of the test's own image in a namespace of its own."""
        self.create_namespace(name, security)
        container = {
            "name": "test",
            "image": TEST_IMAGE,
            "imagePullPolicy": "IfNotPresent",
            **spec.pop("container", {}),
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "test", "namespace": name},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **spec},
        }
        self.kubectl("create -f -", json.dumps(pod))
        self.kubectl(f"wait -n {name} pod/test --for=condition=Ready --timeout=60s")


class GivenCluster(Cluster):
    """A cluster of the user's. What the test creates in it is in namespaces of its own, which it deletes."""

    def __init__(self, kubeconfig, load_image, folder):
        super().__init__(kubeconfig, folder)
        self.load_image = load_image

    def load(self, archive):
        """Brings an image to the nodes, by the user's command."""
        subprocess.run([*shlex.split(self.load_image), str(archive)], check=True, stdin=subprocess.DEVNULL, stdout=2)

    def prepare(self):
        spec = {"securityContext": RESTRICTED_POD, "container": {"securityContext": RESTRICTED_CONTAINER}}
        self.start_test_pod(CLIENTS_NAMESPACE, "restricted", spec)

    def clients_command(self):
        return f"kubectl --kubeconfig={self.kubeconfig} -n {CLIENTS_NAMESPACE} exec -i test -- /clients".split()

    def clients_node(self):
        """The node that must not be drained, since the clients run on it."""
        return self.get(f"-n {CLIENTS_NAMESPACE} pod/test")["spec"]["nodeName"]

    def provide_metrics(self):
        """Nothing: who asks for the autoscaler has metrics-server."""

    def clean_up(self):
        """Deletes what the test has created, and waits until it is gone."""
        for wait in ("--wait=false", "--timeout=120s"):
            for words in reversed(self.created):
                try:
                    self.kubectl(f"delete {words} --ignore-not-found {wait}")
                except Failure as failure:
                    print(f"left in the cluster: {failure}", file=sys.stderr)


RESTRICTED_POD = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_CONTAINER = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


class Pod:
    """A pod of the server, as of one look."""

    def __init__(self, item):
        self.name = item["metadata"]["name"]
        self.uid = item["metadata"]["uid"]
        self.node = item["spec"].get("nodeName")
        self.address = item["status"].get("podIP")
        self.ending = "deletionTimestamp" in item["metadata"]
        conditions = item["status"].get("conditions", [])
        self.ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        self.restarts = sum(one["restartCount"] for one in item["status"].get("containerStatuses", []))
