"""The HTML of the connect pages. Texts of others are escaped; no value of a secret is ever put in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby

from integration_service.gateway.fields import Field
from integration_service.gateway.style import document
from integration_service.storage.connect_tickets import ConnectSubject

_TYPES = {"url": "url", "email": "email", "date": "date", "password": "password"}
_NUMERIC = {"integer": "numeric", "number": "decimal"}


def begin_page(subject: ConnectSubject, action: str) -> str:
    """Before the ticket is used up: a link preview comes no further than here."""
    told = f"You are about to connect <strong>{escape(subject.name)}</strong> to {escape(_title(subject))}."
    return document(
        _heading(subject),
        f"<h1>{escape(_heading(subject))}</h1>\n<p>{told}</p>\n"
        '<p class="hint">Go on only if you asked for this, or know who sent you the link. It works once; you then '
        "have 15 minutes.</p>\n"
        f'<form method="post" action="{escape(action)}">\n<button type="submit">Continue</button>\n</form>\n',
    )


def form_page(
    subject: ConnectSubject,
    fields: Sequence[Field],
    *,
    token: str,
    errors: Mapping[str, str] | None = None,
    problem: str | None = None,
    button: str = "Connect",
) -> str:
    """The form. `errors` say by a field's name what is wrong with it, `problem` what is wrong as a whole."""
    errors = errors or {}
    heading = _heading(subject)
    groups = "".join(
        _group(title, list(members), errors) for title, members in groupby(fields, key=lambda one: one.group)
    )
    about = f"<p>{escape(subject.definition.description)}</p>\n" if subject.definition.description else ""
    must = '<p class="hint">Fields are required unless marked optional.</p>\n' if fields else ""
    return document(
        ("Error: " if errors or problem else "") + heading,
        f"<h1>{escape(heading)}</h1>\n{_summary(fields, errors, problem)}{about}"
        f'<p class="hint">Connection: {escape(subject.name)}</p>\n{must}'
        '<form method="post" action="/connect" novalidate>\n'
        f'<input type="hidden" name="token" value="{escape(token)}">\n{groups}'
        f'<button type="submit">{escape(button)}</button>\n</form>\n',
    )


def device_page(subject: ConnectSubject, url: str, code: str) -> str:
    """The device flow (RFC 8628 §3.3): a code to enter elsewhere."""
    return document(
        _heading(subject),
        f"<h1>{escape(_heading(subject))}</h1>\n<p>Open this address, on this device or another, and enter the code. "
        "Then come back here.</p>\n"
        f'<p><a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{escape(url)}</a></p>\n'
        f'<p class="code">{escape(code)}</p>\n<p><a class="button" href="/connect">I have entered it</a></p>\n',
    )


def onward_page(subject: ConnectSubject, url: str) -> str:
    """The way to a provider whose address was not known when the form was shown."""
    return document(
        _heading(subject),
        f"<h1>{escape(_heading(subject))}</h1>\n<p>Grant access on the provider's own page.</p>\n"
        f'<p><a class="button" href="{escape(url)}" rel="noopener noreferrer">Continue to the provider</a></p>\n',
    )


def _heading(subject: ConnectSubject) -> str:
    return f"Connect {_title(subject)}"


def _title(subject: ConnectSubject) -> str:
    return subject.definition.title or subject.definition.name


def _id(one: Field) -> str:
    return "f-" + "".join(
        letter if letter.isascii() and letter.isalnum() else f"-{ord(letter):x}-" for letter in one.name
    )


def _summary(fields: Sequence[Field], errors: Mapping[str, str], problem: str | None) -> str:
    if not errors and problem is None:
        return ""
    # `autofocus` puts the keyboard, and a screen reader, at what is wrong; it needs no script.
    listed = "".join(
        f'<li><a href="#{_id(one)}">{escape(one.label)}: {escape(errors[one.name])}</a></li>\n'
        for one in fields
        if one.name in errors
    )
    told = f"<p>{escape(problem)}</p>\n" if problem else ""
    secrets = any(one.secret for one in fields)
    told += '<p class="hint">Passwords and keys are not kept by this form: enter them again.</p>\n' if secrets else ""
    return (
        '<div class="summary" role="alert" tabindex="-1" autofocus aria-labelledby="summary-title">\n'
        f'<h2 id="summary-title">There is a problem</h2>\n{told}{f"<ul>{listed}</ul>" if listed else ""}</div>\n'
    )


def _group(title: str, members: Sequence[Field], errors: Mapping[str, str]) -> str:
    inner = "".join(_field(one, errors.get(one.name)) for one in members)
    return f"<fieldset>\n<legend>{escape(title)}</legend>\n{inner}</fieldset>\n"


def _field(one: Field, error: str | None) -> str:
    ident = _id(one)
    notes = []
    if one.hint:
        notes.append((f"{ident}-hint", f'<p class="hint" id="{ident}-hint">{escape(one.hint)}</p>\n'))
    if error:
        notes.append((f"{ident}-error", f'<p class="wrong" id="{ident}-error">{escape(error)}</p>\n'))
    told = "".join(html for _, html in notes)
    attributes = f' id="{ident}" name="{escape(one.name)}" autocomplete="{one.autocomplete}"'
    if notes:
        attributes += f' aria-describedby="{" ".join(name for name, _ in notes)}"'
    if error:
        attributes += ' aria-invalid="true"'
    if one.required and one.kind != "checkbox":
        attributes += " required"
    optional = "" if one.required or one.kind == "checkbox" else ' <span class="hint">(optional)</span>'
    label = f'<label for="{ident}">{escape(one.label)}{optional}</label>\n'
    if one.kind == "checkbox":
        return f'<div class="field check">\n{_checkbox(one, attributes)}{label}{told}</div>\n'
    return f'<div class="field">\n{label}{told}{_input(one, attributes)}</div>\n'


def _checkbox(one: Field, attributes: str) -> str:
    return f'<input type="checkbox" value="on"{attributes}{" checked" if one.value == "on" else ""}>'


def _input(one: Field, attributes: str) -> str:
    plain = ' spellcheck="false" autocapitalize="none"'
    value = "" if one.secret else escape(one.value)
    if one.kind == "select":
        shown = [text for text, _ in one.choices]
        shown = shown if one.required and one.value in shown else ["", *shown]
        empty = "Choose one" if one.required else "None"
        options = "".join(
            f'<option value="{escape(text)}"{" selected" if text == one.value else ""}>{escape(text or empty)}</option>'
            for text in shown
        )
        return f"<select{attributes}>{options}</select>\n"
    if one.kind in ("json", "lines"):
        return f"<textarea{attributes}{plain}>\n{value}</textarea>\n"
    numeric = f' inputmode="{_NUMERIC[one.kind]}"' if one.kind in _NUMERIC else ""
    return f'<input type="{_TYPES.get(one.kind, "text")}" value="{value}"{attributes}{numeric}{plain}>\n'
