"""From the sandbox's reason and position to one sentence; nothing of the data can stand in it."""

from __future__ import annotations

import re

from integration_service.contracts.errors import IntegrationError

MAX_EXPRESSION = 10 * 1024
"""Bytes."""

_MAX_TOKEN = 40
_TOKEN = re.compile(r"(?:[$\w]+\(?|~>|:=|\.\.|[!<>]=|\S)\Z")

_SENTENCES = {
    # ours
    "TIMEOUT": "took longer than it may",
    "MEMORY": "needed more memory than it may",
    "TOO_LARGE": "gives a result larger than it may be",
    "TOO_DEEP": "gives a result that is nested too deeply or holds itself",
    "TOO_LONG": f"is longer than {MAX_EXPRESSION} bytes",
    "NOT_JSON": "takes or gives something that JSON does not have",
    "CRASHED": "ended its process",
    "REGEX": "has a regular expression that is not valid",
    "FAILED": "failed",
    # the engine's: https://docs.jsonata.org/errors
    "D1001": "has a number that is out of range",
    "D1002": "negates what is no number",
    "D1004": "has a regular expression that matches nothing",
    "D1009": "gives one key twice",
    "D1011": "nests or recurses too deeply",
    "D2014": "makes a range that is too large",
    "D3001": "makes text of a number that JSON does not have",
    "D3030": "makes a number of what is none",
    "D3060": "takes the root of a negative number",
    "D3061": "has a power that is out of range",
    "D3070": "sorts what needs a function to be compared",
    "D3110": "reads a time that is not in ISO 8601",
    "D3137": "calls $error",
    "D3141": "has an assertion that does not hold",
    "D3138": "has more than one match for $single",
    "D3139": "has no match for $single",
    "S0101": "has text without its closing quote",
    "S0102": "has a number that is out of range",
    "S0103": "has an escape sequence that does not exist",
    "S0104": "has a \\u without four hex digits",
    "S0105": "has a name without its closing backquote",
    "S0106": "has a comment without its end",
    "S0203": "ends too early",
    "S0207": "ends too early",
    "S0302": "has a regular expression without its end",
    "T0410": "calls a function with an argument that does not fit",
    "T0411": "calls a function on a context that does not fit",
    "T0412": "calls a function with an array that does not fit",
    "T1003": "has a key that is no text",
    "T1005": "calls what is no function: a $ may be missing",
    "T1006": "calls what is no function",
    "T1007": "calls what is no function: a $ may be missing",
    "T1008": "calls what is no function",
    "T2001": "calculates with what is no number, on the left",
    "T2002": "calculates with what is no number, on the right",
    "T2003": "has a range that does not begin at an integer",
    "T2004": "has a range that does not end at an integer",
    "T2006": "has no function on the right of ~>",
    "T2007": "sorts values of different types",
    "T2008": "sorts what is neither number nor text",
    "T2009": "compares values of different types",
    "T2010": "compares what is neither number nor text",
    "T2011": "updates with what is no object",
    "T2012": "deletes what is no key",
}
_KINDS = {"S": "is not valid JSONata", "T": "meets a value of the wrong type", "D": "fails on a value"}


def failure(code: str, reason: str, *, expression: str, at: str, position: int | None = None) -> IntegrationError:
    """The error that a caller sees. `position` is the offset behind the token that it is about."""
    sentence = _SENTENCES.get(reason) or _KINDS.get(reason[:1], _SENTENCES["FAILED"])
    where = ""
    if position is not None and position <= len(expression):
        where = f" at position {position}"
        token = _TOKEN.search(expression[max(0, position - _MAX_TOKEN) : position])
        if token is not None:
            where += f", at `{token.group()}`"
    details = {"reason": reason} | ({"position": position} if position is not None else {})
    return IntegrationError(code, f"the expression {sentence} ({reason}){where}", path=at, details=details)


def too_long(expression: str) -> bool:
    """Whether it is longer than an expression may be."""
    return len(expression) > MAX_EXPRESSION or len(expression.encode(errors="replace")) > MAX_EXPRESSION
