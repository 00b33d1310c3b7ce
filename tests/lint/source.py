# SPDX-License-Identifier: BSD-3-Clause
"""What the lint tests share: finding files, and a small reader of C that knows comments,
strings and top-level declarations. It does not need git: a release archive is checked too."""

import os
import re
import sys
from dataclasses import dataclass, field

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
C_FOLDERS = ("src", "preload", "examples", "tests", "bench")


def walk(*folders):
    """Paths below the folders (the whole project without any), relative to its root, sorted."""
    found = []
    for top in folders or (".",):
        for folder, names, files in os.walk(os.path.join(ROOT, top)):
            names[:] = [n for n in names if not n.startswith("build") and n != "__pycache__"
                        and (n == ".ci" or not n.startswith("."))]
            found += [os.path.relpath(os.path.join(folder, f), ROOT) for f in files
                      if not f.endswith(".pyc")]
    return sorted(found)


def c_files(*folders):
    return [p for p in walk(*(folders or C_FOLDERS)) if p.endswith((".c", ".h"))]


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


TOKEN = re.compile(r"""/\*.*?\*/ | //[^\n]* | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'""",
                   re.DOTALL | re.VERBOSE)


def blank(text):
    return re.sub(r"[^\n]", " ", text)


def code_only(text):
    """The text with comments blanked and literals emptied; every line keeps its number."""
    def sub(match):
        token = match.group()
        return blank(token) if token[0] == "/" else token[0] + blank(token[1:-1]) + token[-1]
    return TOKEN.sub(sub, text)


def no_preprocessor(code):
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: blank(m.group()), code,
                  flags=re.MULTILINE)


@dataclass
class Declaration:
    """Something at file scope: a function, a structure, or else."""
    kind: str          # "function", "prototype", "struct", "other"
    name: str
    line: int          # of its first word, counted from 1
    last_line: int
    text: str          # without comments; without the body of a function
    doc: str           # the comment that ends right before it, or ""
    fields: list = field(default_factory=list)


NAME_BEFORE_PAREN = re.compile(r"(\w+)\s*\(")
ATTRIBUTE = re.compile(r"__attribute__\s*\(\(.*?\)\)|printf_like\s*\([^)]*\)|_Alignas\s*\([^)]*\)")


def function_name(head):
    match = NAME_BEFORE_PAREN.search(ATTRIBUTE.sub("", head))
    return match.group(1) if match else ""


def struct_fields(body):
    """Names of the fields at the outermost level of a structure's body."""
    names, depth, piece = [], 0, ""
    for char in body:
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
        elif char == ";" and depth == 0:
            pointer = re.search(r"\(\s*\*\s*(\w+)\s*\)\s*\(", piece)
            if pointer:
                names.append(pointer.group(1))
            else:
                piece = ATTRIBUTE.sub("", re.sub(r":\s*\d+", "", piece))
                names += [m for part in piece.split(",")
                          for m in re.findall(r"(\w+)\s*(?:\[[^]]*\]\s*)*$", part.strip())]
            piece = ""
        elif depth == 0:
            piece += char
    return names


def classify(head, body):
    if "(" in ATTRIBUTE.sub("", head) and "=" not in head and not head.startswith("typedef"):
        name = function_name(head)
        return ("function" if body is not None else "prototype"), name, []
    match = re.match(r"(?:typedef\s+)?struct\b\s*(\w+)?", head)
    if match and body is not None and "=" not in head:
        return "struct", match.group(1) or "", struct_fields(body)
    return "other", "", []


def declarations(text):
    """The declarations at file scope, in order."""
    code = no_preprocessor(code_only(text))
    comments = {}
    for match in TOKEN.finditer(text):
        if match.group().startswith("/*"):
            # Preprocessor lines may stand in between.
            after = re.match(r"\s*", code[match.end():]).end() + match.end()
            comments[after] = match.group()
    found, at, end = [], 0, len(code)
    while at < end:
        at += re.match(r"\s*", code[at:]).end()
        start, depth, body_at, body_end = at, 0, None, None
        while at < end:
            char = code[at]
            at += 1
            if char in "({[":
                if char == "{" and depth == 0:
                    body_at = at
                depth += 1
            elif char in ")}]":
                depth -= 1
                if char == "}" and depth == 0:
                    body_end = at - 1
                    if "(" in code[start:body_at] and "=" not in code[start:body_at]:
                        break  # a function's body needs no semicolon
            elif char == ";" and depth == 0:
                break
        whole = code[start:at]
        if not whole.strip():
            break
        head = code[start:body_at - 1] if body_at else whole
        head = " ".join(head.rstrip(";").split())
        kind, name, fields = classify(head, code[body_at:body_end] if body_at else None)
        found.append(Declaration(kind, name, text.count("\n", 0, start) + 1,
                                 text.count("\n", 0, at) + 1, head, comments.get(start, ""),
                                 fields))
    return found


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def finish(problems):
    """Print what was found, and end: the exit status says whether it was something."""
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems")
    sys.exit(1 if problems else 0)
