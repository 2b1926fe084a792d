"""Parts of source files: functions and classes by name, and the fields of a dataclass."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from regions.markdown import table

ROOT = Path(__file__).resolve().parents[2]
# Types of fields, as a reader of JSON knows them.
KINDS = {
    "str": "text",
    "Status": "text",
    "int": "integer",
    "Count": "integer",
    "float": "number",
    "bool": "true or false",
    "dict[str, str]": "object",
    "list[str]": "list of texts",
    "list[Count]": "list of integers",
}


def code(place: str) -> str:
    """Return a function, class or method as a code block: `code modgpt/model/gpt.py:GPT.forward`."""
    path, _, name = place.partition(":")
    text = (ROOT / path).read_text(encoding="utf-8")
    found = definition(text, name, path)
    first = min([found.lineno, *(decorator.lineno for decorator in found.decorator_list)])
    lines = text.splitlines()[first - 1 : found.end_lineno]
    indent = len(lines[0]) - len(lines[0].lstrip())
    block = "\n".join(line[indent:] for line in lines)
    return f"```python\n{block}\n```"


def definitions(path: Path, name: str) -> str:
    """Return the functions that a class names in its attributes `definition` and `…_definition`.

    Of a class without them, the place of its file.
    """
    place = str(path.relative_to(ROOT))
    text = path.read_text(encoding="utf-8")
    functions = {n.name for n in ast.parse(text).body if isinstance(n, ast.FunctionDef)}
    found = []
    for node in definition(text, name, place).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id.endswith("definition") for t in targets):
            named = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in functions]
            found += [function for function in named if function not in found]
    if not found:
        return f"`{place}`"
    return "\n\n".join(code(f"{place}:{function}") for function in found)


def fields(place: str) -> str:
    """Return a table of a dataclass's fields, each with the comment behind or above it."""
    path, _, name = place.partition(":")
    text = (ROOT / path).read_text(encoding="utf-8")
    found, lines = definition(text, name, path), text.splitlines()
    rows = []
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            comment = comment_of(lines, node)
            kind = ast.unparse(node.annotation).removesuffix(" | None")
            rows.append([f"`{node.target.id}`", KINDS.get(kind, kind), comment])
    return table(("key", "type", "meaning"), rows)


def comment_of(lines: list[str], node: ast.stmt) -> str:
    """Return the comment behind a statement and in the lines below it, or else in those above it."""
    assert node.end_lineno is not None and node.end_col_offset is not None
    behind = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode().strip()
    if behind.startswith("#"):
        indent = node.col_offset
        below = following_comments(lines[node.end_lineno :], deeper_than=indent)
        return " ".join([behind.lstrip("# "), *below])
    above: list[str] = []
    for line in reversed(lines[: node.lineno - 1]):
        if not line.strip().startswith("#"):
            break
        above.insert(0, line.strip().lstrip("# "))
    return " ".join(above)


def following_comments(lines: list[str], deeper_than: int) -> list[str]:
    """Return the comment lines at the start that are indented more than the statement they continue."""
    found = []
    for line in lines:
        stripped = line.lstrip()
        if not stripped.startswith("#") or len(line) - len(stripped) <= deeper_than:
            break
        found.append(stripped.lstrip("# "))
    return found


def definition(text: str, name: str, path: str) -> ast.ClassDef | ast.FunctionDef:
    """Return the syntax tree of a function, a class, or a method `Class.method`.

    Raises:
        ValueError: there is none of that name.
    """
    body: list[ast.stmt] = ast.parse(text).body
    found = None
    for part in name.split("."):
        candidates = [
            n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == part
        ]
        if not candidates:
            raise ValueError(f"{path} has no {name}")
        found = candidates[-1]
        body = found.body
    assert found is not None
    return found


def first_line(path: Path, name: str | None = None) -> str:
    """Return the first sentence of a module's docstring, or of one of its classes or functions."""
    text = path.read_text(encoding="utf-8")
    node = ast.parse(text) if name is None else definition(text, name, str(path))
    return first_sentence((ast.get_docstring(node) or "").split("\n\n")[0])


def first_sentence(text: str) -> str:
    """Return the first sentence on one line, without its full stop; "et al." ends none."""
    return re.split(r"(?<! al)\. (?=[A-Z])", " ".join(text.split()))[0].removesuffix(".")
