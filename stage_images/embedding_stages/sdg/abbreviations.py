"""Words before a full stop that does not end a sentence, of the languages with capitals. Pure.

Where the next word begins with a small letter no sentence ends anyway, so only what stands before names, numbers and
(in German) nouns is listed. Words that are also whole words of another listed language are left out: a sentence that is
not split costs less than one that is cut in two, but each missing end joins two sentences.
"""

from __future__ import annotations

import re
from typing import Final


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Before names. With a capital, where the same letters in small are a word.
_TITLES: Final = _listed(
    """
    Dr Mr Mrs Ms Prof St Mt Sr Jr Rev Gen Col Capt Lt Sgt Hon Gov Sen Rep Pres Inc Ltd Co Corp Bros Messrs
    Hr Fr Frl Dipl Ing Mag Hl Mme Mmes Mlle Mgr Arch Avv Ud Uds Lic Arq Drs Ir Bc Ks Bp Abp Sz Ifj Özv Av Doç Yrd
    TS ThS GS PGS BS Tp Bpk Ibu Sdr Yth Акад Инж Тов Св Гр
    """
)
# In any writing: before a name, an example or a remark.
_ANY: Final = _listed(
    """
    dr prof cf vs resp approx eds al ca viz
    bzw vgl sog evtl ggf inkl exkl zzgl bspw geb gest
    sig sigg sig.ra dott dott.ssa avv geom rag
    sra srta sres ud uds aprox ej p.ej dña exmo exma v.gr
    dhr mevr mw bijv blz incl
    np tzn tzw tj św ul godz płk inż mgr hab
    např tzv příp nám judr mudr phdr
    t.ex bl.a f.eks evt
    esim ym pl ill stb vö özv ifj örn bkz vb
    напр см ср им ул пл просп проф доц г-н г-жа т.наз див вул
    π.χ δηλ βλ δρ καθ
    tbk dll dsb sdr bpk yth
    """
)
# Before a number alone.
_BEFORE_NUMBERS: Final = _listed(
    """
    no nos fig figs eq eqs sec secs ch chap vol vols p pp ed art nr nrn abs abb tab kap bd s z num núm pág págs
    jan feb mar apr jun jul aug sep sept oct nov dec
    cap sez tav rys poz ust obr čl odst kl tel č рис стр табл гл ст п пп с ч разд мал кімн буд
    εικ σελ κεφ άρθρ m hal bab ps par hfst
    """
)
# A number with a stop before one of these is an ordinal, or part of a date.
_AFTER_ORDINALS: Final = _listed(
    """
    Januar Jänner Februar März April Mai Juni Juli August September Oktober November Dezember Jahrhundert Jahrhunderts
    Jahrhunderte Jahrtausend Auflage Ausgabe Band Kapitel Klasse Stock Stockwerk Etage Obergeschoss Platz Rang Tag
    Woche Monat Jahr Geburtstag Mal Teil Abschnitt Absatz Semester Quartal Weltkrieg Kongress Sitzung
    """
)
# Words that begin a sentence and no name: dotted letters and an initial before one of these end theirs.
_BEGINNINGS: Final = _listed(
    "The It He She We They This That These Those There In On At But And If You When Then Der Die Das Es Er Sie"
)

_DATE: Final = re.compile(r"\d{1,2}\.|\d{4}\b")  # what follows a day, or a month
_DOTTED: Final = re.compile(r"[^\W\d_](?:\.[^\W\d_])+")
_WORDS: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]")  # one character may be a whole word
_LONGEST: Final = 24  # characters before a stop that are looked at
_OPENERS: Final = "\"'“‘„‚«‹([{*_`¿¡"


def stop_ends_nothing(text: str, start: int, stop: int, after: int) -> bool:
    """Whether the full stop at `stop` belongs to the word before it: an abbreviation, an initial, an ordinal.

    The sentence began at `start`; `after` is where the next one would. Looks at a bounded part of the text.
    """
    word = text[max(start, stop - _LONGEST) : stop].rsplit(" ", 1)[-1].lstrip(_OPENERS)
    following = text[after : after + _LONGEST].lstrip(_OPENERS)
    if word.isdecimal():
        # At the beginning it numbers the sentence; "3. 10. 2026" is a date.
        begins = stop - len(word) <= start
        return len(word) <= 3 and bool(begins or _DATE.match(following) or _word(following) in _AFTER_ORDINALS)
    small = word.lower()
    if len(word) == 1 and small == word and text[stop - 3 : stop - 2].isdecimal():  # a unit: "12 m."
        return False
    if len(word) == 1 or _DOTTED.fullmatch(word):
        return word[0].isalpha() and not _WORDS.match(word) and _word(following) not in _BEGINNINGS
    if word in _TITLES or small in _ANY:
        return True
    return small in _BEFORE_NUMBERS and following[:1].isdecimal()


def _word(text: str) -> str:
    found = re.match(r"\w+", text)
    return found[0] if found else ""
