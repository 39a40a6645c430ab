"""The Python that builds the same stack, as one would write it by hand.

The stack is built once while the constructors of the middlewares note what they are given; then those calls are
printed, what is inside first.
"""

from __future__ import annotations

import dataclasses
import keyword
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from proxymw.accesslog import AccessLog
from proxymw.allow import IPAllowlist
from proxymw.apacheconf.build import Builder
from proxymw.apacheconf.documents import Aliases, OneFile
from proxymw.apacheconf.fallback import Front
from proxymw.apacheconf.hosts import ByAddress
from proxymw.apacheconf.passes import BadTarget
from proxymw.apacheconf.perdirectory import BodyLimit, DirectoryRewrite, PathInfo
from proxymw.apacheconf.sections import Sections
from proxymw.balancer import BalancerPool
from proxymw.clientaddress import ClientAddress
from proxymw.errorpages import ErrorPages
from proxymw.errors import ConfigError
from proxymw.exchange.inbound import NOT_FOUND
from proxymw.headerskin import Headers
from proxymw.locations import Locations
from proxymw.manager import BalancerManagerApp
from proxymw.prefix import PrefixProxy, ProxyRule
from proxymw.redirects import Redirects
from proxymw.rewrite import RewriteProxy
from proxymw.rules.logline import LogFormat
from proxymw.rules.mediatypes import TYPES, MediaTypes
from proxymw.rules.networks import NetworkSet
from proxymw.rules.policy import Policy
from proxymw.rules.rewriting import INTERNAL_MAPS
from proxymw.static import StaticOrPass
from proxymw.variables import Variables
from proxymw.vhosts import VirtualHosts

if TYPE_CHECKING:
    from proxymw.apacheconf.site import Site

#: Middlewares that are written as statements, one after the other.
_LAYERS = (
    AccessLog, Aliases, BalancerManagerApp, BalancerPool, BodyLimit, ByAddress, ClientAddress, DirectoryRewrite,
    ErrorPages, Front, Headers, IPAllowlist, Locations, OneFile, PathInfo, PrefixProxy, Redirects, RewriteProxy,
    Sections, StaticOrPass, Variables, VirtualHosts,
)  # fmt: skip
#: Values that are written where they are used.
_VALUES = (BadTarget, LogFormat, MediaTypes, NetworkSet)
_WIDTH = 110


@dataclasses.dataclass(frozen=True, slots=True)
class _Call:
    """How an object was made."""

    kind: type
    args: tuple[Any, ...]
    options: dict[str, Any]
    #: Keeps the object alive, so that its id stays its own.
    made: Any


@contextmanager
def _noted() -> Iterator[dict[int, _Call]]:
    """The calls of constructors in this block, by the id of what was made."""
    calls: dict[int, _Call] = {}
    kept = {kind: kind.__init__ for kind in (*_LAYERS, *_VALUES)}

    def noting(kind: type, init: Any) -> Any:
        def __init__(self: Any, *args: Any, **options: Any) -> None:
            if type(self) is kind:
                calls[id(self)] = _Call(kind, args, options, self)
            init(self, *args, **options)

        return __init__

    for kind, init in kept.items():
        setattr(kind, "__init__", noting(kind, init))  # noqa: B010
    try:
        yield calls
    finally:
        for kind, init in kept.items():
            setattr(kind, "__init__", init)  # noqa: B010


def convert(site: Site) -> str:
    """A module whose ``application`` is the stack of the configuration.

    Raises ConfigError for what cannot be written as a call: sections chosen by pattern, FallbackResource.
    """
    with _noted() as calls:
        app = Builder(site).application()
    first = _Writer(calls)
    first.module(app, "")
    # Written a second time: what several use gets a name.
    return _Writer(calls, first.uses, first.texts).module(app, site.main.place.file)


class _Writer:
    """Writes objects as the calls that make them."""

    def __init__(
        self, calls: dict[int, _Call], uses: Counter[int] | None = None, texts: Counter[str] | None = None
    ) -> None:
        self.calls = calls
        #: How often each layer, and each long list, is used; and what a first writing found.
        self.uses: Counter[int] = Counter()
        self.texts: Counter[str] = Counter()
        self.known_uses, self.known_texts = uses or Counter(), texts or Counter()
        self.shared: dict[str, str] = {}
        self.lines: list[str] = []
        self.imports: dict[str, set[str]] = {}
        self.named: dict[int, str] = {}
        self.policies: dict[Policy, str] = {}
        self.taken: set[str] = {"application"}

    def module(self, app: Any, source: str) -> str:
        name = self.layer(app, "application")
        if name != "application":
            self.lines.append(f"application = {name}")
        head = [f'"""Made from {source} by python -m proxymw convert."""', ""]
        head += [self.imported(module, sorted(names)) for module, names in sorted(self.imports.items())]
        return "\n".join([*head, "", *self.lines]) + "\n"

    @staticmethod
    def imported(module: str, names: list[str]) -> str:
        line = f"from {module} import {', '.join(names)}"
        if len(line) <= _WIDTH:
            return line
        return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")"

    def name(self, wanted: str) -> str:
        """An unused variable name like ``wanted``."""
        base = re.sub(r"\W+", "_", wanted).strip("_").lower() or "app"
        base = f"_{base}" if base[0].isdigit() or keyword.iskeyword(base) else base
        name, number = base, 2
        while name in self.taken:
            name, number = f"{base}_{number}", number + 1
        self.taken.add(name)
        return name

    def use(self, thing: Any) -> str:
        """The name of a class or function, imported: from the package itself where it is public."""
        import proxymw

        module, name = thing.__module__, thing.__qualname__
        if name in proxymw.__all__ and getattr(proxymw, name) is thing:
            module = "proxymw"
        self.imports.setdefault(module, set()).add(name)
        return str(name)

    # -- layers ------------------------------------------------------------------------------------------------

    def layer(self, app: Any, name: str) -> str:
        """Statements that leave ``app`` in a variable; its name. What is behind a layer goes under the same name."""
        self.uses[id(app)] += 1
        known = self.named.get(id(app))
        if known is not None:
            return known
        call = self.calls.get(id(app))
        if call is None:
            return self.value(app)
        if self.known_uses[id(app)] > 1 and call.kind is StaticOrPass:
            name = self.name("files")
        if call.kind is Sections:
            raise ConfigError(
                "sections chosen by pattern (LocationMatch, Files) cannot be written as calls; load the file"
            )
        if call.kind is Front:
            raise ConfigError("FallbackResource (the host asked again) cannot be written as calls; load the file")
        args = [self.argument(arg, name if at == 0 else "rules", first=at == 0) for at, arg in enumerate(call.args)]
        args += [
            f"{key}={self.argument(value, key)}"
            for key, value in call.options.items()
            if not self.is_default(call, key)
        ]
        self.statement(name, self.use(call.kind), args)
        # A layer's own variable is overwritten by the next one in front of it; what several use has another.
        if call.kind is BalancerPool or self.known_uses[id(app)] > 1:
            self.named[id(app)] = name
        return name

    def argument(self, value: Any, name: str, *, first: bool = False) -> str:
        if id(value) in self.calls and self.calls[id(value)].kind in _LAYERS:
            return self.layer(value, name if first else self.inner_name(value, name))
        if isinstance(value, Mapping) and any(id(app) in self.calls for app in value.values()):
            items = [f"{self.value(key)}: {self.layer(app, self.name(_first(key)))}" for key, app in value.items()]
            return self.wrapped("{", items, "}")
        text = self.value(value)
        if not text.startswith("[") or "\n" not in text:
            return text
        self.texts[text] += 1
        if self.known_texts[text] < 2:
            return text
        if text not in self.shared:
            self.shared[text] = self.name(name)
            self.lines.append(f"{self.shared[text]} = {text}")
        return self.shared[text]

    def inner_name(self, value: Any, name: str) -> str:
        if id(value) in self.named:
            return self.named[id(value)]
        if isinstance(value, BalancerPool):
            return self.name(value.name)
        if isinstance(value, BalancerManagerApp):
            return self.name("manager")
        return self.name({"local": "files", "default": "default"}.get(name, type(value).__name__))

    def statement(self, name: str, call: str, args: list[str]) -> None:
        self.lines.append(f"{name} = {self.wrapped(call + '(', args, ')')}")

    @staticmethod
    def wrapped(opening: str, items: list[str], closing: str) -> str:
        line = f"{opening}{', '.join(items)}{closing}"
        if len(line) <= _WIDTH and "\n" not in line:
            return line
        inner = "".join(f"    {item},\n".replace("\n", "\n    ").rstrip(" ") for item in items)
        return f"{opening}\n{inner}{closing}"

    # -- values ------------------------------------------------------------------------------------------------

    def value(self, value: Any) -> str:
        """An expression for a value."""
        if value is NOT_FOUND:
            return "None"
        if isinstance(value, Policy):
            return self.policy(value)
        call = self.calls.get(id(value))
        if call is not None and call.kind in _LAYERS:
            return self.layer(value, self.inner_name(value, ""))
        if isinstance(value, LogFormat) and call is not None:
            return repr(call.args[0])
        if isinstance(value, NetworkSet):
            return self.networks(value)
        if isinstance(value, MediaTypes) and call is not None:
            return self.media_types(call)
        if call is not None:
            given = [self.value(arg) for arg in call.args]
            given += [f"{key}={self.value(item)}" for key, item in call.options.items() if not _is_default(call, key)]
            return self.wrapped(f"{self.use(call.kind)}(", given, ")")
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self.record(value)
        return self.plain(value)

    def plain(self, value: Any) -> str:
        if isinstance(value, (str, bytes, int, float, bool, type(None))):
            return repr(value)
        if isinstance(value, Mapping):
            return self.wrapped("{", [f"{self.value(k)}: {self.value(v)}" for k, v in value.items()], "}")
        if isinstance(value, tuple):
            items = [self.value(item) for item in value]
            text = self.wrapped("(", items, ")")
            return f"({items[0]},)" if len(items) == 1 and "\n" not in text else text
        if isinstance(value, (list, set, frozenset, type({}.values()))):
            return self.wrapped("[", [self.value(item) for item in value], "]")
        for name, function in INTERNAL_MAPS.items():
            if value is function:
                self.imports.setdefault("proxymw.rules.rewriting", set()).add("INTERNAL_MAPS")
                return f"INTERNAL_MAPS[{name!r}]"
        if callable(value) and hasattr(value, "__qualname__"):
            return self.use(value)
        raise ConfigError(f"{value!r} cannot be written as Python")

    def record(self, value: Any) -> str:
        """A frozen value by the fields that are not their defaults."""
        kind = type(value)
        given: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            if field.init and not _is_field_default(field, getattr(value, field.name)):
                given[field.name] = getattr(value, field.name)
        if kind is ProxyRule and list(given) == ["prefix", "target"] and isinstance(value.target, str):
            return f"({value.prefix!r}, {value.target!r})"
        items: list[str] = []
        by_place = True
        for field in dataclasses.fields(value):
            if field.name not in given:
                by_place = False
                continue
            text = self.value(given[field.name])
            items.append(text if by_place and len(items) < 3 else f"{field.name}={text}")
        return self.wrapped(f"{self.use(kind)}(", items, ")")

    def is_default(self, call: _Call, key: str) -> bool:
        """Whether an option says what is so anyway."""
        value = call.options[key]
        if isinstance(value, MediaTypes):
            made = self.calls.get(id(value))
            return made is not None and made.args == ({},) and made.options.get("table") is TYPES
        return _is_default(call, key)

    def networks(self, value: NetworkSet) -> str:
        try:
            NetworkSet(value.texts)
        except ConfigError:
            return f"{self.use(NetworkSet)}({list(value.texts)!r}, strict=False)"
        return f"{self.use(NetworkSet)}({list(value.texts)!r})"

    def media_types(self, call: _Call) -> str:
        extra = call.args[0] if call.args else {}
        if call.options.get("table") is TYPES and call.options.get("every_extension") and extra:
            return self.value(extra)
        return self.wrapped(
            f"{self.use(MediaTypes)}(",
            [*map(self.value, call.args), *(f"{key}={self.value(item)}" for key, item in call.options.items())],
            ")",
        )

    def policy(self, value: Policy) -> str:
        """A variable for each policy, made from Apache's by what differs."""
        known = self.policies.get(value)
        if known is None:
            base = Policy.apache()
            changes = [
                f"{field.name}={getattr(value, field.name)!r}"
                for field in dataclasses.fields(value)
                if getattr(value, field.name) != getattr(base, field.name)
            ]
            known = self.policies[value] = self.name("policy")
            made = f"{self.use(Policy)}.apache()"
            self.lines.append(f"{known} = {made}" + (f".but({', '.join(changes)})" if changes else ""))
        return known


def _first(key: Any) -> str:
    """What an entry of a mapping is called after."""
    text = key[0] if isinstance(key, tuple) and key else key
    return str(text)


def _is_default(call: _Call, key: str) -> bool:
    """Whether an option says what is so anyway."""
    import inspect

    known = inspect.signature(call.kind.__dict__.get("__wrapped__", call.kind)).parameters.get(key)
    value = call.options[key]
    plain = isinstance(value, (str, int, float, bool, tuple, type(None)))
    return known is not None and plain and type(value) is type(known.default) and value == known.default


def _is_field_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default is not dataclasses.MISSING:
        return bool(value == field.default) and type(value) is type(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return False
