"""Lets a server start only on the artefact that was evaluated. Standard library only; runs as init container.

python3 -m embedding_stages.serve.check FOLDER sha256:DIGEST
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from embedding_stages import contract
from embedding_stages.artefacts import digest_of_folder
from embedding_stages.contract import ExitCode
from embedding_stages.errors import BadInput, StageError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def check_folder(folder: Path, expected: str) -> None:
    """Raises BadInput `ArtefactMissing` or `ArtefactMismatch`, StageError `ArtefactUnsafe` for links."""
    if not folder.is_dir():
        raise BadInput("ArtefactMissing", f"there is no artefact at {folder}")
    actual = digest_of_folder(folder)
    if actual != expected:
        raise BadInput(
            "ArtefactMismatch",
            f"{folder} has digest {actual}, this revision was evaluated with {expected}: "
            "something changed the volume; the server does not start",
        )


def main(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """0 when the folder is the artefact; else the reason as JSON in the log and the termination message."""
    if len(arguments) != 2 or not _DIGEST.fullmatch(arguments[1]):
        print("usage: python3 -m embedding_stages.serve.check FOLDER sha256:DIGEST", file=sys.stderr)
        return 2
    try:
        check_folder(Path(arguments[0]), arguments[1])
    except (StageError, OSError) as error:
        reason = error.reason if isinstance(error, StageError) else "ArtefactUnreadable"
        text = contract.canonical_json({"reason": reason, "message": str(error)})
        print(text, flush=True)
        Path(env.get(contract.ENV_TERMINATION_LOG, contract.TERMINATION_LOG_PATH)).write_text(text)
        return ExitCode.BAD_INPUT
    print(contract.canonical_json({"reason": "ArtefactIntact", "message": f"{arguments[0]} is {arguments[1]}"}))
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
