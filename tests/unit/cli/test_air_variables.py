"""The proof of concept's own variables: what becomes of them, and what outweighs them."""

from pathlib import Path

import pytest

from holdfast.cli.settings import Settings, load
from holdfast.core.errors import InvalidRequest
from holdfast.erasure.code import Matrix, copies, erasure

THEIRS = {
    "DATA": "4",
    "PARITY": "3",
    "NUMNODES": "9",
    "METACOPIES": "3",
    "NODEPATH": "/nodes",
    "MATRIXTYPE": "rs_vandermonde",
}


def loaded(given: dict[str, str] | None = None, **environment: str) -> Settings:
    return load((), {"air": "9002", **(given or {})}, {**THEIRS, **environment}, None)


def test_what_they_mean() -> None:
    settings = loaded()
    assert settings.air == ("127.0.0.1", 9002)
    assert settings.chosen_code(9) == erasure(4, 3, Matrix.VANDERMONDE)
    assert settings.metacopies == 3
    assert settings.drives == tuple(Path(f"/nodes/{number}") for number in range(1, 10))
    assert loaded(MATRIXTYPE="cauchy_good").matrix == "cauchy"
    assert loaded(NODEPATH="nodes", NUMNODES="1").drives == (Path.cwd() / "nodes" / "1",)


def test_they_count_only_where_air_is_asked_for() -> None:
    nonsense = dict.fromkeys(THEIRS, "anything")
    settings = load((), {}, nonsense, None)
    assert (settings.code, settings.metacopies, settings.drives) == (None, None, ())


def test_every_setting_of_our_own_outweighs_them(tmp_path: Path) -> None:
    nonsense = dict.fromkeys(THEIRS, "anything")
    file = tmp_path / "settings"
    file.write_text('code = "2+1"\nmatrix = "cauchy"\nmetacopies = 2\ndrives = ["/one"]\nair = 9002\n')
    settings = load((), {}, nonsense, file)
    assert (settings.code, settings.matrix, settings.metacopies) == ((2, 1), "cauchy", 2)
    assert settings.drives == (Path("/one"),)
    assert loaded({"copies": "2"}).chosen_code(9) == copies(2)
    assert loaded(HOLDFAST_CODE="2+2").code == (2, 2)
    assert load((Path("/two"),), {"air": "1"}, THEIRS, None).drives == (Path("/two"),)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"DATA": "four"}, "DATA: 'four'"),
        ({"DATA": "0"}, "DATA: '0'"),
        ({"PARITY": "-1"}, "PARITY: '-1'"),
        ({"NUMNODES": "1" * 99}, "NUMNODES"),
        ({"NODEPATH": ""}, "NODEPATH and NUMNODES go together"),
        ({"METACOPIES": "0"}, "METACOPIES: '0'"),
        ({"MATRIXTYPE": "liberation"}, "MATRIXTYPE: 'liberation' is none of: cauchy, cauchy_good"),
    ],
)
def test_what_one_cannot_mean_is_said(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        load((), {"air": "9002"}, {**THEIRS, **wrong}, None)


@pytest.mark.parametrize("name", ["DATA", "PARITY", "NUMNODES", "NODEPATH"])
def test_pairs_go_together(name: str) -> None:
    environment = {other: value for other, value in THEIRS.items() if other != name}
    with pytest.raises(InvalidRequest, match="go together"):
        load((), {"air": "9002"}, environment, None)


def test_too_few_nodes_for_the_code() -> None:
    settings = loaded(NUMNODES="5", MATRIXTYPE="cauchy")
    with pytest.raises(InvalidRequest, match=r"4\+3 needs 7 drives, and there are 5"):
        settings.chosen_code(len(settings.drives))


def test_who_may_be_listened_to(tmp_path: Path) -> None:
    for text in ("0.0.0.0:9002", "[::]:9002", "air.example:9002"):
        with pytest.raises(InvalidRequest, match="without a token"):
            loaded({"air": text})
        assert loaded({"air": text, "air-token-file": str(tmp_path)}).air is not None
    with pytest.raises(InvalidRequest, match="--air"):
        loaded({"air": "nowhere"})
