#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Every function and structure of a public header has kernel-doc that fits it.

A function is documented when a /** comment of its header begins with it, or names it as "name()":
one comment may stand for a group. Short inline functions in a row may share the comment of the first, and
prototypes without a line between them a plain comment in front.
Private headers are those named *_impl.h, *_priv.h or private.h, or that say "Private to" in their first
comment. Structures that a specification defines (ABI) are documented there: their headers are listed here."""

import re

import source

ABI_HEADERS = {"src/fuse/abi.h", "src/vhost/protocol.h", "src/virtio/ring_layout.h"}


def parameter_names(head):
    """Names of the parameters of a prototype, a callback's own left out."""
    args = head[head.index("("):]
    return set(re.findall(r"(\w+)\s*(?:\[[^]]*\])?\s*[,)]", args)) | \
        set(re.findall(r"\(\s*\*\s*(\w+)\s*\)", args))


SHORT_LINES = 6


def is_short(decl):
    return decl.kind == "function" and decl.last_line - decl.line < SHORT_LINES


def check(path):
    text = source.read(path)
    docs = " ".join(re.findall(r"/\*\*.*?\*/", text, re.DOTALL))
    in_group, last_line = False, 0
    for decl in source.declarations(text):
        where = f"{path}:{decl.line}: {decl.name}"
        if decl.kind == "prototype":
            plain = decl.doc != "" and not decl.doc.startswith("/**")
            in_group = plain or (in_group and decl.doc == "" and decl.line == last_line + 1)
        else:
            in_group = is_short(decl) and (in_group or decl.doc != "")
        last_line = decl.last_line
        if decl.kind in ("function", "prototype"):
            if not re.search(rf"\b{decl.name}(\(\)| - )", docs) and not in_group:
                yield f"{where}(): no kernel-doc"
            elif decl.doc.startswith("/**") and re.match(rf"/\*\*\s*(\* )?{decl.name}\(\)", decl.doc):
                known = parameter_names(decl.text)
                for name in re.findall(r"^ \* @(\w+):", decl.doc, re.MULTILINE):
                    if name not in known:
                        yield f"{where}(): kernel-doc has @{name}, the function has not"
        elif decl.kind == "struct" and path not in ABI_HEADERS:
            if not decl.doc.startswith("/**"):
                yield f"{where}: structure without kernel-doc"
                continue
            for name in decl.fields:
                if len(decl.fields) > 1 and not re.search(rf"@{name}\b", decl.doc):
                    yield f"{where}.{name}: field without kernel-doc"


problems = []
for header in source.c_files("src", "preload"):
    head = source.read(header)[:600]
    private = header.endswith(("_impl.h", "_priv.h", "/private.h")) or "Private to" in head
    if header.endswith(".h") and not private:
        problems += check(header)
source.finish(problems)
