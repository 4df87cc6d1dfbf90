"""Spares Triton's interpreter what it does again and again; the results are the same."""

from __future__ import annotations

from typing import Any


def patch_the_language_once() -> None:
    """Once a launch, for each module that its functions use.

    The interpreter walks over all members of the language at every call of a function by a program: of `tl.sum`, of
    each of ours. It finds what it has put there at the first call.
    """
    import triton.language as tl  # which reads what TRITON_INTERPRET says
    from triton.runtime import interpreter

    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    patched: set[int] = set()

    def patch_once(function: Any) -> Any:
        used = {id(value) for value in function.__globals__.values() if value is tl or value is tl.core}
        if used and used <= patched:
            return interpreter._LangPatchScope()
        patched.update(used)
        return patch(function)

    def launch_anew(self: Any, *arguments: Any, **named: Any) -> Any:
        patched.clear()
        try:
            return launch(self, *arguments, **named)
        finally:
            patched.clear()

    interpreter._patch_lang = patch_once
    interpreter.GridExecutor.__call__ = launch_anew
