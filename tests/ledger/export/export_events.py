"""Events as the exports get them: one of each type, and what can be odd about one."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from ledger.event import Detail, Event, Participant, Patient
from ledger.types import ENTRY_TYPES

NODE = bytes(range(16))
STUDY = "1.2.826.0.1.3680043.8.498.1"
CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.11"
USER = Participant("user", "Dr Who", "viewer", "192.0.2.7", "http")
DEVICE = Participant("device", "CT_ONE", "device", "2001:db8::7", "dimse")
SYSTEM = Participant("system", "cairn", "", "", "node")
PATIENT = Patient("P-17", "1.2.3.4", "Doe^Jane")
T0 = 1_700_000_000_123_456


def event_of(kind: str, **changes: object) -> Event:
    """A plain event of a type: about the study and its patient when the type is."""
    row = ENTRY_TYPES[kind]
    actor = DEVICE if kind in ("study.store", "study.import") else SYSTEM if kind.startswith("app.") else USER
    plain = Event(
        index=41,
        id=hashlib.sha256(kind.encode()).digest(),
        node=NODE,
        sequence=41,
        type=kind,
        time_us=T0,
        purpose="TREAT" if row.study else "HOPERAT",
        outcome=4 if kind in ("auth.fail", "access.refused") else 0,
        actor=actor,
        records=2,
        study=STUDY if row.study else None,
        patient=PATIENT if row.study else None,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def detail_of(body: dict[str, object] | None, position: int = 0) -> Detail:
    """A record that says `body`; None: one whose key is gone."""
    return Detail(hashlib.sha256(b"%d" % position).digest(), position, T0 if body else None, body, None)


def details_of(kind: str) -> list[Detail]:
    """Records as a node writes them for a type."""
    bodies: dict[str, list[dict[str, object]]] = {
        "study.store": [
            {"study": STUDY, "series": "1.2", "instance": f"1.2.{n}", "class": CT if n < 3 else SR, "outcome": "new"}
            for n in range(4)
        ],
        "study.access": [
            {"study": STUDY, "purpose": "TREAT", "reason": "", "opens": True},
            {"items": [["metadata", "", "", 1], ["frame", "1.2.1", "1", 3], ["frame", "1.2.2", "1", 1]]},
        ],
        "study.query": [{"items": [["study", "PatientID StudyDate", "3", 2], ["series", "", "0", 1]]}],
        "access.refused": [{"items": [["role", "the role viewer may not store", 1]]}],
        "auth.fail": [{"items": [["unknown", "token", 3]]}],
        "admin.token": [{"did": "created", "name": "ward 3", "role": "viewer"}],
        "app.start": [{"version": "0.1.0", "node": NODE.hex()}],
        "content.scrub": [
            {
                "what": "10 blocks of 5 KiB read; 1 damaged, 1 mended",
                "did": "background",
                "blocks": 10,
                "bytes": 5120,
                "findings": [{"block": bytes(36), "place": "pack 1 at byte 97", "what": "damaged", "mended": "kubo"}],
            }
        ],
    }
    return [detail_of(body, number) for number, body in enumerate(bodies.get(kind, []))]


ERASED = event_of("study.access", study=None, erased=True, patient=None)
EMERGENCY = event_of("study.access", purpose="ETREAT", reason="unconscious in the emergency room")
