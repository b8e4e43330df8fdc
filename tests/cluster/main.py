"""The command of the cluster test: parses flags, prepares, runs the steps in order, and reports how long each took."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import image
import isolation
import steps
import tools
from cluster import ROOT, TEST_IMAGE, GivenCluster
from made import MadeCluster
from waiting import Failure

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "cluster"


def flags():
    parser = argparse.ArgumentParser(
        prog="tests/cluster/run",
        description="Uses the server on a Kubernetes cluster as people do. Without --kubeconfig it makes a cluster of "
        "two nodes on this machine (Linux, root) and removes it afterwards.",
    )
    parser.add_argument("--kubeconfig", metavar="FILE", help="test on this cluster, in namespaces of the test's own")
    parser.add_argument(
        "--load-image",
        metavar="COMMAND",
        help="loads an image onto the nodes of that cluster, such as 'kind load image-archive'; the path of an archive "
        "is appended",
    )
    parser.add_argument(
        "--disposable",
        action="store_true",
        help="that cluster is only for tests: drain a node, kill a process, and create the namespace monitoring",
    )
    parser.add_argument(
        "--with-autoscaler",
        action="store_true",
        help="also scale by CPU and by requests in flight; a cluster given by --kubeconfig needs metrics-server, and "
        "prometheus-adapter with the values of yaml/monitoring/autoscaling/ if it is disposable",
    )
    chosen = parser.parse_args()
    wrong = None
    if bool(chosen.kubeconfig) != bool(chosen.load_image):
        wrong = "--kubeconfig and --load-image need each other"
    elif chosen.disposable and not chosen.kubeconfig:
        wrong = "--disposable needs --kubeconfig"
    elif chosen.kubeconfig and not os.access(chosen.kubeconfig, os.R_OK):
        wrong = f"--kubeconfig {chosen.kubeconfig}: not a readable file"
    if wrong:
        parser.exit(2, f"tests/cluster/run: {wrong}\n")
    return chosen


def prepare(chosen):
    """Does everything that needs the network or the machine's own namespaces."""
    if chosen.kubeconfig:
        if not shutil.which("kubectl"):
            raise Failure("missing: kubectl, in a version that is compatible with the cluster")
        tools.build("test-programs", "httpserver")
    else:
        isolation.require()
        tools.install(tools.FOR_A_MADE_CLUSTER)
        tools.build("test-programs", "httpserver", "prometheus", "coredns", "kubernetes")
        if chosen.with_autoscaler:
            tools.build("metrics-server", "prometheus-adapter")


def load_images(cluster, chosen, folder):
    """Loads images onto the nodes: the server's, the test's, and those that a cluster made here cannot pull."""

    def load(write, *words):
        archive = folder / "image.tar"
        write(archive, *words)
        cluster.load(archive)

    def load_program(name, program, entrypoint=None):
        entrypoint = entrypoint or f"/{os.path.basename(program)}"
        load(image.write, name, {entrypoint: shutil.which(program)}, {"Entrypoint": [entrypoint]})

    load(image.server, shutil.which("httpserver"))
    programs = {f"/{program}": shutil.which(program) for program in ("clients", "pause", "kill-in-pod")}
    load(image.write, TEST_IMAGE, programs, {"Entrypoint": ["/pause"]})
    if not chosen.kubeconfig:
        load_program(image.image_in("monitoring/prometheus/deployment.yaml"), "prometheus", "/bin/prometheus")
        curl = shutil.which("curl")
        load(image.write, image.image_in("monitoring/load.yaml"), image.with_libraries(curl), {"Entrypoint": [curl]})
        load_program("localhost/coredns:1", "coredns")
        if chosen.with_autoscaler:
            load_program("localhost/metrics-server:1", "metrics-server")
            load_program("localhost/prometheus-adapter:1", "adapter")


def run_steps(chosen, folder, logs):
    """Runs the steps in order and returns whether all of them passed."""
    began = time.monotonic()
    passed = 0
    cluster = None
    try:
        if chosen.kubeconfig:
            cluster = GivenCluster(chosen.kubeconfig, chosen.load_image, folder)
        else:
            cluster = MadeCluster(folder, logs)
        load_images(cluster, chosen, folder)
        cluster.prepare()
        print(f"cluster and images are ready after {time.monotonic() - began:.1f} s", flush=True)
        for step in steps.chosen(cluster, chosen):
            step_began = time.monotonic()
            print(f"\n== {step.__doc__.splitlines()[0]}", flush=True)
            for line in step() or ():
                print(line, flush=True)
            passed += 1
            now = time.monotonic()
            print(f"passed in {now - step_began:.1f} s (after {now - began:.0f} s)", flush=True)
        failed = 0
    except (Failure, subprocess.CalledProcessError, KeyboardInterrupt) as failure:
        print(f"failed: {str(failure) or 'interrupted'}", flush=True)
        failed = 1
        if cluster:
            describe(cluster, logs)
        print(f"logs are in {logs}")
    finally:
        if cluster:
            cluster.clean_up()
    print(f"\ncluster: {passed} passed, {failed} failed", flush=True)
    return failed == 0


def describe(cluster, logs):
    """Writes the state of the cluster beside the logs of its programs."""
    for words in ("get all -A -o wide", "get events -A --sort-by=.lastTimestamp", "describe pods -A"):
        try:
            (logs / f"kubectl-{words.split()[1]}").write_text(cluster.kubectl(words))
        except (Failure, KeyboardInterrupt) as failure:
            print(failure)


def main():
    chosen = flags()
    logs = TARGET / "log"
    try:
        if not isolation.name():
            prepare(chosen)
            if not chosen.kubeconfig:
                return isolation.run_inside(sys.argv)
            with tempfile.TemporaryDirectory(prefix="httpserver-cluster-") as folder:
                logs.mkdir(parents=True, exist_ok=True)
                return 0 if run_steps(chosen, Path(folder), logs) else 1
        isolation.furnish()
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir(parents=True)
        # Below /run, which is in memory and disappears with the namespaces.
        folder = Path("/run/cluster")
        folder.mkdir()
        return 0 if run_steps(chosen, folder, logs) else 1
    except Failure as failure:
        print(f"tests/cluster/run: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


sys.exit(main())
