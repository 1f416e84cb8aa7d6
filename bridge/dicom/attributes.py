"""The one table of attributes that are indexed, by query level: what can be matched, returned and asked for.

The levels and required keys are those of PS3.18 Tables 10.6.1-5 and 10.6.3-3 to -5 (and PS3.4 C.6); the rest are the
attributes of the Patient, Clinical Trial, General Study, Patient Study, General Series, General Equipment and Frame of
Reference modules (PS3.3 C.7), so that `includefield=all` has something to say. Instance level holds what viewers and
search results read, not the whole header (that is what metadata is for). Pure values; thread-safe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bridge.errors import QueryInvalid
from bridge.model import Attributes


class Level(StrEnum):
    """The query levels of PS3.4 C.6.1.1, from the root down."""

    PATIENT = "patient"
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


LEVELS: Final = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.INSTANCE)


class Matching(StrEnum):
    """How a key's value is read (PS3.4 C.2.2.2), decided by its VR."""

    UID = "uid"
    TEXT = "text"
    CODE = "code"
    NAME = "name"
    DATE = "date"
    TIME = "time"
    NUMBER = "number"


class Returned(StrEnum):
    """In every match (empty when unknown), in every match that has a value, or only if asked for or matched."""

    ALWAYS = "always"
    WHEN_PRESENT = "when present"
    ON_REQUEST = "on request"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One row of the table.

    `tag` is eight upper-case hex digits, or two such joined by "." for an attribute within a sequence's items;
    `matching` is None for what cannot be matched; `computed` marks what the index works out rather than reads.
    """

    tag: str
    keyword: str
    vr: str
    level: Level
    matching: Matching | None
    returned: Returned
    computed: bool = False


_MATCHING_BY_VR: Final = {
    "UI": Matching.UID,
    "CS": Matching.CODE,
    "PN": Matching.NAME,
    "DA": Matching.DATE,
    "TM": Matching.TIME,
    "IS": Matching.NUMBER,
}

# Each line: tag keyword VR flags. Flags: K a matching key, A always returned, P returned when present, C computed.
_PATIENT: Final = """
00100010 PatientName PN KA
00100020 PatientID LO KA
00100021 IssuerOfPatientID LO K
00100030 PatientBirthDate DA KA
00100040 PatientSex CS KA
00201200 NumberOfPatientRelatedStudies IS C
00201202 NumberOfPatientRelatedSeries IS C
00201204 NumberOfPatientRelatedInstances IS C
00081120 ReferencedPatientSequence SQ
00100022 TypeOfPatientID CS
00100024 IssuerOfPatientIDQualifiersSequence SQ
00100032 PatientBirthTime TM
00100033 PatientBirthDateInAlternativeCalendar LO
00100034 PatientDeathDateInAlternativeCalendar LO
00100035 PatientAlternativeCalendar CS
00100200 QualityControlSubject CS
00100212 StrainDescription UC
00100213 StrainNomenclature LO
00100216 StrainStockSequence SQ
00100219 StrainCodeSequence SQ
00101000 OtherPatientIDs LO
00101001 OtherPatientNames PN
00101002 OtherPatientIDsSequence SQ
00101005 PatientBirthName PN
00101040 PatientAddress LO
00101060 PatientMotherBirthName PN
00101080 MilitaryRank LO
00101081 BranchOfService LO
00102150 CountryOfResidence LO
00102152 RegionOfResidence LO
00102154 PatientTelephoneNumbers SH
00102160 EthnicGroup SH
001021F0 PatientReligiousPreference LO
00102201 PatientSpeciesDescription LO
00102202 PatientSpeciesCodeSequence SQ
00102292 PatientBreedDescription LO
00102293 PatientBreedCodeSequence SQ
00102294 BreedRegistrationSequence SQ
00102297 ResponsiblePerson PN
00102298 ResponsiblePersonRole CS
00102299 ResponsibleOrganization LO
00104000 PatientComments LT
00120010 ClinicalTrialSponsorName LO
00120020 ClinicalTrialProtocolID LO
00120021 ClinicalTrialProtocolName LO
00120030 ClinicalTrialSiteID LO
00120031 ClinicalTrialSiteName LO
00120040 ClinicalTrialSubjectID LO
00120042 ClinicalTrialSubjectReadingID LO
00120062 PatientIdentityRemoved CS
00120063 DeidentificationMethod LO
00120064 DeidentificationMethodCodeSequence SQ
"""

_STUDY: Final = """
00080020 StudyDate DA KA
00080030 StudyTime TM KA
00080050 AccessionNumber SH KA
00080061 ModalitiesInStudy CS KAC
00080062 SOPClassesInStudy UI KC
00080090 ReferringPhysicianName PN KA
00081030 StudyDescription LO KP
0020000D StudyInstanceUID UI KA
00200010 StudyID SH KA
00201206 NumberOfStudyRelatedSeries IS AC
00201208 NumberOfStudyRelatedInstances IS AC
00080051 IssuerOfAccessionNumberSequence SQ
00080096 ReferringPhysicianIdentificationSequence SQ
0008009C ConsultingPhysicianName PN
0008009D ConsultingPhysicianIdentificationSequence SQ
00081032 ProcedureCodeSequence SQ
00081048 PhysiciansOfRecord PN
00081049 PhysiciansOfRecordIdentificationSequence SQ
00081060 NameOfPhysiciansReadingStudy PN
00081062 PhysiciansReadingStudyIdentificationSequence SQ
00081080 AdmittingDiagnosesDescription LO
00081084 AdmittingDiagnosesCodeSequence SQ
00081110 ReferencedStudySequence SQ
00101010 PatientAge AS
00101020 PatientSize DS
00101021 PatientSizeCodeSequence SQ
00101022 PatientBodyMassIndex DS
00101030 PatientWeight DS
00102000 MedicalAlerts LO
00102110 Allergies LO
00102180 Occupation SH
001021A0 SmokingStatus CS
001021B0 AdditionalPatientHistory LT
001021C0 PregnancyStatus US
001021D0 LastMenstrualDate DA
00102203 PatientSexNeutered CS
00120050 ClinicalTrialTimePointID LO
00120051 ClinicalTrialTimePointDescription ST
00120083 ConsentForClinicalTrialUseSequence SQ
00321032 RequestingPhysician PN
00321033 RequestingService LO
00321034 RequestingServiceCodeSequence SQ
00321060 RequestedProcedureDescription LO
00321064 RequestedProcedureCodeSequence SQ
00380010 AdmissionID LO
00380014 IssuerOfAdmissionIDSequence SQ
00380060 ServiceEpisodeID LO
00380062 ServiceEpisodeDescription LO
00380064 IssuerOfServiceEpisodeIDSequence SQ
00380500 PatientState LO
00401012 ReasonForPerformedProcedureCodeSequence SQ
"""

_SERIES: Final = """
00080060 Modality CS KA
0020000E SeriesInstanceUID UI KA
00200011 SeriesNumber IS KA
00201209 NumberOfSeriesRelatedInstances IS AC
0008103E SeriesDescription LO KP
00400244 PerformedProcedureStepStartDate DA KP
00400245 PerformedProcedureStepStartTime TM KP
00400275 RequestAttributesSequence SQ P
00400275.00400009 ScheduledProcedureStepID SH K
00400275.00401001 RequestedProcedureID SH K
00080021 SeriesDate DA KP
00080031 SeriesTime TM KP
00080070 Manufacturer LO K
00080080 InstitutionName LO K
00081010 StationName SH K
00081090 ManufacturerModelName LO K
00180015 BodyPartExamined CS KP
00181030 ProtocolName LO K
00200052 FrameOfReferenceUID UI K
00200060 Laterality CS KP
00080064 ConversionType CS
00080081 InstitutionAddress ST
0008103F SeriesDescriptionCodeSequence SQ
00081040 InstitutionalDepartmentName LO
00081041 InstitutionalDepartmentTypeCodeSequence SQ
00081050 PerformingPhysicianName PN
00081052 PerformingPhysicianIdentificationSequence SQ
00081070 OperatorsName PN
00081072 OperatorIdentificationSequence SQ
00081111 ReferencedPerformedProcedureStepSequence SQ
00081250 RelatedSeriesSequence SQ
00102210 AnatomicalOrientationType CS
00120060 ClinicalTrialCoordinatingCenterName LO
00120071 ClinicalTrialSeriesID LO
00120072 ClinicalTrialSeriesDescription LO
00181000 DeviceSerialNumber LO
00181002 DeviceUID UI
00181008 GantryID LO
00181020 SoftwareVersions LO
00181050 SpatialResolution DS
00181200 DateOfLastCalibration DA
00181201 TimeOfLastCalibration TM
00185100 PatientPosition CS
00200200 SynchronizationFrameOfReferenceUID UI
00201040 PositionReferenceIndicator LO
00400250 PerformedProcedureStepEndDate DA
00400251 PerformedProcedureStepEndTime TM
00400253 PerformedProcedureStepID SH
00400254 PerformedProcedureStepDescription LO
00400260 PerformedProtocolCodeSequence SQ
00400280 CommentsOnThePerformedProcedureStep ST
300A0700 TreatmentSessionUID UI
"""

_INSTANCE: Final = """
00080016 SOPClassUID UI KA
00080018 SOPInstanceUID UI KA
00200013 InstanceNumber IS KA
00080201 TimezoneOffsetFromUTC SH P
00280008 NumberOfFrames IS P
00280010 Rows US P
00280011 Columns US P
00280100 BitsAllocated US P
00080023 ContentDate DA K
00080033 ContentTime TM K
00080005 SpecificCharacterSet CS AC
00080056 InstanceAvailability CS AC
00080008 ImageType CS
00080012 InstanceCreationDate DA
00080013 InstanceCreationTime TM
00080022 AcquisitionDate DA
0008002A AcquisitionDateTime DT
00080032 AcquisitionTime TM
00180050 SliceThickness DS
00200012 AcquisitionNumber IS
00200032 ImagePositionPatient DS
00200037 ImageOrientationPatient DS
00201041 SliceLocation DS
00204000 ImageComments LT
00280002 SamplesPerPixel US
00280004 PhotometricInterpretation CS
00280030 PixelSpacing DS
00280101 BitsStored US
00280301 BurnedInAnnotation CS
00281050 WindowCenter DS
00281051 WindowWidth DS
00282110 LossyImageCompression CS
0040A043 ConceptNameCodeSequence SQ
0040A491 CompletionFlag CS
0040A493 VerificationFlag CS
00420010 DocumentTitle ST
00700080 ContentLabel CS
00700081 ContentDescription LO
00700082 PresentationCreationDate DA
00700083 PresentationCreationTime TM
00700084 ContentCreatorName PN
"""


def _rows(level: Level, text: str) -> list[Attribute]:
    rows = []
    for line in text.split("\n"):
        if line:
            tag, keyword, vr, flags, *_ = [*line.split(" "), ""]
            matching = _MATCHING_BY_VR.get(vr, Matching.TEXT) if "K" in flags else None
            returned = Returned.ON_REQUEST
            if "A" in flags:
                returned = Returned.ALWAYS
            elif "P" in flags:
                returned = Returned.WHEN_PRESENT
            rows.append(Attribute(tag, keyword, vr, level, matching, returned, "C" in flags))
    return rows


TABLE: Final[tuple[Attribute, ...]] = (
    *_rows(Level.PATIENT, _PATIENT),
    *_rows(Level.STUDY, _STUDY),
    *_rows(Level.SERIES, _SERIES),
    *_rows(Level.INSTANCE, _INSTANCE),
)

BY_TAG: Final[Mapping[str, Attribute]] = {attribute.tag: attribute for attribute in TABLE}
BY_KEYWORD: Final[Mapping[str, Attribute]] = {
    attribute.keyword: attribute for attribute in TABLE if "." not in attribute.tag
}
TIMEZONE: Final = "00080201"
"""TimezoneOffsetFromUTC belongs to SOP Common but qualifies every level's dates, so each level keeps it."""

_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")


def find(name: str) -> Attribute | None:
    """The attribute that `name` means, or None when the table has no such row.

    Parameters
    ----------
    name
        A tag in hex, a keyword, or a dotted path of either through a sequence (PS3.18 8.3.4.1 {attributeID}).
    """
    parts = []
    for step in name.split("."):
        if _TAG.fullmatch(step):
            parts.append(step.upper())
        elif step in BY_KEYWORD:
            parts.append(BY_KEYWORD[step].tag)
        else:
            parts.append(_WITHIN_SEQUENCE.get(step, step))
    return BY_TAG.get(".".join(parts))


_WITHIN_SEQUENCE: Final = {
    attribute.keyword: attribute.tag.split(".")[1] for attribute in TABLE if "." in attribute.tag
}


def key(name: str) -> Attribute:
    """The matching key that `name` means.

    Raises
    ------
    QueryInvalid
        When the table has no such attribute, or it cannot be matched: what cannot be honoured is refused, since
        leaving it out would answer with everything.
    """
    attribute = find(name)
    if attribute is None:
        raise QueryInvalid("the query names an attribute that is not searched here")
    if attribute.matching is None:
        raise QueryInvalid(f"{attribute.keyword} cannot be matched")
    return attribute


def extract(json_object: Mapping[str, Mapping[str, object]]) -> Attributes:
    """The values of one instance that the index keeps, by level.

    Parameters
    ----------
    json_object
        The instance in the DICOM JSON model (PS3.18 F.2): tag ("00100010") -> {"vr": ..., "Value": [...]}. Attributes
        given by BulkDataURI or InlineBinary are left out, as are computed ones (another server's counts are not ours).
    """
    levels: dict[Level, dict[str, Mapping[str, object]]] = {level: {} for level in LEVELS}
    for tag, value in json_object.items():
        attribute = BY_TAG.get(tag)
        if attribute is None or attribute.computed or not value.get("Value"):
            continue
        if tag == TIMEZONE:
            levels[Level.STUDY][tag] = levels[Level.SERIES][tag] = value
        levels[attribute.level][tag] = value
    return Attributes(levels[Level.PATIENT], levels[Level.STUDY], levels[Level.SERIES], levels[Level.INSTANCE])
