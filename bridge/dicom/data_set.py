"""The data set (PS3.5 section 7) as it arrives: one pass from bytes to the DICOM JSON Model, with bounded memory.

A sequence is read by a generator inside its item's generator, at most `limits.DEPTH` deep, so that reading can stop
after any byte. Damage that leaves the structure readable becomes a warning; the rest is Unreadable.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Final, NamedTuple

from bridge.dicom import limits
from bridge.dicom.bulk import BulkValue
from bridge.dicom.charset import charset
from bridge.dicom.dictionary import vr_of
from bridge.dicom.encapsulation import Fragments, read_fragments
from bridge.dicom.json_model import (
    CONVERTERS,
    UTF8_TERM,
    Attribute,
    Context,
    Converter,
    Values,
    bulk_reference,
    inline_binary,
)
from bridge.dicom.transfer_syntaxes import TransferSyntax
from bridge.dicom.value_representations import BINARY, BULK_ALLOWED, LONG_FORM, NUMBERS, SHORT_FORM, swapped
from bridge.dicom.window import Steps, Window
from bridge.errors import Unreadable

PIXEL_DATA: Final = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
EXTENDED_OFFSETS: Final = 0x7FE00001
_SPECIFIC_CHARACTER_SET: Final = 0x00080005
_UNDEFINED: Final = 0xFFFFFFFF
_ENDLESS: Final = 1 << 62
_NOT_KEPT: Final = frozenset((0x0000, 0x0002, 0xFFFE))
_CODES: Final = {vr.encode(): vr for vr in SHORT_FORM | LONG_FORM}
_LONG_CODES: Final = frozenset(vr.encode() for vr in LONG_FORM)
_SHORT: Final = {vr.encode(): (vr, CONVERTERS[vr]) for vr in SHORT_FORM}
_BY_VR: Final = {vr: (vr, CONVERTERS[vr]) for vr in SHORT_FORM}
_LIMITS: Final = {
    **dict.fromkeys(CONVERTERS, limits.TEXT_BYTES),
    **dict.fromkeys(BINARY, limits.INLINE_BINARY_BYTES),
    **dict.fromkeys(NUMBERS, limits.NUMBERS_BYTES),
}

Header = tuple[str, int, int]
"""VR, bytes of tag and length, length of the value field."""


class Encoding(NamedTuple):
    """Byte order and whether VRs are written; it can change within a data set (UN holds Implicit VR Little Endian)."""

    order: str
    explicit: bool


class PixelData(NamedTuple):
    """Where the pixel data's value field lies; `fragments` when it is encapsulated."""

    tag: int
    vr: str
    offset: int
    length: int
    fragments: Fragments | None


class Item:
    """A sequence item, or the data set itself, while it is read."""

    __slots__ = ("attributes", "context", "depth", "encoding", "end", "last", "parent", "path", "sorted")

    def __init__(
        self, encoding: Encoding, context: Context, end: int, path: str = "", parent: Item | None = None
    ) -> None:
        self.attributes: dict[str, Attribute] = {}
        self.encoding = encoding
        self.context = context
        self.end = end
        self.path = path
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 0
        self.last = -1
        self.sorted = True


_EXPLICIT: Final = {order: struct.Struct(order + "HH2sH").unpack_from for order in "<>"}
_IMPLICIT: Final = {order: struct.Struct(order + "HHI").unpack_from for order in "<>"}
_LENGTH: Final = {order: struct.Struct(order + "I").unpack_from for order in "<>"}


class DataSetReader:
    """Reads one data set fed in pieces.

    `attributes` is its JSON so far, `bulk` the values left out of it by path, `pixel_data` where the pixel data lie
    (known as soon as they begin, complete when they have ended), `extended_offsets` the value of (7FE0,0001).
    """

    def __init__(self, syntax: TransferSyntax) -> None:
        self.warnings: set[str] = set()
        self.bulk: dict[str, BulkValue] = {}
        self.pixel_data: PixelData | None = None
        self.extended_offsets = b""
        order = ">" if syntax.big_endian else "<"
        self._syntax = syntax
        self._root = Item(Encoding(order, syntax.explicit), Context(order, self.warnings), _ENDLESS)
        self._window = Window()
        self._between = True
        self._elements_left = limits.ELEMENTS
        self._items_left = limits.ITEMS
        self._values_left = limits.INLINE_VALUES
        self._bytes_left = limits.INLINE_BYTES
        self._small = limits.SMALL_BYTES
        self._steps = self._read()

    @property
    def attributes(self) -> dict[str, Attribute]:
        """The DICOM JSON of the top level, in order of tags once `finish` has returned."""
        return self._root.attributes

    @property
    def length(self) -> int:
        """Bytes fed so far."""
        return self._window.length

    def feed(self, data: bytes | memoryview) -> None:
        """The next bytes. Raises Unreadable."""
        self._window.feed(self._steps, data)

    def finish(self) -> None:
        """There are no more bytes. Raises Unreadable when an element, item or sequence is not complete."""
        self._steps.close()
        if not self._between or self._window.awaits_skipped or self._window.rest.strip(b"\0"):
            raise Unreadable("the data set is truncated")
        if self._window.rest:
            self.warnings.add("zero bytes behind the last element")
        self._close(self._root)

    def _read(self) -> Steps:
        yield from self._sniff(self._root)
        while True:
            yield from self._elements(self._root)

    def _sniff(self, item: Item) -> Steps:
        """Whether the first element has an explicit VR: transfer syntaxes and UN values are wrong about it at times."""
        window = self._window
        while len(window.data) - window.position < 8:
            self._between = item.depth == 0
            yield 8
        self._between = False
        code = window.data[window.position + 4 : window.position + 6]
        order, explicit = item.encoding
        if (
            explicit
            and not (code.isalpha() and code.isupper())
            and code != b"\0\0"
            and window.data[window.position] != 0xFE
        ):
            (length,) = _LENGTH[order](window.data, window.position + 4)
            explicit = length > limits.TEXT_BYTES
        elif not explicit and code in _CODES:
            explicit = True
        if explicit != item.encoding.explicit:
            item.encoding = Encoding(order, explicit)
            self.warnings.add("explicit and implicit VR are mixed up")

    def _elements(self, item: Item) -> Steps:
        """The elements up to the item's end. Small values are taken here; `_other` takes everything else."""
        window, attributes, context = self._window, item.attributes, item.context
        order, explicit = item.encoding
        header = _EXPLICIT[order] if explicit else _IMPLICIT[order]
        while True:
            data, position = window.data, window.position
            if window.base + position >= item.end:
                return
            if len(data) - position < 8:
                self._between = item.depth == 0
                yield 8
                self._between = False
                continue
            plain: tuple[str, Converter] | None
            if explicit:
                group, number, code, length = header(data, position)
                tag = group << 16 | number
                plain = _SHORT.get(code)
            else:
                group, number, length = header(data, position)
                tag = group << 16 | number
                plain = _BY_VR.get(vr_of(tag))
            if plain is None or length > self._small or number == 0 or group in _NOT_KEPT:
                ended = yield from self._other(item, tag)
                if ended:
                    return
                continue
            stop = position + 8 + length
            if stop > len(data):
                yield 8 + length
                continue
            window.position = stop
            if tag <= item.last:
                self._out_of_order(item, tag)
            item.last = tag
            self._elements_left -= 1
            vr, convert = plain
            values = convert(data[position + 8 : stop], context) if length else []
            if not values:
                attributes[f"{tag:08X}"] = {"vr": vr} if values is not None else self._left_out(item, tag, vr, length)
                continue
            attributes[f"{tag:08X}"] = {"vr": vr, "Value": values}
            if len(values) > 8 or self._elements_left < 0:
                self._count(item, tag, vr, length, len(values))
            if tag == _SPECIFIC_CHARACTER_SET:
                self._declare(item, values)

    def _out_of_order(self, item: Item, tag: int) -> None:
        item.sorted = False
        self.warnings.add("elements out of order" if tag < item.last else "an element that occurs twice")

    def _count(self, item: Item, tag: int, vr: str, length: int, count: int) -> None:
        """Keep to the limits on elements and values; `length` bytes before the position lies the value."""
        if self._elements_left < 0:
            raise Unreadable(f"more than {limits.ELEMENTS} data elements")
        if not self._affordable(vr, 0, count):
            item.attributes[f"{tag:08X}"] = self._left_out(item, tag, vr, length)

    def _affordable(self, vr: str, length: int, count: int) -> bool:
        """Whether a value may stand inline by the limits on all together; they are lowered by it."""
        if count <= limits.ELEMENT_VALUES and count <= self._values_left and length <= self._bytes_left:
            self._values_left -= count
            self._bytes_left -= length
            return True
        if vr not in BULK_ALLOWED:
            raise Unreadable("more values than are kept inline")
        self._small = min(self._small, 64)  # from now on what may be large is weighed before it is converted
        return False

    def _left_out(self, item: Item, tag: int, vr: str, length: int) -> Attribute:
        """The value that has just been read becomes a bulk value."""
        return self._as_bulk(item, tag, vr, self._window.offset - length, length)

    def _as_bulk(self, item: Item, tag: int, vr: str, offset: int, length: int) -> Attribute:
        path = f"{item.path}{tag:08X}"
        self.bulk[path] = BulkValue(vr, offset, length)
        return bulk_reference(vr, path)

    def _declare(self, item: Item, terms: list[str | None]) -> None:
        """(0008,0005) holds for the rest of the item; JSON is UTF-8 and says so (PS3.18 8.7.3.5.3)."""
        item.context.charset = charset(terms)
        if item.context.charset.warning:
            self.warnings.add(item.context.charset.warning)
        item.attributes["00080005"] = {"vr": "CS", "Value": [UTF8_TERM]}

    def _other(self, item: Item, tag: int) -> Generator[int, None, bool]:
        """An element that is not small and plain. Returns whether it was a delimiter that ends the item."""
        if tag >> 16 == 0xFFFE:
            return self._delimiter(item, tag)
        self._elements_left -= 1
        if self._elements_left < 0:
            raise Unreadable(f"more than {limits.ELEMENTS} data elements")
        vr, size, length = yield from self._header(item, tag)
        if tag <= item.last:
            self._out_of_order(item, tag)
        item.last = tag
        window = self._window
        if tag & 0xFFFF == 0 or tag >> 16 in _NOT_KEPT:
            if tag >> 16 in _NOT_KEPT:
                self.warnings.add("an element of a command or of file meta information")
            window.skip(size + (0 if length == _UNDEFINED else length))
        elif tag in PIXEL_DATA and item.depth == 0:
            yield from self._pixel_data(item, tag, vr, size, length)
        elif length == _UNDEFINED and vr in ("OB", "OW"):
            yield from self._encapsulated(item, tag, vr, size)
        elif vr == "SQ" or length == _UNDEFINED:
            yield from self._sequence(item, tag, vr, size, length)
        else:
            yield from self._value(item, tag, vr, size, length)
        return False

    def _delimiter(self, item: Item, tag: int) -> bool:
        """An item or sequence delimiter, or an item where an element should be."""
        if item.depth and tag == 0xFFFEE00D:
            self._window.position += 8
            return True
        if item.depth and tag in (0xFFFEE0DD, 0xFFFEE000):
            self.warnings.add("an item without its delimiter")
            return True  # left for the sequence to read
        self.warnings.add("a delimiter outside any sequence")
        self._window.position += 8
        self._elements_left -= 1
        if self._elements_left < 0:
            raise Unreadable(f"more than {limits.ELEMENTS} data elements")
        return False

    def _header(self, item: Item, tag: int) -> Generator[int, None, Header]:
        window = self._window
        order, explicit = item.encoding
        if not explicit:
            _, _, length = _IMPLICIT[order](window.data, window.position)
            vr = self._resolved(item, vr_of(tag))
            return ("SQ" if length == _UNDEFINED and vr == "UN" else vr), 8, length
        _, _, code, length = _EXPLICIT[order](window.data, window.position)
        size = 8
        if code in _LONG_CODES or (code not in _CODES and code.isalpha() and code.isupper()):
            # VRs that are not known have the long form, as all new ones do (PS3.5 6.2 and 7.1.2)
            size = 12
            while len(window.data) - window.position < size:
                yield size
            (length,) = _LENGTH[order](window.data, window.position + 8)
        known = _CODES.get(code)
        if known is None:
            self.warnings.add("a VR that is not known")
        if known is not None and known != "UN":
            return known, size, length
        vr = self._resolved(item, vr_of(tag))
        if known is None or vr == "UN" or length == _UNDEFINED:
            return "UN", size, length
        # PS3.5 6.2.2 note 2: a UN of a tag that is known may be taken for what it is
        return (vr if vr == "SQ" or length <= 0xFFFF else "UN"), size, length

    def _resolved(self, item: Item, vr: str) -> str:
        """One of a dictionary's choices (PS3.3 C.7.6.3.1, C.11.1; PS3.5 A.1 for OB or OW)."""
        if "/" not in vr:
            return vr
        if vr == "US/SS":
            holder: Item | None = item
            while holder is not None and "00280103" not in holder.attributes:
                holder = holder.parent
            signed = holder is not None and holder.attributes["00280103"].get("Value") == [1]
            return "SS" if signed else "US"
        if vr == "US/OW":
            descriptor = item.attributes.get("00283002", {}).get("Value") or [0]
            return "US" if descriptor[0] == 1 else "OW"
        return "OW"

    def _value(self, item: Item, tag: int, vr: str, size: int, length: int) -> Steps:
        window = self._window
        kept = tag == EXTENDED_OFFSETS and item.depth == 0 and length <= limits.OFFSET_TABLE_BYTES
        key = f"{tag:08X}"
        if length > _LIMITS[vr] and not kept:
            if vr not in BULK_ALLOWED:
                raise Unreadable(f"a value of VR {vr} beyond {_LIMITS[vr]} bytes")
            item.attributes[key] = self._as_bulk(item, tag, vr, window.offset + size, length)
            window.skip(size + length)
            return
        while len(window.data) - window.position < size + length:
            yield size + length
        raw = window.data[window.position + size : window.position + size + length]
        window.position += size + length
        if kept:
            self.extended_offsets = swapped(raw, "OV") if item.encoding.order == ">" else raw
        if vr in BINARY:
            order = item.encoding.order
            small = length <= limits.INLINE_BINARY_BYTES
            little = swapped(raw, vr) if order == ">" else raw
            item.attributes[key] = inline_binary(vr, little) if small else self._left_out(item, tag, vr, length)
            return
        values: Values = None
        if self._affordable(vr, length, _count_values(vr, raw)):
            values = CONVERTERS[vr](raw, self._context(item, vr, size))
        if values is None:
            item.attributes[key] = self._left_out(item, tag, vr, length)
            return
        item.attributes[key] = {"vr": vr, "Value": values} if values else {"vr": vr}
        if tag == _SPECIFIC_CHARACTER_SET and values:
            self._declare(item, values)

    def _context(self, item: Item, vr: str, size: int) -> Context:
        """The item's context, little-endian for a value that was declared UN (PS3.5 6.2.2 note 2)."""
        if item.encoding.order == "<" or size == 8 or vr in LONG_FORM:
            return item.context
        return Context("<", self.warnings, item.context.charset)

    def _sequence(self, item: Item, tag: int, vr: str, size: int, length: int) -> Steps:
        """A sequence; one that is UN holds Implicit VR Little Endian (PS3.5 6.2.2 note 4)."""
        if vr not in ("SQ", "UN"):
            raise Unreadable(f"undefined length of a value of VR {vr}")
        if item.depth == limits.DEPTH:
            raise Unreadable(f"sequences more than {limits.DEPTH} deep")
        window = self._window
        unknown = vr == "UN" or window.data[window.position + 4 : window.position + 6] == b"UN"
        encoding = Encoding("<", False) if unknown and item.encoding.explicit else item.encoding
        items: list[dict[str, Attribute]] = []
        key = f"{tag:08X}"
        item.attributes[key] = {"vr": "SQ", "Value": items}
        window.position += size
        end = item.end if length == _UNDEFINED else window.offset + length
        while window.offset < end:
            if len(window.data) - window.position < 8:
                yield 8
                continue
            group, element, length_of_item = _IMPLICIT[encoding.order](window.data, window.position)
            if group == 0xFFFE and element == 0xE000:
                window.position += 8
                child = self._child(item, encoding, end, f"{item.path}{key}.{len(items)}.", length_of_item)
                items.append(child.attributes)
                yield from self._item(child, unknown)
            elif group == 0xFFFE:
                window.position += 8
                if element == 0xE0DD:
                    break
                self.warnings.add("a delimiter without its item")
            else:
                self.warnings.add("something else than items in a sequence")
                if length != _UNDEFINED:
                    window.skip(end - window.offset)
                break
        if not items:
            item.attributes[key] = {"vr": "SQ"}

    def _child(self, parent: Item, encoding: Encoding, end: int, path: str, length: int) -> Item:
        self._items_left -= 1
        if self._items_left < 0:
            raise Unreadable(f"more than {limits.ITEMS} sequence items")
        if length != _UNDEFINED:
            own_end = self._window.offset + length
            if own_end > end:
                self.warnings.add("an item longer than its sequence")
            end = min(end, own_end)
        context = Context(encoding.order, self.warnings, parent.context.charset)
        return Item(encoding, context, end, path, parent)

    def _item(self, item: Item, unknown: bool) -> Steps:
        if unknown and self._window.offset < item.end:
            yield from self._sniff(item)
        yield from self._elements(item)
        if self._window.offset > item.end:
            self.warnings.add("an element longer than its item")
        self._close(item)

    def _close(self, item: Item) -> None:
        if not item.sorted:
            ordered = sorted(item.attributes.items())
            item.attributes.clear()
            item.attributes.update(ordered)

    def _pixel_data(self, item: Item, tag: int, vr: str, size: int, length: int) -> Steps:
        offset = self._window.offset + size
        self.pixel_data = PixelData(tag, vr, offset, length, None)
        if length == _UNDEFINED:
            if self._syntax.encapsulated is False:
                self.warnings.add("encapsulated pixel data in a transfer syntax that has none")
            fragments = yield from self._encapsulated(item, tag, "OB", size)
            value = self.bulk[f"{tag:08X}"]
            self.pixel_data = PixelData(tag, value.vr, offset, value.length, fragments)
        else:
            item.attributes[f"{tag:08X}"] = self._as_bulk(item, tag, vr, offset, length)
            self._window.skip(size + length)
        self._window.limit = self._window.read + limits.TRAILER_BYTES

    def _encapsulated(self, item: Item, tag: int, vr: str, size: int) -> Generator[int, None, Fragments]:
        self._window.position += size
        offset = self._window.offset
        fragments = yield from read_fragments(self._window)
        item.attributes[f"{tag:08X}"] = self._as_bulk(item, tag, vr, offset, self._window.offset - 8 - offset)
        return fragments


def _count_values(vr: str, raw: bytes) -> int:
    if vr in NUMBERS:
        return len(raw) // NUMBERS[vr][1]
    return 1 if vr in ("LT", "ST", "UT", "UR") else raw.count(b"\\") + 1
