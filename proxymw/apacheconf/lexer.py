"""From the text of a configuration to directives and sections, each knowing its file and line.

Apache's own rules: a backslash at the end of a line joins the next one, also in a comment; a comment is a whole line;
words are separated by blanks and may be quoted; ``${NAME}`` stands for what ``Define`` said or for an environment
variable. ``Include``, ``Define``, ``UnDefine`` and the ``<If…>`` sections that are decided at load time are resolved
here, so that what comes out is only what is in force.
"""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from proxymw.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: Caps that keep a hostile or mistaken input from costing more than a moment.
MAX_FILE_BYTES = 16 << 20
MAX_TOTAL_BYTES = 64 << 20
MAX_FILES = 2000
MAX_DEPTH = 20
MAX_DIRECTIVES = 500_000


def _words(text: str) -> list[str]:
    return text.split()


#: Modules whose directives are covered here, so that ``<IfModule>`` takes their branch.
MODULES = frozenset(
    _words(
        """
        access_compat alias authn_core authz_core authz_host core dir env headers lbmethod_bybusyness
        lbmethod_byrequests lbmethod_bytraffic log_config mime proxy proxy_balancer proxy_http remoteip
        rewrite setenvif slotmem_shm so unixd
        """
    )
)
#: The httpd version whose behaviour is followed, for ``<IfVersion>``.
VERSION = (2, 4, 71)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in which file something was written."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class ConfFileError(ConfigError):
    """A configuration cannot be loaded. The text reads ``FILE:LINE: Directive: what is wrong and what is accepted``."""

    def __init__(self, place: Place, directive: str, reason: str) -> None:
        super().__init__(f"{place}: {directive}: {reason}" if directive else f"{place}: {reason}")
        self.place = place
        self.directive = directive
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive: its name and the text after it, ``${NAME}`` already replaced."""

    name: str
    text: str
    place: Place

    @property
    def key(self) -> str:
        return self.name.lower()

    @property
    def title(self) -> str:
        return self.name

    def words(self) -> list[str]:
        """The arguments, unquoted."""
        return split_words(self.text)

    def error(self, reason: str) -> ConfFileError:
        return ConfFileError(self.place, self.title, reason)


@dataclass(frozen=True, slots=True)
class Section(Directive):
    """``<Name text> … </Name>``."""

    children: tuple[Directive, ...] = ()

    @property
    def title(self) -> str:
        return f"<{self.name}>"


def next_word(text: str) -> tuple[str, str]:
    """The first word of a directive's text, unquoted, and what follows it."""
    text = text.lstrip()
    quote = text[:1]
    if quote in ('"', "'"):
        end = 1
        while end < len(text) and text[end] != quote:
            end += 2 if text[end] == "\\" and text[end + 1 : end + 2] in (quote, "\\") else 1
        end = min(end, len(text))
        word, rest = text[1:end], text[end + 1 :]
        return re.sub(rf"\\([\\{quote}])", r"\1", word), rest.lstrip()
    word, _, rest = _cut_at_blank(text)
    return word.replace("\\\\", "\\"), rest.lstrip()


def split_words(text: str) -> list[str]:
    words = []
    rest = text.strip()
    while rest:
        word, rest = next_word(rest)
        words.append(word)
    return words


def split_raw(text: str, most: int) -> list[str]:
    """The arguments of RewriteRule and RewriteCond: quotes go, backslashes stay, an escaped blank ends no word."""
    out: list[str] = []
    rest = text.strip()
    while rest and len(out) < most:
        quote = rest[0] if rest[0] in "\"'" else ""
        position = start = len(quote)
        while position < len(rest):
            char = rest[position]
            if char == quote or (not quote and char.isspace()):
                break
            escaped = rest[position + 1 : position + 2]
            position += 2 if char == "\\" and escaped and (escaped.isspace() or (quote and escaped == quote)) else 1
        word = rest[start:position]
        out.append(word.replace("\\" + quote, quote) if quote else word)
        rest = rest[position + 1 :].lstrip()
    return out


def _cut_at_blank(text: str) -> tuple[str, str, str]:
    match = re.search(r"\s", text)
    return (text, "", "") if match is None else (text[: match.start()], match[0], text[match.end() :])


def as_path(text: str) -> str:
    """A file name written in a configuration as Python spells it, whatever the locale."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


# -- lines ---------------------------------------------------------------------------------------------------------


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines with continuations joined, comments and empty lines left out, each with its first line's number."""
    number, start, held = 0, 0, ""
    for raw in text.split("\n"):
        number += 1
        line = raw[:-1] if raw.endswith("\r") else raw
        if not held:
            start = number
        if line.endswith("\\"):
            held += line[:-1]
            continue
        whole = (held + line).strip()
        held = ""
        if whole and not whole.startswith("#"):
            yield start, whole
    if held.strip() and not held.lstrip().startswith("#"):
        yield start, held.strip()


@dataclass(slots=True)
class _Open:
    """A section whose end has not been seen yet."""

    name: str
    text: str
    place: Place
    children: list[Directive] = field(default_factory=list)
    #: For ``<IfModule>`` and the like: take the children as one's own (True), or drop them (False).
    branch: bool | None = None


_VARIABLE = re.compile(r"\$\{([^}:{]+)\}")


class Reader:
    """Reads a file with everything it includes. One reader, one configuration.

    ``defines`` are names set before the first line (``-D`` on httpd's command line); ``environment`` is where
    ``${NAME}`` is looked up when no ``Define`` has it.
    """

    def __init__(self, defines: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.defines = dict(defines or {})
        self.environment = os.environ if environment is None else environment
        self.server_root: str | None = None
        self.files: list[str] = []
        self.warnings: list[tuple[Place, str, str]] = []
        self._bytes = 0
        self._count = 0

    def read_file(self, path: str, name: str | None = None) -> list[Directive]:
        """The directives in force of the file at `path`; ``name`` is how messages call it."""
        root = _Open("", "", Place(name or path, 0))
        self._file(path, name or path, root, (), Place(name or path, 1), "")
        return root.children

    def read_text(self, text: str, name: str = "<text>") -> list[Directive]:
        """The same for a configuration given as text."""
        root = _Open("", "", Place(name, 0))
        self._text(text, name, root, ())
        return root.children

    # Included files are read in the middle of the line loop, so an open section and an <IfModule> may span neither
    # the start nor the end of a file: as in Apache.
    def _file(self, path: str, name: str, parent: _Open, stack: tuple[str, ...], place: Place, directive: str) -> None:
        real = os.path.realpath(path)
        if real in stack:
            raise ConfFileError(place, directive, f"include loop: {name} is already being read")
        if len(stack) >= MAX_DEPTH:
            raise ConfFileError(place, directive, f"files may be nested {MAX_DEPTH} deep, got {name} below that")
        if len(self.files) >= MAX_FILES:
            raise ConfFileError(place, directive, f"at most {MAX_FILES} files are read, got more")
        self.files.append(path)
        self._text(self._contents(path, name, place, directive), name, parent, (*stack, real))

    def _contents(self, path: str, name: str, place: Place, directive: str) -> str:
        try:
            if not os.path.isfile(path):
                raise ConfFileError(place, directive, f"no such file: {name}")
            with open(path, "rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ConfFileError(place, directive, f"cannot read {name}: {error.strerror}") from error
        self._bytes += len(data)
        if len(data) > MAX_FILE_BYTES or self._bytes > MAX_TOTAL_BYTES:
            raise ConfFileError(place, directive, f"a file must have at most {MAX_FILE_BYTES} bytes, {name} has more")
        return data.decode("utf-8", "surrogateescape")

    def _text(self, text: str, name: str, parent: _Open, stack: tuple[str, ...]) -> None:
        nul = text.find("\0")
        if nul >= 0:
            raise ConfFileError(Place(name, text.count("\n", 0, nul) + 1), "", "a NUL byte: this is not a text file")
        open_sections = [parent]
        for number, line in logical_lines(text.removeprefix("\ufeff")):
            place = Place(name, number)
            if line.startswith("</"):
                self._close(open_sections, line, place)
            elif line.startswith("<"):
                self._open(open_sections, line, place)
            elif self._in_force(open_sections):
                self._directive(open_sections[-1], line, place, stack)
        if len(open_sections) > 1:
            last = open_sections[-1]
            raise ConfFileError(last.place, f"<{last.name}>", f"the section is not closed: </{last.name}> is missing")

    @staticmethod
    def _in_force(open_sections: Iterable[_Open]) -> bool:
        return all(section.branch is not False for section in open_sections)

    def _open(self, open_sections: list[_Open], line: str, place: Place) -> None:
        match = re.match(r"<\s*([^\s>]+)\s*(.*)$", line, re.S)
        if match is None:
            raise ConfFileError(place, line[:40], "a section must have a name")
        name, rest = match.groups()
        if not rest.endswith(">"):
            raise ConfFileError(place, f"<{name}>", "the directive is missing its closing '>'")
        text = rest[:-1].strip()
        if not self._in_force(open_sections):
            open_sections.append(_Open(name, text, place, branch=False))
            return
        text = self._expand(text, place, name)
        branch = self._branch(name.lower(), text, place, name)
        # A branch that is taken lends its parent's list, so that its children come out in place.
        children = open_sections[-1].children if branch else []
        open_sections.append(_Open(name, text, place, children, branch))

    def _close(self, open_sections: list[_Open], line: str, place: Place) -> None:
        name = line[2:].rstrip(">").strip()
        if len(open_sections) == 1:
            raise ConfFileError(place, f"</{name}>", "there is no section to close")
        section = open_sections.pop()
        if section.name.lower() != name.lower():
            raise ConfFileError(place, f"</{name}>", f"expected </{section.name}>, opened at {section.place}")
        if section.branch is None and self._in_force(open_sections):
            self._add(open_sections[-1], Section(section.name, section.text, section.place, tuple(section.children)))

    def _directive(self, parent: _Open, line: str, place: Place, stack: tuple[str, ...]) -> None:
        name, text = next_word(line)
        text = self._expand(text, place, name)
        directive = Directive(name, text, place)
        handler = _AT_ONCE.get(name.lower())
        if handler == "include":
            self._include(directive, parent, stack)
        elif handler == "define":
            self._define(directive)
        else:
            if handler == "serverroot":
                self.server_root = as_path(next_word(text)[0])
            self._add(parent, directive)

    def _add(self, parent: _Open, directive: Directive) -> None:
        self._count += 1
        if self._count > MAX_DIRECTIVES:
            raise directive.error(f"at most {MAX_DIRECTIVES} directives are read, got more")
        parent.children.append(directive)

    def _expand(self, text: str, place: Place, directive: str) -> str:
        if "${" not in text:
            return text

        def value(match: re.Match[str]) -> str:
            found = self.defines.get(match[1], self.environment.get(match[1]))
            if found is None:
                self.warnings.append((place, directive, f"{match[0]} is not defined and stays as it is"))
                return match[0]
            return found

        return _VARIABLE.sub(value, text)

    # -- what is resolved here -------------------------------------------------------------------------------------

    def _define(self, directive: Directive) -> None:
        words = directive.words()
        most = 1 if directive.key == "undefine" else 2
        if not 1 <= len(words) <= most:
            raise directive.error(f"takes a name{' and an optional value' if most == 2 else ''}, got {words!r}")
        if ":" in words[0]:
            raise directive.error(f"a name must not have a colon, got {words[0]!r}")
        if directive.key == "undefine":
            self.defines.pop(words[0], None)
        else:
            self.defines[words[0]] = words[1] if len(words) > 1 else ""

    def _branch(self, key: str, text: str, place: Place, name: str) -> bool | None:
        """Whether a section decided at load time is taken; None for every other section."""
        test = text[1:].strip() if text.startswith("!") else text
        word = split_words(test)[0] if test else ""
        if key not in ("ifmodule", "ifdefine", "ifversion", "iffile", "ifdirective", "ifsection"):
            return None
        if not word:
            raise ConfFileError(place, f"<{name}>", "takes one argument, got none")
        if key == "ifmodule":
            found = re.sub(r"^mod_|_module$|\.c$", "", re.sub(r"\.c$", "", word)) in MODULES
        elif key == "ifdefine":
            found = word in self.defines
        elif key == "ifversion":
            found = self._version(split_words(test), place, name)
        elif key == "iffile":
            found = os.path.exists(self._absolute(as_path(word), place))
        else:
            raise ConfFileError(place, f"<{name}>", "is not supported; <IfModule> and <IfDefine> are")
        return found != text.startswith("!")

    @staticmethod
    def _version(words: list[str], place: Place, name: str) -> bool:
        operator, wanted = words if len(words) == 2 else ("=", words[0])
        if operator[:1] in ("=", "~") and wanted.startswith("/"):
            return re.search(wanted.strip("/"), ".".join(map(str, VERSION))) is not None
        try:
            version = tuple(int(part) for part in wanted.split("."))
        except ValueError:
            raise ConfFileError(place, f"<{name}>", f"takes an operator and a version, got {words!r}") from None
        have = VERSION[: len(version)]
        tests = {
            "=": have == version, "==": have == version, ">": have > version, ">=": have >= version,
            "<": have < version, "<=": have <= version,
        }  # fmt: skip
        if operator not in tests:
            raise ConfFileError(place, f"<{name}>", f"the operator must be one of {' '.join(tests)}, got {operator!r}")
        return tests[operator]

    def _absolute(self, path: str, place: Place) -> str:
        """Relative to ServerRoot, or to the file that names it where there is none."""
        return os.path.join(self.server_root or os.path.dirname(place.file), path)

    def _include(self, directive: Directive, parent: _Open, stack: tuple[str, ...]) -> None:
        words = directive.words()
        if len(words) != 1:
            raise directive.error(f"takes one file, directory or pattern, got {words!r}")
        path = self._absolute(as_path(words[0]), directive.place)
        optional = directive.key == "includeoptional"
        if re.search(r"[*?\[]", path):
            found = sorted(glob.glob(path))
            if not found and not optional:
                raise directive.error(f"no file matches {words[0]!r}; IncludeOptional accepts that")
        elif os.path.isdir(path):
            found = sorted(str(entry) for entry in Path(path).rglob("*") if entry.is_file())
        elif optional and not os.path.exists(path):
            found = []
        else:
            found = [path]
        for entry in found:
            if not os.path.isdir(entry):
                self._file(entry, entry, parent, stack, directive.place, directive.name)


_AT_ONCE = {
    "include": "include",
    "includeoptional": "include",
    "define": "define",
    "undefine": "define",
    "serverroot": "serverroot",
}
