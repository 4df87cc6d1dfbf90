"""Which texts lie together, and the tables that say where."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embedding_stages.encoder.packed.packs import ROUND, Ragged, balanced, build_pack, consecutive
from embedding_stages.encoder.packed.small import stretched
from embedding_stages.finetune import memory
from embedding_stages.finetune.memory import fitting
from embedding_stages.finetune.packed_trainer import most_tokens

ROWS = [[7] * 5, [8] * 70, [9], [3] * 100]


def test_ragged_keeps_every_text() -> None:
    texts = Ragged.of(ROWS)
    assert [texts.tokens[a:b].tolist() for a, b in zip(texts.starts, texts.starts[1:], strict=False)] == ROWS
    assert texts.lengths.tolist() == [5, 70, 1, 100]


def test_a_pack_holds_its_texts_end_to_end_and_filler_up_to_a_round_number() -> None:
    pack = build_pack(Ragged.of(ROWS), [2, 0, 1], query_tile=16, key_tile=32)
    assert pack.tokens == 76
    assert pack.size == 2 * ROUND
    assert pack.ids.tolist() == [9] + [7] * 5 + [8] * 70 + [0] * 52
    assert pack.starts.tolist() == [0, 1, 6, 76]
    assert pack.positions[:8].tolist() == [0, 0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize("tile", [16, 32, 64])
def test_tiles_cover_every_row_once_within_its_sequence(tile: int) -> None:
    pack = build_pack(Ragged.of(ROWS), [0, 1, 2, 3], query_tile=tile, key_tile=tile)
    covered: list[int] = []
    lengths = []
    for first, begin, end in pack.query_tiles.T.tolist():
        assert begin <= first < end
        assert (first - begin) % tile == 0
        covered += range(first, min(first + tile, end))
        lengths.append(end - begin)
    assert sorted(covered) == list(range(pack.size))
    assert lengths == sorted(lengths, reverse=True), "long sequences first"
    np.testing.assert_array_equal(pack.query_tiles, pack.key_tiles)


def test_a_pack_without_filler_has_no_tile_for_it() -> None:
    pack = build_pack(Ragged.of([[1] * ROUND]), [0], query_tile=ROUND, key_tile=ROUND)
    assert pack.query_tiles.T.tolist() == [[0, 0, ROUND]]


@pytest.mark.parametrize(("budget", "groups"), [(10_000, 10), (20_000, 5), (200_000, 1)])
def test_groups_are_few_and_of_nearly_equal_weight(budget: int, groups: int) -> None:
    weights = np.random.default_rng(0).integers(300, 1200, 128)
    found = balanced(weights, budget)
    assert sorted(number for group in found for number in group) == list(range(128))
    loads = [int(weights[group].sum()) for group in found]
    assert len(found) == -(-int(weights.sum()) // budget) == groups
    assert max(loads) <= 1.02 * sum(loads) / len(loads)


@pytest.mark.parametrize(
    ("weights", "budget", "groups"),
    [
        ([6, 6, 6], 10, 3),  # two would do on average, but not for whole items
        ([50], 10, 1),  # one item cannot be cut
        ([50, 50, 1], 10, 3),
        ([10, 10, 10], 10, 3),
        ([125, 60, 60, 50], 100, 4),  # the heaviest hides no other
        ([], 10, 0),
    ],
)
def test_a_group_keeps_to_its_budget_unless_it_is_one_item(weights: list[int], budget: int, groups: int) -> None:
    found = balanced(weights, budget)
    assert sorted(number for group in found for number in group) == list(range(len(weights)))
    assert len(found) == groups


def test_waste_is_below_one_per_cent() -> None:
    lengths = np.random.default_rng(1).integers(20, 300, 700)
    texts = Ragged.of([[1] * int(length) for length in lengths])
    packs = [build_pack(texts, group, query_tile=16, key_tile=64) for group in balanced(lengths, 16384)]
    assert 1 - sum(pack.tokens for pack in packs) / sum(pack.size for pack in packs) < 0.01


def test_consecutive_groups_keep_the_order_and_the_budget() -> None:
    lengths = np.array([5, 5, 5, 50, 1, 1, 8])
    assert [group.tolist() for group in consecutive(lengths, 10)] == [[0, 1], [2], [3], [4, 5, 6]]
    assert consecutive(np.array([], dtype=np.int64), 10) == []


@pytest.mark.parametrize(
    ("peaks", "limit", "tokens"),
    [
        ((30_000, 50_000), 100_000, 9 * 1024),  # 10,000 fixed, 10,000 a thousand tokens
        ((30_000, 50_000), 10**9, 32768),  # more room than packs can use
        ((30_000, 50_000), 1, 1024),  # none: the least, and the step will say that it does not fit
        ((30_000, 30_000), 10**9, 32768),  # nothing measured
    ],
)
def test_the_largest_pack_follows_from_two_measurements(peaks: tuple[int, int], limit: int, tokens: int) -> None:
    points = list(zip((2048, 4096), peaks, strict=True))
    assert fitting(points, limit=limit, most=32768) == tokens


@pytest.mark.parametrize(
    ("hidden", "packs"),
    [(384, 4), (768, 2), (1024, 2), (2048, 1), (4096, 1), (64, 4)],
)
def test_narrow_models_take_larger_packs(hidden: int, packs: int) -> None:
    assert most_tokens(hidden) == packs * 32768


@pytest.mark.parametrize(
    ("full_at", "tokens"),
    [
        (10**9, 32768),
        (50_000, 24 * 1024),  # an example of 25,000 tokens: what it took fits, twice as much does not
        (20_000, None),  # not even one
    ],
)
def test_memory_that_ends_while_it_is_measured_bounds_the_pack(
    full_at: int, tokens: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(wanted: int) -> int:
        used = -(-wanted // 25_000) * 25_000
        if used >= full_at:
            raise torch.OutOfMemoryError("no room")
        return used

    monkeypatch.setattr(memory, "_peak", lambda use, tokens, _device: (use(tokens), tokens))
    monkeypatch.setattr(memory, "_limit", lambda _device: 10.0**9)
    if tokens is None:
        with pytest.raises(torch.OutOfMemoryError):
            memory.largest_pack(use, device=torch.device("cuda"), most=32768)
    else:
        assert memory.largest_pack(use, device=torch.device("cuda"), most=32768) == tokens


@pytest.mark.parametrize("lengths", [[1], [3, 64, 5], [64] * 2, [16] * 16, [8] * 16])
def test_a_pack_of_a_given_size_has_the_same_shapes_for_all_texts(lengths: list[int]) -> None:
    texts = Ragged.of([[7] * length for length in lengths])
    pack = stretched(texts, 256, 16)
    empty = stretched(Ragged.of([[1]]), 256, 16)
    assert pack.size == 256
    for table in ("ids", "positions", "starts", "query_tiles", "key_tiles"):
        assert getattr(pack, table).shape == getattr(empty, table).shape, table
    assert np.diff(pack.starts).tolist() == lengths + [0] * (32 - len(lengths))
    begins, firsts, ends = np.unique(pack.query_tiles, axis=1)  # the last one fills up
    covered = np.concatenate([np.arange(b, min(b + 16, e)) for b, e in zip(begins, ends, strict=True)])
    assert sorted(covered.tolist()) == list(range(256))  # every token once, filler too
    assert int((ends - firsts).max()) <= 64  # no filler reaches beyond the rotary table
