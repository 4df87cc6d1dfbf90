"""Clients of the endpoints that the manifest names: who writes, who judges, and who compares questions."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from embedding_stages import contract
from embedding_stages.contract import canonical_json
from embedding_stages.contract.settings import Sdg
from embedding_stages.errors import settings_of
from embedding_stages.runner import StageContext
from embedding_stages.sdg import bill
from embedding_stages.sdg.bill import is_kept
from embedding_stages.sdg.dialect import Changes, Dialect
from embedding_stages.sdg.ledger import EMBEDDER, FILE, JUDGE, WRITER, Ledger
from embedding_stages.sdg.losses import Losses
from embedding_stages.sdg.openai_client import ChatClient
from embedding_stages.sdg.provider import Outcome
from embedding_stages.sdg.written import write_json

_MOST_TOLD: Final = 1000  # bytes of JSON
# Python's threads take turns. One that has read an answer writes it down when its turn comes, and a kill before that
# makes the answer paid for twice: others, which work on theirs, would keep it waiting for five milliseconds each.
_TURN_S: Final = 1e-4
_LEARNED: Final = {
    WRITER: "parameters",
    JUDGE: "parameters-judge",
    EMBEDDER: "parameters-embedding",
}  # files of what the endpoints take


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """`judge` is `writer` where the manifest names no other."""

    writer: ChatClient
    judge: ChatClient
    ledger: Ledger
    embedder: ChatClient | None = None
    losses: Losses = field(default_factory=Losses)

    @property
    def is_shared(self) -> bool:
        return self.judge is self.writer

    @property
    def at_once(self) -> int:
        """Requests that keep both busy."""
        return self.writer.most_at_once + (0 if self.is_shared else self.judge.most_at_once)

    def of_role(self) -> dict[str, ChatClient]:
        judge = {} if self.is_shared else {JUDGE: self.judge}
        return {WRITER: self.writer, **judge, **({EMBEDDER: self.embedder} if self.embedder else {})}

    def check_they_chat(self) -> None:
        """Raises BadInput `LLMEndpointInvalid`."""
        for client in self.of_role().values():
            client.check_it_chats()

    def told(self) -> dict[str, Any]:
        """What the endpoints do not take, for the details of the stage's result."""
        names = {WRITER: "llmParameters", JUDGE: "judgeParameters", EMBEDDER: "embeddingParameters"}
        learned = {names[role]: client.dialect.known().to_json() for role, client in self.of_role().items()}
        return {name: _told(changes) for name, changes in learned.items() if changes}


@contextmanager
def opened(context: StageContext, scratch: Path, endpoint: Mapping[str, Any], at: str) -> Iterator[Clients]:
    """`endpoint` is the provider's section, which stands at `at` in the manifest.

    Whatever is under way ends its waits when this ends. Raises BadInput `SecretInvalid` and what a ChatClient raises.
    """
    asked, stopping = settings_of(Sdg, context.settings), threading.Event()
    sys.setswitchinterval(_TURN_S)
    ledger = Ledger(scratch / FILE, asked.maxTokensTotal)
    context.llm_tokens = ledger.paid

    def client(role: str, section: Mapping[str, Any], at: str, key_of: str, key_at: str, most: int) -> ChatClient:
        return ChatClient(
            base_url=str(section["baseURL"]),
            model=str(section["model"]),
            key=context.secret(key_of, field=f"{key_at}.apiKeySecretRef"),
            ledger=ledger,
            at=at,
            role=role,
            most_at_once=most,
            parameters={key: value for key, value in (section.get("parameters") or {}).items() if value is not None},
            omitted=omitted_parameters(section),
            authorities=context.authorities(key_of),
            dialect=Dialect(_learned(scratch / _LEARNED[role])),
            stopping=stopping,
        )

    try:
        writer = client(WRITER, endpoint, at, contract.SECRET_OPENAI, at, asked.concurrency)

        def beside(role: str, name: str, purpose: str, most: int) -> ChatClient | None:
            section = endpoint.get(name)
            if not section:
                return None
            # A key goes to the host that it belongs to, and to no other.
            own = bool(section.get("baseURL"))
            key_of, key_at = (purpose, f"{at}.{name}") if own else (contract.SECRET_OPENAI, at)
            return client(role, {"baseURL": endpoint["baseURL"], **section}, f"{at}.{name}", key_of, key_at, most)

        judge = beside(JUDGE, "judge", contract.SECRET_JUDGE, asked.judgeConcurrency or asked.concurrency)
        embedder = beside(EMBEDDER, "embedding", contract.SECRET_EMBEDDING, asked.concurrency)
        clients = Clients(writer=writer, judge=judge or writer, ledger=ledger, embedder=embedder)
        try:
            yield clients
        finally:
            for role, one in clients.of_role().items():
                if learned := one.dialect.known().to_json():
                    write_json(scratch / _LEARNED[role], learned)
    finally:
        stopping.set()
        ledger.close()


def counted(outcome: Outcome, asked: Sdg) -> dict[str, int]:
    """The counts of the stage's result."""
    kept = sum(is_kept(pair, asked.qualityThreshold) for pair in outcome.pairs)
    return outcome.counts | ({} if asked.qualityThreshold is None else {"keptPairs": kept})


def details_of(clients: Clients, outcome: Outcome, asked: Sdg) -> dict[str, Any]:
    """The details of the stage's result: what was used, what it costs, what the endpoints do not take."""
    ledger = clients.ledger
    kept = sum(is_kept(pair, asked.qualityThreshold) for pair in outcome.pairs)
    apart = {"judgeTokens": ledger.spent(JUDGE), "embeddingTokens": ledger.spent(EMBEDDER)}
    return {
        **outcome.details,
        "llmTokens": ledger.spent().to_json(),
        **{name: usage.to_json() for name, usage in apart.items() if usage.calls},
        "llmCost": bill.told(asked.prices, ledger.spent(WRITER), ledger.spent(JUDGE), kept),
        **clients.told(),
    }


def omitted_parameters(endpoint: Mapping[str, Any]) -> frozenset[str]:
    """Those that the manifest lists, and those that it sets to null."""
    unset = {key for key, value in (endpoint.get("parameters") or {}).items() if value is None}
    return frozenset({*unset, *(endpoint.get("omitParameters") or ())})


def _told(learned: Mapping[str, Any]) -> dict[str, Any]:
    """As much of it as a result has room for: the manifest may name hundreds of parameters, of any length."""
    told = dict(learned)
    names: Sequence[str] = told.get("leftOut", ())
    while names and len(canonical_json(told).encode()) > _MOST_TOLD:
        names = names[: len(names) // 2]
        told["leftOut"] = [*names, f"and {len(learned['leftOut']) - len(names)} more"]
    return told


def _learned(path: Path) -> Changes | None:
    """What an earlier attempt found out about the endpoint: a resumed one does not ask in vain again."""
    try:
        return Changes.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, AttributeError):
        return None
