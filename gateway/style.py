"""How every page of the gateway looks, and the headers that all of them carry."""

from __future__ import annotations

import base64
import hashlib
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --line: #8c959f; --ground: #f3f5f8;
  --rule: #d8dee4;
  --card: #fff; --accent: #0b57d0; --on-accent: #fff; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #a3adb8; --line: #6e7681; --ground: #0d1117; --rule: #30363d; --card: #161b22;
    --accent: #8ab4f8; --on-accent: #0d1117; --bad: #ff8a80; }
}
* { box-sizing: border-box; }
body { margin: 0; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); }
main { max-width: 36rem; margin: clamp(0rem, 6vh, 4rem) auto; padding: 2rem; background: var(--card);
  border-radius: .75rem; border: 1px solid var(--rule); border-top: 4px solid var(--accent); }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .75rem; }
h2 { font-size: 1.1rem; margin: 0 0 .25rem; }
code { overflow-wrap: anywhere; }
a { color: var(--accent); }
fieldset { border: 0; margin: 1.75rem 0 0; padding: 0; min-width: 0; }
legend { font-weight: 600; font-size: 1.1rem; width: 100%; padding: 0 0 .35rem;
  border-bottom: 1px solid var(--rule); }
.field { margin-top: 1.1rem; }
label { display: block; font-weight: 600; }
.check label { display: inline; }
.hint { color: var(--soft); margin: 0; font-size: .925rem; }
.field .hint { margin-bottom: .15rem; }
.wrong { color: var(--bad); margin: .15rem 0 0; font-weight: 600; }
input, select, textarea { width: 100%; margin-top: .25rem; padding: .55rem .7rem; font: inherit; color: inherit;
  background: var(--card); border: 1px solid var(--line); border-radius: .4rem; }
input[type=checkbox] { width: 1.15rem; height: 1.15rem; margin: 0 .5rem 0 0; vertical-align: -.2rem; }
textarea { min-height: 7rem; font-family: ui-monospace, monospace; }
[aria-invalid=true] { border: 2px solid var(--bad); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.summary { border: 2px solid var(--bad); border-radius: .4rem; padding: .9rem 1.1rem; margin: 1.25rem 0; }
.summary ul { margin: 0; padding-left: 1.2rem; }
.summary a { color: var(--bad); }
button, .button { display: inline-block; margin-top: 1.75rem; padding: .65rem 1.5rem; font: inherit; font-weight: 600;
  color: var(--on-accent); background: var(--accent); border: 0; border-radius: .4rem; text-decoration: none;
  cursor: pointer; }
.code { font: 700 2rem/1.2 ui-monospace, monospace; letter-spacing: .12em; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; }
nav { margin-top: 1.75rem; }
nav ul { margin: .25rem 0 0; padding-left: 1.25rem; }
th, td { text-align: left; border-bottom: 1px solid var(--rule); padding: .5rem .75rem .4rem 0; vertical-align: top; }
@media (max-width: 40rem) { main { margin: 0; min-height: 100vh; border-radius: 0; padding: 1.5rem; } }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

# An address may hold a code, a state or a ticket: no referrer, no cache.
SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def page_headers(form_action: str = "'none'") -> dict[str, str]:
    """Nothing but our one stylesheet, known by its hash, may load; forms go to `form_action`; nobody frames it.

    A page with a form tells itself to ourselves: without a referrer its form would come from origin ``null``, as
    anybody's can.
    """
    return {
        **SAFE_HEADERS,
        "Referrer-Policy": "no-referrer" if form_action == "'none'" else "same-origin",
        "X-Frame-Options": "DENY",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
            f"frame-ancestors 'none'; base-uri 'none'; form-action {form_action}"
        ),
    }


def document(title: str, inner: str) -> str:
    """A whole page; `inner` is HTML whose texts are escaped, and has the heading."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{inner}</main>\n</body>\n</html>\n"
    )
