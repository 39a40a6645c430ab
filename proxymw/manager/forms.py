"""From the fields of a form to the changes they ask for: our page's own fields, and those of Apache's page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl

from proxymw.manager.security import Refused

if TYPE_CHECKING:
    from proxymw.balancer import BalancerPool
    from proxymw.rules.members import MemberView, PoolSnapshot

MAX_BODY = 64 * 1024
MAX_FIELDS = 100

#: Apache's radio buttons, and the bits of a member they set to 0 or 1.
_STATUS = {
    "w_status_I": "ignore_errors",
    "w_status_N": "drain",
    "w_status_D": "disabled",
    "w_status_S": "stopped",
    "w_status_H": "standby",
    "w_status_R": "spare",
}
#: Fields that would change something. In a query they are ignored, and that is logged.
_ACTIONS = frozenset(
    {"nonce", "state", "retry", "loadfactor", "lbset", "route", "redirect"}
    | {"method", "timeout", "attempts", "sticky", "nofailover", "add", "remove"}
)

Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """What one form asks of a pool: of itself, of some of its members, or to add or remove one.

    ``values`` are the keyword arguments of ``change_pool``, ``change`` or ``Member``.
    """

    kind: Literal["pool", "members", "add", "remove"]
    members: tuple[str, ...]
    values: Mapping[str, Any]


def bad(detail: str) -> Refused:
    return Refused(400, "mgr_bad_value", detail)


def read_body(environ: Mapping[str, Any], limit: int = MAX_BODY) -> bytes:
    """The request body; 413 above ``limit`` bytes, of which no more than that is read."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length:
        if not (length.isascii() and length.isdigit()):
            raise bad("Content-Length must be a number.")
        if int(length) > limit:
            raise Refused(413, "mgr_too_large", f"A form may have at most {limit} bytes.")
        data: bytes = environ["wsgi.input"].read(int(length))
        if len(data) < int(length):
            raise bad("The body ended early.")
        return data
    if not environ.get("wsgi.input_terminated"):
        return b""
    data = environ["wsgi.input"].read(limit + 1)
    if len(data) > limit:
        raise Refused(413, "mgr_too_large", f"A form may have at most {limit} bytes.")
    return data


def read_form(environ: Mapping[str, Any], *, strict: bool = True) -> list[tuple[str, str]]:
    """The fields of a posted form in order; 415, 413 or 400 for what is no decent form.

    Not ``strict``: as Apache, which takes a body without a Content-Type for a form.
    """
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded" and (strict or kind):
        raise Refused(415, "mgr_bad_type", "Changes are sent as application/x-www-form-urlencoded.")
    return parse_fields(read_body(environ))


def parse_fields(data: bytes | str) -> list[tuple[str, str]]:
    """URL-encoded fields; 400 above ``MAX_FIELDS`` of them, for broken UTF-8 and for control characters."""
    try:
        text = data.decode("ascii") if isinstance(data, bytes) else data
        fields = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except UnicodeError:
        raise bad("The form is not URL-encoded UTF-8.") from None
    except ValueError:
        raise bad(f"A form may have at most {MAX_FIELDS} fields.") from None
    if any(not value.isprintable() for _, value in fields):
        raise bad("A value holds a control character.")
    return fields


def acts(fields: Iterable[tuple[str, str]]) -> bool:
    """Whether these fields, in a query, ask for a change."""
    return any(name in _ACTIONS or name.startswith(("w_", "b_")) for name, _ in fields)


def pool_named(pools: Iterable[BalancerPool], fields: Fields) -> BalancerPool | None:
    """The pool that the form names in ``pool`` or, as Apache does, in ``b``."""
    name = fields.get("pool", fields.get("b", ""))
    return next((pool for pool in pools if pool.name == name), None)


def find_member(snapshot: PoolSnapshot, text: str) -> MemberView | None:
    """The member with this id or URL (a trailing slash more or less does not matter)."""
    for view in snapshot.members:
        if text in (view.id, view.url) or (text and text.rstrip("/") == view.url.rstrip("/")):
            return view
    return None


def change_of(fields: list[tuple[str, str]], snapshot: PoolSnapshot) -> Change:
    """The change that a form asks for, checked as far as a form can be; 400 where it makes no sense."""
    single = dict(fields)
    if url := single.get("add", single.get("b_nwrkr", "")):
        return _added(url, single)
    wanted = [value for name, value in fields if name in ("member", "w")]
    views = [find_member(snapshot, text) for text in wanted]
    members = tuple(dict.fromkeys(view.id for view in views if view is not None))
    if None in views:
        raise bad(f"Pool {snapshot.name} has no such member.")
    if wanted and single.get("remove") == "yes":
        return Change("remove", members, {})
    if not wanted and not any(name in _POOL_FIELDS for name, _ in fields):
        raise bad("Tick at least one member first.")
    values = _member_values(single) if wanted else _pool_values(single)
    if not values:
        raise bad("The form asks for no change.")
    return Change("members" if wanted else "pool", members, values)


def _added(url: str, form: Fields) -> Change:
    """A new member (Apache wants to be asked twice: ``b_wyes``). It starts disabled, as there."""
    if "b_nwrkr" in form and form.get("b_wyes") != "1":
        raise bad("Confirm the new member with b_wyes=1.")
    values: dict[str, Any] = {"target": url, "route": form.get("route", "")}
    if form.get("loadfactor"):
        values["loadfactor"] = number("Weight", form["loadfactor"])
    if form.get("lbset"):
        values["lbset"] = whole("Set", form["lbset"])
    return Change("add", (), values)


def _member_values(form: Fields) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, given in (("state", form.get("state")), ("route", form.get("route", form.get("w_wr")))):
        if given is not None:
            values[name] = given
    if (redirect := form.get("redirect", form.get("w_rr"))) is not None:
        values["redirect"] = redirect
    if (weight := form.get("loadfactor", form.get("w_lf"))) is not None:
        values["loadfactor"] = number("Weight", weight)
    if (lbset := form.get("lbset", form.get("w_ls"))) is not None:
        values["lbset"] = whole("Set", lbset)
    if form.get("retry", "") == "now":
        values["retry_now"] = True
    flags = {flag: switch(name, form[name]) for name, flag in _STATUS.items() if name in form}
    if flags:
        values["flags"] = flags
    return values


_POOL_FIELDS = frozenset(
    ("method", "timeout", "attempts", "sticky", "nofailover", "b_lbm", "b_tmo", "b_max", "b_sforce", "b_ss")
)


def _pool_values(form: Fields) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if (method := form.get("method", form.get("b_lbm"))) is not None:
        values["method"] = method
    if (timeout := form.get("timeout", form.get("b_tmo"))) is not None:
        values["timeout"] = number("Timeout", timeout)
    if (attempts := form.get("attempts", form.get("b_max"))) is not None:
        values["attempts"] = whole("Attempts", attempts)
    if (nofailover := form.get("nofailover", form.get("b_sforce"))) is not None:
        values["nofailover"] = switch("nofailover", nofailover)
    sticky = form.get("sticky")
    if sticky is None and form.get("b_ss"):
        # Apache: "-" deletes, empty keeps; its own form shows "a | b" and then takes the spaces for part of the names.
        sticky = "" if form["b_ss"] == "-" else "|".join(part.strip() for part in form["b_ss"].split("|"))
    if sticky is not None:
        values["sticky"] = sticky
    return values


def number(name: str, text: str) -> float:
    """A plain decimal number; 400 otherwise."""
    plain = text.strip()
    if not plain.isascii() or not plain.replace(".", "", 1).isdigit() or len(plain) > 12:
        raise bad(f"{name} must be a number.")
    return float(plain)


def whole(name: str, text: str) -> int:
    """A plain whole number; 400 otherwise."""
    plain = text.strip()
    if not plain.isascii() or not plain.isdigit() or len(plain) > 9:
        raise bad(f"{name} must be a whole number.")
    return int(plain)


def switch(name: str, text: str) -> bool:
    """Apache's 0 and 1; 400 otherwise."""
    if text not in ("0", "1"):
        raise bad(f"{name} must be 0 or 1.")
    return text == "1"
