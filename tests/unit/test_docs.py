"""What the documents say is there: links, commands and options, error codes, variables."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from integration_service.activities.execution.compiled import check_definition
from integration_service.cli.main import integrations
from integration_service.contracts.definitions import DefinitionFile
from integration_service.contracts.errors import ErrorCode
from integration_service.contracts.wire import parse
from integration_service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _commands() -> list[str]:
    """Every `integrations …` line of a shell block, and every one in a sentence."""
    found: list[str] = []
    for document in DOCUMENTS:
        text = document.read_text()
        blocks = [block for language, block in _FENCE.findall(text) if language == "bash"]
        lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
        spans = re.findall(r"`((?:uv run )?integrations [^`…]+)`", _FENCE.sub("", text))
        found += [line for line in (*lines, *spans) if re.match(r"(uv run )?integrations ", line)]
    return sorted(set(found))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(_FENCE.sub("", document.read_text())):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text()), link


@pytest.mark.parametrize("line", _commands())
def test_commands_parse(line: str) -> None:
    command: click.Command = integrations
    words = shlex.split(line.removeprefix("uv run "), comments=True)[1:]
    context = click.Context(command, info_name="integrations")
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        assert found is not None, f"no command {words[0]}"
        command, context = found, click.Context(found, info_name=words[0], parent=context)
        words = words[1:]
    in_a_sentence = not words and isinstance(command, click.Group)
    if words or not (in_a_sentence or any(isinstance(one, click.Argument) for one in command.params)):
        command.make_context(command.name, words)


def test_all_commands_are_found() -> None:
    assert len(_commands()) > 15


def test_error_codes_are_the_contracts() -> None:
    text = (ROOT / "docs" / "operating.md").read_text().split("## What each code asks of you")[1]
    listed = re.findall(r"^\| `([A-Z_]+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted(ErrorCode)
    assert "| `HTTP_<status>` |" in text


def test_variables_are_settings() -> None:
    ours = {f"INTEGRATIONS_{field.upper()}" for field in Settings.model_fields}
    of_compose = set(re.findall(r"\$\{(\w+):", (ROOT / "docker-compose.yml").read_text()))
    named: set[str] = set()
    for document in DOCUMENTS:
        named |= set(re.findall(r"\bINTEGRATIONS_[A-Z_]+", document.read_text()))
    assert named <= ours | of_compose | {"INTEGRATIONS_DEBUG"}
    table = (ROOT / "docs" / "operating.md").read_text()
    assert ours <= set(re.findall(r"^\| `(INTEGRATIONS_[A-Z_]+)` \|", table, re.MULTILINE))


def test_definition_keys_are_all_described() -> None:
    text = (ROOT / "docs" / "definitions.md").read_text()
    models = [DefinitionFile, *(DefinitionFile.model_fields["methods"].annotation.__args__)]  # type: ignore[union-attr]
    for model in models:
        for field in model.model_fields.values():
            assert f"`{field.alias}`" in text, field.alias


def test_definitions_in_documents_can_be_published() -> None:
    found = 0
    for document in DOCUMENTS:
        for language, block in _FENCE.findall(document.read_text()):
            if language == "yaml" and block.startswith("name:"):
                check_definition(parse(DefinitionFile, yaml.safe_load(block)), publish=True)
                found += 1
    assert found == 1


def test_nothing_names_this_machine_or_a_registry() -> None:
    files = [
        *DOCUMENTS,
        *(
            ROOT / name
            for name in ("docker-compose.yml", "Dockerfile", ".dockerignore", "requirements.txt", "Makefile")
        ),
        ROOT / ".ci" / "run",
    ]
    for file in files:
        text = file.read_text()
        assert not re.search(r"pypi\.org|npmjs|pythonhosted|/roo[t]/|/home/", text), file.name
