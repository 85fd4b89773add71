"""The Markdown files: links lead somewhere, Python can be read, commands and their options exist. Nothing is run."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cce_minus.recsys.cli.commands import framework_app
from typer.main import get_command

from tests.documents.blocks import (
    FENCE,
    GUIDES,
    INDENTED,
    PAGES,
    PROGRAM,
    QUOTED,
    ROOT,
    blocks,
    commands,
    prose,
)  # fmt: skip
from tests.test_site import public_names

LINK = re.compile(r"\]\(([^)\s]+)\)")
OTHERS = {"--nproc-per-node", "--nnodes", "--max-restarts", "--logdir"}
"""Options of torchrun and TensorBoard."""


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths])


def anchors(text: str) -> set[str]:
    """Those of the headings, as the hosts of repositories make them."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def broken_links(page: Path, text: str) -> list[str]:
    def leads(link: str) -> bool:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.is_file():
            return False
        return not anchor or anchor in anchors(text if target == page else target.read_text())

    links = LINK.findall(QUOTED.sub("", prose(text)))
    return [link for link in links if not re.match(r"https?://", link) and not leads(link)]


@each(PAGES)
def test_links_lead_to_files_and_headings(page: Path):
    assert broken_links(page, page.read_text()) == []


def test_a_broken_link_is_seen():
    page = ROOT / "docs" / "losses.md"
    text = "# A `b`, c\n[1](#a-b-c) [2](#a) [3](errors.md#commands) [4](errors.md#none) [5](none.md) [6](https://a.b/c)"
    assert broken_links(page, text) == ["#a", "errors.md#none", "none.md"]


@each([page for page in PAGES if FENCE.search(page.read_text())])
def test_blocks_of_python_can_be_read_and_import_public_names(page: Path):
    for block in blocks(page.read_text()):
        if block.language not in ("python", "py"):
            continue
        imports = [node for node in ast.walk(ast.parse(block.code)) if isinstance(node, ast.ImportFrom)]
        for node in imports:
            root, _, package = (node.module or "").partition(".")
            if root == "cce_minus":
                assert {alias.name for alias in node.names} <= set(public_names(package)), package


@cache
def application(program: str) -> Any:
    """The commands of a program, without a framework; None for a module that takes no options."""
    if program.startswith("cce-minus-"):
        framework = program.removeprefix("cce-minus-")
        return get_command(framework_app(framework, f"cce_minus.{framework}_impl"))
    module = program.removeprefix("python -m ")
    path = ROOT / module.replace(".", "/")
    if not (path / "__main__.py").is_file():
        assert path.with_suffix(".py").is_file(), program
        return None
    return get_command(importlib.import_module(f"{module}.__main__").app)


def mistakes(line: str, whole: bool) -> list[str]:
    """What is wrong with a command: unknown commands and options, and in a ``whole`` one values and what is missing."""
    found = PROGRAM.search(line)
    assert found is not None
    command, words = application(found[1]), shlex.split(line[found.end() :], comments=True)
    if command is None:
        return []
    words = [word for word in words if word.strip(".")]  # .. stands for more
    if hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in command.commands:
            return [f"no command {name}"]
        command = command.commands[name]
    if whole and "--help" not in words:
        try:
            command.make_context(found[1], words)
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
        return []
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in words if word.startswith("--") and word not in known | {"--help"}]


def indented_commands(text: str) -> list[str]:
    others = re.compile(r"^ +(\w+=\S* )*(python|pip|torchrun|curl|make|bash|srun) ", re.MULTILINE)
    indented = INDENTED.findall(FENCE.sub("", text))
    return [block for block in indented if PROGRAM.search(block) or others.search(block)]


def test_an_indented_command_is_seen():
    for command in ("cce-minus-torch train", "A=1 cce-minus-jax train --dim 8", "pip install x", "B=2 torchrun x"):
        assert indented_commands(f"text\n\n    first\n    {command}\n") != []
    assert indented_commands("    loss = log( exp(s_t) )\n    pipe = make\n") == []


@each(PAGES)
def test_commands_stand_in_blocks_of_a_shell(page: Path):
    """What is indented is not looked at."""
    assert indented_commands(page.read_text()) == []
    assert {block.language for block in blocks(page.read_text())} <= {"python", "py", "sh", "json", "yaml"}


@each([page for page in PAGES if any(commands(page.read_text()))])
def test_commands_and_their_options_exist(page: Path):
    found = [(line, mistakes(line, whole)) for line, whole in commands(page.read_text())]
    assert [(line, wrong) for line, wrong in found if wrong] == []


def test_a_wrong_command_is_seen():
    block = "```sh\ncce-minus-torch train --dat x \\\n    --dim 8\n```\n"
    text = f"{block}\nSay `cce-minus-jax serv` or `cce-minus-jax train --dim ..`."
    assert [whole for _, whole in commands(text)] == [True, False, False]
    wrong = [mistakes(line, whole) for line, whole in commands(text)]
    assert "--dat" in wrong[0][0]
    assert wrong[1:] == [["no command serv"], []]
    assert mistakes("cce-minus-torch train --dim wide", True)


@cache
def known_options() -> frozenset[str]:
    names = ["cce-minus-torch", "cce-minus-jax"]
    names += [f"python -m benchmarks.{path.parent.name}" for path in ROOT.glob("benchmarks/*/__main__.py")]
    found = set()
    for program in names:
        command = application(program)
        for part in getattr(command, "commands", {"": command}).values():
            found |= {option for each in part.params for option in (*each.opts, *each.secondary_opts)}
    return frozenset(found)


@each(GUIDES)
def test_options_mentioned_in_sentences_exist(page: Path):
    ours = [code for code in QUOTED.findall(prose(page.read_text())) if re.match(r"--[a-z]|\w+ --[a-z]", code)]
    words = {word.split("=")[0] for code in ours for word in code.split() if re.match(r"--[a-z]", word)}
    assert words - known_options() - OTHERS - {"--help"} == set()
