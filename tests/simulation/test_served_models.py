"""A server that does not take the model is refused in Validated once inputs has looked, before anything is trained."""

from __future__ import annotations

from simulation.scene import a_scene, a_spec, is_ready

NEMOTRON = {"image": "nvcr.io/nim/nvidia/nemotron-3-embed-1b:2.2.2", "backend": {"nim": {}}}


def test_an_image_that_does_not_take_the_model_is_refused_before_anything_is_trained() -> None:
    scene = a_scene(stages={"deploy": NEMOTRON}).run(lambda scene: scene.status.phase == "Blocked")
    scene.settle(10)
    assert scene.condition("Validated") == "False InvalidSpec"
    said = scene.status.condition("Validated")
    assert said is not None
    assert said.message.startswith("spec.stages.deploy.image: ")
    assert "take another image, another baseModel, or backend torch" in said.message
    assert {raw["metadata"]["labels"]["embedding-operator.dev/stage"] for raw in scene.cluster.find("Job")} == {
        "inputs"
    }

    scene.edit(a_spec(stages={"deploy": {"backend": {"torch": {}}}}))
    scene.run(is_ready)
    assert scene.condition("Validated").startswith("True")


def test_what_serves_goes_on_while_another_image_is_refused() -> None:
    scene = a_scene().run(is_ready)
    url = scene.resource["status"]["served"]["url"]
    scene.edit(a_spec(stages={"deploy": NEMOTRON}))
    scene.settle(20)
    assert scene.condition("Validated") == "False InvalidSpec"
    assert scene.resource["status"]["served"]["url"] == url
    assert len(scene.cluster.find("Deployment")) == 1
    scene.edit(a_spec())
    scene.run(is_ready)
