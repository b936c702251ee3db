"""What `plan_block` decides, rule by rule, and for anything at all that may have been found."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.cluster.plan import Copy, Survey, plan_block
from holdfast.core.ids import DriveId
from holdfast.erasure import Code, copies, erasure

A, B, C, D, E = (DriveId(letter * 16) for letter in (b"a", b"b", b"c", b"d", b"e"))
CODE = erasure(2, 1)


def found(*places: tuple[int, DriveId], bad: tuple[tuple[int, DriveId], ...] = (), silent: str = "") -> Survey:
    survey = Survey(bad=set(bad), silent={DriveId(letter.encode() * 16) for letter in silent})
    for index, drive in places:
        survey.found(index, drive)
    return survey


def test_a_block_at_home_needs_nothing() -> None:
    plan = plan_block(CODE, (A, B, C, D), found((0, A), (1, B), (2, C)))
    assert plan.whole
    assert plan.idle


def test_a_missing_fragment_is_rebuilt_at_home() -> None:
    plan = plan_block(CODE, (A, B, C, D), found((0, A), (2, C)))
    assert plan.rebuild == ((1, B),)
    assert plan.missing == (1,)
    assert not plan.whole


def test_a_handoff_goes_home_and_then_goes() -> None:
    plan = plan_block(CODE, (A, B, C, D), found((0, A), (1, D), (2, C)))
    assert plan.copies == (Copy(1, D, B),)
    assert plan.drop == ((1, D),)
    assert not plan.rebuild


def test_surplus_goes_and_bad_surplus_too() -> None:
    plan = plan_block(CODE, (A, B, C, D), found((0, A), (1, B), (1, D), (2, C), bad=((0, E),)))
    assert plan.drop == ((0, E), (1, D))
    assert not plan.copies


def test_a_bad_fragment_at_home_is_rebuilt_not_dropped() -> None:
    plan = plan_block(CODE, (A, B, C), found((0, A), (1, B), bad=((2, C),)))
    assert plan.rebuild == ((2, C),)
    assert plan.drop == ()


def test_a_silent_home_is_waited_for_and_its_handoff_kept() -> None:
    plan = plan_block(CODE, (A, B, C, D), found((0, A), (1, D), (2, C), silent="b"))
    assert plan.idle
    assert plan.waiting == (1,)
    assert not plan.whole


def test_with_too_few_drives_a_fragment_stays_on_any_that_is_not_being_emptied() -> None:
    plan = plan_block(CODE, (A, B), found((0, A), (1, B), (2, E)))
    assert plan.homeless == (2,)
    assert plan.copies == (Copy(2, E, A),)
    assert plan.drop == ((2, E),)
    assert plan_block(CODE, (A, B), found((0, A), (1, B), (2, B))).whole
    assert plan_block(CODE, (A, B), found((0, A), (1, B))).whole
    assert plan_block(CODE, (A, B), found((0, A), (2, E), silent="b")).copies == (Copy(2, E, A),)


def test_below_k_nothing_is_dropped_and_nothing_rebuilt() -> None:
    plan = plan_block(CODE, (A, B, C), found((0, A), (0, D), bad=((1, E),)))
    assert plan.lost
    assert plan.drop == ()
    assert plan.rebuild == ()


def test_below_k_a_handoff_still_goes_home_but_its_original_stays() -> None:
    plan = plan_block(CODE, (A, B, C), found((0, D)))
    assert plan.copies == (Copy(0, D, A),)
    assert plan.drop == ()


drives = st.sampled_from([A, B, C, D, E])
codes = st.sampled_from([copies(1), copies(3), erasure(2, 1), erasure(2, 2)])
surveys = st.builds(
    lambda good, bad, silent: found(
        *((i, d) for i, d in good if (i, d) not in bad and d not in silent),
        bad=tuple((i, d) for i, d in bad if d not in silent),
        silent="".join(d.decode()[0] for d in silent),
    ),
    st.sets(st.tuples(st.integers(0, 3), drives)),
    st.sets(st.tuples(st.integers(0, 3), drives)),
    st.sets(drives),
)


@given(codes, st.permutations([A, B, C, D, E]), st.integers(1, 5), surveys)
def test_carrying_out_any_plan_loses_no_index_and_leaves_nothing_to_do(
    code: Code, order: list[DriveId], active: int, survey: Survey
) -> None:
    survey.good = {index: holders for index, holders in survey.good.items() if index < code.width}
    survey.bad = {(index, drive) for index, drive in survey.bad if index < code.width}
    preferred = tuple(order[:active])
    before = set(survey.good)
    plan = plan_block(code, preferred, survey)
    for copy in plan.copies:
        assert copy.source in survey.good[copy.index]
        survey.found(copy.index, copy.target)
    for index, drive in plan.rebuild:
        assert len(survey.good) >= code.k
        survey.found(index, drive)
    survey.bad -= {(index, drive) for index, holders in survey.good.items() for drive in holders}
    for index, drive in plan.drop:
        survey.lost(index, drive)
        survey.bad.discard((index, drive))
        assert index in survey.good
    assert before <= set(survey.good)
    again = plan_block(code, preferred, survey)
    assert again.idle or plan.lost
    if not (plan.waiting or plan.lost):
        assert again.whole
