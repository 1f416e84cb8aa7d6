"""Studies, series, instances and their metadata: WADO-RS (PS3.18 10.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from starlette.responses import Response

from bridge.model import InstanceKey, StoredInstance
from dicomweb import media_types, multipart
from dicomweb.exchange import Exchange
from dicomweb.frames import instance_url
from dicomweb.media_types import DICOM, DICOM_JSON, JSON, Offer
from dicomweb.node import Viewing
from dicomweb.responses import compressed, conditional, digest_of, respond, takes_gzip, validators

_BULK_DATA_URI = b'"BulkDataURI":"bulkdata/'


def retrieve_instances(exchange: Exchange) -> Response:
    """`GET /studies/{study}`, `.../series/{series}`, `.../instances/{instance}`: Part 10 files as they were stored.

    Whoever asks for one transfer syntax gets it when everything is stored in it, else 406 (nothing is transcoded).
    """
    media_types.refuse_mixture(exchange.accept)
    located = _locate(exchange)
    offers = _instance_offers(located, single="instance" in exchange.path)
    offer = media_types.choose(exchange.accept, exchange.accept_parameters, offers)
    viewing = exchange.view(exchange.path["study"])
    tag = digest_of(exchange.root, str(offer), *(i.digest for i in located), *(i.key.sop for i in located))
    if (instead := conditional(exchange, tag)) is not None:
        return instead
    if not offer.multipart:
        instance = located[0]
        headers = {**validators(tag), "content-location": instance_url(exchange.root, instance)}
        chunks = exchange.node.retrieve.part10(viewing, instance)
        return respond(exchange, chunks, headers, _labelled(instance), instance.object.length)
    body = _parts(exchange, viewing, located, tag)
    length = _length(exchange.root, located, tag)
    return respond(exchange, body, validators(tag), multipart.content_type(DICOM, tag), length)


def _instance_offers(located: Sequence[StoredInstance], *, single: bool) -> list[Offer]:
    """As stored: multipart, which is the default (CP-2040), and one part alone for one instance when asked.

    Several transfer syntaxes below one resource are offered only together, which `*` asks for.
    """
    syntaxes = {instance.transfer_syntax for instance in located}
    label = syntaxes.pop() if len(syntaxes) == 1 else "*"
    offers = [Offer(DICOM, label, multipart=True, wildcard=True)]
    return [*offers, Offer(DICOM, label)] if single else offers


def _labelled(instance: StoredInstance) -> str:
    return f"{DICOM}; transfer-syntax={instance.transfer_syntax}"


def _opening(root: str, instance: StoredInstance, boundary: str, first: bool) -> bytes:
    location = instance_url(root, instance)
    return multipart.part_opening(boundary, _labelled(instance), instance.object.length, location, first=first)


def _parts(exchange: Exchange, viewing: Viewing, instances: Sequence[StoredInstance], boundary: str) -> Iterator[bytes]:
    files = exchange.node.retrieve.files(viewing, instances)
    for number, (instance, file) in enumerate(zip(instances, files, strict=True)):
        yield _opening(exchange.root, instance, boundary, number == 0)
        yield from file
    yield multipart.closing(boundary)


def _length(root: str, instances: Sequence[StoredInstance], boundary: str) -> int:
    """Content-Length of the whole, known before a byte is read (PS3.18 8.4.3)."""
    openings = sum(len(_opening(root, instance, boundary, n == 0)) for n, instance in enumerate(instances))
    return openings + sum(instance.object.length for instance in instances) + len(multipart.closing(boundary))


def retrieve_metadata(exchange: Exchange) -> Response:
    """`GET .../metadata` at the three levels: the DICOM JSON made at ingest, with absolute BulkDataURIs."""
    offers = [Offer(DICOM_JSON, wildcard=True), Offer(JSON)]
    offer = media_types.choose(exchange.accept, exchange.accept_parameters, offers)
    located = _locate(exchange)
    study = exchange.path["study"]
    viewing = exchange.view(study)
    gzip = takes_gzip(exchange)
    representation = (exchange.root, str(offer), exchange.node.version, "gzip" if gzip else "identity")
    tag = digest_of(*representation, *(instance.digest for instance in located))
    if (instead := conditional(exchange, tag)) is not None:
        return instead
    series, instance = exchange.path.get("series"), exchange.path.get("instance")
    objects = exchange.node.retrieve.metadata(viewing, study, series, instance)
    body = json_array(objects, exchange.root)
    if gzip:
        headers = {**validators(tag), "content-encoding": "gzip"}
        return respond(exchange, compressed(body), headers, offer.media_type, None)
    return respond(exchange, body, validators(tag), offer.media_type, None)


def json_array(objects: Iterator[tuple[InstanceKey, bytes]], root: str) -> Iterator[bytes]:
    """The objects as one JSON array, not parsed again.

    The bytes `"BulkDataURI":"bulkdata/` cannot occur within a JSON string, whose quotes are escaped.
    """
    lead = b"["
    for key, text in objects:
        absolute = f'"BulkDataURI":"{root}/studies/{key.study}/series/{key.series}/instances/{key.sop}/bulkdata/'
        yield lead + text.replace(_BULK_DATA_URI, absolute.encode("ascii"))
        lead = b","
    yield b"[]" if lead == b"[" else b"]"


def _locate(exchange: Exchange) -> Sequence[StoredInstance]:
    path = exchange.path
    return exchange.node.retrieve.locate(path["study"], path.get("series"), path.get("instance"))
