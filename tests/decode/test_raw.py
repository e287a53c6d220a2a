"""Cameras' RAW files: the photograph's own preview, or a refusal that names the camera's format."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from giqa.decode import probe
from giqa.decode._pillow import decode_picture
from giqa.errors import GiqaError
from tests import raw_files
from tests.makers import image, save

LARGE, SMALL = image(192, 144), image(192, 144).resize((96, 72))
SENSOR = (200, 150)
"""A little more than the photograph has, as sensors do."""


def coded(picture: Image.Image) -> bytes:
    return save(picture, "JPEG", quality=95, subsampling=0)


def canon(picture: Image.Image, turn: int = 1) -> bytes:
    return raw_files.cr2(coded(picture), picture.size, *SENSOR, turn)


def adobe(picture: Image.Image, turn: int = 1) -> bytes:
    return raw_files.dng(coded(picture), picture.size, *SENSOR, turn)


def nikon(picture: Image.Image, turn: int = 1) -> bytes:
    return raw_files.nef(coded(picture), *SENSOR, turn)


def sony(picture: Image.Image, turn: int = 1) -> bytes:
    return raw_files.arw(coded(picture), *SENSOR, turn, small=coded(SMALL))


CAMERAS: dict[str, Callable[..., bytes]] = {
    "Canon CR2": canon,
    "DNG": adobe,
    "NIKON": nikon,
    "SONY": sony,
}


@pytest.mark.parametrize("turn", [1, 6, 8])
@pytest.mark.parametrize("camera", CAMERAS)
def test_the_preview_of_full_size_is_the_photograph(camera: str, turn: int) -> None:
    data = CAMERAS[camera](LARGE, turn)
    found = probe(data)
    expected = np.asarray(Image.open(io.BytesIO(coded(LARGE))))
    expected = np.rot90(expected, {1: 0, 6: 3, 8: 1}[turn])
    assert found.upright_size == expected.shape[1::-1]
    assert set(found.notes) == {"raw_preview", "pillow_decoded"}
    assert np.array_equal(np.asarray(decode_picture(data, found)), expected)


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_smaller_preview_is_not_the_photograph(camera: str) -> None:
    with pytest.raises(GiqaError) as caught:
        probe(CAMERAS[camera](SMALL))
    assert caught.value.code == "unsupported_format"
    assert camera in caught.value.message


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_damaged_preview_has_a_code(camera: str) -> None:
    data = bytearray(CAMERAS[camera](LARGE))
    at = data.index(b"\xff\xda", data.index(coded(LARGE)))
    data[at + 2 : at + 4] = b"\0\0"
    with pytest.raises(GiqaError) as caught:
        decode_picture(bytes(data), probe(bytes(data)))
    assert caught.value.code in ("unsupported_format", "corrupt")


def test_columns_of_a_canon_sensor_count_as_its_width() -> None:
    """Half as many, of two samples each, are coded."""
    with pytest.raises(GiqaError) as caught:
        probe(raw_files.cr2(coded(LARGE), LARGE.size, 400, 150))
    assert "Canon CR2" in caught.value.message
