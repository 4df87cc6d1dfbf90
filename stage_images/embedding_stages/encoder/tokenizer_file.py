"""tokenizer.json by the library that all stages and servers use; no torch."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from embedding_stages.encoder.configuration import FIELD
from embedding_stages.encoder.vocabulary import TOKENIZER_FILE
from embedding_stages.errors import BadInput


def read_tokenizer(folder: Path) -> Tokenizer:
    """Raises BadInput `ModelDamaged`, and OSError where it is the volume that does not give the file."""
    try:
        content = (folder / TOKENIZER_FILE).read_bytes()  # here: the library's errors have no number
        return Tokenizer.from_buffer(content)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            raise
        raise _damaged(error) from error
    except Exception as error:  # the library raises bare Exception for every fault of the file
        raise _damaged(error) from error


def _damaged(error: Exception) -> BadInput:
    return BadInput("ModelDamaged", f"{TOKENIZER_FILE} cannot be read: {error}", field=FIELD)
