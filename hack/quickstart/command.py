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

import report
from tools import ROOT, Clock, Failed, Kubectl, say, tool

sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "stage_images")]

from embedding_operator.resource.folding import written_out  # noqa: E402 - it needs the standard library alone

NAMESPACE = "embedding-demo"
OPERATOR_NAMESPACE = "embedding-operator"
NAME = "python-docs"
MANIFEST = ROOT / "examples" / "quickstart.yaml"
READY_TIMEOUT_S = 1800
LOOK_EVERY_S = 3  # each look starts a kubectl, on the cores that the stages compute with
CHILDREN = "jobs,pods,deployments,services,persistentvolumeclaims"
CHILDREN_TIMEOUT_S = 180


def main() -> int:
    """Exit code 0 once the resource is Ready and the endpoint has answered."""
    parser = argparse.ArgumentParser(prog="quickstart", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--install-only", action="store_true", help="stop once the operator runs")
    options = parser.parse_args()
    clock = Clock()
    try:
        kubectl, images = install(clock, everything=options.install_only)
        if options.install_only:
            return 0
        apply(kubectl, images)
        status = _followed(kubectl, clock)
        report.figures(status)
        report.curl(kubectl, NAMESPACE, NAME, status)
        report.times(clock, status)
    except (Failed, subprocess.TimeoutExpired) as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def install(clock: Clock, *, everything: bool) -> tuple[Kubectl, dict[str, str]]:
    """A cluster with the images and the operator in it; `everything`: those that only tests use, too."""
    with clock.step("cluster"):
        tool("hack/cluster", "room")
        tool("hack/cluster", "up")
    with clock.step("images"):
        tool("hack/images", "load", *(() if everything else ("--product",)))
    env: dict[str, str] = json.loads(tool("hack/cluster", "env", capture=True))
    images: dict[str, str] = json.loads(tool("hack/images", "references", capture=True))
    stages: dict[str, str] = json.loads(tool("hack/images", "stages", capture=True))
    kubectl = Kubectl(env)
    with clock.step("operator"):
        say("installing the operator")
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
    _delete_what_is_old(kubectl, images)
    text = MANIFEST.read_text()
    for variable, name in (("DEMO_MODEL_IMAGE", "demo-model"), ("DEMO_CORPUS_IMAGE", "demo-corpus")):
        text = text.replace(f"${{{variable}}}", images[name])
    say(f"applying {MANIFEST.relative_to(ROOT)} with {images['demo-model']} and {images['demo-corpus']}")
    kubectl("apply", "-f", "-", stdin=text)


def _delete_what_is_old(kubectl: Kubectl, images: dict[str, str]) -> None:
    """A revision keeps the images and the failure that it has; the quickstart is about the code that is here now."""
    found = kubectl("get", "eft", NAME, "-n", NAMESPACE, "-o", "json", "--ignore-not-found")
    if not found.strip():
        return
    status = written_out(json.loads(found).get("status") or {})
    stalled = any(item["type"] == "Stalled" and item["status"] == "True" for item in status.get("conditions") or ())
    stages = ((status.get("resolved") or {}).get("stages") or {}).values()
    settled = [json.loads(item) if isinstance(item, str) else item for item in stages]  # 0.1 wrote them out
    used = {item["image"] for item in settled if "image" in item}
    if stalled or used - set(images.values()):
        reason = "is stalled" if stalled else "began with other images than the ones that are installed now"
        say(f"deleting eft/{NAME} of an earlier run, which {reason}")
        kubectl("delete", "eft", NAME, "-n", NAMESPACE, "--wait", "--timeout=240s")
        _wait_for_children(kubectl)


def _wait_for_children(kubectl: Kubectl) -> None:
    """They end after their owner, and a new owner of the same name must not meet them."""
    end = time.monotonic() + CHILDREN_TIMEOUT_S
    children = ("get", CHILDREN, "-n", NAMESPACE, "-l", f"embedding-operator.dev/owner={NAME}", "-o", "name")
    while left := kubectl(*children).split():
        if time.monotonic() > end:
            raise Failed(f"still there {CHILDREN_TIMEOUT_S} s after their owner: {' '.join(left)}")
        time.sleep(1)


def _followed(kubectl: Kubectl, clock: Clock) -> dict[str, object]:
    try:
        return follow(kubectl, clock)
    except Failed as error:
        raise Failed(f"{error}\n\n{report.look_closer(kubectl, NAMESPACE, NAME, OPERATOR_NAMESPACE)}") from error


def follow(kubectl: Kubectl, clock: Clock) -> dict[str, object]:
    """Show the stages until the resource is Ready; Failed when it cannot become so."""
    table = report.LiveTable(sys.stdout)
    end = time.monotonic() + READY_TIMEOUT_S
    with clock.step("pipeline"):
        while time.monotonic() < end:
            resource = json.loads(kubectl("get", "eft", NAME, "-n", NAMESPACE, "-o", "json"))
            status = written_out(resource.get("status") or {})
            conditions = {item["type"]: item for item in status.get("conditions") or ()}
            current = status.get("observedGeneration") == resource["metadata"]["generation"]
            if current:
                table.show(status)
            if current and conditions.get("Ready", {}).get("status") == "True":
                return dict(status)
            if current and conditions.get("Stalled", {}).get("status") == "True":
                failure = status.get("lastFailure") or {}
                raise Failed(f"{conditions['Stalled']['message']}\n{failure.get('logTail', '')}")
            time.sleep(LOOK_EVERY_S)
    raise Failed(f"not Ready after {READY_TIMEOUT_S} s")
