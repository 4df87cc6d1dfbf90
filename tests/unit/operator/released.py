"""Fingerprints of many manifests, as this release makes them. `make fingerprints` writes them down anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml
from unit.operator.builders import IMAGES, OPEN_AI, a_manifest, a_ref, refs

from embedding_operator.resource.api import KIND
from embedding_operator.resource.pipeline import fingerprint, serving_fingerprint
from embedding_operator.resource.spec import parse_spec
from embedding_stages.contract import Artefact, Stage

DATA: Final = Path(__file__).parent / "data" / "fingerprints.json"
_EXAMPLES: Final = Path(__file__).parents[3] / "examples"
_LABELLED: Final = {"beir": {"pvc": {"claimName": "labelled", "path": "set"}}, "kValues": [1, 10]}
_IMAGE: Final = {"reference": "registry.test/docs:1", "path": "/docs"}
_SHAPES: Final[dict[str, dict[str, Any]]] = {
    "defaults": {},
    "torch": {"stages": {"deploy": {"backend": {"torch": {}}}}},
    "nim 1": {"stages": {"deploy": {"image": "nim:1", "backend": {"nim": {}}}}},
    "nim 2": {"stages": {"deploy": {"image": "nim:2", "backend": {"nim": {"generation": 2}}, "modelName": "handbook"}}},
    "own images and variables": {
        "stages": {
            "sdg": {"provider": {"extractive": {}}, "image": "team/sdg@sha256:1"},
            "finetune": {"image": "team/finetune@sha256:2", "env": [{"name": "A", "value": "1"}]},
            "deploy": {"env": [{"name": "A", "value": "1"}]},
        }
    },
    "an LLM": {"stages": {"sdg": {"provider": OPEN_AI, "pairsPerDocument": 3}}},
    "a labelled set": {"evaluation": _LABELLED},
    "other sources": {
        "baseModel": {
            "name": "org/model",
            "maxTokens": 128,
            "prefixes": {"query": "q: ", "passage": "p: "},
            "source": {"huggingFace": {"revision": "0" * 40}},
        },
        "corpus": {"source": {"image": _IMAGE}, "include": ["*.md"], "minTextLength": 20, "version": "2"},
    },
    "every stage edited": {
        "stages": {
            "sdg": {"provider": {"extractive": {}}, "seed": 1, "sentencesPerChunk": 3},
            "prep": {"margin": "0.9", "qualityThreshold": "8", "batchSize": 64},
            "finetune": {"epochs": 2, "learningRate": "2e-5", "gpusPerNode": 8},
            "eval": {"batchSize": 64},
            "export": {"precision": "fp16"},
        }
    },
}


def manifests() -> dict[str, dict[str, Any]]:
    """The `spec` of every example, and of shapes that no example has."""
    found = {name: a_manifest(**shape) for name, shape in _SHAPES.items()}
    for path in sorted(_EXAMPLES.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document and document.get("kind") == KIND:
                found[f"examples/{path.name}"] = document["spec"]
    return found


def fingerprints_of(raw: dict[str, Any]) -> dict[str, str]:
    """By stage, for inputs of fixed digests; beside them what decides whether settings are carried on."""
    spec = parse_spec(raw, IMAGES)
    labelled = {Artefact.LABELLED_SET: a_ref(Artefact.LABELLED_SET)} if spec.labelled_source else {}
    found = {
        stage.value: fingerprint(stage, spec, refs(stage) | (labelled if stage is Stage.PREP else {}))
        for stage in Stage
        if stage is not Stage.DEPLOY
    }
    found["deploy"] = serving_fingerprint(spec, a_ref("model"))
    asked = {f"asked of {stage}": item.asked for stage, item in spec.stages.items()}
    return {**found, **asked}


def main() -> None:
    """Write the table."""
    found = {name: fingerprints_of(raw) for name, raw in manifests().items()}
    DATA.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
