"""The bounds of the parser: what goes beyond them ends in `bridge.errors.Unreadable`, early and with bounded memory."""

from __future__ import annotations

from typing import Final

META_BYTES: Final = 1 << 20
"""Preamble and file meta information of a Part 10 file."""

DEPTH: Final = 64
"""Sequences within sequences."""

ELEMENTS: Final = 200_000
"""Data elements of a data set, at all depths."""

ITEMS: Final = 100_000
"""Sequence items of a data set, at all depths."""

HEADER_BYTES: Final = 64 << 20
"""Bytes of everything that is read rather than passed over (pixel data and large bulk values are passed over)."""

TRAILER_BYTES: Final = 1 << 20
"""Bytes that are read behind the pixel data (signatures, padding)."""

INLINE_BINARY_BYTES: Final = 1024
"""A longer OB, OD, OF, OL, OV, OW or UN value becomes a BulkDataURI."""

TEXT_BYTES: Final = 1 << 20
"""A longer character value becomes a BulkDataURI where PS3.18 10.4.1.1.2 lets it, and is refused elsewhere."""

NUMBERS_BYTES: Final = 1 << 18
"""The same for binary numbers."""

INLINE_VALUES: Final = 1_000_000
"""Values of all elements together that are kept inline; what comes after is treated as too long."""

INLINE_BYTES: Final = 16 << 20
"""Bytes of all values together that are kept inline, of values longer than `SMALL_BYTES`."""

SMALL_BYTES: Final = 1024
"""A value up to this long is kept inline without counting it, while the limits on all together last."""

ELEMENT_VALUES: Final = 250_000
"""Values of one element that are kept inline."""

FRAGMENTS: Final = 1_000_000
"""Fragments of encapsulated pixel data."""

OFFSET_TABLE_BYTES: Final = 16 << 20
"""A Basic or Extended Offset Table; a longer one is passed over."""

INFLATED_BYTES: Final = 4 << 30
"""Bytes that a deflated data set may become."""

INFLATED_RATIO: Final = 200
"""Inflated bytes per deflated byte, once more than `INFLATED_FREE` have come out."""

INFLATED_FREE: Final = 64 << 20
"""Inflated bytes that no ratio is asked of: an empty segmentation mask deflates a thousandfold, and is sound."""

FRAMES: Final = 1_000_000
"""Frames that a frame table tells apart."""

WARNINGS: Final = 32
"""Different warnings about one instance."""
