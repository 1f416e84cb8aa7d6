"""Run as a script, writes bridge/dicom/dictionary.txt from pydicom's edition of PS3.6.

One line per data element in ascending order: tag (x where any hexadecimal digit may stand), VR with its choices
joined by "/", keyword ("-" for none).
"""

from __future__ import annotations

from pathlib import Path

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary

TARGET = Path(__file__).parents[3] / "bridge" / "dicom" / "dictionary.txt"


def lines() -> list[str]:
    rows = {f"{tag:08X}": row for tag, row in DicomDictionary.items()} | dict(RepeatersDictionary)
    return [
        f"{tag} {row[0].replace(' or ', '/')} {row[4] or '-'}"
        for tag, row in sorted(rows.items())
        if row[0] not in ("NONE", "")
    ]


if __name__ == "__main__":
    TARGET.write_text("\n".join(lines()) + "\n", encoding="ascii")
