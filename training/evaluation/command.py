"""`python -m training evaluate`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from giqa.cli import ITEMS_FAILED, UNREACHABLE, Exit, server_of, server_options
from giqa.contract import PROFILES, Profile
from giqa.errors import ServerUnavailableError, UsageError
from giqa.precision import CPU_ASKED
from giqa.results import ImageResult, printable
from giqa.scorer import Scorer
from training.evaluation.choices import Chosen, ScorerChoice, of_recipe, of_table
from training.evaluation.measure import RESAMPLES, evaluate, to_accuracy
from training.evaluation.results import DataSet, Evaluation
from training.evaluation.tables import markdown
from training.evaluation.views import by_views
from training.progress import Progress

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUT = click.Path(dir_okay=False, path_type=Path)


def _numbers(_context: click.Context, _option: click.Parameter, text: str | None) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")] if text else []
    except ValueError:
        numbers = [0]
    if any(n < 1 for n in numbers):
        raise click.BadParameter("numbers of 1 or more, with commas")
    return numbers


@click.command(name="evaluate")
@click.option("--bundle", help="Bundle folder or name.  [default: giqa-s]")
@click.option(
    "--precision",
    type=click.Choice(CPU_ASKED),
    default="auto",
    show_default=True,
    help="Of a bundle in process.",
)
@click.option("--url", metavar="URL", help="Score on the server at grpc[s]://HOST:PORT.")
@server_options
@click.option("--weights", type=_FILE, help="Score with PyTorch: final.safetensors of a run.")
@click.option("--preset", help="With --weights: what they are weights of.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all]")
@click.option("--batch", type=click.IntRange(1, 64), default=8, show_default=True)
@click.option("--recipe", type=_FILE, help="Measure on a split of this recipe's data set.")
@click.option(
    "--split",
    type=click.Choice(["validation", "named", "test", "all"]),
    help="With --recipe, or of a --data with a column split.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="NAME=FILE",
    help="Measure on the images of a table (CSV, TSV, Parquet: path, mos); repeatable.",
)
@click.option(
    "--scale",
    multiple=True,
    metavar="NAME=WORST..BEST",
    help="What mos means in a --data, such as koniq=1..5 or live=100..0.  [default: 0..100]",
)
@click.option(
    "--column",
    multiple=True,
    metavar="COLUMN=NAME",
    help="What --data call path, mos, subset, reference, split, such as mos=MOS; repeatable.",
)
@click.option(
    "--ranking",
    type=click.Path(exists=True, path_type=Path),
    metavar="DIR",
    help="Instead: damage the clean photographs in DIR and count what scores in order.",
)
@click.option("--profile", type=click.Choice(PROFILES), default="fast", show_default=True)
@click.option(
    "--views",
    callback=_numbers,
    metavar="V,V...",
    help="Also measure with at most V views an image, such as 1,2,4,9.",
)
@click.option("--resamples", type=click.IntRange(1), default=RESAMPLES, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "json_file", metavar="F", help="Write all figures and rows; - is stdout.")
@click.option("--accuracy", type=_OUT, help="Write what `export --accuracy` reads.")
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write plots as PNG and SVG.",
)
def command(
    recipe: Path | None,
    split: str | None,
    data: tuple[str, ...],
    scale: tuple[str, ...],
    column: tuple[str, ...],
    ranking: Path | None,
    profile: Profile,
    views: list[int],
    resamples: int,
    seed: int,
    json_file: str | None,
    accuracy: Path | None,
    plots: Path | None,
    **scorer: Any,
) -> None:
    """Measure how well scores agree with human scores.

    The scorer is a bundle in process (the default), on a server (--url), or weights in PyTorch
    (--weights). Images that cannot be scored are named on stderr and left out; then the exit
    code is 3, or 5 if the server was not reached. A Markdown table goes to stdout.

    \b
    Examples:
      python -m training evaluate --recipe training/recipes/giqa-s.toml --split named
      python -m training evaluate --data koniq=koniq.csv --scale koniq=1..5 --data kadid=kadid.csv
      python -m training evaluate --weights runs/giqa-s/final.safetensors --preset giqa-s
        --recipe training/recipes/giqa-s.toml --split validation --views 1,2,4,9 --plots plots
      python -m training evaluate --ranking photos --json ranking.json
    """  # noqa: D301 (click's \b keeps the lines)
    if ranking is not None:
        if recipe or split or data or scale or views or accuracy or plots or profile != "fast":
            raise UsageError("goes with a scorer, --resamples, --seed and --json", item="--ranking")
        _rank(ranking, resamples, seed, json_file, _scorer(**scorer))
        return
    chosen = _chosen(recipe, split, data, scale, column)
    if accuracy is not None and len(chosen) != 1:
        raise UsageError("takes one data set", item="--accuracy")
    failures: list[ImageResult] = []
    datasets = []
    with ExitStack() as stack:
        made, fingerprint = _scorer(**scorer).open()
        stack.enter_context(made)
        for one in chosen:
            bar = stack.enter_context(_progress(one, views))
            datasets.append(_measure(made, one, profile, views, resamples, seed, failures, bar))
        found = Evaluation(
            bundle=made.manifest.id,
            fingerprint=fingerprint,
            engine=made.engine,
            profile=profile,
            resamples=resamples,
            seed=seed,
            datasets=datasets,
        )
    _write(found, json_file, accuracy, plots)
    if failures:
        click.echo(f"giqa: {len(failures)} could not be scored", err=True)
        lost = any(isinstance(row.error, ServerUnavailableError) for row in failures)
        raise Exit(UNREACHABLE if lost else ITEMS_FAILED)


def _rank(
    folder: Path, resamples: int, seed: int, json_file: str | None, choice: ScorerChoice
) -> None:
    from training.data.unlabelled import list_images
    from training.evaluation import ranking

    photographs = list_images(folder)
    with ExitStack() as stack:
        made, _ = choice.open()
        stack.enter_context(made)
        bar = stack.enter_context(
            Progress("ranking", ranking.pictures(len(photographs)), unit="images")
        )
        found = ranking.rank(
            made, photographs, resamples=resamples, seed=seed, watch=lambda _: bar.update()
        )
    _write_json(found.to_json(), json_file)
    click.echo(found.to_json() if json_file == "-" else ranking.markdown(found), nl=False)
    if found.failed:
        click.echo(f"giqa: {found.failed} could not be scored", err=True)
        raise Exit(ITEMS_FAILED)


def _chosen(
    recipe: Path | None,
    split: str | None,
    data: tuple[str, ...],
    scale: tuple[str, ...],
    column: tuple[str, ...],
) -> list[Chosen]:
    if recipe is not None and split is None:
        raise UsageError("needs --split", item="--recipe")
    if split is not None and recipe is None and not data:
        raise UsageError("needs --recipe or --data", item="--split")
    if wrong := [text for text in column if "=" not in text]:
        raise UsageError(f"{wrong[0]!r} is not COLUMN=NAME", item="--column")
    columns = dict(text.split("=", 1) for text in column)
    chosen = [of_table(text, scale, columns, split) for text in data]
    if recipe is not None and split is not None:
        chosen.insert(0, of_recipe(recipe, split))
    names = [one.name for one in chosen]
    if not names or len(set(names)) < len(names):
        raise UsageError("give data sets, each with a name of its own", item="--recipe, --data")
    if unknown := {text.partition("=")[0] for text in scale} - set(names):
        raise UsageError(f"no --data is named {', '.join(sorted(unknown))}", item="--scale")
    return chosen


def _scorer(**options: Any) -> ScorerChoice:
    return ScorerChoice(server=server_of(options), **options)


def _measure(
    scorer: Scorer,
    chosen: Chosen,
    profile: Profile,
    views: list[int],
    resamples: int,
    seed: int,
    failures: list[ImageResult],
    bar: Progress,
) -> DataSet:
    def watch(result: ImageResult) -> None:
        bar.update()
        if result.error is not None:
            failures.append(result)
            error = result.error
            line = f"giqa: [{error.code}] {printable(result.path)}: {printable(error.message)}"
            bar.say(line)

    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    found = evaluate(
        scorer,
        chosen.samples,
        dataset=chosen.name,
        split=chosen.split,
        protocol=chosen.protocol,
        profile=profile,
        watch=watch,
        **options,
    )
    if not views:
        return found
    fast = [row.score for row in found.rows] if profile == "fast" else None
    rows = by_views(scorer, chosen.samples, views, fast=fast, watch=bar.update, **options)
    return found.model_copy(update={"views": rows})


def _progress(chosen: Chosen, views: list[int]) -> Progress:
    total = len(chosen.samples) * (1 + any(n > 1 for n in views))
    return Progress(chosen.name, total, unit="images")


def _write_json(text: str, file: str | None) -> None:
    if file not in (None, "-"):
        Path(str(file)).write_text(text, encoding="utf-8")


def _write(
    found: Evaluation, json_file: str | None, accuracy: Path | None, plots: Path | None
) -> None:
    _write_json(found.to_json(), json_file)
    click.echo(found.to_json() if json_file == "-" else markdown(found), nl=False)
    if plots is not None:
        from training.evaluation.plots import write_plots

        write_plots(found, plots)
    if accuracy is not None:
        try:
            row = to_accuracy(found.datasets[0], engine=found.engine, profile=found.profile)
        except ValueError as e:
            raise UsageError(str(e), item="--accuracy", remedy="") from e
        accuracy.write_text(row.model_dump_json(indent=1) + "\n", encoding="utf-8")
