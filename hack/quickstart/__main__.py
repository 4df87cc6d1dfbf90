"""`make quickstart`: a cluster, the operator, real documents, a real model, and a curl that answers.

    python3 hack/quickstart                  everything, until the resource is Ready
    python3 hack/quickstart --install-only   stop once the operator runs (the end-to-end tests start there)

Whatever exists already is kept: a second run is a quick one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import report
from tools import ROOT, Clock, Failed, Kubectl, say, tool

NAMESPACE = "embedding-demo"
OPERATOR_NAMESPACE = "embedding-operator"
NAME = "python-docs"
MANIFEST = ROOT / "examples" / "quickstart.yaml"
READY_TIMEOUT_S = 1800
STAGE_IMAGES = ("sdg", "prep", "finetune", "evaluate", "export", "serve", "serve-torch")


def main(arguments: Sequence[str]) -> int:
    """Exit code 0 once the resource is Ready and the endpoint has answered."""
    parser = argparse.ArgumentParser(prog="quickstart", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--install-only", action="store_true", help="stop once the operator runs")
    options = parser.parse_args(arguments)
    clock = Clock()
    try:
        kubectl, images = install(clock)
        if options.install_only:
            return 0
        apply(kubectl, images)
        status = follow(kubectl, clock)
        report.figures(status)
        report.curl(kubectl, NAMESPACE, NAME, status)
        report.times(clock, status)
    except (Failed, KeyboardInterrupt) as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    return 0


def install(clock: Clock) -> tuple[Kubectl, dict[str, str]]:
    """A cluster with the images and the operator in it."""
    with clock.step("cluster"):
        tool("hack/cluster", "up")
    with clock.step("images"):
        tool("hack/images", "build")
        tool("hack/images", "load")
    env: dict[str, str] = json.loads(tool("hack/cluster", "env", capture=True))
    images: dict[str, str] = json.loads(tool("hack/images", "references", capture=True))
    kubectl = Kubectl(env)
    with clock.step("operator"):
        say("installing the operator")
        stages = {name: images[name] for name in STAGE_IMAGES}
        values = [f"stageImages.{name}={reference}" for name, reference in stages.items()]
        repository, _, tag = images["operator"].rpartition(":")
        values += [f"image.repository={repository}", f"image.tag={tag}"]
        kubectl.program(
            "helm", "upgrade", "--install", "embedding-operator", str(ROOT / "charts" / "embedding-operator"),
            "--namespace", OPERATOR_NAMESPACE, "--create-namespace", "--wait", "--timeout", "180s",
            *(part for value in values for part in ("--set-string", value)),
        )  # fmt: skip
    return kubectl, images


def apply(kubectl: Kubectl, images: dict[str, str]) -> None:
    """Apply the example, with the images that were just built in the place of its variables."""
    text = MANIFEST.read_text()
    for variable, name in (("DEMO_MODEL_IMAGE", "demo-model"), ("DEMO_CORPUS_IMAGE", "demo-corpus")):
        text = text.replace(f"${{{variable}}}", images[name])
    say(f"kubectl apply -f {MANIFEST.relative_to(ROOT)}")
    kubectl("apply", "-f", "-", stdin=text)


def follow(kubectl: Kubectl, clock: Clock) -> dict[str, object]:
    """Show the stages until the resource is Ready; Failed when it cannot become so."""
    table = report.LiveTable(sys.stdout)
    end = time.monotonic() + READY_TIMEOUT_S
    with clock.step("pipeline"):
        while time.monotonic() < end:
            resource = json.loads(kubectl("get", "eft", NAME, "-n", NAMESPACE, "-o", "json"))
            status = resource.get("status") or {}
            conditions = {item["type"]: item for item in status.get("conditions") or ()}
            current = status.get("observedGeneration") == resource["metadata"]["generation"]
            if current:
                table.show(status)
            if current and conditions.get("Ready", {}).get("status") == "True":
                return dict(status)
            if current and conditions.get("Stalled", {}).get("status") == "True":
                failure = status.get("lastFailure") or {}
                raise Failed(f"{conditions['Stalled']['message']}\n{failure.get('logTail', '')}")
            time.sleep(1)
    raise Failed(f"not Ready after {READY_TIMEOUT_S} s: kubectl describe eft {NAME} -n {NAMESPACE}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.TimeoutExpired as error:
        sys.exit(f"quickstart: {error}")
