"""The page of a job and the picture of a plan, as a browser shows them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser

import millstream as mill
from millstream import col


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, chromium: None) -> Iterator[Browser]:
    with Browser(is_dark=request.param == "dark") as opened:
        yield opened


def start(folder: Path) -> mill.Job:
    readings = mill.generate(rate=5_000, n=mill.index(), at=mill.now()).event_time("at", watermark="100ms")
    counts = readings.key_by(k=col("n") % 7).window(mill.tumbling("200ms")).agg(n=mill.count()).name("per <key> & \"all\"")
    texts = readings.with_columns(bad=mill.when(col("n") % 100 == 0).then(mill.lit("x")).otherwise(mill.lit("1")).cast(int))
    return mill.start(
        counts.write_csv(folder / "counts"),
        texts.name("parse").write_parquet(folder / "numbers"),
        texts.all_errors.write_json(folder / "bad"),
        checkpoint=mill.Checkpoint(folder / "state", every="200ms"),
        parallelism=2,
        on_error="route",
        http=0,
    )


def brightness(colour: str) -> float:
    red, green, blue = (float(text) for text in re.findall(r"[\d.]+", colour)[:3])
    return 0.3 * red + 0.6 * green + 0.1 * blue


def test_the_page_shows_a_running_job_and_its_end(page: Browser, tmp_path: Path) -> None:
    with start(tmp_path) as job:
        assert job.url is not None
        page.open(job.url)
        page.wait_for("document.readyState == 'complete' && document.querySelectorAll('#plan .step').length")
        assert page.wait_for("document.getElementById('state').textContent == 'running'")
        speed = page.wait_for("(/^[0-9,]+$/.exec(document.getElementById('rate').textContent) || [''])[0].replace(',', '')")
        assert 500 < float(speed) < 50_000
        names = page.value("[...document.querySelectorAll('#plan .step')].map((step) => step.dataset.step)")
        assert names == [node.name for node in job._endpoint._graph.nodes]  # type: ignore[union-attr]
        assert set(names) >= {step.name for step in job.metrics().steps}
        # Each step has its speed in the plan, and the one with failing records says how many.
        page.wait_for("[...document.querySelectorAll('#plan .step .side')].filter((side) => /[0-9]\\/s/.test(side.textContent)).length == " + str(len(names)))
        page.wait_for("/[0-9,]+ routed {2}[0-9,.]+\\/s {2}×2/.test(document.querySelector('#plan .fails .side').textContent)")
        page.wait_for("/^[0-9.]+ (s|min)$/.test(document.getElementById('lag').textContent)")
        page.wait_for("Number(document.getElementById('checkpoints').textContent) > 1")
        rows = page.value("[...document.querySelectorAll('#steps tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))")
        assert [row[0] for row in rows] == [step.name for step in job.metrics().steps]
        queues = page.value("[...document.querySelectorAll('#queues tbody tr')].map((row) => [...row.cells].slice(0, 2).map((cell) => cell.textContent))")
        assert queues == [[queue.source, queue.target] for queue in job.metrics().queues] and queues
        assert page.value("document.querySelector('#speed path').getAttribute('d').startsWith('M0,')")
        # Readable: the text of the plan is as far from the ground as that of the page.
        text, drawn = page.value("[getComputedStyle(document.body).color, getComputedStyle(document.querySelector('#plan .step text')).fill]")
        assert text == drawn
        is_dark = page.value("matchMedia('(prefers-color-scheme: dark)').matches")
        assert is_dark == page.is_dark
        assert brightness(text) > 200 if is_dark else brightness(text) < 60
        # Nothing is cut off, and no bar to scroll is needed.
        assert page.value("document.documentElement.scrollWidth <= innerWidth")
        assert page.value("document.querySelector('#plan svg').getBoundingClientRect().right <= innerWidth")
        assert all(url.startswith(job.url) for url in page.requests)
        job.stop()
        assert job.wait().status == "stopped"
        page.wait_for("document.getElementById('state').textContent == 'stopped'")
        assert page.errors == []


def test_a_plan_fits_a_narrow_page_and_is_readable_on_any_ground(page: Browser, tmp_path: Path) -> None:
    rows = mill.generate(rows=10, n=mill.index())
    graph = mill.graph(*(rows.filter(col("n") > n).write_csv(tmp_path / str(n)) for n in range(6)), parallelism=2)
    (tmp_path / "inline.html").write_text(
        "<meta charset=utf-8><body style='margin:0'>"
        + "".join(f"<div style='width:400px;color:{text}'>{graph._repr_html_()}</div>" for text in ("rgb(10, 20, 30)", "rgb(240, 230, 220)"))
    )
    page.open((tmp_path / "inline.html").as_uri())
    page.wait_for("document.readyState == 'complete' && document.querySelectorAll('svg.millstream-plan').length == 2")
    assert page.value("[...document.querySelectorAll('svg.millstream-plan')].every((svg) => svg.getBoundingClientRect().width <= 400)")
    shown = page.value("[...document.querySelectorAll('svg.millstream-plan')].map((svg) => getComputedStyle(svg.querySelector('text')).fill)")
    assert shown == ["rgb(10, 20, 30)", "rgb(240, 230, 220)"]
    # As an image it has a ground of its own.
    (tmp_path / "plan.svg").write_text(graph._repr_svg_())
    page.open((tmp_path / "plan.svg").as_uri())
    page.wait_for("document.documentElement.tagName == 'svg'")
    ground, text = page.value("['.millstream-paper', 'text'].map((name) => getComputedStyle(document.querySelector(name)).fill)")
    assert abs(brightness(ground) - brightness(text)) > 150
    assert (brightness(ground) < 60) == page.is_dark
    assert page.errors == []
