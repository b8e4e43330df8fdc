"""Images of one layer, as archives that containerd, podman, docker, kind and minikube load."""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def write(archive, name, files, config):
    """Writes an image in the format of `docker save`, with files {path in the image: path here} and a configuration."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for inside, here in sorted(files.items()):
            # A library that is a symbolic link is replaced by its file.
            entry = tar.gettarinfo(str(Path(here).resolve()), arcname=inside.lstrip("/"))
            entry.uid = entry.gid = 0
            entry.mode = 0o755
            with open(here, "rb") as content:
                tar.addfile(entry, content)
    layer = layer.getvalue()
    image = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[machine()],
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    image = json.dumps(image).encode()
    digest = hashlib.sha256(image).hexdigest()
    manifest = [{"Config": f"{digest}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, mode="w") as tar:
        for path, content in {
            f"{digest}.json": image,
            "layer.tar": layer,
            "manifest.json": json.dumps(manifest).encode(),
        }.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def machine():
    return subprocess.run(["uname", "-m"], check=True, capture_output=True, text=True).stdout.strip()


def server(archive, binary):
    """Writes the image of the Containerfile's last stage, with a binary built in the same way as in its first stage."""
    stage = (ROOT / "Containerfile").read_text().split("FROM scratch", 1)[1]
    word = lambda instruction: re.search(rf"^{instruction} (.+)$", stage, re.MULTILINE).group(1)
    config = {
        "User": word("USER"),
        "Entrypoint": json.loads(word("ENTRYPOINT")),
        "StopSignal": word("STOPSIGNAL"),
        "ExposedPorts": {f"{word('EXPOSE')}/tcp": {}},
    }
    write(archive, image_in("deployment.yaml"), {config["Entrypoint"][0]: binary}, config)


def image_in(manifest):
    """Returns the name of the image in a manifest below yaml/."""
    return re.search(r"^ +image: (\S+)$", (ROOT / "yaml" / manifest).read_text(), re.MULTILINE).group(1)


def with_libraries(program):
    """Returns a program and the shared libraries that it is linked with, as files for `write`."""
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return {path: path for path in [program, *re.findall(r"(/\S+) \(0x", listed)]}
