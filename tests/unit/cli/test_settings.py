"""Settings from three places, and the page that says the same."""

import re
from pathlib import Path

import pytest

from holdfast.cli.settings import DRIVES_VARIABLE, OPTIONS, default_code, from_environment, load, parse_duration
from holdfast.core.errors import InvalidRequest

PAGE = Path(__file__).parents[3] / "docs" / "operating" / "settings.md"


def test_the_page_has_every_setting_and_no_other() -> None:
    named = dict(re.findall(r"^\| `([a-z-]+)` \| `(HOLDFAST_[A-Z_]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert named == {option.name: option.variable for option in OPTIONS}
    defaults = dict(re.findall(r"^\| `([a-z-]+)` \| `[A-Z_]+` \| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE))
    for option in OPTIONS:
        if option.default is not None:
            assert option.parse(defaults[option.name]) == option.default


def test_the_example_of_the_page_is_read(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    file = tmp_path / "holdfast.toml"
    file.write_text(example.group(1))
    settings = load((), {}, {}, file)
    assert settings.grace == 86400
    assert settings.drives[0] == Path("/mnt/disk1")


def test_command_line_then_environment_then_file(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text('region = "file"\ngrace = "3m"\nworkers = 7\ndrives = ["one", "/two"]\n')
    settings = load((), {"region": "line"}, {"HOLDFAST_REGION": "variable", "HOLDFAST_GRACE": "2m"}, file)
    assert (settings.region, settings.grace, settings.workers) == ("line", 120, 7)
    assert settings.drives == (tmp_path / "one", Path("/two"))
    assert load((), {}, {DRIVES_VARIABLE: "/x:/y"}, file).drives == (Path("/x"), Path("/y"))
    assert load((Path("here"),), {}, {}, None).drives == (Path.cwd() / "here",)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"code": "4"}, "--code"),
        ({"listen": "nowhere"}, "--listen"),
        ({"grace": "soon"}, "--grace"),
        ({"sync": "maybe"}, "--sync"),
        ({"tls-cert": "only"}, "--tls-key"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, str | None], place: str) -> None:
    with pytest.raises(InvalidRequest, match=place):
        load((), given, {}, None)


def test_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text('regoin = "x"\n')
    with pytest.raises(InvalidRequest, match="regoin"):
        load((), {}, {}, file)


def test_settings_survive_the_way_into_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, str | None] = {
        "listen": "[::1]:80",
        "code": "3+2",
        "grace": "90s",
        "kek-file": "/k",
        "sync": "relaxed",
        "air": "9002",
    }
    settings = load((Path("/a"), Path("/b")), given, {}, None)
    for variable in [option.variable for option in OPTIONS]:
        monkeypatch.delenv(variable, raising=False)
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    assert from_environment() == settings


def test_durations_and_codes() -> None:
    assert [parse_duration(text) for text in ("90", "15m", "1h", "7d", "0s")] == [90, 900, 3600, 604800, 0]
    codes = [str(default_code(drives)) for drives in (1, 2, 3, 4, 5, 6, 60)]
    assert codes == ["1 copy", "2 copies", "2 copies", "2+2", "2+2", "4+2", "4+2"]
    with pytest.raises(InvalidRequest, match="needs 6 drives"):
        load((), {"code": "4+2"}, {}, None).chosen_code(5)
    with pytest.raises(InvalidRequest, match="exclude"):
        load((), {"code": "4+2", "copies": "2"}, {}, None).chosen_code(9)


@pytest.mark.parametrize("number", ["³", "9" * 5000, "-1", ""])
def test_what_is_no_number_is_refused(number: str) -> None:
    for option, text in (("listen", f"h:{number}"), ("code", f"{number}+2"), ("workers", number), ("air", number)):
        with pytest.raises(InvalidRequest):
            load((Path("/drive"),), {option: text}, {}, None)
