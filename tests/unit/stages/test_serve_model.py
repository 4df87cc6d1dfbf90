"""Truncation, the graph's variants, batches."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.stages.tiny_serving import HIDDEN, MAX_TOKENS, WORDS, make_serving_folder

from embedding_stages.encoder import tokens
from embedding_stages.errors import BadInput
from embedding_stages.serve import batching, texts
from embedding_stages.serve.batching import Batcher, Waiting, choose
from embedding_stages.serve.model import Limits, self_test
from embedding_stages.serve.onnx_model import OnnxModel
from embedding_stages.serve.requests import RequestError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    return OnnxModel(make_serving_folder(tmp_path_factory.mktemp("models") / "tiny"))


def words(row: Sequence[int]) -> list[str]:
    return [WORDS[at] for at in row]


LONG = " ".join(f"topic{at}" for at in range(15))


class TestTruncation:
    def test_a_short_text_is_the_same_under_every_rule(self, model: OnnxModel) -> None:
        expected = [["[CLS]", "query", ":", "topic1", "[SEP]"]]
        for rule in ("NONE", "START", "END"):
            assert [words(row) for row in model.reader.read(["topic1"], "query", rule)] == expected

    def test_none_refuses_and_names_the_limit(self, model: OnnxModel) -> None:
        with pytest.raises(RequestError, match=f"input 1 has 19 tokens .* takes {MAX_TOKENS}") as caught:
            model.reader.read(["topic1", LONG], "query", "NONE")
        assert caught.value.status == 400

    def test_end_keeps_the_beginning(self, model: OnnxModel) -> None:
        (row,) = model.reader.read([LONG], "query", "END")
        assert words(row) == ["[CLS]", "query", ":", *(f"topic{at}" for at in range(8)), "[SEP]"]
        assert len(row) == MAX_TOKENS

    def test_start_keeps_the_end_and_the_prefix(self, model: OnnxModel) -> None:
        (row,) = model.reader.read([LONG], "query", "START")
        assert words(row) == ["[CLS]", "query", ":", *(f"topic{at}" for at in range(7, 15)), "[SEP]"]
        assert len(row) == MAX_TOKENS

    @pytest.mark.parametrize("rule", ["NONE", "START", "END"])
    def test_slices_change_nothing(self, model: OnnxModel, rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        some = [f"topic{at}" for at in range(7)] + ([LONG] if rule != "NONE" else [])
        expected = model.reader.read(some, "query", rule)
        monkeypatch.setattr(texts, "MAX_TEXT_CHARACTERS", 14)
        assert model.reader.read(some, "query", rule) == expected
        with pytest.raises(RequestError, match="input 7 has"):
            model.reader.read([*some[:7], LONG], "query", "NONE")

    def test_of_a_huge_text_no_more_is_read_than_is_kept(
        self, model: OnnxModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = " ".join(f"topic{at % 20}" for at in range(700_000))  # 5 MB
        monkeypatch.setattr(tokens, "MAX_TEXT_CHARACTERS", 10_000)  # not even a longer part is tried

        assert model.reader.read([text], "query", "START") == model.reader.read([text[-200:]], "query", "START")
        assert model.reader.read([text], "query", "END") == model.reader.read([text[:200]], "query", "END")
        with pytest.raises(RequestError, match=f"more than {MAX_TOKENS} tokens") as caught:
            model.reader.read([text], "query", "NONE")
        assert caught.value.code == "context_length_exceeded"

    @pytest.mark.parametrize("filler", [" ", "topic1", "\u3042"])
    @pytest.mark.parametrize("rule", ["START", "END"])
    def test_a_long_text_of_few_tokens_is_read_to_the_end(self, model: OnnxModel, filler: str, rule: Any) -> None:
        (row,) = model.reader.read([f"topic2 {filler * 50_000} topic3"], "query", rule)
        found = words(row)
        assert (found[3], found[-2]) == ("topic2", "topic3")


class TestGraphs:
    @pytest.mark.parametrize("shape", [("batch",), (1,), (), None], ids=["a row", "one", "scalar", "none"])
    @pytest.mark.parametrize("size", [HIDDEN, 4])
    def test_every_shape_of_dimensions_gives_the_same(
        self, tmp_path: Path, model: OnnxModel, shape: tuple[Any, ...] | None, size: int
    ) -> None:
        other = OnnxModel(make_serving_folder(tmp_path / "other", dimensions_shape=shape))
        rows = model.reader.read(["topic1 topic2", "topic3"], "passage", "NONE")
        expected = model.vectors(rows, size)
        found = other.vectors(rows, size)
        assert found.shape == (2, size)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)

    def test_padding_changes_nothing(self, model: OnnxModel) -> None:
        short, long = model.reader.read(["topic1", "topic2 topic3 topic4 topic5"], "query", "NONE")
        alone = model.vectors([short], HIDDEN)
        together = model.vectors([long, short], HIDDEN)[1:]
        np.testing.assert_allclose(alone, together, atol=1e-6)

    def test_a_model_that_answers_nan_fails_its_self_test(self, tmp_path: Path) -> None:
        broken = OnnxModel(make_serving_folder(tmp_path / "broken", broken_word="ready"))
        with pytest.raises(BadInput, match="not one finite vector"):
            self_test(broken)

    def test_a_good_model_passes(self, model: OnnxModel) -> None:
        self_test(model)

    def test_a_file_that_is_no_graph(self, tmp_path: Path) -> None:
        folder = make_serving_folder(tmp_path / "bad")
        (folder / "model.onnx").write_bytes(b"not onnx")
        with pytest.raises(BadInput) as caught:
            OnnxModel(folder)
        assert caught.value.reason == "ServingModelInvalid"


def waiting(*lengths: int, dimensions: int = 8) -> Waiting:
    rows = [[1] * length for length in lengths]
    order = sorted(range(len(rows)), key=lambda at: -lengths[at])
    return Waiting(rows=rows, dimensions=dimensions, done=None, result=None, rest=deque(order))  # type: ignore[arg-type]


def lengths_of(batch: list[tuple[Waiting, int]]) -> list[int]:
    return [len(request.rows[at]) for request, at in batch]


class TestChoose:
    def test_the_longest_rows_of_a_request_go_first(self) -> None:
        queue = deque([waiting(1, 9, 5)])
        assert lengths_of(choose(queue, Limits(rows=2))) == [9, 5]
        assert lengths_of(choose(queue, Limits(rows=2))) == [1]
        assert not queue

    def test_requests_take_turns(self) -> None:
        limits = Limits(rows=4)
        long, short = waiting(*[9] * 6), waiting(2)
        queue = deque([long, short])
        assert lengths_of(choose(queue, limits)) == [9, 9, 9, 9]
        assert lengths_of(choose(queue, limits)) == [2]  # the short one did not wait for the rest of the long one
        assert lengths_of(choose(queue, limits)) == [9, 9]

    def test_rows_of_like_length_are_joined(self) -> None:
        queue = deque([waiting(8), waiting(7), waiting(9)])
        assert lengths_of(choose(queue, Limits(rows=4))) == [8, 7, 9]
        assert not queue

    def test_rows_that_cost_much_padding_are_not(self) -> None:
        queue = deque([waiting(2), waiting(100)])
        assert lengths_of(choose(queue, Limits(rows=4))) == [2]
        assert lengths_of(choose(queue, Limits(rows=4))) == [100]

    def test_sizes_are_not_mixed(self) -> None:
        queue = deque([waiting(2), waiting(2, dimensions=4), waiting(2)])
        assert len(choose(queue, Limits(rows=4))) == 2
        assert len(choose(queue, Limits(rows=4))) == 1

    @pytest.mark.parametrize(
        ("lengths", "expected"),
        [
            ([8192] * 32, [1] * 32),
            ([2048] * 32, [2] * 16),
            ([512] * 32, [32]),
            ([8192, *[16] * 31], [1, 31]),
        ],
        ids=["the longest", "long", "as long as most models take", "one long among short ones"],
    )
    def test_long_texts_do_not_share_the_memory_of_padded_scores(
        self, lengths: list[int], expected: list[int], model: OnnxModel
    ) -> None:
        queue = deque([waiting(*lengths)])
        batches = []
        while queue:
            batches.append(len(choose(queue, model.limits)))
        assert batches == expected

    def test_packs_count_tokens_and_no_padding(self) -> None:
        packs = Limits(rows=100, tokens=12, padding=float("inf"))
        queue = deque([waiting(2), waiting(9, 3), waiting(20), waiting(1)])
        assert lengths_of(choose(queue, packs)) == [2, 9, 1]
        assert lengths_of(choose(queue, packs)) == [3]
        assert lengths_of(choose(queue, packs)) == [20]  # alone, though it is more than a pack
        assert not queue


def ids_as_vectors(rows: Sequence[Sequence[int]], dimensions: int) -> np.ndarray:
    return np.array([[row[0]] * dimensions for row in rows], dtype=np.float32)


class TestBatcher:
    def test_vectors_come_back_in_the_order_of_the_rows(self) -> None:
        async def go() -> np.ndarray:
            batcher = Batcher(ids_as_vectors, Limits(), lambda rows: None)
            rows = [[at] * (1 + at * 7 % 50) for at in range(200)]
            found = await asyncio.gather(batcher.embed(rows, 2), batcher.embed(rows[::-1], 2))
            await batcher.close()
            assert found[1][:, 0].tolist() == list(range(199, -1, -1))
            return found[0]

        assert asyncio.run(go())[:, 0].tolist() == list(range(200))

    def test_as_many_batches_are_under_way_as_the_model_takes(self) -> None:
        both = threading.Barrier(2, timeout=10)  # broken unless two threads are in the model at once

        def meeting(rows: Sequence[Sequence[int]], dimensions: int) -> np.ndarray:
            both.wait()
            return ids_as_vectors(rows, dimensions)

        async def go() -> np.ndarray:
            batcher = Batcher(meeting, Limits(rows=2, under_way=2), lambda rows: None)
            found = await batcher.embed([[at] for at in range(8)], 2)
            await batcher.close()
            return found

        assert asyncio.run(go())[:, 0].tolist() == list(range(8))

    def test_a_failure_answers_its_own_requests_and_no_others(self) -> None:
        def picky(rows: Sequence[Sequence[int]], dimensions: int) -> np.ndarray:
            if rows[0][0] == 13:
                raise MemoryError("no room")
            return ids_as_vectors(rows, dimensions)

        async def go() -> list[Any]:
            batcher = Batcher(picky, Limits(), lambda rows: None)
            found = await asyncio.gather(
                batcher.embed([[13]], 2), batcher.embed([[1] * 100], 2), return_exceptions=True
            )
            await batcher.close()
            return found

        failed, fine = asyncio.run(go())
        assert isinstance(failed, MemoryError)
        assert fine.tolist() == [[1.0, 1.0]]

    def test_too_much_waiting_is_told_to_come_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batching, "MAX_WAITING_ROWS", 3)

        async def go() -> None:
            batcher = Batcher(ids_as_vectors, Limits(), lambda rows: None)
            try:
                await batcher.embed([[1]] * 4, 2)
            finally:
                await batcher.close()

        with pytest.raises(RequestError) as caught:
            asyncio.run(go())
        assert caught.value.status == 429

    def test_a_client_that_went_away_costs_nothing_more(self) -> None:
        seen: list[int] = []

        def counting(rows: Sequence[Sequence[int]], dimensions: int) -> np.ndarray:
            seen.extend(row[0] for row in rows)
            return ids_as_vectors(rows, dimensions)

        async def go() -> None:
            batcher = Batcher(counting, Limits(), lambda rows: None)
            gone = asyncio.create_task(batcher.embed([[7]], 2))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
            await batcher.embed([[1]], 2)
            await batcher.close()

        asyncio.run(go())
        assert seen.count(7) <= 1
        assert seen[-1] == 1
