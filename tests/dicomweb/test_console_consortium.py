"""The console's pages of a consortium: what they show, to whom, and what their forms do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ledger_in_memory import MADE_US, Ledger, some
from node_in_memory import STUDY, Client, FakeNode
from test_console_content import tree_of
from test_console_pages import Overview

from bridge import errors
from bridge.consortium_model import (
    CardOverview,
    ConsortiumOverview,
    Emergency,
    EvidenceOverview,
    Hindrance,
    MemberOverview,
    Motion,
    Planned,
    ProposalOverview,
    Replica,
    Share,
)
from bridge.model import Actor, SearchPage, StudyContent

GRANT, PROPOSAL = b"\x0a" * 32, b"\x0b" * 32
MEMBERS = tuple(
    MemberOverview(f"h{i}", bytes([i]) * 16, i == 0, True, 1, f"https://h{i}.example:8043", 10 + i, MADE_US, 40)
    for i in range(4)
)
STANDS = ConsortiumOverview("north", b"\x01" * 8, 17, MADE_US, 40, MEMBERS, 3, cosigned=40)
OPEN = ProposalOverview(PROPOSAL, "enroll h4", "h1", MADE_US, ("h1",), (), 3, None)
ARMOUR = "-----BEGIN CAIRN MEMBER CARD-----\nAAAA\n-----END CAIRN MEMBER CARD-----"
CARD = CardOverview(
    *("h4", b"\x04" * 16, "https://h4.example:8043", "ab@h4.example:26656", 1, "0123 4567 89ab"),
    *(b"\x05" * 32, b"\x06" * 32, b"\x07" * 32, MADE_US),
)
GIVEN = Share(GRANT, STUDY, "h1", True, "TREAT", "delivered", MADE_US, MADE_US + 1)
RECEIVED = Share(b"\x0c" * 32, STUDY, "h2", False, "TREAT", "held", MADE_US)
PAGES = ("/console/consortium", "/console/sharing", "/console/replicas")


class Membership:
    """A consortium as the console sees it, to be changed by a test; `asked` has what was asked for."""

    def __init__(self) -> None:
        self.stands = STANDS
        self.shared: tuple[Share, ...] = (GIVEN, RECEIVED)
        self.kept: tuple[Replica, ...] = ()
        self.broken: tuple[Emergency, ...] = ()
        self.final = True
        self.asked: list[tuple[object, ...]] = []

    def overview(self) -> ConsortiumOverview:
        return self.stands

    def shares(self, study: str | None = None) -> tuple[Share, ...]:
        return tuple(one for one in self.shared if study in (None, one.study))

    def grant(self, actor: Actor, study: str, member: str, purpose: str, expires: str | None) -> str:
        if member not in {one.name for one in self.stands.members}:
            raise errors.RequestError("there is no such member")
        self.asked.append(("grant", actor.name, study, member, purpose, expires))
        return GRANT.hex()

    def revoke(self, actor: Actor, grant: str) -> None:
        self.asked.append(("revoke", actor.name, grant))

    def replicas(self) -> tuple[Replica, ...]:
        return self.kept

    def emergencies(self) -> tuple[Emergency, ...]:
        return self.broken

    def vote(self, actor: Actor, proposal: bytes, yes: bool) -> bool:
        self.asked.append(("vote", actor.name, proposal, yes))
        return self.final

    def plan(self, motion: Motion) -> Planned:
        if motion.do in ("enroll", "rotate"):
            if "CAIRN MEMBER CARD" not in motion.card:
                raise errors.RequestError("this is not a whole card: not base64")
            return Planned(motion, CARD.name, 0, 4, 5, 1, 3, None if motion.do == "enroll" else CARD, CARD)
        after = 3 if motion.do == "retire" else 3 + (motion.power or 0)
        return Planned(motion, motion.member, 1, 4, after, motion.power or 1, 3)

    def propose(self, actor: Actor, motion: Motion) -> bytes | None:
        self.plan(motion)
        self.asked.append(("propose", actor.name, motion))
        return PROPOSAL if self.final else None


@pytest.fixture
def members(node: FakeNode) -> Membership:
    node.membership = Membership()
    console: Any = node
    console.alerts = lambda: []
    node.page = SearchPage(
        (
            {
                "0020000D": {"vr": "UI", "Value": [STUDY]},
                "00080061": {"vr": "CS", "Value": ["CT"]},
                "00081030": {"vr": "LO", "Value": ["Chest"]},
            },
        ),
        0,
    )
    some().attach(node)
    return node.membership  # type: ignore[no-any-return]


@pytest.fixture
def ledger(node: FakeNode) -> Ledger:
    return some().attach(node)


@pytest.fixture
def admin(anonymous: Client) -> Client:
    anonymous.headers = {"authorization": "Bearer admin", "accept": "text/html"}
    return anonymous


def shown(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, response.text
    return response.text


@pytest.mark.parametrize("url", PAGES)
def test_a_node_in_no_consortium_says_so(admin: Client, ledger: Ledger, url: str) -> None:
    assert "This node is in no consortium" in shown(admin, url)


@pytest.mark.parametrize("url", PAGES)
def test_reading_is_for_auditors_and_admins_and_is_recorded(
    admin: Client, members: Membership, node: FakeNode, url: str
) -> None:
    shown(admin, url)
    assert node.recorded == [("audited", "admin", url.rpartition("/")[2])]
    admin.headers["authorization"] = "Bearer auditor"
    shown(admin, url)
    admin.headers["authorization"] = "Bearer clinician"
    assert admin.get(url).status_code == 403


def test_members_height_and_quorum_are_shown(admin: Client, members: Membership) -> None:
    page = shown(admin, "/console/consortium")
    assert "Agreed: 3 or more of 4 members have signed the whole log." in page
    for name in ("h0", "h1", "h2", "h3"):
        assert f"<b>{name}</b>" in page
    assert "3 of 4 members must sign" in page
    assert "https://h3.example:8043" in page


def test_what_waits_for_consensus_is_said(admin: Client, members: Membership) -> None:
    why = Hindrance("No quorum: h2 and h3 are not heard", "Ask there whether the node runs.", MADE_US)
    unheard = {"h2": MADE_US, "h3": MADE_US}
    members.stands = replace(STANDS, outbox=7, waiting_since=MADE_US, hindrances=(why,), unheard=unheard)
    page = shown(admin, "/console/consortium")
    assert "7 entries of this hospital wait for consensus" in page
    assert "<dt>No quorum: h2 and h3 are not heard. Since <time" in page
    assert "<b>What to do: </b>Ask there whether the node runs." in page
    assert page.count(">not heard</span>") == 2
    members.stands = replace(members.stands, outbox=0, waiting_since=None)
    assert "Nothing of this hospital waits so far" in shown(admin, "/console/consortium")


def test_evidence_comes_first(admin: Client, members: Membership) -> None:
    members.stands = replace(STANDS, evidence=(EvidenceOverview("h3", "signed two blocks of height 9", MADE_US),))
    page = shown(admin, "/console/consortium")
    assert "1 member is proved to have broken the rules" in page
    assert "signed two blocks of height 9" in page
    why = Hindrance("No quorum: h2 and h3 are not heard", "Ask there whether the node runs.", MADE_US)
    members.stands = replace(members.stands, hindrances=(why,))
    page = shown(admin, "/console/consortium")  # what was proved stays for ever, and hides nothing of today
    assert page.index("proved to have broken the rules") < page.index("No quorum: h2 and h3 are not heard")


def test_an_administrator_votes_and_an_auditor_cannot(admin: Client, members: Membership) -> None:
    members.stands = replace(STANDS, proposals=(OPEN,))
    assert "Vote for it" in shown(admin, "/console/consortium")
    form = {"proposal": PROPOSAL.hex(), "vote": "yes"}
    answer = admin.post("/console/consortium/votes", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console/consortium#p-{'0b' * 8}")
    assert members.asked == [("vote", "admin", PROPOSAL, True)]
    admin.headers["authorization"] = "Bearer auditor"
    assert "Vote for it" not in shown(admin, "/console/consortium")
    assert admin.post("/console/consortium/votes", data=form).status_code == 403
    assert len(members.asked) == 1


def test_a_proposal_of_this_hospital_is_withdrawn_not_voted_down(admin: Client, members: Membership) -> None:
    members.stands = replace(STANDS, proposals=(replace(OPEN, by="h0", yes=("h0",), own=True),))
    page = shown(admin, "/console/consortium")
    assert "Withdraw it" in page
    assert "Vote for it" not in page and "Vote against it" not in page


def test_what_is_not_final_yet_is_said_to_wait(admin: Client, members: Membership) -> None:
    members.stands, members.final = replace(STANDS, proposals=(OPEN,)), False
    answer = admin.post("/console/consortium/votes", data={"proposal": PROPOSAL.hex(), "vote": "no"})
    assert "The vote is stated and waits for its block" in shown(admin, answer.headers["location"])
    assert "waits for its block" not in shown(admin, "/console/consortium?sent=anything")


def test_proposing_is_for_administrators(admin: Client, members: Membership, node: FakeNode) -> None:
    page = shown(admin, "/console/consortium/propose")
    assert node.recorded == [("audited", "admin", "proposing")]
    assert "cairn consortium propose rotate" in page
    assert '<option value="h1">' in page
    assert "Propose a change" in shown(admin, "/console/consortium")
    admin.headers["authorization"] = "Bearer auditor"
    assert admin.get("/console/consortium/propose").status_code == 403
    assert "Propose a change" not in shown(admin, "/console/consortium")
    for form in ("/console/consortium/proposals/check", "/console/consortium/proposals"):
        assert admin.post(form, data={"do": "retire", "member": "h3"}).status_code == 403
    assert members.asked == []


def test_a_card_is_shown_decoded_before_it_is_proposed(admin: Client, members: Membership) -> None:
    sure = admin.post("/console/consortium/proposals/check", data={"do": "enroll", "card": ARMOUR})
    assert sure.status_code == 200
    for told in ("Propose to take in h4?", "0123 4567 89ab", "https://h4.example:8043", "by telephone", "AAAA"):
        assert told in sure.text
    assert members.asked == []
    form = {"do": "enroll", "card": ARMOUR}
    answer = admin.post("/console/consortium/proposals", data=form)
    assert answer.status_code == 400
    assert "by telephone first" in answer.text
    answer = admin.post("/console/consortium/proposals", data={**form, "compared": "yes"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console/consortium#p-{'0b' * 8}")
    assert members.asked == [("propose", "admin", Motion("enroll", card=ARMOUR))]


def test_what_a_change_means_is_said_before_it_is_proposed(admin: Client, members: Membership) -> None:
    sure = admin.post("/console/consortium/proposals/check", data={"do": "retire", "member": "h3"}).text
    assert "Nothing that h3 writes is taken from then on" in sure
    assert "It cannot be undone" in sure
    sure = admin.post("/console/consortium/proposals/check", data={"do": "power", "member": "h3", "power": "5"}).text
    assert "h3 has 1 vote now" in sure
    assert "a member with 5 of them that is away stops all agreement" in sure
    sure = admin.post("/console/consortium/proposals/check", data={"do": "rotate", "card": ARMOUR}).text
    assert "<small>as before</small>" in sure
    members.final = False
    answer = admin.post("/console/consortium/proposals", data={"do": "power", "member": "h3", "power": "0"})
    assert answer.headers["location"] == "/console/consortium?sent=proposal"
    assert members.asked == [("propose", "admin", Motion("power", "h3", "", 0))]


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({"do": "enroll", "card": "x"}, "This is not a whole card"),
        ({"do": "power", "member": "h3", "power": "-1"}, "Votes are a whole number"),
        ({"do": "power", "member": "h3", "power": "²"}, "Votes are a whole number"),
        ({"do": "crown", "member": "h3"}, "There is no such change"),
    ],
)
def test_what_cannot_be_proposed_is_a_page_that_says_why(
    admin: Client, members: Membership, form: dict[str, str], why: str
) -> None:
    for path in ("/console/consortium/proposals/check", "/console/consortium/proposals"):
        answer = admin.post(path, data={**form, "compared": "yes"})
        assert answer.status_code == 400
        assert why in answer.text
        assert 'href="/console/consortium/propose"' in answer.text


def test_shares_are_listed_with_what_revoking_can_and_cannot_do(admin: Client, members: Membership) -> None:
    page = shown(admin, "/console/sharing")
    assert "CT Chest" in page
    assert page.count("Revoke</button>") == 1
    assert "no further key and no further block" in page
    assert "It cannot call back what was already seen" in page
    admin.headers["authorization"] = "Bearer auditor"
    assert "Revoke</button>" not in shown(admin, "/console/sharing")


def test_what_is_over_cannot_be_revoked(admin: Client, members: Membership) -> None:
    members.shared = (replace(GIVEN, state="ended"),)
    page = shown(admin, "/console/sharing")
    assert "ended, keys destroyed" in page
    assert "Revoke</button>" not in page


def test_a_study_is_given_on_its_own_page(admin: Client, members: Membership) -> None:
    members.shared = (GIVEN,)
    page = shown(admin, f"/console/studies/{STUDY}")
    assert '<option value="h1" selected>' in page
    assert '<option value="h0"' not in page
    form = {"study": STUDY, "to": "h3", "purpose": "TREAT", "expires": "7d"}
    answer = admin.post("/console/sharing/grants", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console/studies/{STUDY}#sharing")
    assert members.asked == [("grant", "admin", STUDY, "h3", "TREAT", "7d")]


def test_a_received_study_tells_where_it_came_from_and_is_not_given_further(admin: Client, members: Membership) -> None:
    page = shown(admin, f"/console/studies/{STUDY}")
    assert "Received from h2 for treatment (TREAT)" in page
    assert "It came from h2, which alone may share it further" in page
    assert "<select" not in page


def test_what_was_added_to_a_received_study_is_given_alone(admin: Client, members: Membership, node: FakeNode) -> None:
    members.shared = (RECEIVED,)
    own, lent = (
        tree_of(instances=2),
        replace(tree_of(), tree=tree_of().tree._replace(id=2, origin=b"\x02" * 16)),
    )
    node.contents[STUDY] = StudyContent(STUDY, "embedded", (), (own, lent))
    page = shown(admin, f"/console/studies/{STUDY}")
    assert "This hospital added 2 instances to it, which it may share. What h2 lent, h2 alone" in page
    assert "Give what this hospital added (2 instances) to another hospital" in page
    assert "and nothing that others lent" in page
    node.contents[STUDY] = StudyContent(STUDY, "embedded", (), (lent,))
    assert "<select" not in shown(admin, f"/console/studies/{STUDY}")


def test_why_a_receiver_took_nothing_in_is_told(admin: Client, members: Membership) -> None:
    members.shared = (replace(GIVEN, refused="the blocks are not those of the study", trouble="asked again"),)
    page = shown(admin, "/console/sharing")
    assert "not taken in there" in page
    assert "<small>the blocks are not those of the study</small><small>asked again</small>" in page
    members.shared = (replace(GIVEN, refused="the grant", state="revoked"),)
    assert "not taken in there" not in shown(admin, "/console/sharing")


def test_an_entry_tells_its_hospital_and_whether_it_is_final(
    admin: Client, members: Membership, ledger: Ledger
) -> None:
    event = ledger.trail.event(ledger.log.leaves[1])
    page = shown(admin, f"/console/entries/{event.id.hex()}")
    assert ">signed</span>" in page
    assert "at h2" not in page
    agreed = replace(event, hospital="h2", block_time_us=MADE_US, actor=replace(event.actor, name="0" * 32))
    ledger.trail._events = [agreed if one.id == event.id else one for one in ledger.trail._events]
    page = shown(admin, f"/console/entries/{event.id.hex()}")
    assert ">final</span>" in page
    assert ">Somebody</b>" in page
    assert "at h2</span>" in page


def test_the_ledger_s_page_keeps_the_members_policy_not_one_key(
    admin: Client, members: Membership, ledger: Ledger, node: FakeNode
) -> None:
    node.overview = Overview()  # type: ignore[attr-defined]
    page = shown(admin, "/console/health")
    assert "Policy of the members" in page and node.log.policy().splitlines()[0] in page
    assert "Verifier key" not in page


def test_what_cannot_be_shared_is_a_page_that_says_why(admin: Client, members: Membership) -> None:
    answer = admin.post("/console/sharing/grants", data={"study": STUDY, "to": "h9", "purpose": "TREAT"})
    assert answer.status_code == 400
    assert "There is no such member" in answer.text


def test_a_grant_is_revoked_once_that_is_sure(admin: Client, members: Membership) -> None:
    form = {"grant": GRANT.hex()}
    asked = admin.post("/console/sharing/revocations", data=form)
    assert asked.status_code == 200
    for told in ("Revoke what was given to h1?", "CT Chest", "It cannot call back what was already seen", "Revoke it"):
        assert told in asked.text
    assert members.asked == []
    answer = admin.post("/console/sharing/revocations", data={**form, "sure": "yes"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/sharing")
    assert members.asked == [("revoke", "admin", GRANT.hex())]
    assert admin.post("/console/sharing/revocations", data={"grant": "x", "sure": "yes"}).status_code == 400
    members.shared = (replace(GIVEN, state="ended"), RECEIVED)
    for none in (GRANT, RECEIVED.grant):
        assert admin.post("/console/sharing/revocations", data={"grant": none.hex()}).status_code == 404


@pytest.mark.parametrize(
    "form",
    [
        "/console/sharing/grants",
        "/console/sharing/revocations",
        "/console/consortium/votes",
        "/console/consortium/proposals/check",
        "/console/consortium/proposals",
    ],
)
def test_another_site_cannot_send_a_form(anonymous: Client, members: Membership, form: str) -> None:
    anonymous.headers = {"cookie": "cairn_session=session-admin", "accept": "text/html", "sec-fetch-site": "cross-site"}
    assert anonymous.post(form, data={"grant": GRANT.hex()}).status_code == 403
    assert anonymous.get(form).status_code == 405
    assert members.asked == []


def test_a_form_too_large_is_refused(admin: Client, members: Membership) -> None:
    assert admin.post("/console/sharing/grants", data={"study": "1" * 40_000}).status_code == 413


def test_an_emergency_is_a_banner_until_it_is_over_and_reviewed(admin: Client, members: Membership) -> None:
    broken = Emergency(GRANT, STUDY, "h0", "h3", True, "trauma room", MADE_US, 2**60, False)
    members.broken = (broken,)
    for url in PAGES[:2]:
        assert "h3 broke the glass for a study of this hospital" in shown(admin, url)
    members.broken = (replace(broken, ends_us=MADE_US, reviewed=True),)
    assert "broke the glass" not in shown(admin, PAGES[0])


def test_replicas_are_listed_by_where_they_lie(admin: Client, members: Membership) -> None:
    members.kept = (
        Replica(STUDY, b"t" * 16, "h1", False, "kept", MADE_US),
        Replica(STUDY, b"t" * 16, "h2", False, "assigned", MADE_US, "offered other blocks"),
        Replica(None, b"u" * 16, "h3", True, "kept", MADE_US),
    )
    page = shown(admin, "/console/replicas")
    assert "something is wrong with copies at h2" in page
    assert "kept, signed for" in page
    assert "CT Chest" in page
    assert (b"u" * 16).hex()[:8] in page
