"""One tree of errors and one table of how each is answered on every protocol.

    CairnError
    ├── RequestError             the sender's fault; sending the same again fails again
    │   ├── Unreadable               not a DICOM instance, truncated, or beyond a parser limit
    │   ├── IdentityMissing          no Study, Series or SOP Instance UID, or one that is not a UID
    │   ├── IdentityMismatch         the command or the URL names another instance than the data set
    │   ├── SopClassMismatch         the command names another SOP Class than the data set
    │   ├── SopClassUnsupported      a class that is not a composite storage class
    │   ├── TransferSyntaxUnsupported
    │   ├── QueryInvalid             a key, value or parameter that cannot be honoured
    │   ├── NotAcceptable            no representation that the Accept header allows
    │   ├── MediaTypeUnsupported     a request body of a type that is not taken
    │   ├── MultipartInvalid         a body that is not the multipart message its Content-Type declares (RFC 2046)
    │   ├── BodyTooLarge
    │   ├── NotFound
    │   └── Gone                     known, and deleted
    ├── AccessError
    │   ├── Unauthenticated
    │   │   └── CredentialEnded      a credential that was known once; the answer does not tell
    │   └── Forbidden
    ├── CapacityError            try again later
    │   ├── StorageFull
    │   ├── Busy
    │   ├── InUse                    another process owns this CAIRN_HOME
    │   └── AccessNotRecordable      access cannot be recorded, so nothing is served
    ├── IntegrityError           what was read is not what was stored
    │   ├── ContentMissing
    │   ├── ContentCorrupt
    │   ├── CarInvalid               a CAR from elsewhere that is cut, altered or not complete
    │   ├── KeyFileInvalid           a key file from elsewhere that is altered or not for this node or study
    │   └── LedgerInvalid
    ├── StorageFault             the disk or a database failed under a write
    │   └── DatabaseDamaged          a database's file is not what SQLite wrote
    └── ConfigError

Anything outside this tree that reaches a front door is a bug: C-STORE 0110, HTTP 500.

Messages never hold PHI. The C-STORE statuses are those of PS3.4 Table B.2-1 and PS3.7 Annex C, the STOW failure
reasons those of PS3.18 Table I.2-2, the HTTP statuses those of PS3.18 8.5 and RFC 9110.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Answer:
    """How one kind of error is answered: DIMSE C-STORE status, STOW Failure Reason (0008,1197), HTTP status."""

    c_store: int
    stow: int
    http: int


class CairnError(Exception):
    """The root of what Cairn raises on purpose.

    Parameters
    ----------
    detail
        The cause in words; never PHI, never a path of this machine unless an operator alone sees it.
    """

    slug: ClassVar[str] = "internal-error"
    advice: ClassVar[str] = "This is a fault in Cairn; please report it with the log around it."
    answer: ClassVar[Answer] = Answer(0x0110, 0x0110, 500)

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class RequestError(CairnError):
    slug = "request-invalid"
    advice = "Correct the request; sending it again unchanged will fail again."
    answer = Answer(0xC000, 0xC000, 400)


class Unreadable(RequestError):
    slug = "instance-unreadable"
    advice = "Check that the file is a complete DICOM instance in the transfer syntax it declares."
    answer = Answer(0xC000, 0xC000, 400)


class IdentityMissing(RequestError):
    slug = "identity-missing"
    advice = "Give the instance valid Study, Series and SOP Instance UIDs (PS3.5 section 9)."
    answer = Answer(0xC000, 0xC000, 409)


class IdentityMismatch(RequestError):
    slug = "identity-mismatch"
    advice = "The request and the data set must name the same instance and study."
    answer = Answer(0xA900, 0xA900, 409)


class SopClassMismatch(RequestError):
    slug = "sop-class-mismatch"
    advice = "The request and the data set must name the same SOP Class."
    answer = Answer(0xA900, 0xA900, 409)


class SopClassUnsupported(RequestError):
    slug = "sop-class-unsupported"
    advice = "Only composite storage SOP Classes can be stored."
    answer = Answer(0x0122, 0x0122, 409)


class TransferSyntaxUnsupported(RequestError):
    slug = "transfer-syntax-unsupported"
    advice = "Send the instance in a transfer syntax of PS3.6 Annex A."
    answer = Answer(0xC000, 0xC122, 409)


class QueryInvalid(RequestError):
    slug = "query-invalid"
    advice = "See PS3.18 section 8.3.4 for parameters and docs/dicomweb.md for the keys that can be searched."
    answer = Answer(0xA900, 0xA900, 400)


class NotAcceptable(RequestError):
    slug = "not-acceptable"
    advice = "Ask for one of the media types that the answer lists."
    answer = Answer(0x0110, 0x0110, 406)


class MediaTypeUnsupported(RequestError):
    slug = "media-type-unsupported"
    advice = 'Send multipart/related; type="application/dicom".'
    answer = Answer(0x0110, 0x0110, 415)


class MultipartInvalid(RequestError):
    slug = "multipart-invalid"
    advice = "Send CRLF line ends, a boundary of at most 70 characters that the data lack, and the closing delimiter."


class BodyTooLarge(RequestError):
    slug = "body-too-large"
    advice = "Send less in one request; the limit is in the settings."
    answer = Answer(0xC000, 0xC000, 413)


class NotFound(RequestError):
    slug = "not-found"
    advice = "Check the UIDs; a study outside what you may see is answered the same way."
    answer = Answer(0x0112, 0x0112, 404)


class Gone(RequestError):
    slug = "gone"
    advice = "It was deleted; the ledger says when and by whom."
    answer = Answer(0x0112, 0x0112, 410)


class AccessError(CairnError):
    slug = "access-denied"
    advice = "Ask an administrator for the role that this needs."
    answer = Answer(0x0124, 0x0124, 403)


class Unauthenticated(AccessError):
    slug = "unauthenticated"
    advice = "Send a valid token (Authorization: Bearer ...) or open a login link."
    answer = Answer(0x0124, 0x0124, 401)


class CredentialEnded(Unauthenticated):
    """A credential that is known and no longer holds, answered in the words of one that is not known.

    Parameters
    ----------
    how
        "revoked" or "expired".
    credential, holder
        The credential's public id and its holder's name, for the record of the failure alone.
    """

    def __init__(self, detail: str, how: str, credential: str, holder: str) -> None:
        super().__init__(detail)
        self.how, self.credential, self.holder = how, credential, holder


class Forbidden(AccessError):
    slug = "forbidden"
    advice = "The credential is valid but its role does not allow this."
    answer = Answer(0x0124, 0x0124, 403)


class CapacityError(CairnError):
    slug = "capacity"
    advice = "Nothing was lost; try again later."
    answer = Answer(0xA700, 0xA700, 503)


class StorageFull(CapacityError):
    slug = "storage-full"
    advice = "Free space on the disk of CAIRN_HOME, or move it to a larger one; then send again."
    answer = Answer(0xA700, 0xA700, 507)


class Busy(CapacityError):
    slug = "busy"
    advice = "The node is at its limit; send again after the time that Retry-After gives."
    answer = Answer(0xA700, 0xA700, 503)


class InUse(CapacityError):
    slug = "in-use"
    advice = "Stop the process that runs on this CAIRN_HOME, or use a command that the running node answers."
    answer = Answer(0xA700, 0xA700, 503)


class AccessNotRecordable(CapacityError):
    slug = "access-not-recordable"
    advice = "Access must be recorded before anything is served; see why the index cannot be written."
    answer = Answer(0xA700, 0xA700, 503)


class IntegrityError(CairnError):
    slug = "integrity"
    advice = "Run `cairn fsck` to find what is damaged; restore it from a replica or send the instance again."
    answer = Answer(0x0110, 0x0110, 500)


class ContentMissing(IntegrityError):
    slug = "content-missing"


class ContentCorrupt(IntegrityError):
    slug = "content-corrupt"


class CarInvalid(IntegrityError):
    slug = "car-invalid"
    advice = "Get the CAR again from where it was made; nothing of this one was kept."


class KeyFileInvalid(IntegrityError):
    slug = "key-file-invalid"
    advice = "Ask its sender for a key file for this study, sealed to what `cairn key show` prints here."


class LedgerInvalid(IntegrityError):
    slug = "ledger-invalid"
    advice = "Run `cairn ledger verify`; it names the first entry that does not hold."


class StorageFault(CairnError):
    slug = "storage-fault"
    advice = "A write to disk or database failed; see the log for the cause. Nothing that was acknowledged is lost."
    answer = Answer(0xA700, 0xA700, 503)


class DatabaseDamaged(StorageFault):
    slug = "database-damaged"
    advice = (
        "Restore a backup; of a damaged index, `cairn rebuild-index` makes the archive's part again from the packs."
    )
    answer = Answer(0x0110, 0x0110, 500)


class EngineFault(CairnError):
    slug = "engine-fault"
    advice = "Kubo or IPFS Cluster did not do as asked; see the cause. Ingest and viewing go on from the spool."
    answer = Answer(0xA700, 0xA700, 503)


class ConfigError(CairnError):
    slug = "config-invalid"
    advice = "Correct the setting; `cairn config show` says where each value comes from."
    answer = Answer(0x0110, 0x0110, 500)
