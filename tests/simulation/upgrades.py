"""A later release of the operator, what an earlier one wrote, and how the tests of upgrades look at both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from simulation.scene import IMAGES, Scene, a_spec

from embedding_operator.decide.plan import Defaults
from embedding_operator.resource.folding import written_out
from embedding_stages.contract import Stage
from embedding_stages.contract import settings as table
from embedding_stages.contract.declare import setting

NEXT_IMAGES: Mapping[str, str] = {name: image.replace(":1", ":2") for name, image in IMAGES.items()}
NIM = {"image": "nim:1", "backend": {"nim": {}}}
OF_STAGE = table.OF_STAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class NextFinetune(table.Finetune):
    """One setting more, at the value by which training goes on as before, and a default that moved."""

    warmupSteps: int = setting(50, low=0, says="Moved.")
    loraRank: int = setting(0, low=0, since="0.2", says="New.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NextSdg(table.Sdg):
    """A setting whose default is another value than the one that means as before."""

    overlap: int = setting(1, before=0, low=0, since="0.2", says="New.")


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scene], Scene]:
    """Restart the operator as a later release: new images, two new settings, a moved default."""

    def upgrade(scene: Scene) -> Scene:
        monkeypatch.setattr(table, "OF_STAGE", {**OF_STAGE, Stage.FINETUNE: NextFinetune, Stage.SDG: NextSdg})
        scene.restart()
        scene.operator.reconciler.defaults = Defaults(images=NEXT_IMAGES)
        return scene

    return upgrade


def edited(shape: Mapping[str, Any], **sections: Any) -> dict[str, Any]:
    """The manifest of a shape with an edit; `stages` is merged setting by setting."""
    stages = {name: dict(body) for name, body in shape.get("stages", {}).items()}
    for name, body in sections.pop("stages", {}).items():
        stages[name] = stages.get(name, {}) | body
    return a_spec(**{**shape, **sections, "stages": stages})


def pods_of_servers(scene: Scene) -> list[Any]:
    """Images and environment of what every Deployment runs."""
    pods = [raw["spec"]["template"]["spec"] for raw in scene.cluster.find("Deployment")]
    return [[(part["image"], part.get("env")) for part in (*pod["initContainers"], *pod["containers"])] for pod in pods]


def jobs(scene: Scene, before: int) -> list[str]:
    """Stages of the Jobs that were made since."""
    return [name.split("-")[1] for name in scene.cluster.created_jobs[before:]]


def as_first_written(status: dict[str, Any]) -> dict[str, Any]:
    """A status in the form of release 0.1, which wrote everything out."""
    first = written_out(status)
    for key in ("ndcg@10", "warnings"):
        first.pop(key, None)
    return {**first, "uplift": "+20.0% [+10.0, +30.0] n=100"}
