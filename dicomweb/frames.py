"""Frames and bulk data: WADO-RS pixel data and bulkdata resources (PS3.18 10.4.1.1.6, 10.4.1.1.5, 8.7.3.3)."""

from __future__ import annotations

import re

from starlette.responses import Response

from bridge.dicom import transfer_syntaxes
from bridge.errors import RequestError
from bridge.model import StoredInstance
from dicomweb import media_types, multipart
from dicomweb.exchange import Exchange
from dicomweb.media_types import EXPLICIT_VR_LITTLE_ENDIAN, OCTET_STREAM, Offer
from dicomweb.responses import conditional, digest_of, respond, validators, whole

MAX_FRAMES = 10_000
_FRAME_LIST = re.compile(r"[0-9]{1,9}(?:,[0-9]{1,9})*\Z")


def frame_numbers(text: str) -> tuple[int, ...]:
    """The frame list of a URL, counted from 1 (PS3.18 Table 10.4.1-1). Raises RequestError for anything else."""
    if not _FRAME_LIST.match(text):
        raise RequestError("The frame list is not a comma-separated list of numbers from 1")
    numbers = tuple(int(piece) for piece in text.split(","))
    if 0 in numbers or len(numbers) > MAX_FRAMES:
        raise RequestError(f"Frame numbers start at 1, and a request names at most {MAX_FRAMES}")
    return numbers


def frame_offers(instance: StoredInstance, count: int) -> list[Offer]:
    """What the frames of an instance can be given as, best first.

    Native frames are little-endian whatever they were stored in, so Explicit VR Little Endian is their label (8.7.3
    forbids Implicit VR and Big Endian); encapsulated ones keep their own transfer syntax and its media type (Table
    8.7.3-5), and are given as octet-stream to those who ask for that. A single part is given for a single frame only.
    """
    syntax = transfer_syntaxes.of(instance.transfer_syntax)
    offers = [Offer(OCTET_STREAM, EXPLICIT_VR_LITTLE_ENDIAN, multipart=True, wildcard=True)]
    if syntax.encapsulated is not False:
        offers = [
            Offer(syntax.media_type, instance.transfer_syntax, multipart=True, wildcard=True),
            Offer(OCTET_STREAM, instance.transfer_syntax, multipart=True),
        ]
    if count == 1:
        offers += [Offer(offer.media_type, offer.transfer_syntax) for offer in offers]
    return offers


def retrieve_frames(exchange: Exchange) -> Response:
    """`GET .../instances/{instance}/frames/{frames}`: one part a frame, in the order asked."""
    path = exchange.path
    numbers = frame_numbers(path["frames"])
    media_types.refuse_mixture(exchange.accept)
    instance = exchange.node.retrieve.locate(path["study"], path["series"], path["instance"])[0]
    offer = media_types.choose(exchange.accept, exchange.accept_parameters, frame_offers(instance, len(numbers)))
    viewing = exchange.view(instance.key.study)
    location = f"{instance_url(exchange.root, instance)}/frames/"
    tag = digest_of(instance.digest, path["frames"], str(offer), location)
    if (instead := conditional(exchange, tag)) is not None:
        return instead
    media_type = f"{offer.media_type}; transfer-syntax={offer.transfer_syntax}"
    frames = exchange.node.retrieve.frames(viewing, instance, numbers)
    if not offer.multipart:
        headers = {**validators(tag), "content-location": f"{location}{numbers[0]}"}
        return whole(exchange, next(frames), headers, media_type)
    parts = multipart.parts(
        tag, media_type, ((f"{location}{n}", frame) for n, frame in zip(numbers, frames, strict=True))
    )
    if len(numbers) == 1:
        return whole(exchange, b"".join(parts), validators(tag), multipart.content_type(offer.media_type, tag))
    return respond(exchange, parts, validators(tag), multipart.content_type(offer.media_type, tag), None)


def retrieve_bulk_data(exchange: Exchange) -> Response:
    """`GET .../instances/{instance}/bulkdata/{path}`: one value, little-endian, as its own type for octets demands."""
    path = exchange.path
    instance = exchange.node.retrieve.locate(path["study"], path["series"], path["instance"])[0]
    offers = [
        Offer(OCTET_STREAM, EXPLICIT_VR_LITTLE_ENDIAN, wildcard=True),
        Offer(OCTET_STREAM, EXPLICIT_VR_LITTLE_ENDIAN, multipart=True),
    ]
    offer = media_types.choose(exchange.accept, exchange.accept_parameters, offers)
    viewing = exchange.view(instance.key.study)
    location = f"{instance_url(exchange.root, instance)}/bulkdata/{path['path']}"
    tag = digest_of(instance.digest, "bulkdata", path["path"], str(offer), location)
    if (instead := conditional(exchange, tag)) is not None:
        return instead
    data = exchange.node.retrieve.bulk(viewing, instance, path["path"]).data
    if not offer.multipart:
        return whole(exchange, data, {**validators(tag), "content-location": location}, OCTET_STREAM)
    media_type = f"{OCTET_STREAM}; transfer-syntax={EXPLICIT_VR_LITTLE_ENDIAN}"
    body = b"".join(multipart.parts(tag, media_type, iter([(location, data)])))
    return whole(exchange, body, validators(tag), multipart.content_type(OCTET_STREAM, tag))


def instance_url(root: str, instance: StoredInstance) -> str:
    """The absolute URL of an instance."""
    key = instance.key
    return f"{root}/studies/{key.study}/series/{key.series}/instances/{key.sop}"
