"""What English sentences look like that answer a question: the patterns of `rules`. Pure."""

from __future__ import annotations

import re

LEAD = re.compile(
    r"^(?:[-*+•·]|\(?\d{1,3}[.)])\s+|^(?:Note|NOTE|Warning|WARNING|Tip|Caution|Important|Deprecated|Example)\s*[:!]\s*"
    r"(?:that\s+)?|^(?:However|Therefore|Thus|Also|Additionally|Finally|Then|Otherwise|Currently|Generally|Usually|Typically"
    r"|Normally|Optionally|Note that|In addition|By default|In general|In particular|For example|Similarly),?\s+"
)
PARENTHESES = re.compile(r"\s*[(\[][^()\[\]]*[)\]]")
CUT = re.compile(
    r"\s*(?:[;:]|\s--?\s|\s[–—]\s|,\s+(?:and|but|which|who|where|so|or|e\.g|i\.e|as|such|if|unless|when|because|using|with"
    r"|then|that|returning|raising|for example)\b"
    r"|\s(?:which|so that|such that|because|e\.g\.|i\.e\.|unless|whereas)\s).*$"
)
TRUTH = re.compile(
    r"^(?:returns?\s+)?(?:true|1|nonzero)\s+(?:if|when|iff|for)\s+(.+?)(?:,?\s+(?:and\s+|or\s+|else|otherwise)?(?:false|0)\b.*)?$",
    re.IGNORECASE,
)
WHETHER = re.compile(
    r"^(?:returns?|tests?|checks?|determines?|indicates?|tells?|verif(?:y|ies))\s+(?:if|whether(?:\s+or\s+not)?)\s+(.+)$",
    re.IGNORECASE,
)
CONDITION = re.compile(r"^(If|When|Once|While)\s+(.{8,120}?)(?:,|\s+then)\s+(.{8,})$")
DETERMINED = re.compile(
    r"^(?:an?|the|all|any|each|every|one|this|that|if|whether|and|or|for|to|its|your|new)\s", re.IGNORECASE
)
FINITE = re.compile(r"^[^,]{0,60}?\s(?:is|are|was|were|has|have|had|can|cannot|will|would|may|must|should|does|do)\s")
RAISES = re.compile(
    r"\b(?:[Rr]aises?|[Tt]hrows?)\s+(?:an?\s+|the\s+)?`{0,2}([A-Z]\w+)`{0,2}(?:\s+exception)?,?\s+(?:if|when|whenever)\s+(.{6,})$"
)
PURPOSE = re.compile(
    r"^(?:Use|Call|Pass|Set|Specify|Run)\s+.{2,60}?\s+(?:to|in order to)\s+(.+)$"
    r"|^(?:In order to|To)\s+(.{6,80}?),\s+.+$"
)
ABILITY = re.compile(
    r"^(?:You|Users?|Clients?|Callers?|One)\s+(?:can|may|could)\s+(?:also\s+|then\s+)?(.+?)(?:\s+by\s+.+)?$"
)
ENABLES = re.compile(
    r"\b(?:can|may|should|could)\s+be\s+used\s+(?:to|for)\s+(.+)$"
    r"|\b(?:allows?|lets?|enables?)\s+(?:you|one|users?|callers?|clients?|the user)\s+(?:to\s+)?(.+)$"
    r"|\b(?:is|are)\s+(?:typically\s+|usually\s+|often\s+)?(?:used|useful|intended|meant)\s+(?:to|for)\s+(.+)$"
)
DEFINITION = re.compile(
    r"^((?:The |An? )?[\w`'\".-]+(?:\s[\w`'\".-]+){0,3}?)\s+(is|are)\s+((?:an?|the|any|one of)\s.+)$"
)
OFFERS = re.compile(
    r"^(?:This|The)\s+(?:\w+\s+)?(module|class|package|function|method|command|tool|library|option|stage|service)\s+(\w+s)\s+(.+)$"
)
TERM = re.compile(
    r"^`{0,2}([\w.*-]+(?:\(\))?)`{0,2}\s+(?:-{1,2}|–|—)\s+(.{8,})$|^`{0,2}([A-Za-z_][\w.-]*(?:\(\))?)`{0,2}:\s+(.{8,})$"
)
NOUN_PHRASE = re.compile(r"^(?:An?|The)\s+.{0,60}?\b(?:that|which|who)\s+([a-z]+)\s+(.+)$")
PARAMETER = re.compile(
    r"^(?:The\s+|If\s+)?(?:optional\s+|second\s+|first\s+|third\s+|keyword\s+)*[`'\"*]{0,2}([a-z_]\w*)[`'\"*]{0,2}"
    r"(?:\s+(?:argument|parameter|keyword|attribute|option|flag|arg)s?)?,?\s+(?:is|specifies|controls|determines|gives|defines|indicates"
    r"|can|may|should|must|defaults|sets|describes|allows)\b"
)
