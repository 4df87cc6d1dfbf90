"""Where there is no GPU the kernels run in Triton's interpreter: the same programs, step by step on the CPU.

A CPU that multiplies bfloat16 fast would train in it; the tests' limits are those of float32, so no CPU is said to.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from unit.stages.authority import make_authority
from unit.stages.interpreted import patch_the_language_once
from unit.stages.llm_endpoint import Endpoint, serving
from unit.stages.only_here import sitecustomize

from embedding_stages.encoder import hardware

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels' modules are imported
    patch_the_language_once()
ROOT = Path(__file__).parents[3]
hardware._CPU_INFO = Path("/dev/null")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Endpoint]]:
    with serving(monkeypatch) as found:
        yield found


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `make_authority` makes."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("authority")
    make_authority(folder)
    return folder


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints on this machine are asked directly."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="session")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the modules that are here and not in the image."""
    names = sitecustomize.modules_not_in(ROOT / "stage_images/sdg/requirements.lock")
    assert {"torch", "scipy", "PIL"} <= set(names)
    path = tmp_path_factory.mktemp("image") / "lacking"
    path.write_text("\n".join(names))
    return path


@pytest.fixture
def nothing_but_this_machine(tmp_path: Path, lacking: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A name that is looked up, or an address elsewhere, is a call that must not be: in this process and in those that
    it starts, whose notes are in the file, and which have no package that the image lacks.
    """
    asked: list[str] = []
    notes = tmp_path / "elsewhere"
    monkeypatch.setenv("ONLY_HERE", str(notes))
    monkeypatch.setenv("LACKING", str(lacking))
    monkeypatch.setenv("PYTHONPATH", str(Path(sitecustomize.__file__).parent))
    undo = sitecustomize.refuse_others(asked.append)
    yield notes
    undo()
    said = notes.read_text().splitlines() if notes.exists() else []
    assert asked + [one for one in said if one != sitecustomize.STARTED] == []
