"""The page in a real browser: wide and narrow, light and dark, a cell that opens its runs."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from chela.records.collect import Collection, Unread, collect, parse
from chela.report.published import published
from chela.report.render import page
from chela.report.table import build
from tests.conftest import ROOT
from tests.records.samples import sweep

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCHEMES = {"light": [], "dark": ["--blink-settings=preferredColorScheme=0"]}

# Frames, because a window cannot be as narrow as a telephone. What they show is measured here, for
# the page itself may run no script.
FRAMES = """<!DOCTYPE html><title>frames</title><body style="margin:0">
<iframe id="narrow" src="report.html" style="width:400px;height:1400px;border:0"></iframe>
<iframe id="middle" src="report.html" style="width:768px;height:1400px;border:0"></iframe>
<iframe id="wide" src="report.html" style="width:1280px;height:1400px;border:0"></iframe>
<iframe id="few" src="shipped.html" style="width:400px;height:1400px;border:0"></iframe>
<iframe id="some" src="shipped.html" style="width:768px;height:1400px;border:0"></iframe>
<iframe id="many" src="shipped.html" style="width:1280px;height:1400px;border:0"></iframe>
<pre id="found"></pre>
<script>
const channel = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
const light = c => .2126 * channel(c[0]) + .7152 * channel(c[1]) + .0722 * channel(c[2]);
const numbers = text => text.match(/[\\d.]+/g).map(Number);
function contrast(element, view) {
  const style = view.getComputedStyle(element);
  let ground = element, color = [0, 0, 0, 0];
  for (; ground && (color.length > 3 && color[3] === 0); ground = ground.parentElement)
    color = numbers(view.getComputedStyle(ground).backgroundColor);
  const ink = numbers(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
  const [a, b] = [light(ink), light(color)].sort((x, y) => y - x);
  return (a + .05) / (b + .05);
}
function measure(frame) {
  const page = frame.contentDocument, room = page.documentElement.clientWidth;
  const align = e => frame.contentWindow.getComputedStyle(e).textAlign;
  const numbers = [...page.querySelector("table").querySelectorAll("td a")];
  const costs = [...page.querySelectorAll('[aria-label="Cost"] td')];
  const [head, line] = page.querySelectorAll('[aria-label="Cost"] tr');
  return {
    page: page.documentElement.scrollWidth,
    room: room,
    numbers: numbers.length,
    hidden: [...numbers, ...costs].filter(e => e.getBoundingClientRect().right > room).length,
    heads: [...head.cells].map(align),
    cells: [...line.cells].map(align),
    closed: page.querySelectorAll("details[open]").length === 0,
    faint: [...page.body.querySelectorAll("*")]
      .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
      .filter(e => !["STYLE", "title"].includes(e.nodeName))
      .filter(e => contrast(e, frame.contentWindow) < 4.5)
      .map(e => e.outerHTML.slice(0, 120)),
  };
}
addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) found[frame.id] = measure(frame);
  const page = document.getElementById("narrow").contentDocument;
  const link = page.querySelector('td a[href^="#runs-"]');
  link.click();
  setTimeout(() => {
    const opened = [...page.querySelectorAll("details[open]")];
    found.opened = opened.map(each => each.querySelector("summary").textContent);
    found.href = link.getAttribute("href");
    found.inside = opened.map(each => each.querySelector(".inside").id);
    found.after = measure(document.getElementById("narrow"));
    document.getElementById("found").textContent = JSON.stringify(found);
  }, 300);
});
</script>"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server of this machine alone, with the page and its frames."""
    folder = tmp_path_factory.mktemp("page")
    runs = tuple(parse(each, Path("outputs") / each["run_id"]) for each in sweep())
    unread = (Unread(Path("a/record.json"), "half a file"),)
    shipped = collect([ROOT / "outputs" / "records"])  # fewer columns, longer names
    for name, found in (("report", Collection(runs, unread, ())), ("shipped", shipped)):
        text = page(build(found, published()))
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    (folder / "frames.html").write_text(FRAMES, encoding="utf-8")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def chromium(profile: Path, *arguments: str) -> str:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize("scheme", SCHEMES)
def test_layout_contrast_and_links(scheme, address, tmp_path) -> None:
    made = chromium(
        tmp_path,
        *SCHEMES[scheme],
        "--window-size=2500,1500",
        "--virtual-time-budget=10000",
        "--dump-dom",
        f"{address}/frames.html",
    )
    text = made.partition('<pre id="found">')[2].partition("</pre>")[0]
    found = json.loads(unescape(text))
    widths = ("narrow", "middle", "wide", "few", "some", "many")
    assert [found[each]["room"] for each in widths] == [400, 768, 1280] * 2
    for each in (*(found[width] for width in widths), found["after"]):
        assert each["page"] <= each["room"]  # the body never scrolls sideways
        assert each["faint"] == []
        assert each["numbers"] > 20
        assert each["hidden"] == 0  # one's own are all there, without scrolling sideways
    assert found["wide"]["heads"] == found["wide"]["cells"]  # of the table of costs
    assert all(found[each]["closed"] for each in widths)
    assert found["inside"] == [found["href"].removeprefix("#")]
    assert len(found["opened"]) == 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_is_drawn_in_the_readers_colours(scheme, address, tmp_path) -> None:
    file = tmp_path / "page.png"
    chromium(
        tmp_path / "profile",
        *SCHEMES[scheme],
        "--window-size=1280,1400",
        f"--screenshot={file}",
        f"{address}/report.html",
    )
    pixels = imread(io.BytesIO(file.read_bytes()))[..., :3]
    assert pixels.shape[1] == 1280
    paper = float(np.median(pixels))
    assert paper > 0.95 if scheme == "light" else paper < 0.1
    assert float(np.mean(np.abs(pixels - paper) > 0.3)) > 0.01  # and something is written on it
