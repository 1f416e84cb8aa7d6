"""Transfer syntaxes (PS3.6 Table A-1) and what the parser and DICOMweb must know about each."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
RLE: Final = "1.2.840.10008.1.2.5"

OCTET_STREAM: Final = "application/octet-stream"


class TransferSyntax(NamedTuple):
    """How a data set is encoded.

    `encapsulated` is whether pixel data come in fragments, None when only the data tell (private syntaxes);
    `media_type` that of one frame's bytes in DICOMweb (PS3.18 Tables 8.7.3-4 and 8.7.3-5).
    """

    uid: str
    name: str
    explicit: bool = True
    big_endian: bool = False
    deflated: bool = False
    encapsulated: bool | None = True
    media_type: str = OCTET_STREAM

    @property
    def video(self) -> bool:
        """Whether all frames are one stream that cannot be cut (MPEG and HEVC)."""
        return self.media_type.startswith("video/")


def _table() -> dict[str, TransferSyntax]:
    base = "1.2.840.10008.1.2"
    native = [
        TransferSyntax(IMPLICIT_LITTLE, "Implicit VR Little Endian", explicit=False, encapsulated=False),
        TransferSyntax(EXPLICIT_LITTLE, "Explicit VR Little Endian", encapsulated=False),
        TransferSyntax(DEFLATED, "Deflated Explicit VR Little Endian", deflated=True, encapsulated=False),
        TransferSyntax(EXPLICIT_BIG, "Explicit VR Big Endian", big_endian=True, encapsulated=False),
        TransferSyntax(f"{base}.4.94", "JPIP Referenced", encapsulated=False),
        TransferSyntax(f"{base}.4.95", "JPIP Referenced Deflate", deflated=True, encapsulated=False),
        TransferSyntax(f"{base}.4.204", "JPIP HTJ2K Referenced", encapsulated=False),
        TransferSyntax(f"{base}.4.205", "JPIP HTJ2K Referenced Deflate", deflated=True, encapsulated=False),
        TransferSyntax(f"{base}.6.1", "RFC 2557 MIME encapsulation", encapsulated=None),
        TransferSyntax(f"{base}.6.2", "XML Encoding", encapsulated=None),
        TransferSyntax(f"{base}.7.1", "SMPTE ST 2110-20 Uncompressed Progressive Active Video", encapsulated=False),
        TransferSyntax(f"{base}.7.2", "SMPTE ST 2110-20 Uncompressed Interlaced Active Video", encapsulated=False),
        TransferSyntax(f"{base}.7.3", "SMPTE ST 2110-30 PCM Digital Audio", encapsulated=False),
        TransferSyntax("1.2.840.10008.1.20", "Papyrus 3 Implicit VR Little Endian", explicit=False, encapsulated=False),
    ]
    encapsulated = [
        TransferSyntax(f"{base}.{arc}", name, media_type=media_type)
        for media_type, rows in _ENCAPSULATED.items()
        for arc, name in rows
    ]
    return {syntax.uid: syntax for syntax in (*native, *encapsulated)}


_ENCAPSULATED: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    OCTET_STREAM: (("1.98", "Encapsulated Uncompressed Explicit VR Little Endian"),),
    "application/x-deflate": (("8.1", "Deflated Image Frame Compression"),),
    "image/jpeg": (
        ("4.50", "JPEG Baseline (Process 1)"),
        ("4.51", "JPEG Extended (Process 2 and 4)"),
        ("4.52", "JPEG Extended (Process 3 and 5)"),
        ("4.53", "JPEG Spectral Selection, Non-Hierarchical (Process 6 and 8)"),
        ("4.54", "JPEG Spectral Selection, Non-Hierarchical (Process 7 and 9)"),
        ("4.55", "JPEG Full Progression, Non-Hierarchical (Process 10 and 12)"),
        ("4.56", "JPEG Full Progression, Non-Hierarchical (Process 11 and 13)"),
        ("4.57", "JPEG Lossless, Non-Hierarchical (Process 14)"),
        ("4.58", "JPEG Lossless, Non-Hierarchical (Process 15)"),
        ("4.59", "JPEG Extended, Hierarchical (Process 16 and 18)"),
        ("4.60", "JPEG Extended, Hierarchical (Process 17 and 19)"),
        ("4.61", "JPEG Spectral Selection, Hierarchical (Process 20 and 22)"),
        ("4.62", "JPEG Spectral Selection, Hierarchical (Process 21 and 23)"),
        ("4.63", "JPEG Full Progression, Hierarchical (Process 24 and 26)"),
        ("4.64", "JPEG Full Progression, Hierarchical (Process 25 and 27)"),
        ("4.65", "JPEG Lossless, Hierarchical (Process 28)"),
        ("4.66", "JPEG Lossless, Hierarchical (Process 29)"),
        ("4.70", "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])"),
    ),
    "image/jls": (
        ("4.80", "JPEG-LS Lossless Image Compression"),
        ("4.81", "JPEG-LS Lossy (Near-Lossless) Image Compression"),
    ),
    "image/jp2": (
        ("4.90", "JPEG 2000 Image Compression (Lossless Only)"),
        ("4.91", "JPEG 2000 Image Compression"),
    ),
    "image/jpx": (
        ("4.92", "JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)"),
        ("4.93", "JPEG 2000 Part 2 Multi-component Image Compression"),
    ),
    "image/jxl": (
        ("4.110", "JPEG XL Lossless"),
        ("4.111", "JPEG XL JPEG Recompression"),
        ("4.112", "JPEG XL"),
    ),
    "image/jphc": (
        ("4.201", "High-Throughput JPEG 2000 Image Compression (Lossless Only)"),
        ("4.202", "High-Throughput JPEG 2000 with RPCL Options Image Compression (Lossless Only)"),
        ("4.203", "High-Throughput JPEG 2000 Image Compression"),
    ),
    "image/dicom-rle": (("5", "RLE Lossless"),),
    "video/mpeg": (
        ("4.100", "MPEG2 Main Profile / Main Level"),
        ("4.100.1", "Fragmentable MPEG2 Main Profile / Main Level"),
        ("4.101", "MPEG2 Main Profile / High Level"),
        ("4.101.1", "Fragmentable MPEG2 Main Profile / High Level"),
    ),
    "video/mp4": (
        ("4.102", "MPEG-4 AVC/H.264 High Profile / Level 4.1"),
        ("4.102.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1"),
        ("4.103", "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1"),
        ("4.103.1", "Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1"),
        ("4.104", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video"),
        ("4.104.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 2D Video"),
        ("4.105", "MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video"),
        ("4.105.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 For 3D Video"),
        ("4.106", "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2"),
        ("4.106.1", "Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2"),
        ("4.107", "HEVC/H.265 Main Profile / Level 5.1"),
        ("4.108", "HEVC/H.265 Main 10 Profile / Level 5.1"),
    ),
}

TRANSFER_SYNTAXES: Final = _table()
"""Every transfer syntax of PS3.6 Annex A, by UID."""

_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII)


def of(uid: str) -> TransferSyntax:
    """The transfer syntax of a UID.

    One that PS3.6 does not list is taken for Explicit VR Little Endian, as all are that came since 2004
    (PS3.5 10.1), encapsulated or not as its data say.
    """
    known = TRANSFER_SYNTAXES.get(uid)
    return known if known is not None else TransferSyntax(uid, "Private", encapsulated=None)


def is_uid(text: str) -> bool:
    """Whether a text is a UID: numbers joined by dots, at most 64 characters (PS3.5 section 9.1).

    Leading zeros within a component are let through: they are forbidden, common in the field and harmless.
    """
    return len(text) <= 64 and _UID.fullmatch(text) is not None
