"""The manager as people meet it: in a browser, with JavaScript and without, on a phone, in the dark, by keyboard."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.origins import Front

pytestmark = pytest.mark.browser
Open = Callable[..., Any]
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
PHONE = {"viewport": {"width": 360, "height": 780}, "has_touch": True}


def url(front: Front, path: str = "/balancer-manager/") -> str:
    return f"{front.url}{path}"


def pools(front: Front) -> dict[str, Any]:
    return {pool["name"]: pool for pool in json.loads(front.get("/balancer-manager/api/v1/pools").body)["pools"]}


def member(front: Front, name: str) -> dict[str, Any]:
    return next(view for view in pools(front)["cluster"]["members"] if view["name"] == name)


def change(front: Front, name: str, **values: Any) -> None:
    """Somebody else's change, through whichever worker answers."""
    reply = front.get(
        f"/balancer-manager/api/v1/pools/cluster/members/{name}",
        method="PATCH",
        headers={"Content-Type": "application/json", "X-Proxymw-Nonce": pools(front)["cluster"]["nonce"]},
        body=json.dumps(values).encode(),
    )
    assert reply.status == 200


def until(true: Callable[[], bool], what: str, seconds: float = 6) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what} did not come within {seconds} s"
        time.sleep(0.05)


def row(page: Any, name: str) -> Any:
    return page.locator(f'tr[data-member="{name}"]')


def test_a_cell_changes_within_two_polls_and_the_change_is_announced(showcase: Front, open_page: Open) -> None:
    page = open_page(url(showcase))
    weight = row(page, "app2").locator('[data-label="Weight"]')
    assert weight.inner_text() == "1"
    change(showcase, "app2", weight=7, state="drain")
    page.wait_for_function(
        "() => document.querySelector('tr[data-member=app2] [data-label=Weight]').innerText === '7'", timeout=5000
    )
    assert page.locator("#announce").inner_text() == "app2: drain, up"


def test_the_focus_survives_a_refresh(showcase: Front, open_page: Open) -> None:
    page = open_page(url(showcase))
    button = row(page, "app3").get_by_role("button", name="Drain app3")
    button.focus()
    change(showcase, "app3", weight=9)
    page.wait_for_function(
        "() => document.querySelector('tr[data-member=app3] [data-label=Weight]').innerText === '9'", timeout=5000
    )
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Drain app3"


def test_enter_on_drain_drains_without_leaving_the_page(showcase: Front, open_page: Open) -> None:
    page = open_page(url(showcase))
    page.evaluate("window.stayed = true")
    row(page, "app1").get_by_role("button", name="Drain app1").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector('tr[data-member="app1"] button[value="drain"][aria-pressed="true"]')
    assert member(showcase, "app1")["asked"] == "drain"
    assert page.evaluate("window.stayed") is True
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Drain app1"
    assert page.said == []


def test_without_javascript_the_same_button_does_the_same(showcase: Front, open_page: Open) -> None:
    page = open_page(url(showcase), java_script_enabled=False)
    row(page, "app1").get_by_role("button", name="Drain app1").click()
    page.wait_for_load_state()
    assert page.url == url(showcase)
    assert row(page, "app1").get_by_role("button", name="Drain app1").get_attribute("aria-pressed") == "true"
    assert member(showcase, "app1")["asked"] == "drain"


@pytest.mark.parametrize("mount", ["/balancer-manager", "/balancer-manager/"])
def test_without_javascript_a_member_is_edited_in_a_form(showcase: Front, open_page: Open, mount: str) -> None:
    page = open_page(url(showcase, mount), java_script_enabled=False)
    row(page, "app2").get_by_role("link", name="Edit app2").click()
    page.get_by_label("Weight").fill("2.5")
    page.get_by_role("radio", name=re.compile("Standby")).check()
    page.get_by_role("button", name="Save app2").click()
    page.wait_for_load_state()
    assert row(page, "app2").locator('[data-label="Weight"]').inner_text() == "2.5"
    assert (member(showcase, "app2")["asked"], member(showcase, "app2")["weight"]) == ("standby", 2.5)


def test_a_member_is_edited_in_a_dialog(showcase: Front, open_page: Open) -> None:
    page = open_page(url(showcase))
    opener = row(page, "app2").get_by_role("link", name="Edit app2")
    opener.click()
    dialog = page.get_by_role("dialog", name=re.compile("app2"))
    dialog.wait_for()
    assert page.evaluate("document.activeElement.name") == "loadfactor"
    page.wait_for_timeout(2500)  # a refresh goes by behind it
    dialog.get_by_label("Weight").fill("0")
    dialog.get_by_role("button", name="Save").click()
    page.wait_for_selector("#toast:not([hidden])")
    assert "loadfactor must be" in page.locator("#toast").inner_text()
    assert member(showcase, "app2")["weight"] == 1
    dialog.get_by_label("Weight").fill("4")
    dialog.get_by_role("button", name="Save").click()
    dialog.wait_for(state="hidden")
    until(lambda: member(showcase, "app2")["weight"] == 4, "the weight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Edit app2"


def test_a_dialog_closes_with_escape_and_cancel_and_changes_nothing(showcase: Front, open_page: Open) -> None:
    page = open_page(url(showcase))
    for close in (lambda: page.keyboard.press("Escape"), lambda: page.get_by_role("link", name="Cancel").click()):
        page.get_by_role("link", name="Edit pool cluster").click()
        page.get_by_role("dialog").wait_for()
        close()
        page.get_by_role("dialog").wait_for(state="hidden")
    assert page.url == url(showcase)


def test_ticked_members_are_changed_together_and_stay_ticked(showcase: Front, open_page: Open) -> None:
    page = open_page(url(showcase))
    page.get_by_label("Tick app1").check()
    page.get_by_label("Tick app3").check()
    page.get_by_role("button", name="Disable the ticked members of cluster").click()
    page.wait_for_selector('tr[data-member="app3"] button[value="disabled"][aria-pressed="true"]')
    assert [view["asked"] for view in pools(showcase)["cluster"]["members"]][:3] == ["disabled", "ready", "disabled"]
    assert page.get_by_label("Tick app1").is_checked()


def test_the_last_usable_member_is_not_disabled_without_asking(showcase: Front, open_page: Open) -> None:
    for name in ("app2", "app3", "app4", "app5"):
        change(showcase, name, state="disabled")
    page = open_page(url(showcase))
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    row(page, "app1").get_by_role("button", name="Disable app1").click()
    page.wait_for_timeout(300)
    assert asked == ["app1 is the last usable member of cluster. Disable it?"]
    assert member(showcase, "app1")["asked"] == "ready"


def test_letters_act_only_while_the_focus_is_in_a_table(showcase: Front, open_page: Open) -> None:
    page = open_page(url(showcase))
    page.keyboard.press("d")
    page.wait_for_timeout(300)
    assert {view["asked"] for view in pools(showcase)["cluster"]["members"]} == {"ready", "standby"}
    page.get_by_label("Tick app1").focus()
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Tick app2"
    page.keyboard.press("d")
    page.wait_for_selector('tr[data-member="app2"] button[value="drain"][aria-pressed="true"]')
    page.keyboard.press("x")
    assert page.get_by_label("Tick app2").is_checked()


def test_every_worker_shows_the_same_numbers(showcase: Front, open_page: Open) -> None:
    change(showcase, "app1", weight=5)
    seen: dict[str, str] = {}
    for _ in range(30):
        page = open_page(url(showcase))  # with a connection of its own
        worker = page.locator(".where").inner_text().rpartition(" ")[2]
        seen[worker] = row(page, "app1").locator('[data-label="Weight"]').inner_text()
        page.context.close()
        if len(seen) == 2:
            break
    assert list(seen.values()) == ["5", "5"]


def test_charts_are_full_when_the_page_opens_and_keep_moving(busy: Front, open_page: Open) -> None:
    busy.get("/balancer-manager/")
    time.sleep(3)
    page = open_page(url(busy))
    page.wait_for_selector(".plot canvas")
    assert page.locator(".plot canvas").count() == 8
    shown = page.locator(".chart h3 b").first
    first = shown.inner_text()
    page.wait_for_function(f"() => document.querySelector('.chart h3 b').innerText !== {first!r}", timeout=12_000)
    assert page.said == []
    plain = open_page(url(busy), java_script_enabled=False)
    paths = [path.get_attribute("d") for path in plain.locator(".plot path").all()]
    assert all(path.count("L") == 59 for path in paths)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_the_switch(showcase: Front, open_page: Open, scheme: str) -> None:
    page = open_page(url(showcase), color_scheme=scheme)

    def dark() -> bool:
        red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
        return int(red) < 128

    assert dark() is (scheme == "dark")
    for wanted in ("Light", "Dark"):
        page.get_by_role("button", name="Colours").click()
        assert page.get_by_role("button", name="Colours").inner_text() == wanted
        assert dark() is (wanted == "Dark")
    page.reload()
    assert dark()


def test_a_phone_shows_everything_without_scrolling_sideways(busy: Front, open_page: Open) -> None:
    busy.get("/balancer-manager/")
    time.sleep(1)
    page = open_page(url(busy), **PHONE)
    page.wait_for_selector(".plot canvas")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    wide = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > 361)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert row(page, "app1").locator('[data-label="In flight"]').is_visible()
    row(page, "app1").get_by_role("button", name="Drain app1").tap()
    page.wait_for_selector('tr[data-member="app1"] button[value="drain"][aria-pressed="true"]')


PROFILES: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": PHONE,
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("part", ["page", "member", "pool", "plain"])
def test_axe_finds_nothing(busy: Front, open_page: Open, profile: str, part: str) -> None:
    busy.get("/balancer-manager/")
    busy.get("/balancer-manager/")
    until(lambda: member(busy, "app5")["health"] == "down", "a member that is down")
    query = "?b=cluster&w=http://127.0.0.1:9002" if part == "plain" else ""
    page = open_page(url(busy) + query, bypass_csp=True, **PROFILES[profile])
    page.wait_for_selector(".plot canvas")
    if part in ("member", "pool"):
        page.get_by_role("link", name="Edit app2" if part == "member" else "Edit pool cluster").click()
        page.get_by_role("dialog").wait_for()
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 20
    problems = [f"{rule['id']}: {node['html'][:150]}" for rule in found["violations"] for node in rule["nodes"]]
    assert "\n".join(problems) == ""


def test_the_strict_content_policy_is_never_broken(busy: Front, open_page: Open) -> None:
    busy.get("/balancer-manager/")
    for options in ({}, {"java_script_enabled": False}):
        page = open_page(url(busy), **options)
        page.wait_for_timeout(2500)
        if not options:
            page.get_by_role("link", name="Edit app1").click()
            page.get_by_role("dialog").wait_for()
        assert page.said == []
