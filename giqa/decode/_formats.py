"""Formats by their first bytes: those that are read, and the names of those that are not."""

from __future__ import annotations

from giqa.errors import UnsupportedFormatError

_READ = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (b"\xff\x0a", "JXL"),
)

_UNREAD = (
    (b"8BPS", "Photoshop (PSD)"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"gimp xcf", "GIMP (XCF)"),
    (b"qoif", "QOI"),
    (b"P7\n", "PAM"),
    (b"PF\n", "PFM"),
    (b"Pf\n", "PFM"),
    (b"DDS ", "DirectDraw Surface (DDS)"),
    (b"\xabKTX", "KTX"),
    (b"SDPX", "DPX"),
    (b"XPDS", "DPX"),
    (b"\x80\x2a\x5f\xd7", "Cineon"),
    (b"\0\0\1\0", "Windows icon (ICO)"),
    (b"\0\0\2\0", "Windows cursor (CUR)"),
    (b"icns", "Apple icon (ICNS)"),
    (b"\x0a\x05\x01", "PCX"),
    (b"\x01\xda", "SGI image"),
    (b"FLIF", "FLIF"),
    (b"BPG\xfb", "BPG"),
    (b"II\xbc", "JPEG XR"),
    (b"IIRO", "camera RAW (Olympus ORF)"),
    (b"IIRS", "camera RAW (Olympus ORF)"),
    (b"MMOR", "camera RAW (Olympus ORF)"),
    (b"IIU\0", "camera RAW (Panasonic RW2)"),
    (b"FUJIFILMCCD-RAW", "camera RAW (Fujifilm RAF)"),
    (b"FOVb", "camera RAW (Sigma X3F)"),
    (b"\0MRM", "camera RAW (Minolta MRW)"),
    (b"II\x1a\0\0\0HEAPCCDR", "camera RAW (Canon CRW)"),
    (b"SIMPLE  =", "FITS"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"AT&TFORM", "DjVu"),
    (b"FORM", "IFF image"),
    (b"#define", "X bitmap (XBM)"),
    (b"/* XPM */", "X pixmap (XPM)"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"FLV\x01", "a video"),
    (b"\0\0\1\xba", "a video"),
    (b"0&\xb2u", "a video"),
    (b"YUV4MPEG2 ", "a video"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "a video"),
    (b"\0\0\1\xb3", "a video"),
    (b"\0\0\0\1\x67", "a video"),
    (b".RMF", "a video"),
    (b"DKIF", "a video"),
    (b"\x1f\x07\0", "a video"),
    (b"id=ImageMagick", "MIFF"),
    (b"DCX", "PCX"),
    (b"OggS", "Ogg"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\x1f\x8b", "gzip"),
)

_PACKETS = ((0, 188), (4, 192))
"""Where packets of an MPEG transport stream begin, and their bytes; with a clock in M2TS files."""

_BRANDS = (
    ("AVIF", (b"avif", b"avis")),
    ("HEIF", (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")),
)
_OTHER_BRANDS = {b"crx ": "camera RAW (Canon CR3)", b"qt  ": "a video"}


def format_of(head: bytes) -> str:
    """Tell a file's format, by the names that Pillow has for them.

    Args:
        head: its first bytes, 256 unless it is shorter.

    Raises:
        UnsupportedFormatError: it is not read; the message names it where it is known.
    """
    for magic, kind in _READ:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return "PPM"
    name = ""
    if head[4:8] == b"ftyp":
        brands = [head[i : i + 4] for i in (8, *range(16, 48, 4))]
        for kind, own in _BRANDS:
            if any(brand in own for brand in brands):
                return kind
        name = _OTHER_BRANDS.get(brands[0], "a video")
    elif head[:4] == b"RIFF":
        name = "a video" if head[8:12] == b"AVI " else "RIFF"
    elif any(head[at::step][:2] == b"GG" for at, step in _PACKETS):
        name = "a video"
    elif b"<svg" in head or (head.lstrip().startswith(b"<?xml") and b"svg" in head):
        name = "SVG"
    else:
        name = next((name for magic, name in _UNREAD if head.startswith(magic)), "")
    if name == "a video":
        raise UnsupportedFormatError("is a video", remedy="score it with `giqa video`")
    if name:
        raise UnsupportedFormatError(f"{name} is not read")
    raise UnsupportedFormatError("not an image of a known format")
