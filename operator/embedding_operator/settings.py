"""The operator's configuration: read from the environment once, at the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from embedding_operator.cluster.election import Terms
from embedding_operator.journal import FORMATS, LEVELS
from embedding_operator.resource.api import TORCH_SERVER
from embedding_operator.resource.images import FORM, is_reference
from embedding_stages.contract import Stage

# One image serves several stages: inputs needs what sdg needs, verify what eval needs.
_IMAGE_OF: Final[Mapping[str, str]] = {
    Stage.INPUTS: "IMAGE_SDG",
    Stage.SDG: "IMAGE_SDG",
    Stage.PREP: "IMAGE_PREP",
    Stage.FINETUNE: "IMAGE_FINETUNE",
    Stage.EVAL: "IMAGE_EVALUATE",
    Stage.EXPORT: "IMAGE_EXPORT",
    Stage.DEPLOY: "IMAGE_SERVE",
    TORCH_SERVER: "IMAGE_SERVE_TORCH",
    Stage.VERIFY: "IMAGE_EVALUATE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Each field's environment variable is its name in capitals; the chart sets them."""

    images: Mapping[str, str]  # by stage, and TORCH_SERVER
    watch_namespaces: tuple[str, ...]  # empty: the whole cluster
    concurrency: int  # passes at a time
    resync_s: float  # so often it is looked for what the watches missed, and less often where that takes long
    metrics_port: int
    liveness_port: int
    openshift: bool  # the platform gives pods their user and groups
    look_for_secrets: bool  # the preflight may ask whether a Secret exists
    check_images: bool = True  # a pod tries the images of later stages
    metrics_resources: int = 500  # that have metrics of their own; 0: none has
    election: Terms | None = None  # None: this process leads, whoever else runs
    lease: tuple[str, str] = ("", "embedding-operator")  # namespace and name, of the election's Lease
    pod_name: str = ""  # empty: the machine's name
    log_level: str = "info"  # one of journal.LEVELS
    log_format: str = "json"  # one of journal.FORMATS

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Raises ValueError that names the variable."""
        missing = sorted({name for name in _IMAGE_OF.values() if not env.get(name)})
        if missing:
            raise ValueError(f"set {', '.join(missing)}: the default images of the stages")
        for name in sorted(set(_IMAGE_OF.values())):
            if not is_reference(env[name]):
                raise ValueError(f"{name}={env[name]!r} must be {FORM}")
        return cls(
            images={name: env[variable] for name, variable in _IMAGE_OF.items()},
            watch_namespaces=tuple(part for part in env.get("WATCH_NAMESPACES", "").split(",") if part),
            concurrency=_number(env, "CONCURRENCY", 8, 1, 64),
            resync_s=_number(env, "RESYNC_S", 300, 5, 86400),
            metrics_port=_number(env, "METRICS_PORT", 9090, 0, 65535),
            liveness_port=_number(env, "LIVENESS_PORT", 8080, 0, 65535),
            metrics_resources=_number(env, "METRICS_RESOURCES", 500, 0, 100_000),
            log_level=_choice(env, "LOG_LEVEL", "info", LEVELS),
            log_format=_choice(env, "LOG_FORMAT", "json", FORMATS),
            openshift=_switch(env, "OPENSHIFT"),
            look_for_secrets=_switch(env, "LOOK_FOR_SECRETS"),
            check_images=_switch(env, "CHECK_IMAGES", "true"),
            election=_election(env),
            lease=(env.get("POD_NAMESPACE", ""), env.get("LEASE_NAME") or "embedding-operator"),
            pod_name=env.get("POD_NAME", ""),
        )


def _election(env: Mapping[str, str]) -> Terms | None:
    if not _switch(env, "LEADER_ELECTION"):
        return None
    if not env.get("POD_NAMESPACE"):
        raise ValueError("LEADER_ELECTION=true: set POD_NAMESPACE, the namespace of the Lease")
    terms = Terms(
        lease_s=_number(env, "LEASE_DURATION_S", 15, 3, 3600),
        renew_s=_number(env, "RENEW_DEADLINE_S", 10, 2, 3600),
        retry_s=_number(env, "RETRY_PERIOD_S", 2, 1, 3600),
    )
    if not terms.lease_s > terms.renew_s >= 2 * terms.retry_s:
        raise ValueError(
            f"LEASE_DURATION_S={terms.lease_s:g} must be greater than RENEW_DEADLINE_S={terms.renew_s:g}, and that at "
            f"least twice RETRY_PERIOD_S={terms.retry_s:g}"
        )
    return terms


def _switch(env: Mapping[str, str], name: str, default: str = "false") -> bool:
    text = env.get(name, default)
    if text not in ("true", "false"):
        raise ValueError(f"{name}={text!r} must be true or false")
    return text == "true"


def _number(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name, str(default))
    if not text.isdigit() or not low <= int(text) <= high:
        raise ValueError(f"{name}={text!r} must be a whole number from {low} to {high}")
    return int(text)


def _choice(env: Mapping[str, str], name: str, default: str, allowed: tuple[str, ...]) -> str:
    text = env.get(name) or default
    if text not in allowed:
        raise ValueError(f"{name}={text!r} must be one of {', '.join(allowed)}")
    return text
