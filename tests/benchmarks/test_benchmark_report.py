"""The benchmark's own parts: instances are distinct and legal, ratios point the right way."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from pydicom import dcmread

from tests.benchmarks.instances import CT, Maker
from tests.benchmarks.report import Measured, ratio, table, taken_table
from tests.benchmarks.rows import Row, grouped


def test_a_series_is_distinct_slices_of_half_a_megabyte_in_one_study(tmp_path: Path) -> None:
    series = Maker(1).series(tmp_path / "series", 3)
    read = [dcmread(path) for path in series.files]
    assert [data.SOPInstanceUID for data in read] == list(series.instances)
    assert len(set(series.instances)) == 3
    assert {(data.StudyInstanceUID, data.SeriesInstanceUID) for data in read} == {(series.study, series.series)}
    assert all(data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID for data in read)
    assert {data.SOPClassUID for data in read} == {CT}
    assert [data.InstanceNumber for data in read] == [1, 2, 3]
    assert len({data.PixelData for data in read}) == 3
    assert all(data.SOPInstanceUID.is_valid and len(data.PixelData) == 512 * 512 * 2 for data in read)


def test_tiny_studies_are_studies_of_patients_of_their_own() -> None:
    maker = Maker(2)
    read = [dcmread(BytesIO(maker.tiny())) for _ in range(100)]
    assert len({data.StudyInstanceUID for data in read}) == 100
    assert len({data.PatientID for data in read}) == 100
    assert all(data.PatientID[3:] == str(data.PatientName)[-7:] for data in read)


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others() -> None:
    assert Maker(3).tiny() == Maker(3).tiny() != Maker(4).tiny()


def measured(*values: float) -> Measured:
    one = Measured()
    for value in values:
        one.add(value, 2.0)
    return one


def test_a_ratio_above_one_means_that_cairn_is_faster() -> None:
    fast, slow = measured(200, 220, 210), measured(100, 110, 105)
    assert ratio(Row("a rate", "1/s", True), fast, slow) == 2
    assert ratio(Row("a time", "ms", False), slow, fast) == 2
    assert ratio(Row("a time", "ms", False), fast, slow) == 0.5


def test_a_ratio_is_that_of_the_rounds_not_of_the_medians() -> None:
    disturbed_together = measured(10, 100, 40), measured(5, 50, 20)
    assert ratio(Row("a rate", "1/s", True), *disturbed_together) == 2
    once_apart = measured(10, 100, 90), measured(5, 50, 90)
    assert ratio(Row("a rate", "1/s", True), *once_apart) == 2


def test_a_line_shows_median_worst_and_best() -> None:
    rate, time = Row("a rate", "1/s", True, 10), Row("a time", "ms", False)
    lines = table(
        {
            rate: {"Cairn": measured(3, 1, 2), "Orthanc": measured(1, 1, 1)},
            time: {"Cairn": measured(3, 1, 2), "Orthanc": measured(1, 1, 1)},
        }
    )
    assert lines[2].startswith("| a rate | 1/s | 2.00 (1.00 to 3.00) | 1.00 (1.00 to 1.00) | 2.00 | 2.00 | 2.00 |")
    assert lines[3].startswith("| a time | ms | 2.00 (3.00 to 1.00) | 1.00 (1.00 to 1.00) | 0.50 |")


def test_the_acceptors_share_is_of_what_cairn_spends_on_the_same_row() -> None:
    row = Row("sent", "1/s", True, 10)
    alone, cairn = Measured(), Measured()
    for cpu in (0.4, 0.5, 0.6):
        alone.add(900, cpu)
        cairn.add(300, 4 * cpu)
    (line,) = taken_table({row: {"Cairn": cairn}}, {row: alone})[2:]
    assert line == "| sent | 1/s | 900 (900 to 900) | 0.50 | 25% |"


def test_groups_hold_everything_in_order() -> None:
    assert grouped([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
