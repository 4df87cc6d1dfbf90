"""One checkpoint of each family, as finetune writes it after a step, in the real vLLM and in sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from real_vllm.server import serving
from unit.stages.published import TEXTS, Published, write
from unit.stages.test_families_published import LEAST_COSINE, MODELS, of_the_library, one_step
from unit.stages.tiny_serving import call

from embedding_stages.contract.servers import VLLM
from embedding_stages.encoder.description import ROLES
from embedding_stages.encoder.families import FAMILIES
from embedding_stages.encoder.model import PaddedEncoder
from embedding_stages.inputs.model import BaseModel, freeze
from embedding_stages.inputs.store import Store

_OF_FAMILY: Final = {model.family: model for model in reversed(MODELS) if model.family not in VLLM.not_taken}
# Like with like: sentence-transformers computes in float32. Compiling takes a minute and changes no number.
_ALIKE: Final = ("--dtype", "float32", "--enforce-eager")


def test_every_family_that_it_takes_is_here() -> None:
    assert _OF_FAMILY.keys() == {family.name for family in FAMILIES} - set(VLLM.not_taken)


@pytest.mark.parametrize("model", _OF_FAMILY.values(), ids=list(_OF_FAMILY))
def test_vectors_are_the_librarys(model: Published, tmp_path: Path) -> None:
    manifest = BaseModel(name=model.name, kind="pvc", prefixes=model.prefixes, max_tokens=model.most_tokens)
    frozen, description = freeze(manifest, write(model, tmp_path / "model"), Store(tmp_path / "workspace"))
    encoder = PaddedEncoder.load(frozen.folder, device="cpu", dtype=torch.float32)
    one_step(encoder)
    encoder.save(tmp_path / "tuned")
    expected = of_the_library(tmp_path / "tuned")
    alike = expected["passage"] @ expected["passage"].T - 2 * np.eye(len(TEXTS))
    assert alike.max(axis=1).min() < 0.999, "each text is like another: any model would pass"
    with serving(tmp_path / "tuned", tmp_path / "pod", more=_ALIKE) as served:
        for role in ROLES:
            texts = [description.prefixes[role] + text for text in TEXTS]
            body = {"model": "tiny", "input": texts, **VLLM.request_body(role)}
            status, said = call(f"{served.url}/v1/embeddings", body)
            assert status == 200, said
            found = np.array([item["embedding"] for item in said["data"]])
            assert (found * expected[role]).sum(1).min() >= LEAST_COSINE
