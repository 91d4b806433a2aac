"""
Writes the pages of docs/reference that the code itself knows best: commands, settings, errors, audit events, HTTP.

``scripts/reference.py`` writes them, ``scripts/reference.py --check`` fails when one is not what it would write.
A page is made from the objects that run, never from a list kept by hand; what has no description is an error.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

HOUSE = Path(__file__).parents[1]
REFERENCE = HOUSE / "docs" / "reference"
NOBODY = "/home/somebody"
_undescribed: list[str] = []
NOTE = "<!-- Written by scripts/reference.py: change the code and run `make reference`. -->\n\n"


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = []
    for name, page in PAGES.items():
        try:
            text = NOTE + _tidy(page())
        except ImportError as error:
            print(f"docs/reference/{name} cannot be made: {error}", file=sys.stderr)
            stale.append(name)
            continue
        path = REFERENCE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if check:
            stale.append(name)
            _show_difference(path, text)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote docs/reference/{name}")
    if stale:
        print(f"not up to date: {', '.join(stale)}; run `make reference`", file=sys.stderr)
    if _undescribed:
        print(f"options without help: {', '.join(_undescribed)}", file=sys.stderr)
    return 1 if stale or _undescribed else 0


def _tidy(text: str) -> str:
    """The same on every machine: no home folder of anybody, no trailing blanks, no double empty lines."""
    text = text.replace(NOBODY, "~")
    text = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _show_difference(path: Path, text: str) -> None:
    had = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    lines = difflib.unified_diff(
        had, text.splitlines(), f"docs/reference/{path.name}", "what the code says", lineterm=""
    )
    print("\n".join(list(lines)[:60]), file=sys.stderr)


# --- commands -------------------------------------------------------------------------------------------------


def commands() -> str:
    page = [
        "# Commands",
        "",
        "Exit status: 0 done, 1 refused or failed, 2 usage. Data goes to standard output, words to standard error.",
        "",
    ]
    for program in ("bart", "bartizan"):
        page += _command(_group(program), (program,))
    return "\n".join(page)


def _group(program: str) -> object:
    import click

    module = importlib.import_module(f"cli.{program}")
    named = [getattr(module, name, None) for name in ("main", program, "cli", "group")]
    found = [command for command in [*named, *vars(module).values()] if isinstance(command, click.Group)]
    assert found, f"cli/{program}.py has no click group"
    return found[0]


def _command(command: object, path: tuple[str, ...]) -> Iterator[str]:
    import click

    assert isinstance(command, click.Command)
    if command.hidden:
        return
    context = click.Context(command, info_name=" ".join(path), max_content_width=100)
    words = inspect.cleandoc(command.help or "").split("\f")[0]
    assert words, f"`{' '.join(path)}` has no help"
    yield f"{'#' * min(len(path) + 1, 4)} {' '.join(path)}"
    yield ""
    yield words
    yield ""
    yield f"    {' '.join([*path, *command.collect_usage_pieces(context)])}"
    yield ""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None and "--help" not in record[0]:
            if not record[1]:
                _undescribed.append(f"{' '.join(path)} {record[0]}")
            yield f"- `{record[0]}`: {record[1]}"
    yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _command(child, (*path, name))


# --- settings -------------------------------------------------------------------------------------------------


def settings() -> str:
    page = [
        "# Settings",
        "",
        "From `bartizan.toml` in the data folder, then the environment (`BARTIZAN_` and the key in capitals), then",
        "flags; the later one wins. Unknown keys are errors. A new key has a safe default: an old file always runs.",
        "",
    ]
    found = 0
    for room in ("ca", "bastion"):
        if (module := _module(f"{room}.settings")) is None:
            continue
        for owner in _own_classes(module):
            if dataclasses.is_dataclass(owner) and owner.__name__.endswith("Settings"):
                page += [f"## {room}: {owner.__name__}", "", _first(owner), "", *_fields(owner), ""]
                found += 1
    assert found, "no settings found"
    return "\n".join(page)


def _fields(owner: type) -> Iterator[str]:
    words = _field_words(owner)
    for item in dataclasses.fields(owner):
        if item.name.startswith("_"):
            continue
        line = f"- `{item.name}` ({item.type})"
        if item.default is not dataclasses.MISSING:
            line += f", default `{item.default}`"
        yield f"{line}{': ' + words[item.name] if item.name in words else ''}"


def _field_words(owner: type) -> dict[str, str]:
    """The string below a field is its description (PEP 257's attribute docstrings)."""
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(owner))).body[0]
    assert isinstance(body, ast.ClassDef)
    words: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                words[name] = " ".join(inspect.cleandoc(said).split())
    return words


# --- errors ---------------------------------------------------------------------------------------------------


def errors() -> str:
    from ca import errors as tree
    from ca.model import DenyCode

    status = getattr(_module("ca.api.render"), "STATUS", {})
    importlib.import_module("ca.identity.provider")  # errors of its own, below those of the tree
    narrowed = _narrowed_codes(
        {name: kind.__name__ for kind in tree.BartizanError.__subclasses__() for name in _names(kind)}
    )
    page = [
        "# Errors",
        "",
        "Every expected failure has a `code` that stays the same, one sentence, and perhaps a hint. Over HTTP it is",
        '`{"error": code, "message": …, "hint": …}`; on a terminal `error: …`, perhaps `hint: …`, and exit status 1.',
        "A kind may be narrowed by a code of its own; scripts may match on either by the status.",
        "",
    ]
    for kind in tree.BartizanError.__subclasses__():
        page += [f"## {kind.kind}", "", _first(kind), ""]
        if kind in status:
            page += [f"HTTP status {int(status[kind])}.", ""]
        if codes := sorted(narrowed.get(kind.__name__, set()) - {kind.kind}):
            page += ["Narrower codes: " + ", ".join(f"`{code}`" for code in codes) + ".", ""]
    page += [
        "## Why a session is refused",
        "",
        "Codes of a decision, in the answer, the audit log and `bartizan access explain`:",
        "",
    ]
    page += [f"- `{code.value}`" for code in DenyCode]
    return "\n".join(page)


def _names(kind: type) -> Iterator[str]:
    """The names of an error and of all errors below it."""
    yield kind.__name__
    for below in kind.__subclasses__():
        yield from _names(below)


def _narrowed_codes(kinds: Mapping[str, str]) -> dict[str, set[str]]:
    """Every ``Kind(…, code="narrow")`` in the source, by the kind that the error belongs to."""
    found: dict[str, set[str]] = {}
    for path in sorted(
        path for room in ("ca", "bastion", "recordings", "cli") for path in (HOUSE / room).rglob("*.py")
    ):
        for part in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match part:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), keywords=keywords) if name in kinds:
                    for keyword in keywords:
                        match keyword:
                            case ast.keyword(arg="code", value=ast.Constant(value=str(code))):
                                found.setdefault(kinds[name], set()).add(code)
    return found


# --- audit events ---------------------------------------------------------------------------------------------


def audit_events() -> str:
    from ca import audit

    events: dict[str, type] = {}
    for event in _own_classes(audit):
        code = getattr(event, "code", None)
        if dataclasses.is_dataclass(event) and isinstance(code, str):
            assert code not in events, f"two events have the code {code}"
            events[code] = event
    assert events, "ca/audit.py has no events"
    page = [
        "# Audit events",
        "",
        "Each change is written with its event, in one transaction, and chained to the event before it. A code never",
        "changes its meaning. `bartizan audit export --json` gives them; `bartizan audit verify` checks the chain.",
        "",
    ]
    for code, event in sorted(events.items()):
        page += [f"## {code}", "", _first(event), "", *_fields(event), ""]
    return "\n".join(page)


# --- metrics --------------------------------------------------------------------------------------------------


def metrics() -> str:
    from ca.metrics import ALARMS

    page = [
        "# Alarms",
        "",
        "`GET /metrics` gives numbers for Prometheus. What an operator should look at is counted in",
        "`bartizan_alarms_total{kind=…}`; alert when `increase(bartizan_alarms_total[10m]) > 0`.",
        "",
    ]
    return "\n".join([*page, *(f"- `{kind}`: {meaning}" for kind, meaning in sorted(ALARMS.items()))])


# --- HTTP -----------------------------------------------------------------------------------------------------


def api() -> str:
    page = [
        "# HTTP",
        "",
        "Everything the commands do goes over this. Bodies are JSON; an unknown field is refused by name; errors look",
        "as in [Errors](errors.md). Bytes are base64, times RFC 3339 in UTC, spans whole seconds.",
        "",
    ]
    found = 0
    package = importlib.import_module("ca.api")
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        module = importlib.import_module(f"ca.api.{info.name}")
        router = getattr(module, "router", None)
        if router is None:
            continue
        page += [f"## {info.name.replace('_', ' ')}", ""]
        for route in router.routes:
            page += _route(route)
            found += 1
    assert found, "no routes found"
    return "\n".join(page)


def _route(route: object) -> Iterator[str]:
    endpoint: Callable[..., object] = getattr(route, "endpoint")  # noqa: B009  a Starlette or a FastAPI route
    methods = ", ".join(sorted(getattr(route, "methods", None) or {"GET"}))
    path = str(getattr(route, "path", ""))
    yield f"### {methods} {path}"
    yield ""
    yield _first(endpoint)
    yield ""
    body = getattr(getattr(route, "body_field", None), "field_info", None)
    takes = getattr(getattr(body, "annotation", None), "__name__", None)
    answer = getattr(route, "response_model", None)
    gives = re.sub(r"\b(?:ca\.wire|typing|datetime)\.", "", _type(answer)) if answer is not None else None
    if takes or gives:
        yield "- " + ", ".join([*([f"takes `{takes}`"] if takes else []), *([f"gives `{gives}`"] if gives else [])])
        yield ""


def _type(annotation: object) -> str:
    return (
        annotation.__name__ if inspect.isclass(annotation) and not hasattr(annotation, "__args__") else str(annotation)
    )


# --- reading the code -----------------------------------------------------------------------------------------


def _module(name: str) -> ModuleType | None:
    """The module, or None when this version has none of that name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            return None
        raise


def _own_classes(module: ModuleType) -> list[type]:
    return [value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__]


def _first(thing: object) -> str:
    """The description of *thing*; a dataclass's generated signature is none."""
    words = inspect.getdoc(thing) or ""
    name = getattr(thing, "__name__", str(thing))
    assert words, f"{name} has no description"
    assert not words.startswith(f"{name}("), f"{name} has no description of its own"
    return words


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "settings.md": settings,
    "errors.md": errors,
    "audit-events.md": audit_events,
    "api.md": api,
    "alarms.md": metrics,
}

if __name__ == "__main__":
    for name in [name for name in os.environ if name.startswith(("BART", "XDG_"))]:
        del os.environ[name]
    os.environ["HOME"] = NOBODY
    sys.path.insert(0, str(HOUSE))
    sys.exit(main())
