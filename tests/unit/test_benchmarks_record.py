"""Records, rounds, images and pages of the benchmarks."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from benchmarks import images, page, passes
from benchmarks.__main__ import main
from benchmarks.machine import machine
from benchmarks.options import Options
from benchmarks.plots import write_plot
from benchmarks.questions import answers
from benchmarks.record import RESULTS, Record, Series, load, record, save
from benchmarks.rounds import interleave
from benchmarks.suites import SUITES
from benchmarks.suites.micro import of_report
from benchmarks.suites.scale import line
from giqa.errors import TableInvalidError, UsageError


def _series(name: str, *values: float, against: tuple[str, ...] = (), unit: str = "ms") -> Series:
    return Series(name=name, unit=unit, better="lower", values=values, against=against)


def _record() -> Record:
    return record(
        "engine",
        [
            _series("giqa | own/time", 10, 12, 11, against=("other/time",)),
            _series("slow/time", 80, 82, 84, against=("other/time",)),
            _series("other/time", 40, 41, 44),
            _series("memory/growth", 0.05, unit="MB"),
        ],
        Options(images=Path("/somewhere/photos")),
    )


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    found = _record()
    path = save(found, tmp_path)
    assert load(path) == found
    assert json.loads(path.read_text())["schema"] == "giqa.benchmark/1"
    assert found.options["images"] == "photos"


def test_the_machines_load_is_that_before_the_suite() -> None:
    machine.cache_clear()
    asked = []

    def suite():
        asked.append(machine.cache_info().misses)
        yield _series("a/time", 1)

    record("engine", suite(), Options())
    assert asked == [1]


def test_a_result_that_has_no_partner_is_told(tmp_path: Path) -> None:
    for name in ("base", "new"):
        save(_record(), tmp_path / name)
    save(record("scale", [_series("a/time", 1)], Options()), tmp_path / "base")
    found = CliRunner().invoke(main, ["compare", *(str(tmp_path / n) for n in ("base", "new"))])
    assert (found.exit_code, found.stderr) == (0, "scale.json: in one of the folders only\n")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda r: r.update(schema="giqa.benchmark/2"),
        lambda r: r.update(extra=1),
        lambda r: r["series"][0].update(values=[]),
        lambda r: r["series"][0].update(values=["NaN"]),
        lambda r: r["series"][0].update(name="no metric"),
        lambda r: r["series"].append(r["series"][2]),
        lambda r: r["comparisons"].pop(),
        lambda r: r["series"][2].update(unit="s"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, wrong) -> None:
    raw = _record().model_dump(mode="json", by_alias=True)
    wrong(raw)
    path = tmp_path / "engine.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(TableInvalidError):
        load(path)


@pytest.mark.parametrize(
    ("series", "why"),
    [
        ([_series("a/time", 1, against=("b/time",))], "missing"),
        ([_series("a/time", 1, against=("b/time",)), _series("b/time", 1, 2)], "rounds"),
        ([_series("a/time", 1, against=("b/time",)), _series("b/time", 1, unit="s")], "units"),
        ([_series("a/time", 1), _series("a/time", 1)], "twice"),
    ],
)
def test_series_that_do_not_go_together(series: list[Series], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        record("engine", series, Options())


def test_rounds_alternate_and_warm_up_does_not_count() -> None:
    calls: list[str] = []

    def contender(name: str):
        def run() -> int:
            calls.append(name)
            return len(calls)

        return run

    names = ["a", "b", "c"]
    found = interleave({n: contender(n) for n in names}, rounds=20, seed=1)
    rounds = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert all(sorted(one) == names for one in rounds)
    assert len({tuple(one) for one in rounds}) == 6  # every order comes up
    # The i-th values of all are of round i + 1: round 0 warmed up.
    for i in range(20):
        assert sorted(found[n][i] for n in names) == [3 * i + 4, 3 * i + 5, 3 * i + 6]
    again = interleave({n: contender(n) for n in names}, rounds=20, seed=1)
    assert {n: [v - 63 for v in again[n]] for n in names} == found


def test_passes_become_the_usual_metrics() -> None:
    def score(data) -> None:
        sum(range(1000))

    found = {
        s.metric: s
        for s in passes.series("x", [passes.one_by_one([b""] * 100, score) for _ in range(3)])
    }
    assert list(found) == ["throughput", "CPU time", "latency p50", "latency p95", "latency p99"]
    p50, p95, p99 = (found[m].values for m in passes.LATENCIES)
    assert all(a <= b <= c for a, b, c in zip(p50, p95, p99, strict=True))
    batch = passes.series("x", [passes.Pass(10, 2.0, 1.0)], against=["y"])
    assert [(s.name, s.values, s.against) for s in batch] == [
        ("x/throughput", (5.0,), ("y/throughput",)),
        ("x/CPU time", (100.0,), ("y/CPU time",)),
    ]


def test_images_are_the_same_for_a_seed_and_all_different() -> None:
    made = images.sized(Options(), 96, 64, 9)
    assert made == images.sized(Options(), 96, 64, 9)
    assert made != images.sized(Options(seed=1), 96, 64, 9)
    assert len(set(made)) == 9
    assert {Image.open(io.BytesIO(data)).size for data in made} == {(96, 64)}


def test_a_folders_images_are_taken_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        images.mixed(Options(images=tmp_path), 1)
    made = images.sized(Options(), 32, 32, 2)
    images.write(made, tmp_path)
    assert images.mixed(Options(images=tmp_path), 3) == [*made, made[0]]
    (one,) = images.sized(Options(images=tmp_path), 16, 16, 1)
    assert Image.open(io.BytesIO(one)).size == (16, 16)


def test_a_steps_rounds_are_medians_of_stretches() -> None:
    stats = {"data": [1.0, 2.0, 9.0, 4.0, 5.0, 6.0]}
    report = {
        "benchmarks": [{"name": "test_graph[fusion-8]", "stats": stats, "params": {"batch": 8}}]
    }
    (one,) = of_report(report, Options(rounds=2))
    assert (one.name, one.values) == ("graph, fusion, 8/time", (2000.0, 5000.0))


def test_a_line_is_fitted() -> None:
    assert line([1, 2, 3], [5, 7, 9]) == pytest.approx((2, 1))
    slope, square = line([0, 1, 2, 3], [0, 1, 0, 1])
    assert (slope, square) == pytest.approx((0.2, 0.2))


def test_tables_show_losses_in_bold() -> None:
    first, second = page.tables(_record())
    text = "\n".join(first)
    assert "| giqa \\| own | 11.0 (10.0 .. 12.0) x4.00 |" in text
    assert "| slow | 82.0 (80.0 .. 84.0) **2.00 times slower** |" in text
    assert "| other | 41.0 (40.0 .. 44.0) |" in text
    assert "x: times as good as other." in text
    assert "| memory | 0.05 |" in second


def test_results_go_between_their_markers(tmp_path: Path) -> None:
    begin, end = page.MARKERS
    asked = "\n".join(page.QUESTIONS)
    text = f"{asked}\n{begin}\nold\n{end}\nafter\n"
    found = page.with_results(text, [_record()], tmp_path)
    assert f"\n{begin}\n\n## engine\n" in found
    assert found.endswith(f"\n{end}\nafter\n")
    assert "old" not in found
    assert page.with_results(found, [_record()], tmp_path) == found
    assert page.NOTHING in page.with_results(text, [])
    for broken in ("", begin, f"{end}{begin}", f"{text}{end}"):
        with pytest.raises(UsageError):
            page.with_results(broken, [])


def test_plots_are_small_and_the_same_again(tmp_path: Path) -> None:
    growth = record(
        "scale",
        [
            Series(name=f"{n}/time", unit="s", better="lower", values=(n, n + 1), facts={fact: n})
            for n, fact in enumerate(("images", "megapixels", "views"), 1)
        ],
        Options(),
    )
    for found in (_record(), growth):
        first = write_plot(found, tmp_path).read_bytes()
        assert first == write_plot(found, tmp_path).read_bytes()
        assert b"<svg" in first
        assert len(first) < 100_000


def test_committed_results_are_what_the_readme_shows() -> None:
    text = page.README.read_text()
    found = page.records()
    assert text == page.with_results(text, found), "run `python -m benchmarks plot`"
    for one in found:
        assert one.suite in SUITES
        assert not one.options["quick"]
        # Labels are plain text, also on a logarithmic axis.
        assert "\\math" not in (RESULTS / f"{one.suite}.svg").read_text()


@pytest.mark.parametrize(
    ("ratio", "unit", "words"),
    [
        (1.5, "images/s", "x1.50"),
        (1.0, "ms", "x1.00"),
        (0.999, "ms", "x1.00"),
        (0.43, "images/s", "2.33 times slower"),
        (0.001, "ms", "1000 times slower"),
        (0.5, "MB", "2.00 times as much"),
    ],
)
def test_losses_can_be_read(ratio: float, unit: str, words: str) -> None:
    assert page.in_words(ratio, unit) == words


def test_a_question_is_answered_by_what_was_measured() -> None:
    def rate(name: str, value: float, **facts: str) -> Series:
        return Series(name=name, unit="images/s", better="higher", values=(value,), facts=facts)

    found = [
        rate("in_flight 32/throughput", 30),
        rate("in process/throughput", 40.04),
        rate("server/memory", 2000),
        rate("perf_analyzer, rate 50% of capacity/throughput", 15, arrivals="even"),
        rate("perf_analyzer, rate 50% of capacity/latency p50", 50),
    ]
    (text,) = answers([record("triton", found, Options())])
    assert "30.0 images/s with 32 in flight, 40.0 in process. It takes 2000 MB." in text
    assert "at random" not in text
    found[3] = rate("perf_analyzer, rate 50% of capacity/throughput", 15, arrivals="poisson")
    (text,) = answers([record("triton", found, Options())])
    assert "At 15.0 a second, half of what it can do, arriving at random: 50.0 ms" in text


def test_facts_of_competitors_are_in_their_table() -> None:
    one = Series(
        name="musiq/throughput",
        unit="images/s",
        better="higher",
        values=(0.5,),
        facts={"images": 9, "weights": "random: speed only"},
    )
    (lines,) = page.tables(record("peers", [one], Options()))
    assert lines[0] == "|  | images | weights | throughput (images/s) |"
    assert lines[2] == "| musiq | 9 | random: speed only | 0.50 |"


def test_a_percentile_wants_enough_images() -> None:
    metrics = {n: [m for m, _ in passes.percentiles([range(n), range(500)])] for n in (1, 20, 100)}
    assert metrics == {1: ["latency p50"], 20: [*passes.LATENCIES][:2], 100: [*passes.LATENCIES]}


def test_a_short_pass_is_repeated() -> None:
    slow = lambda data: time.sleep(0.01 * len(data))  # noqa: E731
    for timed in (passes.together, passes.one_by_one):
        assert timed([b""] * 2, slow).images == 2
        found = timed([b""] * 2, slow, 0.1)
        assert found.images > 2
        assert found.images % 2 == 0
        assert found.seconds >= 0.1


def test_series_without_a_partner_stand_alone() -> None:
    found = [_series("a/time", 1, against=("b/time", "c/time")), _series("b/time", 2)]
    assert [one.against for one in passes.without_missing(found)] == [("b/time",), ()]
