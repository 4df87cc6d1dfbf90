"""What the quickstart prints: a live table, the figures as the status has them, the curl, and the times."""

from __future__ import annotations

import json
import math
import shlex
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from tools import Clock, Failed, Kubectl

QUESTION = "How do I parse command line arguments?"
_COLUMNS = "{:<10}{:<12}{:>9}{:>9}  {}"


class LiveTable:
    """One table of the stages: redrawn in place on a terminal, else a line whenever a stage changes."""

    def __init__(self, out: TextIO) -> None:
        self.out, self.lines, self.seen = out, 0, {}  # type: ignore[var-annotated]

    def show(self, status: Mapping[str, Any]) -> None:
        stages: Sequence[dict[str, Any]] = status.get("stages") or ()
        if self.out.isatty():
            rows = [_COLUMNS.format("STAGE", "STATE", "PROGRESS", "ELAPSED", "")] + [_row(item) for item in stages]
            if self.lines:
                self.out.write(f"\x1b[{self.lines}A")
            self.out.writelines(f"\x1b[2K{row[:118]}\n" for row in rows)
            self.lines = max(self.lines, len(rows))
        else:
            for item in stages:
                seen = (item.get("state"), item.get("reason"), (item.get("progress") or {}).get("percent"))
                if self.seen.get(item["name"]) != seen:
                    self.seen[item["name"]] = seen
                    self.out.write(_row(item) + "\n")
        self.out.flush()


def _row(item: Mapping[str, Any]) -> str:
    percent = (item.get("progress") or {}).get("percent")
    state = item.get("state", "Pending")
    shown = "100%" if state in ("Succeeded", "Reused") else "" if percent is None else f"{percent}%"
    note = "" if state == "Pending" else item.get("message", "")
    return _COLUMNS.format(item["name"], state, shown, _elapsed(item), note).rstrip()


def seconds_of(item: Mapping[str, Any]) -> float | None:
    """How long a stage has run, or ran."""
    if not item.get("startedAt"):
        return None
    started = datetime.fromisoformat(item["startedAt"])
    finished = item.get("finishedAt")
    return ((datetime.fromisoformat(finished) if finished else datetime.now(UTC)) - started).total_seconds()


def _elapsed(item: Mapping[str, Any]) -> str:
    seconds = seconds_of(item)
    return "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def figures(status: Mapping[str, Any]) -> None:
    """The metrics exactly as the records of eval and verify have them."""
    metrics, measured = status["metrics"], {item["name"]: item.get("metrics", {}) for item in status["stages"]}
    all_of = measured["eval"] | measured["verify"]
    print(f"\n{metrics['queries']} held-out questions{'base':>18}{'tuned':>10}{'served':>10}")
    for name in ("ndcg@10", "recall@1", "recall@10", "recall@100"):
        values = "".join(f"{all_of[kind].get(name, '-'):>10}" for kind in ("base", "fineTuned", "served"))
        print(f"  {name:<24}{values:>42}")
    said = {c["type"]: c["message"] for c in status["conditions"]}
    print(f"uplift of NDCG@10, with its 95 % interval in percent: {status['uplift']}")
    print(f"gates: {said['QualityGatePassed']}")
    print(f"verified: {said['Verified']}")


def curl(kubectl: Kubectl, namespace: str, name: str, status: Mapping[str, Any]) -> None:
    """Ask the endpoint once, as the printed curl does, and check the answer."""
    service = json.loads(kubectl("get", "service", name, "-n", namespace, "-o", "json"))
    address = f"http://{service['spec']['clusterIP']}:8000"
    body = json.dumps({"model": status["served"]["model"], "input": QUESTION, "input_type": "query"})
    if not _reachable(address):
        address = "http://127.0.0.1:8000"
        print(f"\nin another terminal: kubectl port-forward -n {namespace} service/{name} 8000:8000")
    else:
        vector = _ask(address, body)
        norm = math.sqrt(sum(x * x for x in vector))
        if not all(math.isfinite(x) for x in vector) or abs(norm - 1) > 1e-3:
            raise Failed(f"the endpoint's answer is no finite unit vector (norm {norm})")
        print(f"\nthe endpoint answers: {len(vector)} dimensions, norm {norm:.6f}")
    print(f"curl -s {address}/v1/embeddings -H 'Content-Type: application/json' \\\n     -d {shlex.quote(body)}")
    print(f"\nto look around: {_export(kubectl)}\n                kubectl get eft -n {namespace}")


def look_closer(kubectl: Kubectl, namespace: str, name: str, operator_namespace: str) -> str:
    """The commands with which somebody finds out why it failed."""
    return f"""to look closer:
  {_export(kubectl)}
  kubectl describe eft {name} -n {namespace}
  kubectl get pods,events -n {namespace}
  kubectl logs -n {operator_namespace} -l app.kubernetes.io/name=embedding-operator --prefix --tail=-1
a second `make quickstart` deletes the failed resource and starts anew"""


def _export(kubectl: Kubectl) -> str:
    shown = dict(kubectl.shown)
    if "PATH" in shown:  # localkube's own kubectl and helm come first in it
        shown["PATH"] = f"{shown['PATH'].partition(':')[0]}:$PATH"
    return "export " + " ".join(f"{key}={value}" for key, value in shown.items())


def _reachable(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/v1/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _ask(address: str, body: str) -> list[float]:
    request = urllib.request.Request(
        f"{address}/v1/embeddings", data=body.encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return [float(x) for x in json.load(answer)["data"][0]["embedding"]]


def times(clock: Clock, status: Mapping[str, Any]) -> None:
    """Where the time went."""
    print("\nwhere the time went, seconds")
    for name, seconds in clock.steps.items():
        print(f"  {name:<12}{seconds:>8.1f}")
        if name == "pipeline":
            for item in status["stages"]:
                spent = seconds_of(item)
                print(
                    f"    {item['name']:<10}{'reused' if item['state'] == 'Reused' else '':<8}"
                    f"{0 if spent is None else spent:>8.1f}"
                )
    print(f"  {'total':<12}{sum(clock.steps.values()):>8.1f}")
