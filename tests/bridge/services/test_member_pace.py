"""When a member is asked next: soon after news, ever more seldom without, at once when something goes on."""

from bridge.services.member_pace import FIRST_US, LONGEST_US, Pace

ONE, OTHER = bytes(16), bytes([1]) * 16
HOUR = 3600 * 1_000_000


def questions(pace: Pace, begin: int, end: int) -> int:
    """How often a member that has nothing new is asked, looked at every half second."""
    count = 0
    for now in range(begin, end, 500_000):
        if pace.is_due(ONE, now):
            pace.asked(ONE, now, news=False)
            count += 1
    return count


def test_without_news_the_pauses_double_up_to_the_longest() -> None:
    pace = Pace()
    assert questions(pace, 0, HOUR) == 15  # after 0, 1, 3, 7 ... 511 s, then each ten minutes
    assert questions(pace, HOUR, 25 * HOUR) == 24 * HOUR // LONGEST_US


def test_news_and_what_the_ledger_tells_make_it_soon_again() -> None:
    pace = Pace()
    questions(pace, 0, HOUR)
    pace.asked(ONE, HOUR, news=True)
    assert not pace.is_due(ONE, HOUR + FIRST_US - 1) and pace.is_due(ONE, HOUR + FIRST_US)
    pace.asked(ONE, HOUR + FIRST_US, news=False)
    assert not pace.is_due(ONE, HOUR + 2 * FIRST_US)
    pace.hurry(ONE)
    assert pace.is_due(ONE, HOUR + FIRST_US)


def test_members_have_paces_of_their_own_and_a_new_one_is_asked_at_once() -> None:
    pace = Pace()
    pace.asked(ONE, 7, news=False)
    assert not pace.is_due(ONE, 8) and pace.is_due(OTHER, 8)
