"""Folders laid out as the authors of public data sets distribute them, with made pictures.

Each picture is an even grey; the brighter, the better. So a picture tells the score that its label
must come out as, and a label that went to another picture shows.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import openpyxl
from PIL import Image
from scipy.io import savemat

from training.data import live

ENDS = {
    "biq2021": (0, 1), "csiq": (1, 0), "kadid10k": (1, 5), "koniq10k": (1, 5), "live": (115, -5),
    "live-wild": (0, 100), "spaq": (0, 100), "tid2013": (0, 9),
}  # fmt: skip
"""The worst and the best label."""


@dataclass(frozen=True)
class Label:
    """A picture by its path in the tree, and its label as the table writes it."""

    path: str
    score: object
    reference: str = ""
    kind: str = ""
    level: int = 0


@dataclass
class Tree:
    """What was made.

    `needed` are the files and folders that a loader cannot do without.
    """

    name: str
    root: Path
    labels: list[Label]
    needed: list[str] = field(default_factory=list)

    def write(self, draw: bool = True, pictures: bool = True) -> Tree:
        """Write pictures (empty files unless `draw`) and tables.

        Without `pictures` there are only their folders.
        """
        worst, best = ENDS[self.name]
        for folder in {Path(label.path).parent for label in self.labels}:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for label in self.labels if pictures else ():
            data = b""
            if draw and isinstance(label.score, float):
                quality = (label.score - worst) / (best - worst)
                data = picture(round(255 * quality), Path(label.path).suffix.lower())
            (self.root / label.path).write_bytes(data)
        self.needed = _TABLES[self.name](self.root, self.labels)
        return self


@cache
def picture(grey: int, suffix: str) -> bytes:
    """A small even picture, 0..255."""
    out = BytesIO()
    kind = {".bmp": "BMP", ".png": "PNG", ".jpg": "JPEG"}[suffix]
    Image.new("L", (8, 8), min(255, max(0, grey))).save(out, kind)
    return out.getvalue()


def grey(path: Path) -> float:
    """What the picture shows, 0..100."""
    with Image.open(path) as opened:
        return float(np.asarray(opened, float).mean()) / 2.55


def small(name: str, root: Path) -> Tree:
    """A tree of a few pictures, with scores all over the range; not yet written."""
    worst, best = ENDS[name]
    labels = list(_PICTURES[name]())
    for i, label in enumerate(labels):
        steps = (i * 37 + 11) % 256 / 255  # no two neighbours alike
        score = worst + steps * (best - worst)
        labels[i] = Label(label.path, score, label.reference, label.kind, label.level)
    return Tree(name, root, labels)


# --- which pictures there are ---


def _live() -> Iterable[Label]:
    for folder, count in live.FOLDERS.items():
        for i in range(1, count + 1):
            yield Label(f"{folder}/img{i}.bmp", 0, f"content{i % 29}", folder)


def _csiq() -> Iterable[Label]:
    for kind in ("AWGN", "BLUR", "contrast", "fnoise", "JPEG", "jpeg2000"):
        for content in ("1600", "aerial_city", "Lake", "d", "e", "f", "g", "h", "i", "j"):
            for level in (1, 2):
                path = f"dst_imgs/{kind}/{content}.{kind}.{level}.png"
                yield Label(path, 0, content.lower(), kind.lower(), level)


def _tid2013() -> Iterable[Label]:
    for content in ("i01", "I02", "i03", "i04", "i25"):
        for kind in range(1, 25):
            for level in (1, 5):
                end = "BMP" if level == 5 else "bmp"
                path = f"distorted_images/{content}_{kind:02}_{level}.{end}"
                yield Label(path, 0, content.lower(), str(kind), level)


def _kadid10k() -> Iterable[Label]:
    for content in ("I01", "I02", "I03", "I04", "I81"):
        for kind in range(1, 26):
            for level in (1, 5):
                path = f"images/{content}_{kind:02}_{level:02}.png"
                yield Label(path, 0, content.lower(), str(kind), level)


def _flat(form: str, count: int = 20) -> Callable[[], Iterable[Label]]:
    return lambda: (Label(form.format(i), 0) for i in range(1, count + 1))


_PICTURES: dict[str, Callable[[], Iterable[Label]]] = {
    "biq2021": lambda: (
        Label(f"Images/ss0{i % 3 + 1} ({i}).jpg", 0, kind=f"ss0{i % 3 + 1}") for i in range(20)
    ),
    "csiq": _csiq,
    "kadid10k": _kadid10k,
    "koniq10k": _flat("1024x768/{}.jpg"),
    "live": _live,
    "live-wild": _flat("Images/{}.bmp"),
    "spaq": _flat("TestImage/{:05}.jpg"),
    "tid2013": _tid2013,
}


# --- tables ---


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([header, *rows])


def write_xlsx(path: Path, sheets: dict[str, Sequence[Sequence[object]]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)


def cells(values: Sequence[str], column: bool) -> np.ndarray:
    """A cell array of strings."""
    made = np.empty((len(values), 1) if column else (1, len(values)), object)
    made.flat[:] = values
    return made


def _biq2021_tables(root: Path, labels: list[Label]) -> list[str]:
    half = len(labels) // 6 if len(labels) == 12000 else len(labels) // 2
    names = ("Test (Images and MOS).csv", "Train (Images and MOS).csv")
    for name, part in zip(names, (labels[:half], labels[half:]), strict=True):
        rows = [(Path(label.path).name, label.score) for label in part]
        write_csv(root / name, ("Image Name", "MOS"), rows)
    return [*names, "Images"]


def _csiq_tables(root: Path, labels: list[Label]) -> list[str]:
    said = {"awgn": "noise", "jpeg2000": "jpeg 2000"}
    # The table starts in the fourth column and row.
    rows: list[list[object]] = [["CSIQ"], [], []]
    rows.append([None] * 3 + ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"])
    for label in labels:
        image: object = Path(label.path).name.split(".")[0]
        image = int(str(image)) if str(image).isdecimal() else image
        kind = said.get(label.kind, label.kind)
        rows.append([None] * 3 + [image, 1, kind, label.level, 0.1, label.score])
    notes = [["dmos", "0 is the best"]]
    write_xlsx(root / "csiq.DMOS.xlsx", {"README": notes, "all_by_image": rows})
    _originals(root / "src_imgs", labels, "png")
    return ["csiq.DMOS.xlsx", "dst_imgs"]


def _tid2013_tables(root: Path, labels: list[Label]) -> list[str]:
    lines = [f"{label.score} {Path(label.path).name.upper()}\r\n" for label in labels]
    (root / "mos_with_names.txt").write_text("".join(lines), newline="")
    _originals(root / "reference_images", labels, "BMP")
    return ["mos_with_names.txt", "distorted_images"]


def _kadid10k_tables(root: Path, labels: list[Label]) -> list[str]:
    rows = [
        (Path(label.path).name, f"{label.reference.upper()}.png", label.score, 0.5)
        for label in labels
    ]
    write_csv(root / "dmos.csv", ("dist_img", "ref_img", "dmos", "var"), rows)
    for content in {label.reference for label in labels}:
        (root / "images" / f"{content.upper()}.png").touch()
    return ["dmos.csv", "images"]


def _live_tables(root: Path, labels: list[Label]) -> list[str]:
    """Lists of 982; what has no label is a copy of an original."""
    by_path = {label.path: label for label in labels}
    places = [f"{name}/img{i + 1}.bmp" for name, n in live.FOLDERS.items() for i in range(n)]
    found = [by_path.get(place) for place in places]
    for place in set(places) - by_path.keys():
        (root / place).touch()
    scores = [0.0 if label is None else label.score for label in found]
    contents = ["studentsculpture" if label is None else label.reference for label in found]
    savemat(
        root / "dmos_realigned.mat",
        {"dmos_new": np.array([scores]), "orgs": np.array([[label is None for label in found]])},
    )
    names = cells([f"{content}.bmp" for content in contents], column=False)
    savemat(root / "refnames_all.mat", {"refnames_all": names})
    _originals(root / "refimgs", labels, "bmp")
    return ["dmos_realigned.mat", "refnames_all.mat", *live.FOLDERS]


def _live_wild_tables(root: Path, labels: list[Label]) -> list[str]:
    (root / "Data").mkdir(exist_ok=True)
    (root / "Images" / "trainingImages").mkdir(exist_ok=True)
    training = [f"t{i}.bmp" for i in range(1, 8)]
    for name in training:
        (root / "Images" / "trainingImages" / name).touch()
    names = [*training, *(Path(label.path).name for label in labels)]
    scores = [*[50.0] * 7, *(label.score for label in labels)]
    images = cells(names, column=True)
    savemat(root / "Data" / "AllImages_release.mat", {"AllImages_release": images})
    savemat(root / "Data" / "AllMOS_release.mat", {"AllMOS_release": np.array([scores])})
    return ["Data/AllMOS_release.mat", "Data/AllImages_release.mat", "Images"]


def _koniq10k_tables(root: Path, labels: list[Label]) -> list[str]:
    names = [Path(label.path).name for label in labels]
    table, sets = "koniq10k_scores_and_distributions.csv", "koniq10k_distributions_sets.csv"
    rows = [
        (name, 0, 0, 0, 0, 0, 105, label.score, 0.5, 50)
        for name, label in zip(names, labels, strict=True)
    ]
    header = ("image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "MOS_zscore")
    write_csv(root / table, header, rows)
    parts = ("training", "training", "validation", "test")
    # Its scores are on another scale.
    rows2 = [(name, 77.7, parts[i % 4]) for i, name in enumerate(names)]
    write_csv(root / sets, ("image_name", "MOS", "set"), rows2)
    return [table, "1024x768", sets]


def _spaq_tables(root: Path, labels: list[Label]) -> list[str]:
    rows = [["Image name", "MOS", "Brightness"]]
    rows += [[Path(label.path).name, label.score, 50] for label in labels]  # type: ignore[list-item]
    table = "Annotations/MOS and Image attribute scores.xlsx"
    write_xlsx(root / table, {"Sheet1": rows})
    return [table, "TestImage"]


def _originals(folder: Path, labels: list[Label], suffix: str) -> None:
    folder.mkdir()
    for content in {label.reference for label in labels}:
        (folder / f"{content}.{suffix}").touch()


_TABLES: dict[str, Callable[[Path, list[Label]], list[str]]] = {
    "biq2021": _biq2021_tables,
    "csiq": _csiq_tables,
    "kadid10k": _kadid10k_tables,
    "koniq10k": _koniq10k_tables,
    "live": _live_tables,
    "live-wild": _live_wild_tables,
    "spaq": _spaq_tables,
    "tid2013": _tid2013_tables,
}
