"""Which SOP Classes can be stored: all but those known to be something else."""

from __future__ import annotations

from typing import Final

_OTHERWISE: Final = frozenset(
    "1.2.840.10008." + arc
    for arc in (
        *("4.2", "5.1.4.33", "5.1.4.41", "5.1.4.42"),  # storage service class, availability, product, substance queries
        *("5.1.4.1.1.200.4", "5.1.4.1.1.200.5", "5.1.4.1.1.200.6"),  # protocol approval query and retrieve
        *("5.1.4.1.1.201.1.1", *(f"5.1.4.1.1.201.{n}" for n in range(2, 7))),  # inventory
        *("5.1.4.31", "5.1.4.32", "5.1.4.34.2", "5.1.4.34.3", "5.1.4.34.4", "5.1.4.34.6", "5.1.4.34.8", "5.1.4.34.9"),
        *(f"5.1.4.{model}.{n}" for model in (38, 39, 43, 44, 45) for n in (2, 3, 4)),  # non-patient query and retrieve
    )
)

_OTHERWISE_BELOW: Final = (
    "1.2.840.10008.1.",  # verification, transfer syntaxes, DICOMDIR, palettes, commitment, logs
    "1.2.840.10008.3.1.2.",  # detached management, performed procedure steps
    "1.2.840.10008.5.1.1.",  # print, media creation, display
    "1.2.840.10008.5.1.4.1.2.",  # query and retrieve
    "1.2.840.10008.5.1.4.20.",  # defined procedure protocol query and retrieve
    "1.2.840.10008.5.1.4.32.",  # general purpose worklist
    "1.2.840.10008.5.1.4.34.4.",  # unified procedure step, trial
    "1.2.840.10008.5.1.4.34.5",  # unified procedure step subscriptions
    "1.2.840.10008.5.1.4.34.6.",  # unified procedure step
    "1.2.840.10008.5.1.4.37.",  # relevant patient information
    "1.2.840.10008.10.",  # real-time communication
)

_PRINTED: Final = frozenset(f"1.2.840.10008.5.1.1.{n}" for n in (27, 29, 30))
"""Stored Print and the two Hardcopy Image Storage classes: composite instances that live below the print arc."""


def is_storable(sop_class: str) -> bool:
    """Whether instances of a SOP Class can be stored.

    Private classes and those of future editions are taken as storable; refused are the classes that PS3.4 and
    PS3.6 Table A-1 define for another service (verification, query/retrieve, worklist, print, procedure steps,
    storage commitment) and Media Storage Directory Storage (1.2.840.10008.1.3.10), which has no study.
    """
    if sop_class in _PRINTED:
        return True
    return sop_class not in _OTHERWISE and not sop_class.startswith(_OTHERWISE_BELOW)
