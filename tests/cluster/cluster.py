"""The cluster that the steps run on: one that the user names, or one made on this machine, which is in made.py."""

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
# The namespace of the test's own pods. The server's namespace must be empty in the end.
CLIENTS_NAMESPACE = "httpserver-test-clients"
SERVER_NAMESPACE = "httpserver-test"


class Cluster:
    """kubectl with the server's namespace in its context, and the queries that the steps need."""

    def __init__(self, kubeconfig, folder):
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(Path(kubeconfig).read_text())
        self.kubeconfig.chmod(0o600)
        # Everything that the test has created besides the server's manifests, as arguments of `kubectl delete`.
        self.created = []

    def kubectl(self, words, stdin=None):
        """Runs `kubectl WORDS` and returns its standard output."""
        return self.kubectl_result(words, stdin).stdout

    def kubectl_result(self, words, stdin=None):
        """The same, but returns standard error, too."""
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
        """Returns the output of `kubectl get` as JSON."""
        return json.loads(self.kubectl(f"get {words} -o json"))

    def create_namespace(self, name, security):
        """Creates a namespace that enforces a Pod Security Standard and is deleted in the end."""
        if self.exists(f"namespace/{name}"):
            raise Failure(f"the namespace {name} exists, but the test would delete it, so the test must create it")
        labels = {f"pod-security.kubernetes.io/{mode}": security for mode in ("enforce", "warn")}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.kubectl("create -f -", json.dumps(namespace))
        self.created.append(f"namespace/{name}")
        # Pods are rejected until there is a service account for them.
        wait_for("the namespace's service account", 30, lambda: self.exists(f"-n {name} serviceaccount/default"))

    def exists(self, words):
        return bool(self.kubectl(f"get {words} --ignore-not-found -o name").strip())

    def pods(self):
        """Returns the server's pods that are not terminating."""
        items = self.get(f"pods -n {SERVER_NAMESPACE} -l app.kubernetes.io/component=server")["items"]
        return [Pod(item) for item in items if "deletionTimestamp" not in item["metadata"]]

    def ready_pods(self, count, within_s):
        """Waits until there are exactly `count` pods, all ready and none terminating, and returns them."""

        def settled():
            items = self.get(f"pods -n {SERVER_NAMESPACE} -l app.kubernetes.io/component=server")["items"]
            pods = [Pod(item) for item in items]
            return pods if len(pods) == count and all(pod.ready and not pod.terminating for pod in pods) else None

        return wait_for(f"{count} ready pods and no other", within_s, settled)

    def metrics(self, pod):
        """Returns the samples of a pod's exposition, {series: value}."""
        exposition = self.kubectl(f"get --raw /api/v1/namespaces/{SERVER_NAMESPACE}/pods/{pod.name}:19004/proxy/metrics")
        samples = (line.split(" # ")[0].rsplit(" ", 1) for line in exposition.splitlines() if not line.startswith("#"))
        return {series: float(value) for series, value in samples}

    def service_url(self):
        """Returns the URL of the Service, by its address."""
        return f"http://{self.get('service/httpsvc')['spec']['clusterIP']}/"

    def clients(self, url, keep_alive=0, closing=0):
        """Starts clients, which run until `stop` is called or this process exits."""
        return Clients(self.clients_command(), url, keep_alive, closing)

    def start_test_pod(self, name, security, spec):
        """Runs a pod of the test's image in its own namespace."""
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
    """The user's cluster. Everything that the test creates in it is in the test's own namespaces, which it deletes."""

    def __init__(self, kubeconfig, load_image, folder):
        super().__init__(kubeconfig, folder)
        self.load_image = load_image

    def load(self, archive):
        """Loads an image onto the nodes with the user's command."""
        subprocess.run([*shlex.split(self.load_image), str(archive)], check=True, stdin=subprocess.DEVNULL, stdout=2)

    def prepare(self):
        spec = {"securityContext": RESTRICTED_POD, "container": {"securityContext": RESTRICTED_CONTAINER}}
        self.start_test_pod(CLIENTS_NAMESPACE, "restricted", spec)

    def clients_command(self):
        return f"kubectl --kubeconfig={self.kubeconfig} -n {CLIENTS_NAMESPACE} exec -i test -- /clients".split()

    def clients_node(self):
        """Returns the node that must not be drained, since the clients run on it."""
        return self.get(f"-n {CLIENTS_NAMESPACE} pod/test")["spec"]["nodeName"]

    def provide_metrics(self):
        """Does nothing: with --with-autoscaler, the cluster must have metrics-server."""

    def provide_requests_in_flight(self):
        """Does nothing: with --with-autoscaler and --disposable, the cluster must have prometheus-adapter."""

    def clean_up(self):
        """Deletes everything that the test has created, and waits until it is gone."""
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
    """A pod of the server, as of one query."""

    def __init__(self, item):
        self.name = item["metadata"]["name"]
        self.uid = item["metadata"]["uid"]
        self.node = item["spec"].get("nodeName")
        self.address = item["status"].get("podIP")
        self.terminating = "deletionTimestamp" in item["metadata"]
        conditions = item["status"].get("conditions", [])
        self.ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        self.restarts = sum(one["restartCount"] for one in item["status"].get("containerStatuses", []))
