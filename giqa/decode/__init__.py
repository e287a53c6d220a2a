"""From encoded images to views.

The probe reads the header only: what cannot be an image, is cut short or exceeds a limit is refused
there, with a code, before a decoder sees it. Then DALI decodes, or Pillow what DALI reads wrongly.
"""

from giqa.decode._boxes import tile_boxes, view_boxes
from giqa.decode._dali import Preprocessor, has_dali
from giqa.decode._decoder import LARGE, Decoded, Decoder
from giqa.decode._light import HDR, is_mapped, map_to_srgb
from giqa.decode._pillow import decode_picture, views_by_pillow
from giqa.decode._pipeline import define_pipeline, serialize_pipeline
from giqa.decode._probe import Probe, listen, probe

__all__ = [
    "HDR",
    "LARGE",
    "Decoded",
    "Decoder",
    "Preprocessor",
    "Probe",
    "decode_picture",
    "define_pipeline",
    "has_dali",
    "is_mapped",
    "listen",
    "map_to_srgb",
    "probe",
    "serialize_pipeline",
    "tile_boxes",
    "view_boxes",
    "views_by_pillow",
]
