"""etcd, the API server, the controller manager and the scheduler of the cluster made here."""

import subprocess

from hosts import CONTROL_PLANE, start
from waiting import wait_for

API = f"https://{CONTROL_PLANE}:6443"
SERVICES = "10.96.0.0/16"
API_AS_A_SERVICE = "10.96.0.1"
DNS = "10.96.0.10"


def start_control_plane(keys, folder):
    """Starts the control plane, waits until it is ready, and returns the administrator's kubeconfig."""
    administrator = keys.kubeconfig("admin", "/O=system:masters/CN=admin")
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    addresses = [CONTROL_PLANE, API_AS_A_SERVICE]
    alternative = [f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses]
    keys.issue("apiserver", "/CN=kube-apiserver", ",".join(alternative))

    etcd = "http://127.0.0.1:2379"
    peers = "http://127.0.0.1:2380"
    start(
        "etcd",
        [
            "etcd",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peers}",
            # No one needs the data after a crash.
            "--unsafe-no-fsync",
        ],
    )
    start(
        "kube-apiserver",
        [
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--advertise-address={CONTROL_PLANE}",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged",
            f"--tls-cert-file={keys.path('apiserver.crt')}",
            f"--tls-private-key-file={keys.path('apiserver.key')}",
            f"--client-ca-file={keys.path('ca.crt')}",
            f"--kubelet-certificate-authority={keys.path('ca.crt')}",
            f"--kubelet-client-certificate={keys.path('admin.crt')}",
            f"--kubelet-client-key={keys.path('admin.key')}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys.path('accounts.pub')}",
            f"--service-account-signing-key-file={keys.path('accounts.key')}",
            # metrics-server needs the API server to forward requests, to the addresses of its pods.
            f"--requestheader-client-ca-file={keys.path('ca.crt')}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={keys.path('admin.crt')}",
            f"--proxy-client-key-file={keys.path('admin.key')}",
            "--enable-aggregator-routing",
        ],
    )
    start(
        "kube-controller-manager",
        [
            "kube-controller-manager",
            f"--kubeconfig={keys.kubeconfig('controller-manager', '/CN=system:kube-controller-manager')}",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={keys.path('accounts.key')}",
            f"--root-ca-file={keys.path('ca.crt')}",
            "--leader-elect=false",
        ],
    )
    start(
        "kube-scheduler",
        [
            "kube-scheduler",
            f"--kubeconfig={keys.kubeconfig('scheduler', '/CN=system:kube-scheduler')}",
            "--leader-elect=false",
        ],
    )
    ready = ["kubectl", f"--kubeconfig={administrator}", "get", "--raw", "/readyz"]
    wait_for("the API server", 90, lambda: subprocess.run(ready, capture_output=True).returncode == 0)
    return administrator
