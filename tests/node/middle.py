"""A resource that serves, whose next revision is held in the middle of `sdg` for as long as a test wants.

Its language model runs on this machine, beside the cluster: it answers some questions, then none until it may. Who asks
a question again that was answered has lost work, and the model counts that.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from e2e.kube import NAMESPACE, Kube
from e2e.manifests import fine_tune
from node.record import Ran, Record
from scripted_llm import Script, Server
from settings import NODE_ADDRESS

NAME = "middle"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_SOME = 4  # answers of the twenty or so


@dataclass
class Middle:
    kube: Kube
    record: Record
    model: Server
    image: str
    pairs: int = 3  # a document, one more with each revision, so that none finds the work of another
    mark: int = 0  # in the record, where the present revision began
    _held_at: int = 0  # how often the model had been asked when it began to hold back
    _url: str = ""

    def serve(self) -> None:
        """The first revision, to Ready."""
        manifest = fine_tune(NAME, self.image)
        port = self.model.server_address[1]
        provider = {"baseURL": f"http://{NODE_ADDRESS}:{port}/v1", "model": "writer"}
        manifest["spec"]["stages"]["sdg"] = {
            "provider": {"openAI": provider},
            "concurrency": 2,
            "pairsPerDocument": self.pairs,
        }
        self.kube.apply(manifest)
        self.kube.until_ready(NAME, generation=1, timeout_s=600)
        service = self.kube.get("service", NAME)
        assert service is not None
        self._url = f"http://{service['spec']['clusterIP']}:8000/v1/embeddings"

    def begin(self, **sdg: Any) -> str:
        """A new revision; the name of the pod that is in the middle of its sdg."""
        self.pairs += 1
        self.mark = self.record.mark(NAME)
        before = self.answered
        self.model.state.may_answer.set()
        self.kube.patch(NAME, {"stages": {"sdg": {"pairsPerDocument": self.pairs, "tolerations": None, **sdg}}})
        self.kube.until("some questions are answered", lambda: self.answered >= before + _SOME, 180, every_s=0.05)
        self.model.state.may_answer.clear()
        self.kube.until("sdg is told to run", lambda: self.stage()["state"] == "Running" and self.pods(), 60)
        self._held_at = self._settled()
        return self.pods()[-1].name

    def _settled(self) -> int:
        """How often was asked, once all places wait for an answer."""
        asked = -1
        while asked != self.asked:
            asked = self.asked
            time.sleep(2)
        return asked

    def go_on(self) -> None:
        self.model.state.may_answer.set()

    @property
    def answered(self) -> int:
        return sum(self.model.state.answered.values())

    @property
    def asked(self) -> int:
        return len(self.model.state.let_through)

    def stage(self, stage: str = "sdg") -> dict[str, Any]:
        return self.kube.stage(NAME, stage)

    def pods(self) -> list[Ran]:
        """Of this revision's sdg, in the order in which they came."""
        return self.record.pods_of(NAME, "sdg", self.stage()["fingerprint"])

    def until_asked_by_another_pod(self, first: str, timeout_s: float = 240) -> None:
        self.kube.until(
            f"another pod than {first} asks on; sdg says {self.stage()}",
            lambda: self.asked > self._held_at and self.pods()[-1].name != first,
            timeout_s,
        )

    def until_ready(self) -> dict[str, Any]:
        """Of the present revision, with what every fault has to leave as it is."""
        self.go_on()
        status = self.kube.until_ready(NAME, generation=self.kube.generation(NAME), timeout_s=600)
        print(self.record.table(NAME, self.mark, "sdg", "deploy", "Ready"))
        for pod in self.pods():
            print(f"pod {pod.name}: {pod.end} {pod.disruption}")
        assert self.record.done_twice(NAME) == []
        assert self.model.state.stats()["answeredTwice"] == 0, "what was answered was not asked again"
        sdg = self.stage()
        assert sdg["attempt"] == 1, "the fault cost no attempt"
        assert len({pod.job for pod in self.pods()}) == 1
        return status

    def reasons(self, about: str = "sdg") -> list[str]:
        return self.record.reasons(NAME, self.mark, about)

    @contextmanager
    def asked_all_the_time(self) -> Iterator[Client]:
        """A client of the endpoint."""
        client = Client(self._url)
        thread = threading.Thread(target=client.ask)
        thread.start()
        try:
            yield client
        finally:
            client.over.set()
            thread.join()
            print(f"the client got {client.answers} answers and {len(client.failures)} failures {client.failures[:2]}")


@dataclass
class Client:
    """Asks what serves twice a second."""

    url: str
    answers: int = 0
    failures: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        body = json.dumps({"model": MODEL, "input_type": "query", "input": ["still there?"]}).encode()
        while not self.over.wait(0.5):
            request = urllib.request.Request(self.url, data=body, headers={"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    answer.read()
            except OSError as error:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {error}")
            else:
                self.answers += 1


def model() -> Server:
    return Server(Script(latency=(0.8, 1.2)), NODE_ADDRESS)


def deleted(kube: Kube) -> None:
    kube.run("delete", "eft", NAME, "-n", NAMESPACE, "--ignore-not-found", "--wait", timeout_s=300)
