"""Sixteen texts whose vectors tell whether a server still answers as it did. Standard library only.

Their vectors are part of what an index owner is given and are compared for as long as the model serves, so the texts
never change: another text would look like another model. Who needs other texts writes a new tuple with the next
VERSION, and vectors of different versions are never compared.

Between them they have what servers get wrong: each role, several scripts and one that runs from right to left, letters
with marks, figures, code, markup, line breaks, one text of two letters and one that is longer than some models take.
"""

from __future__ import annotations

from typing import Final, Literal

VERSION: Final = 1

_LONG: Final = " ".join(
    f"Step {number}: close valve {number}, wait until gauge {number} shows less than {number} bar, and write it down."
    for number in range(1, 41)
)

# (role, text): what is sent as input_type, or picks the prefix, and the text without a prefix.
CANARIES: Final[tuple[tuple[Literal["query", "passage"], str], ...]] = (
    ("query", "pH"),
    ("query", "How long may a pump run dry before its seal is damaged?"),
    ("query", "error E-1047 after firmware update 2.3.1"),
    ("query", "Welche Frist gilt für den Widerspruch gegen einen Gebührenbescheid?"),
    ("query", "¿Quién autoriza los gastos de viaje por encima de 1.500 €?"),
    ("query", "冬季如何防止管道结冰"),
    ("query", "ما هي شروط إلغاء العقد؟"),
    ("query", "SELECT name FROM parts WHERE stock < 5 -- why does this return nothing"),
    ("passage", "The seal is cooled by the liquid. Without it, it overheats within about thirty seconds and leaks."),
    (
        "passage",
        "<h2>Returns</h2>\n<p>Goods may be sent back within <b>14&nbsp;days</b>; <a href='#fees'>fees</a> apply.</p>",
    ),
    (
        "passage",
        "| part | torque |\n|---|---|\n| M6 bolt | 9.5 Nm |\n| M8 bolt | 23 Nm |\n\nTighten crosswise, in two rounds.",
    ),
    ("passage", "Der Widerspruch ist innerhalb eines Monats nach Bekanntgabe schriftlich einzulegen."),
    ("passage", "Les congés non pris à Noël sont reportés jusqu’au 31 mars, sauf accord écrit de l’employeur."),
    ("passage", "凍結を防ぐため、気温が氷点下になる前に配管の水を抜いてください。"),
    ("passage", "def mean(values):\n    total = sum(values)\n    return total / len(values)  # fails for none"),
    ("passage", _LONG),
)


def texts_of(role: str) -> list[str]:
    """The canaries of a role, in their order."""
    return [text for its, text in CANARIES if its == role]
