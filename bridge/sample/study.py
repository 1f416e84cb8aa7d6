"""The sample study: a head CT, an ultrasound cine loop and a report of one patient who does not exist."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import uuid4

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from bridge.sample import cine, phantom

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ULTRASOUND_MULTIFRAME = "1.2.840.10008.5.1.4.1.1.3.1"
BASIC_TEXT_REPORT = "1.2.840.10008.5.1.4.1.1.88.11"
INSTANCES = phantom.SLICES + 2


def new_uid() -> str:
    """A UID nobody else has: a random UUID below 2.25 (PS3.5 section B.2)."""
    return f"2.25.{uuid4().int}"


def sample_study(study: str, moment: datetime) -> Iterator[Dataset]:
    """The `INSTANCES` instances of a study with this UID, made as they are asked for; pixels are the same each time."""
    frame_of_reference, series = new_uid(), new_uid()
    first = None
    for number in range(phantom.SLICES):
        image = _ct(_common(study, series, moment, CT_IMAGE, "CT", 1, number + 1), number, frame_of_reference)
        first = first or image
        yield image
    yield _cine(_common(study, new_uid(), moment, ULTRASOUND_MULTIFRAME, "US", 2, 1))
    assert first is not None
    yield _report(_common(study, new_uid(), moment, BASIC_TEXT_REPORT, "SR", 3, 1), first)


def _common(study: str, series: str, moment: datetime, sop_class: str, modality: str, number: int, n: int) -> Dataset:
    """Patient, study, series, equipment and SOP common modules (PS3.3 C.7.1.1, C.7.2.1, C.7.3.1, C.7.5.1, C.12.1)."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID = UID(sop_class)
    data.SOPInstanceUID = UID(new_uid())
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")
    data.StudyDate = data.SeriesDate = data.ContentDate = date
    data.StudyTime = data.SeriesTime = data.ContentTime = time
    data.AccessionNumber = "SAMPLE"
    data.Modality = modality
    data.Manufacturer = "Cairn"
    data.ManufacturerModelName = "Sample"
    data.ReferringPhysicianName = ""
    data.StudyDescription = "Cairn sample study"
    data.SeriesDescription = {"CT": "Head phantom", "US": "Cine loop", "SR": "Report"}[modality]
    data.PatientName = "CAIRN^SAMPLE"
    data.PatientID = "CAIRN-SAMPLE"
    data.PatientBirthDate = "19740601"
    data.PatientSex = "O"
    data.StudyInstanceUID = UID(study)
    data.SeriesInstanceUID = UID(series)
    data.StudyID = "SAMPLE"
    data.SeriesNumber = number
    data.InstanceNumber = n
    return data


def _ct(data: Dataset, number: int, frame_of_reference: str) -> Dataset:
    """CT image (PS3.3 A.3): axial slices from feet to head, head first supine."""
    corner = -(phantom.COLUMNS - 1) / 2 * phantom.PIXEL_SPACING
    position = phantom.slice_position(number)
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.AcquisitionNumber = 1
    data.BodyPartExamined = "HEAD"
    data.PatientPosition = "HFS"
    data.KVP = 120
    data.SliceThickness = data.SpacingBetweenSlices = phantom.SLICE_SPACING
    data.FrameOfReferenceUID = UID(frame_of_reference)
    data.PositionReferenceIndicator = ""
    data.ImagePositionPatient = [corner, corner, position]
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    data.SliceLocation = position
    data.PixelSpacing = [phantom.PIXEL_SPACING, phantom.PIXEL_SPACING]
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = phantom.ROWS, phantom.COLUMNS
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = phantom.INTERCEPT, 1, "HU"
    data.WindowCenter, data.WindowWidth = [40, 400], [100, 2000]
    data.WindowCenterWidthExplanation = ["BRAIN", "BONE"]
    data.add_new("PixelData", "OW", phantom.slice_pixels(number))
    return data


def _cine(data: Dataset) -> Dataset:
    """Ultrasound multi-frame image (PS3.3 A.7), RGB."""
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.FrameTime = cine.FRAME_TIME
    data.FrameIncrementPointer = 0x00181063  # Frame Time
    data.CineRate = data.RecommendedDisplayFrameRate = round(1000 / cine.FRAME_TIME)
    data.NumberOfFrames = cine.FRAMES
    data.SamplesPerPixel = 3
    data.PhotometricInterpretation = "RGB"
    data.PlanarConfiguration = 0
    data.Rows, data.Columns = cine.ROWS, cine.COLUMNS
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.UltrasoundColorDataPresent = 1
    data.LossyImageCompression = "00"
    data.add_new("PixelData", "OB", b"".join(cine.frame_pixels(number) for number in range(cine.FRAMES)))
    return data


def _report(data: Dataset, image: Dataset) -> Dataset:
    """Basic text report (PS3.3 A.35.1) that refers to the first slice."""
    data.ReferencedPerformedProcedureStepSequence = []
    data.PerformedProcedureCodeSequence = []
    data.CompletionFlag = "COMPLETE"
    data.VerificationFlag = "UNVERIFIED"
    data.ValueType = "CONTAINER"
    data.ContinuityOfContent = "SEPARATE"
    data.ConceptNameCodeSequence = [_code("18748-4", "LN", "Diagnostic imaging study")]
    referenced = Dataset()
    referenced.ReferencedSOPClassUID = image.SOPClassUID
    referenced.ReferencedSOPInstanceUID = image.SOPInstanceUID
    series, evidence = Dataset(), Dataset()
    series.SeriesInstanceUID = image.SeriesInstanceUID
    series.ReferencedSOPSequence = [referenced]
    evidence.StudyInstanceUID = image.StudyInstanceUID
    evidence.ReferencedSeriesSequence = [series]
    data.CurrentRequestedProcedureEvidenceSequence = [evidence]
    shown = Dataset()
    shown.RelationshipType = "CONTAINS"
    shown.ValueType = "IMAGE"
    shown.ConceptNameCodeSequence = [_code("121080", "DCM", "Best illustration of finding")]
    shown.ReferencedSOPSequence = [referenced]
    data.ContentSequence = [
        _text("121070", "Findings", "A phantom. A dense cairn of three stones between the lateral ventricles."),
        _text("121072", "Impression", "No patient was examined: this study was made by code."),
        shown,
    ]
    return data


def _text(code: str, meaning: str, text: str) -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "TEXT"
    item.ConceptNameCodeSequence = [_code(code, "DCM", meaning)]
    item.TextValue = text
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = scheme
    code.CodeMeaning = meaning
    return code
