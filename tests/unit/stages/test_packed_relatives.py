"""Llama's relatives on packs against the library's own models: the same vectors, loss and gradients."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from unit.stages import rounding

from embedding_stages.encoder.packed import check, ops
from embedding_stages.encoder.packed.check import works
from embedding_stages.encoder.packed.device import DevicePack, send
from embedding_stages.encoder.packed.llama import PackedLlama
from embedding_stages.encoder.packed.packs import Ragged, build_pack
from embedding_stages.encoder.packed.readings import READINGS, angles_of, shape_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS = [[5, 6, 7], [9, 4] * 12, [8]]
POSITIONS = 64
COMMON = {
    "vocab_size": 20,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Heads of a size of their own: 32 instead of 16.
GROUPED = {**COMMON, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 32, "hidden_size": 48}
MODELS: Mapping[str, dict[str, Any]] = {
    "ministral3": {**GROUPED, "model_type": "ministral3"},
    "qwen3": {**GROUPED, "model_type": "qwen3", "rope_theta": 1000.0},
    "modernbert": {
        **COMMON,
        "model_type": "modernbert",
        "num_hidden_layers": 3,
        "global_attn_every_n_layers": 2,
        "local_attention": 8,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
    "gemma3_text": {
        **GROUPED,
        "model_type": "gemma3_text",
        "num_hidden_layers": 3,
        "use_bidirectional_attention": True,
        "query_pre_attn_scalar": 20,
        "sliding_window": 9,
        "sliding_window_pattern": 3,
    },
}
CAUSAL = {"qwen3"}


def _reference(config: Mapping[str, Any]) -> torch.nn.Module:
    """The library's model with random weights, norms' too."""
    torch.manual_seed(0)
    reading = READINGS[config["model_type"]]
    module = importlib.import_module(f"transformers.models.{reading.package}.modeling_{reading.package}")
    found = reading.configured(config)
    found._attn_implementation = "eager"
    model = getattr(module, f"{reading.classes}Model")(found)
    causal = config["model_type"] in CAUSAL
    for name, value in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(value, -0.5, 1.5)
    for part in model.modules():
        if hasattr(part, "is_causal"):
            part.is_causal = causal
    moved: torch.nn.Module = model.to(DEVICE)
    return moved


def _states(model: torch.nn.Module, config: Mapping[str, Any], row: list[int]) -> torch.Tensor:
    """(1, tokens, hidden) of one text, alone."""
    place = torch.arange(len(row), device=DEVICE)
    away = place[None, :] - place[:, None]
    everything = away <= 0 if config["model_type"] in CAUSAL else torch.ones_like(away, dtype=torch.bool)
    mask: Any = _added(everything)
    if config["model_type"] == "modernbert":
        mask = {"full_attention": mask, "sliding_attention": _added(away.abs() <= 4)}  # 8 on both sides together
    if config["model_type"] == "gemma3_text":
        mask = {"full_attention": mask, "sliding_attention": _added(away.abs() < 5)}  # half of 9, and the token
    states: torch.Tensor = model(input_ids=torch.tensor([row], device=DEVICE), attention_mask=mask).last_hidden_state
    return states


def _added(seen: torch.Tensor) -> torch.Tensor:
    return torch.zeros(seen.shape, device=DEVICE).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]


def _packed(config: Mapping[str, Any], reference: torch.nn.Module) -> PackedLlama:
    shape = shape_of(config, causal=config["model_type"] in CAUSAL, positions=POSITIONS)
    model = PackedLlama(shape, angles_of(config, POSITIONS), device=DEVICE, dtype=torch.float32)
    weights = reference.state_dict()
    on_disk = dict(model.on_disk())
    assert on_disk.keys() == weights.keys()
    with torch.no_grad():
        for name, view in on_disk.items():
            view.copy_(weights[name])
    return model


def _pack(model: PackedLlama) -> DevicePack:
    tile = model.shape.heads.query_tile
    pack = build_pack(Ragged.of(ROWS), range(len(ROWS)), query_tile=tile, key_tile=ops.KEY_TILE)
    return send(pack, torch.device(DEVICE))


@pytest.mark.parametrize("kind", MODELS)
def test_vectors_loss_and_gradients_are_the_librarys(kind: str) -> None:
    config = MODELS[kind]
    reference = _reference(config)
    model = _packed(config, reference)
    model.hold_gradients()
    pack = _pack(model)
    terms = rounding.backward_terms(config, tokens=sum(map(len, ROWS)))

    expected = torch.cat([_states(reference, config, row).mean(1) for row in ROWS])
    with torch.no_grad():
        inferred = model(pack)
    found = model(pack)
    limit = rounding.of_vectors(config, expected.detach())
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=0, atol=limit)
    torch.testing.assert_close(inferred, expected.detach(), rtol=0, atol=limit)

    losses = [_loss(vectors) for vectors in (found, expected)]
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
    assert float(losses[0].detach()) == pytest.approx(
        float(losses[1].detach()), rel=0, abs=rounding.of_loss(config, temperature=0.1)
    )
    model.finish_gradients()
    assert model.gradient is not None
    wanted = {name: value.grad for name, value in reference.named_parameters()}
    rounding.assert_same_gradients(dict(model.on_disk(model.gradient)), wanted, terms=terms)


def _loss(vectors: torch.Tensor) -> torch.Tensor:
    """Of the first text, of which the second is the answer and the third is not."""
    units = torch.nn.functional.normalize(vectors, dim=-1)
    return torch.nn.functional.cross_entropy((units[:1] @ units[1:].t()) / 0.1, torch.tensor([0], device=DEVICE))


def test_the_self_check_covers_what_a_model_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check is called with what the shape says: a kernel of another kind would go unseen."""
    called: list[str] = []

    def watched(name: str) -> Callable[..., float]:
        def error(*given: object) -> float:
            called.append(f"{name} {given}")
            return 0.0

        return error

    for name in ("attention_error", "gated_error", "norm_error", "turned_error", "head_norm_error"):
        monkeypatch.setattr(check, name, watched(name))
    shape = shape_of(MODELS["gemma3_text"], positions=POSITIONS)
    assert works(PackedLlama.kernel_errors(shape, torch.device(DEVICE), torch.float32))
    text = "\n".join(sorted(called))
    for part in ("window=0", "window=4", "gelu_tanh", "head_norm_error", "turned_error", "plus_one=True"):
        assert part in text
