"""The keys of the cluster made here, created by openssl, and the kubeconfigs that contain them."""

import base64
import json
import subprocess


class Keys:
    """A certificate authority and the certificates that it signs, in a folder."""

    def __init__(self, folder, server):
        self.folder = folder
        self.server = server
        folder.mkdir()
        self._openssl(*NEW_KEY, *"-x509 -keyout ca.key -out ca.crt -days 30 -subj /CN=cluster-test".split())
        # Tokens of service accounts are signed with a separate key.
        self._openssl(*"ecparam -name prime256v1 -genkey -noout -out accounts.key".split())
        self._openssl(*"ec -in accounts.key -pubout -out accounts.pub".split())

    def path(self, file):
        return str(self.folder / file)

    def issue(self, name, subject, alternative_names="DNS:unused"):
        """Creates NAME.key and NAME.crt, for both servers and clients."""
        self._openssl(*NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        extensions = f"subjectAltName={alternative_names}\nextendedKeyUsage=serverAuth,clientAuth\n"
        (self.folder / f"{name}.ext").write_text(extensions)
        sign = f"x509 -req -in {name}.csr -out {name}.crt -extfile {name}.ext -days 30 -CA ca.crt -CAkey ca.key -CAcreateserial"
        self._openssl(*sign.split())

    def kubeconfig(self, name, subject, alternative_names="DNS:unused"):
        """Issues a certificate and returns the path of a kubeconfig with it. It is JSON, which is also YAML."""
        self.issue(name, subject, alternative_names)
        content = lambda file: base64.b64encode((self.folder / file).read_bytes()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [
                {"name": "test", "cluster": {"server": self.server, "certificate-authority-data": content("ca.crt")}}
            ],
            "users": [
                {
                    "name": "test",
                    "user": {
                        "client-certificate-data": content(f"{name}.crt"),
                        "client-key-data": content(f"{name}.key"),
                    },
                }
            ],
        }
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(json.dumps(config))
        return str(path)

    def _openssl(self, *words):
        subprocess.run(["openssl", *words], check=True, cwd=self.folder, capture_output=True)


NEW_KEY = "req -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1".split()
