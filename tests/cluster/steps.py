"""The steps of the test, in order. Each one checks a promise and yields what it measured."""

import json
import subprocess
import time

from cluster import ROOT, SERVER_NAMESPACE
from prometheus import Dashboard, Prometheus
from waiting import Failure, wait_for

# The commands that the README and the pages of docs/ tell people to run.
APPLY = "kubectl apply -f yaml/"
DELETE = "kubectl delete -f yaml/"
APPLY_PROMETHEUS = [
    "kubectl apply -f yaml/monitoring/namespace.yaml",
    "kubectl -n monitoring create configmap httpserver-rules --from-file=yaml/monitoring/rules.yaml",
    "kubectl apply -f yaml/monitoring/prometheus/",
    "kubectl -n monitoring rollout status deployment/prometheus",
]
SCALE_OUT = "kubectl scale deployment/httpserver --replicas=4"
LOAD = "kubectl apply -f yaml/monitoring/load.yaml"
UPGRADE = "kubectl apply view-last-applied deployment/httpserver -o yaml | sed '/^  replicas:/d' | kubectl apply set-last-applied -f -"

READY_WITHIN_S = 30
WORST_LATENCY_S = 3
QUANTILE_TOLERANCE = 0.05
# The smallest part of its equal share of the clients that a pod must have, once they have had time to spread to new
# pods.
FAIR_SHARE = 0.5
SPREAD_WITHIN_S = 150
QUANTILES_OVER_S = 120
# How long 60 clients take to fill the queue of one pod, and how long its quantiles are then measured.
QUEUE_FILLS_S = 10
QUANTILE_WINDOW_S = 20
P50_WITH_FREE_PLACES_S = 1.2
READY_AFTER_KILL_S = 10
CONCURRENCY = "kubectl set env deployment/httpserver HTTPSERVER_CONCURRENCY=20"
SCALE_BY_IN_FLIGHT = "kubectl apply -f yaml/monitoring/autoscaling/horizontalpodautoscaler.yaml"
IN_FLIGHT_OF_PODS = "kubectl get --raw '/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/http_requests_in_flight'"
# The requests a second of yaml/monitoring/load.yaml, at least and at most.
LOAD_RATE = (15, 25)

ANSWERED = 'http_request_duration_seconds_count{method="GET",path="/",status="200"}'
IN_FLIGHT = "http_requests_in_flight"


def chosen(cluster, flags):
    """Yields the steps for this cluster."""
    run = Steps(cluster)
    made = not flags.kubeconfig
    may_disturb = made or flags.disposable
    run.may_drain = may_disturb
    if made:
        yield run.serve_both_families
    yield run.deploy
    if may_disturb:
        yield run.deploy_prometheus
    yield run.raise_to_minimum
    yield run.disrupt
    yield run.scale_out
    if may_disturb:
        yield run.measure_in_prometheus
        yield run.load
    yield run.apply_again
    yield run.upgrade
    if may_disturb:
        yield run.kill
    if flags.with_autoscaler:
        yield run.scale_by_cpu
        if may_disturb:
            yield run.scale_by_requests_in_flight
    yield run.delete


def documented(command):
    """Returns the command. Fails if neither the README, the changelog nor a page of docs/ contains exactly this command."""
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    if not any(command in page.read_text() for page in pages):
        raise Failure(f"no page contains `{command}`")
    return command


def words_of(command):
    """Returns the arguments of a documented kubectl command."""
    return documented(command).removeprefix("kubectl ")


def succeeds(command):
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0


def quantity(text):
    """Returns the value of a Kubernetes quantity in units or thousandths."""
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


class Steps:
    def __init__(self, cluster):
        self.cluster = cluster
        self.prometheus = Prometheus(cluster)
        self.may_drain = False
        self.applied = None
        self.seen_over_window = None

    def serve_both_families(self):
        """the server without flags answers on [::1] and 127.0.0.1"""
        # In a separate network, where the port is free.
        server = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up && exec httpserver"])
        try:
            enter = ["nsenter", f"--net=/proc/{server.pid}/ns/net"]
            for address in ("[::1]", "127.0.0.1"):
                get = [*enter, "curl", "--silent", "--fail", "--max-time", "5", f"http://{address}:19004/healthz"]
                wait_for(f"a response on {address}", 5, lambda get=get: succeeds(get))
                yield f"answers on {address}"
        finally:
            server.kill()
            server.wait()

    def deploy(self):
        """`kubectl apply -f yaml/` into a namespace that enforces the restricted standard"""
        self.cluster.create_namespace(SERVER_NAMESPACE, "restricted")
        self.cluster.kubectl(f"config set-context --current --namespace={SERVER_NAMESPACE}")
        self.applied = began = time.monotonic()
        applied = self.cluster.kubectl_result(words_of(APPLY))
        if applied.stderr:
            raise Failure(f"`{APPLY}` prints a warning: {applied.stderr.strip()}")
        self.cluster.kubectl(f"rollout status deployment/httpserver --timeout={READY_WITHIN_S}s")
        took = time.monotonic() - began
        yield f"ready after {took:.1f} s"
        if took > READY_WITHIN_S:
            raise Failure(f"not ready within {READY_WITHIN_S} s")

    def raise_to_minimum(self):
        """the autoscaler scales from one pod to its minimum of two"""
        self.cluster.ready_pods(2, within_s=60)
        yield f"at most {time.monotonic() - self.applied:.1f} s after the manifests were applied"
        # The steps scale by hand. An autoscaler that knows the pods' CPU would undo that.
        no_fewer = '{"spec": {"behavior": {"scaleDown": {"selectPolicy": "Disabled"}}}}'
        self.cluster.kubectl(["patch", "horizontalpodautoscaler/httpserver", "--patch", no_fewer])

    def deploy_prometheus(self):
        """Prometheus, deployed as docs/monitoring.md says, discovers each pod by its annotations"""
        if self.cluster.exists("namespace/monitoring"):
            raise Failure("the namespace monitoring exists, but the test would delete it, so the test must create it")
        self.cluster.created.append("-f yaml/monitoring/namespace.yaml -f yaml/monitoring/prometheus/")
        for command in APPLY_PROMETHEUS:
            self.cluster.kubectl(words_of(command))
        wait_for("the pods to be scraped", 60, self._scrapes_each_pod, every_s=1)
        version = self.prometheus.api("status/buildinfo")["version"]
        yield f"Prometheus {version} scrapes each pod"

    def _scrapes_each_pod(self):
        up = self.prometheus.query(f'up{{namespace="{SERVER_NAMESPACE}"}}')
        names = sorted(labels["pod"] for labels, value in up if value == 1)
        return names == sorted(pod.name for pod in self.cluster.pods())

    def disrupt(self):
        """300 clients lose nothing in two rolling restarts, a node's drain, and scaling to 5, 1 and 2"""
        kubectl = self.cluster.kubectl
        clients = self.cluster.clients(self.cluster.service_url(), keep_alive=150, closing=150)
        time.sleep(3)
        for attempt in ("first", "second"):
            kubectl("rollout restart deployment/httpserver")
            kubectl("rollout status deployment/httpserver --timeout=120s")
            # The old pods are still terminating.
            self.cluster.ready_pods(2, within_s=60)
            yield self._check_window(clients, f"{attempt} rolling restart")
        node = self._node_to_drain()
        if node:
            kubectl(f"drain {node} --ignore-daemonsets --delete-emptydir-data --timeout=120s")
            kubectl(f"uncordon {node}")
            self.cluster.ready_pods(2, within_s=60)
            yield self._check_window(clients, f"{node} drained and uncordoned")
        else:
            yield "no node drained: only the clients' node has a pod of the server, or draining is not allowed"
        kubectl("scale deployment/httpserver --replicas=5")
        self.cluster.ready_pods(5, within_s=60)
        yield self._check_window(clients, "scaled to 5")
        kubectl("scale deployment/httpserver --replicas=1")
        # The autoscaler may have scaled to two again by now.
        wait_for("pods to terminate", 60, lambda: len(self._all_pods()) <= 2)
        yield self._check_window(clients, "scaled to 1")
        kubectl("scale deployment/httpserver --replicas=2")
        self.cluster.ready_pods(2, within_s=60)
        yield self._check_window(clients, "scaled to 2")
        self._require_good(clients.stop())

    def _all_pods(self):
        return self.cluster.get(f"pods -n {SERVER_NAMESPACE} -l app.kubernetes.io/component=server")["items"]

    def _node_to_drain(self):
        """Returns the node with the most pods of the server, except the clients' node, or None."""
        nodes = [pod.node for pod in self.cluster.pods() if pod.node != self.cluster.clients_node()]
        return max(nodes, key=nodes.count) if nodes and self.may_drain else None

    def _check_window(self, clients, what):
        seen = clients.window()
        self._require_good(seen)
        return f"{what}: {seen}"

    def _require_good(self, seen):
        seen.require_all_answered()
        if seen.worst > WORST_LATENCY_S:
            raise Failure(f"a response after {seen.worst:.3f} s, more than {WORST_LATENCY_S} s")

    def scale_out(self):
        """new pods get their share when scaled from 2 to 4 under 400 keep-alive clients"""
        # The nodes may not know the last pod yet, and nearly all clients would start on the other.
        time.sleep(3)
        clients = self.cluster.clients(self.cluster.service_url(), keep_alive=400)
        # Some errors for the dashboard's panels of errors.
        errors = self.cluster.clients(self.cluster.service_url() + "?status=503", keep_alive=1)
        old = {pod.name for pod in self.cluster.pods()}
        time.sleep(5)
        self.cluster.kubectl(words_of(SCALE_OUT))
        pods = self.cluster.ready_pods(4, within_s=60)
        began = time.monotonic()
        time.sleep(SPREAD_WITHIN_S - QUANTILES_OVER_S)
        self._require_good(clients.window())
        time.sleep(began + SPREAD_WITHIN_S - time.monotonic())
        in_flight = {pod.name: self.cluster.metrics(pod)[IN_FLIGHT] for pod in pods}
        seen = clients.window()
        self._require_good(seen)
        self.seen_over_window = (seen, time.time())
        yield str(seen)
        share = sum(in_flight.values()) / len(pods)
        for name, count in sorted(in_flight.items()):
            yield f"{name}, {'old' if name in old else 'new'}: {count:.0f} in flight"
        for name, count in in_flight.items():
            if name not in old and count < FAIR_SHARE * share:
                raise Failure(f"{name} has {count:.0f} in flight, less than half of an equal share of {share:.0f}")
        clients.stop()
        errors.stop()

    def measure_in_prometheus(self):
        """p50, p90 and p99 are within 5 % of the clients' own, rules are healthy, and dashboard queries return data"""
        seen, ended = self.seen_over_window
        selector = f'namespace="{SERVER_NAMESPACE}",path="/",status="200"'
        for q, measured in seen.quantiles.items():
            buckets = f"http_request_duration_seconds_bucket{{{selector}}}[{QUANTILES_OVER_S}s] @ {ended:.3f}"
            result = self.prometheus.value(f"histogram_quantile({q}, sum by (le) (rate({buckets})))")
            yield f"p{100 * q:.0f}: {result:.3f} s by PromQL, {measured:.3f} s by the clients"
            if abs(result / measured - 1) > QUANTILE_TOLERANCE:
                raise Failure(f"more than {QUANTILE_TOLERANCE:.0%} apart")
        rules = [rule for group in self.prometheus.api("rules")["groups"] for rule in group["rules"]]
        for rule in rules:
            if rule["health"] != "ok":
                raise Failure(f"{rule['name']}: {rule['health']}: {rule.get('lastError')}")
        yield f"{len(rules)} rules healthy"
        results = list(Dashboard(self.prometheus).results())
        for title, query, count in results:
            if count == 0:
                raise Failure(f"{query} of the panel {title} returns nothing")
        yield f"{len(results)} queries of the dashboard return data"

    def load(self):
        """the load generator sends 15 to 25 requests a second, spread over the pods"""
        window_s = 20
        self.cluster.kubectl(words_of(LOAD))
        pods = self.cluster.pods()
        counts = lambda: {pod.name: self.cluster.metrics(pod).get(ANSWERED, 0) for pod in pods}
        idle = sum(counts().values())
        wait_for("the load generator's first requests", 60, lambda: sum(counts().values()) >= idle + 40)
        before, began = counts(), time.monotonic()
        time.sleep(window_s)
        after, took = counts(), time.monotonic() - began
        rates = {name: (after[name] - before[name]) / took for name in after}
        total = sum(rates.values())
        yield f"{total:.1f} requests a second: {', '.join(f'{rate:.1f}' for rate in rates.values())}"
        if not LOAD_RATE[0] <= total <= LOAD_RATE[1]:
            raise Failure(f"not between {LOAD_RATE[0]} and {LOAD_RATE[1]}")
        if min(rates.values()) < FAIR_SHARE * total / len(pods):
            raise Failure("a pod has less than half of an equal share")
        self.cluster.kubectl("delete -f yaml/monitoring/load.yaml")

    def apply_again(self):
        """applying again while scaled to 4 keeps all 4 pods and restarts none"""
        before = self.cluster.ready_pods(4, within_s=5)
        self.cluster.kubectl(words_of(APPLY))
        # Longer than the autoscaler and the Deployment's controller need to act.
        time.sleep(20)
        after = self.cluster.ready_pods(4, within_s=5)
        if {(pod.uid, pod.restarts) for pod in before} != {(pod.uid, pod.restarts) for pod in after}:
            raise Failure("pods were replaced or restarted")

    def upgrade(self):
        """upgrading from version 1, whose Deployment has `replicas`, keeps all 4 pods"""
        manifest = (ROOT / "yaml/deployment.yaml").read_text()
        self.cluster.kubectl("apply -f -", stdin=manifest.replace("\nspec:\n", "\nspec:\n  replicas: 4\n", 1))
        self.cluster.shell(documented(UPGRADE))
        self.cluster.kubectl(words_of(APPLY))
        replicas = self.cluster.get("deployment/httpserver")["spec"]["replicas"]
        if replicas != 4:
            raise Failure(f"{replicas} replicas")

    def kill(self):
        """a pod whose process is killed under load is ready in 10 s, the others lose nothing, and rates have no spike"""
        clients_each = 100
        victim, other = self.cluster.pods()[:2]
        self._start_killer(victim.node)
        url = lambda pod: f"http://{pod.address}:19004/"
        at_victim = self.cluster.clients(url(victim), keep_alive=clients_each)
        at_other = self.cluster.clients(url(other), keep_alive=clients_each)
        time.sleep(10)
        killed = time.time()
        self.cluster.kubectl(f"exec -n {KILLER} test -- /kill-in-pod {victim.uid} httpserver")

        def restarted():
            pod = next(pod for pod in self.cluster.pods() if pod.uid == victim.uid)
            return pod.ready and pod.restarts == victim.restarts + 1

        wait_for("the killed pod to be ready again", READY_AFTER_KILL_S, restarted)
        yield f"ready again after {time.time() - killed:.1f} s"
        # Wait for two scrapes of the new process.
        time.sleep(32)
        seen = at_other.stop()
        yield f"clients of another pod: {seen}"
        self._require_good(seen)
        yield f"clients of the killed pod: {at_victim.stop()}"
        rate = f'sum(rate(http_request_duration_seconds_count{{pod="{victim.name}",path="/"}}[1m]))'
        highest = max(self.prometheus.range(rate, killed, time.time(), 5))
        yield f"rate over the kill: at most {highest:.0f} requests a second, by {clients_each} clients"
        if highest > 1.5 * clients_each:
            raise Failure("the rate has a spike")

    def _start_killer(self, node):
        """Starts a pod that sees the processes of a node and may kill them."""
        spec = {"nodeName": node, "hostPID": True, "container": {"securityContext": {"privileged": True}}}
        self.cluster.start_test_pod(KILLER, "privileged", spec)

    def scale_by_cpu(self):
        """the autoscaler scales out by CPU under 1,500 clients, which lose nothing"""
        self.cluster.provide_metrics()
        self.cluster.kubectl("scale deployment/httpserver --replicas=2")
        self.cluster.ready_pods(2, within_s=60)
        wait_for("the autoscaler to know the pods' CPU", 120, self._cpu_is_known, every_s=1)
        clients = self.cluster.clients(self.cluster.service_url(), keep_alive=1500)
        began = time.monotonic()
        wait_for("more pods", 180, lambda: len([pod for pod in self.cluster.pods() if pod.ready]) > 2, every_s=1)
        yield f"{len(self.cluster.pods())} pods after {time.monotonic() - began:.0f} s"
        seen = clients.stop()
        yield str(seen)
        seen.require_all_answered()

    def _cpu_is_known(self):
        metrics = self.cluster.get("horizontalpodautoscaler/httpserver")["status"].get("currentMetrics") or []
        return any(one.get("resource", {}).get("current", {}).get("averageUtilization") is not None for one in metrics)

    def scale_by_requests_in_flight(self):
        """60 clients on pods of concurrency 20: the autoscaler adds pods until p50 is that of the delay, and none is lost"""
        self.cluster.provide_requests_in_flight()
        self.cluster.kubectl(words_of(CONCURRENCY))
        self.cluster.kubectl(words_of(SCALE_BY_IN_FLIGHT))
        limits = lambda most: ["patch", "horizontalpodautoscaler/httpserver", "--patch", self._scale_limits(most)]
        self.cluster.kubectl(limits(1))
        self.cluster.kubectl("scale deployment/httpserver --replicas=1")
        self.cluster.kubectl("rollout status deployment/httpserver --timeout=120s")
        self.cluster.ready_pods(1, within_s=120)
        # The Service balances connections, so clients that keep theirs would stay with the first pod.
        clients = self.cluster.clients(self.cluster.service_url(), closing=60)
        time.sleep(QUEUE_FILLS_S)
        clients.window()
        time.sleep(QUANTILE_WINDOW_S)
        alone = clients.window()
        yield f"one pod: {alone}"
        # 60 clients on 20 places with a mean delay of 1 s.
        if not 2.5 < alone.quantiles[0.5] < 3.5:
            raise Failure("p50 is not about 3 s")
        documented(IN_FLIGHT_OF_PODS)
        wait_for("the autoscaler to know the requests in flight", 120, self._in_flight_is_known, every_s=1)
        self.cluster.kubectl(limits(10))
        began = time.monotonic()
        wanted = wait_for("the pods that the metric asks for", 240, self._wanted_pods, every_s=1)
        yield f"{wanted} pods after {time.monotonic() - began:.0f} s"
        clients.window()
        time.sleep(QUANTILE_WINDOW_S)
        spread = clients.window()
        yield f"{wanted} pods: {spread}"
        if spread.quantiles[0.5] > P50_WITH_FREE_PLACES_S:
            raise Failure(f"p50 is more than {P50_WITH_FREE_PLACES_S} s")
        for seen in (alone, spread, clients.stop()):
            seen.require_all_answered()

    def _scale_limits(self, most):
        # A pod that is removed would take its share of the clients to the others.
        behavior = {"scaleDown": {"selectPolicy": "Disabled"}}
        return json.dumps({"spec": {"minReplicas": 1, "maxReplicas": most, "behavior": behavior}})

    def _in_flight_is_known(self):
        pods = f"/apis/custom.metrics.k8s.io/v1beta1/namespaces/{SERVER_NAMESPACE}/pods/*/http_requests_in_flight"
        try:
            return len(json.loads(self.cluster.kubectl(["get", "--raw", pods]))["items"]) == 1
        except Failure:
            # Not served yet, or not scraped yet.
            return False

    def _wanted_pods(self):
        """Returns the number of pods once it is what the metric asks for, and all of them are ready."""
        autoscaler = self.cluster.get("horizontalpodautoscaler/httpserver")
        status = autoscaler["status"]
        current = [one["pods"]["current"]["averageValue"] for one in status.get("currentMetrics") or [] if "pods" in one]
        target = autoscaler["spec"]["metrics"][0]["pods"]["target"]["averageValue"]
        pods = self.cluster.pods()
        settled = len(pods) > 1 and len(pods) == status.get("desiredReplicas") == status.get("currentReplicas")
        if not (settled and current and all(pod.ready for pod in pods)):
            return None
        # The autoscaler leaves a deviation of a tenth alone.
        return len(pods) if quantity(current[0]) <= 1.1 * quantity(target) else None

    def delete(self):
        """`kubectl delete -f yaml/` leaves nothing in the namespace"""
        self.cluster.kubectl(words_of(DELETE))
        kinds = set(self.cluster.kubectl("api-resources --namespaced --verbs=list -o name").split())
        # Events do not belong to the deployment, and metrics are not stored objects.
        kinds -= {"events", "events.events.k8s.io", "pods.metrics.k8s.io"}
        every_kind = ",".join(sorted(kinds))
        # Every namespace has these.
        built_in = {"configmap/kube-root-ca.crt", "serviceaccount/default"}

        def left():
            return set(self.cluster.kubectl(f"get {every_kind} -o name --ignore-not-found").split()) - built_in

        began = time.monotonic()
        wait_for("the namespace to be empty", 60, lambda: not left())
        yield f"empty after {time.monotonic() - began:.1f} s"


KILLER = "httpserver-test-killer"
