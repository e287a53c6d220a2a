"""Pixels of every route of giqa beside those of other readers: libvips, FFmpeg's zscale, FFmpeg.

`python -m tests.oracle` makes files over the formats that are read, reads each by giqa and by
another reader, and writes the table of differences into the documents. It wants `ffmpeg` with
zscale and JPEG XL on PATH. A test does the same and holds the differences.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from giqa.bundle import load_bundle
from giqa.decode import Decoder, probe
from giqa.decode._pillow import decode_picture
from giqa.types import Item
from giqa.video import read_frames
from giqa.video._colour import Converter
from tests.photos import photo
from tests.stills import MATRICES, SIDE, STILLS

PAGE = Path(__file__).parents[1] / "build/site/pages/reference/files.md"
BEGIN, END = "<!-- oracle:begin -->", "<!-- oracle:end -->"


class Found(NamedTuple):
    """One file read by one route.

    Attributes:
        group: the row of the table.
        route: who read it for giqa.
        oracle: who else read it.
        name: the file.
        difference: (H, W, 3) absolute differences, levels of 255.
    """

    group: str
    route: str
    oracle: str
    name: str
    difference: np.ndarray


def by_vips(data: bytes) -> np.ndarray:
    """As libvips shows it: upright, in sRGB, over white."""
    import pyvips

    found = pyvips.Image.new_from_buffer(data, "", fail_on="error").autorot()
    alpha = found.hasalpha()
    if "icc-profile-data" in found.get_fields():
        found = found.icc_transform("srgb", embedded=True, intent="perceptual")
    wide = found.format == "ushort"
    if wide and found.bands < 3:
        found = found.copy(interpretation="grey16")
    found = found.colourspace("srgb") if not alpha else found
    if alpha:
        if wide:
            found = (found / 257).rint().cast("uchar").copy(interpretation="srgb")
        found = found.flatten(background=255).colourspace("srgb")
    values = found.cast("uchar").numpy()
    return np.broadcast_to(values.reshape(*values.shape[:2], -1)[..., :3], (*values.shape[:2], 3))


def ffmpeg(path: Path, filters: str, size: tuple[int, int]) -> np.ndarray:
    """The first picture by the `ffmpeg` command."""
    head = ["ffmpeg", "-nostdin", "-v", "error", "-noautorotate", "-i", str(path), "-frames:v", "1"]
    tail = ["-vf", filters + ",format=gbrp", "-f", "rawvideo", "-pix_fmt", "gbrp", "-"]
    raw = subprocess.run(head + tail, capture_output=True, check=True).stdout
    planes = np.frombuffer(raw, np.uint8).reshape(3, size[1], size[0])
    return planes[[2, 0, 1]].transpose(1, 2, 0)


def stills(group: str, folder: Path) -> Iterator[Found]:
    """Read each file of a row by each route, and by the oracle."""
    decoder = Decoder(load_bundle().manifest)
    for name, data in STILLS[group]():
        if group.startswith("BMP"):
            (path := folder / name).write_bytes(data)
            oracle, shown = "FFmpeg", ffmpeg(path, "scale=flags=accurate_rnd", (SIDE, SIDE))
        else:
            oracle, shown = "libvips", by_vips(data)
        (one,) = decoder([Item(name, data=data)], "fast")
        assert one.views is not None, (group, name, one.error)
        assert one.probe is not None
        view = np.asarray(Image.fromarray(shown.astype(np.uint8)).resize((SIDE, SIDE), 2))
        route = "DALI" if one.probe.route == "dali" else "Pillow, tifffile, imagecodecs"
        yield Found(group, route, oracle, name, np.abs(one.views.local_view[0].astype(int) - view))
        if route == "DALI":
            alone = np.asarray(decode_picture(data, probe(data)))
            yield Found(group, "Pillow", oracle, name, np.abs(alone.astype(int) - shown))


def coded(
    rgb: np.ndarray, matrix: str, sampling: tuple[int, int], bits: int, full: bool
) -> list[np.ndarray]:
    """Planes of Y'CbCr of R'G'B' signals 0..1; sampling: columns, rows for one of chroma."""
    _, kr, kb = MATRICES[matrix]
    luma = rgb @ np.array([kr, 1 - kr - kb, kb])
    chroma = [(rgb[..., 2] - luma) / (2 - 2 * kb), (rgb[..., 0] - luma) / (2 - 2 * kr)]
    wide, high = sampling
    height, width = luma.shape
    chroma = [c.reshape(height // high, high, width // wide, wide).mean((1, 3)) for c in chroma]
    top, unit = (1 << bits) - 1, 1 << bits - 8
    scale, low = (top, 0) if full else (219 * unit, 16 * unit)
    spread = top if full else 224 * unit
    values = [luma * scale + low, *(c * spread + 128 * unit for c in chroma)]
    return [np.clip(np.round(v), 0, top) for v in values]


_TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def signal_of(rgb: np.ndarray, colour: str) -> np.ndarray:
    """What shows sRGB 0..1 in other colours, as BT.2100 says it; white at 203 cd/m2."""
    if not COLOURS[colour][3]:
        return rgb
    light = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ _TO_2020.T
    if colour.endswith("SDR"):
        return light ** (1 / 2.4)
    if colour.endswith("PQ"):
        root = (light * 203 / 10000) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** 78.84375
    light = light * 203 / 1000
    luminance = np.maximum(light @ np.array([0.2627, 0.6780, 0.0593]), 1e-9)
    scene = light * luminance[..., None] ** (1 / 1.2 - 1)
    high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


def write(
    path: Path, planes: list[np.ndarray], pixels: str, tags: tuple[int, int, int, int]
) -> Path:
    """One lossless frame; tags: matrix, primaries, transfer, range."""
    height, width = planes[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = tags
        frame = av.VideoFrame(width, height, pixels)
        for plane, values in zip(frame.planes, planes, strict=True):
            kind = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
            rows = np.zeros((plane.height, plane.line_size // kind().itemsize), kind)
            rows[:, : plane.width] = values
            plane.update(rows.tobytes())
        frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = tags
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


LAYOUTS = {
    "400": ("gray", None),
    "420": ("yuv420p", (2, 2)),
    "422": ("yuv422p", (2, 1)),
    "444": ("yuv444p", (1, 1)),
}
COLOURS = {
    "BT.601": ("601", 6, 6, ""),
    "BT.709": ("709", 1, 1, ""),
    "BT.2020, SDR": ("2020", 9, 14, "t=bt709"),
    "BT.2020, PQ": ("2020", 9, 16, "t=iec61966-2-1"),
    "BT.2020, HLG": ("2020", 9, 18, "t=iec61966-2-1"),
}
"""Of each: matrix, primaries, transfer, what zscale is told to make."""
DEPTHS = (8, 10, 12, 16)


def patches() -> np.ndarray:
    """(512, 512, 3) signals: 8 x 8 x 4 colours of 32 x 32 pixels."""
    steps, few = np.linspace(0.04, 0.96, 8), np.linspace(0.04, 0.96, 4)
    cube = np.stack(np.meshgrid(steps, steps, few, indexing="ij"), -1).reshape(16, 16, 3)
    return np.kron(cube, np.ones((32, 32, 1)))


def zscale(path: Path, colour: str, size: tuple[int, int]) -> np.ndarray:
    """In sRGB by FFmpeg's zscale, white of HDR at 203 cd/m2."""
    made = COLOURS[colour][3]
    exact = "filter=bilinear:npl=203:agamma=0"
    if not made:
        return ffmpeg(path, f"zscale=m=gbr:r=pc:{exact}", size)
    linear = f"zscale=m=gbr:r=pc:t=linear:{exact},format=gbrpf32le"
    return ffmpeg(path, f"{linear},zscale=p=709:{made}:{exact}", size)


def frames(colour: str, folder: Path, depths: tuple[int, ...] = DEPTHS) -> Iterator[Found]:
    """Read frames of each layout by both routes, and by zscale."""
    manifest = load_bundle().manifest
    matrix, primaries, transfer, _ = COLOURS[colour]
    scene = photo(512, 512, seed=3, noise=0) / 255
    for (name, (pixels, sampling)), bits, full in itertools.product(
        LAYOUTS.items(), depths, (False, True)
    ):
        for what, signal in (("patches", patches()), ("photograph", signal_of(scene, colour))):
            planes = coded(signal, matrix, sampling or (1, 1), bits, full)
            suffix = "" if bits == 8 else f"{bits}le"
            tags = (MATRICES[matrix][0], primaries, transfer, 2 if full else 1)
            if sampling is None:  # zscale is given colourless chroma: it does not read all grey
                for plane in planes[1:]:
                    plane[:] = 1 << bits - 1
            path = write(
                folder / "a.mkv", planes, (pixels if sampling else "yuv444p") + suffix, tags
            )
            shown = zscale(path, colour, (512, 512)).astype(int)
            if sampling is None:
                write(path, planes[:1], pixels + suffix, tags)
            with read_frames(path) as reader:
                image = next(iter(reader)).image
            difference = np.abs(image - shown)
            title = f"{name} {bits} {'full' if full else 'limited'}"
            if what == "patches":
                difference = difference[16::32, 16::32]
            yield Found(f"{colour}: {what}", "frames", "zscale", title, difference)
            if what == "photograph":
                with av.open(str(path)) as container:
                    views = Converter().views(next(container.decode(video=0)), manifest)
                squashed = np.asarray(
                    Image.fromarray(shown.astype(np.uint8)).resize((SIDE, SIDE), 2)
                )
                difference = np.abs(views.local_view[0].astype(int) - squashed)
                yield Found(f"{colour}: photograph", "views of frames", "zscale", title, difference)


def table(found: list[Found]) -> str:
    """A row for each group and route."""
    lines = ["| | read by | beside | files | largest | mean |", "|---|---|---|---|---|---|"]
    for group, route, oracle in dict.fromkeys(one[:3] for one in found):
        some = [one for one in found if one[:3] == (group, route, oracle)]
        most = max(int(one.difference.max()) for one in some)
        mean = np.mean([one.difference.mean() for one in some])
        lines.append(f"| {group} | {route} | {oracle} | {len(some)} | {most} | {mean:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all, and write the table."""
    found: list[Found] = []
    with TemporaryDirectory(prefix="giqa-oracle-") as name:
        for group in STILLS:
            found += stills(group, Path(name))
        for colour in COLOURS:
            found += frames(colour, Path(name))
    worst = sorted(found, key=lambda one: -int(one.difference.max()))[:20]
    for one in worst:
        print(one.group, one.route, one.name, one.difference.max(), round(one.difference.mean(), 3))
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    text = f"{head}{BEGIN}\n{table(found)}\n{END}{rest.split(END)[1]}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
