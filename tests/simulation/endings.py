"""How a stage's pod may end in the simulation."""

from __future__ import annotations

from dataclasses import dataclass

from embedding_stages.contract import ExitCode


@dataclass(frozen=True, slots=True)
class Ending:
    """`how` is one of the words below; the rest says what the container leaves behind."""

    how: str  # done | exit | drained | lost | deadline | hang | pending
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    field: str = ""
    container: str = "stage"


DONE = Ending("done")
DRAINED = Ending("drained")  # the node went away: DisruptionTarget, and the Job makes another pod
LOST = Ending("lost")  # the pod is gone without a trace, and its Job failed
DEADLINE = Ending("deadline")  # activeDeadlineSeconds
HANG = Ending("hang")  # runs until something else happens
PENDING = Ending("pending")  # no node has room
SILENT = Ending("exit", exit_code=0)  # exit 0 and not a word
FOREIGN = Ending("exit", exit_code=0, reason="Foreign")  # exit 0 with the result of another fingerprint
OOM_KILLED = Ending("exit", exit_code=137, reason="OOMKilled")


def failed(exit_code: int, reason: str, message: str = "it did not work", field: str = "") -> Ending:
    """A stage that says why."""
    return Ending("exit", exit_code=exit_code, reason=reason, message=message, field=field)


BAD_INPUT = failed(ExitCode.BAD_INPUT, "CorpusEmpty", "there is no document", "spec.corpus.source.configMap")
TRANSIENT = failed(ExitCode.TRANSIENT, "EndpointUnavailable", "the LLM does not answer")
PEER_LOST = failed(ExitCode.TRANSIENT, "PeerLost", "another pod of this Job is gone")
OUT_OF_MEMORY = failed(ExitCode.OUT_OF_MEMORY, "OutOfMemory", "CUDA out of memory")
INTERRUPTED = failed(ExitCode.TRANSIENT, "Interrupted", "the pod was asked to stop")  # such as by `kubectl delete pod`
STOPPED = failed(ExitCode.STOPPED, "TokenBudgetSpent", "the budget is spent")
BUG = failed(1, "StageCrashed", "ZeroDivisionError: division by zero")
COPY_FAILED = Ending("exit", exit_code=1, message="cp: can't stat '/docs'", container="copy-corpus")
