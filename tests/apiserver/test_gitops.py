"""What stands in Git is what is stored: no tool that compares the two, as Argo CD and Flux do, sees a difference."""

from __future__ import annotations

import json

import pytest
import yaml
from apiserver.api import EFT, Api

DECIMALS = """
apiVersion: embedding-operator.dev/v1alpha1
kind: EmbeddingFineTune
metadata: {name: docs}
spec:
  baseModel: {name: m, source: {pvc: {claimName: models}}}
  corpus: {source: {configMap: {name: docs}}}
  stages:
    sdg: {provider: {extractive: {}}}
    prep: {qualityThreshold: 7, evalFraction: 0.25}
    finetune: {learningRate: %s, weightDecay: 1e-2}
  tolerance: {atOne: 0.02}
"""


@pytest.mark.parametrize("rate", ["1e-5", '"1e-5"', "0.00001", "1.0e-05", "1e-7"])
@pytest.mark.parametrize("how", [(), ("--server-side", "--field-manager=argocd-controller")], ids=["client", "server"])
def test_a_decimal_with_and_without_quotes_does_not_drift(
    api: Api, namespace: str, how: tuple[str, ...], rate: str
) -> None:
    manifest = DECIMALS % rate
    api.kubectl("apply", *how, "-n", namespace, "-f", "-", stdin=manifest)
    again = api.kubectl("apply", *how, "-n", namespace, "-f", "-", stdin=manifest)
    assert again.strip().endswith("serverside-applied" if how else "unchanged")
    done = api.attempt("diff", *how, "-n", namespace, "-f", "-", stdin=manifest)
    assert (done.returncode, done.stdout) == (0, "")
    stored = api.send("GET", f"{EFT.format(namespace)}/docs")[1]
    assert stored["metadata"]["generation"] == 1
    # By value, as Argo CD compares: YAML of version 1.1 reads 1e-5 as a text, and Kubernetes' as a number.
    assert float(stored["spec"]["stages"]["finetune"]["learningRate"]) == float(rate.strip('"'))
    assert stored["spec"]["stages"]["prep"] == yaml.safe_load(manifest)["spec"]["stages"]["prep"]
    assert json.dumps(stored["spec"]["tolerance"]) == '{"atOne": 0.02}'
