"""``python -m tests.browser.screenshots``: the pictures of README and docs, from the manager of showcase.py.

Needs playwright and chromium, and takes a few minutes: the charts show ten. ``--seconds 60`` is for trying.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from tests.browser.conftest import FLAGS, chromium
from tests.origins import Front

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"


def take(front: Front, folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    url = f"{front.url}/balancer-manager/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        for name, options in {
            "manager-light": {"color_scheme": "light"},
            "manager-dark": {"color_scheme": "dark"},
            "manager-phone": {"viewport": {"width": 360, "height": 860}, "device_scale_factor": 2},
        }.items():
            context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
            page = context.new_page()
            page.goto(url)
            page.wait_for_selector(".plot canvas")
            page.wait_for_timeout(1500)
            page.screenshot(path=folder / f"{name}.png", full_page="phone" not in name)
            if name == "manager-light":
                page.get_by_role("link", name="Edit app2").click()
                page.get_by_role("dialog").wait_for()
                page.get_by_role("dialog").screenshot(path=folder / "manager-edit.png")
            context.close()
        browser.close()


def drain(front: Front, name: str) -> None:
    pool = json.loads(front.get("/balancer-manager/api/v1/pools/cluster").body)
    headers = {"Content-Type": "application/json", "X-Proxymw-Nonce": pool["nonce"]}
    path = f"/balancer-manager/api/v1/pools/cluster/members/{name}"
    assert front.get(path, method="PATCH", headers=headers, body=b'{"state": "drain"}').status == 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=615)
    parser.add_argument("--into", type=Path, default=IMAGES)
    given = parser.parse_args()
    given.into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        env = {"SHOWCASE_STATE": f"{folder}/table", "SHOWCASE_TRAFFIC": "1", "SHOWCASE_CALM": "100"}
        with Front("tests.browser.showcase:app", workers=2, env=env) as front:
            for _ in range(8):
                front.get("/balancer-manager/")  # traffic begins with the first request of each worker
            time.sleep(given.seconds * 0.9)
            drain(front, "app3")
            time.sleep(given.seconds * 0.1)
            take(front, given.into)


if __name__ == "__main__":
    main()
