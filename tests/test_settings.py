from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def _no_settings_of_the_developers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WHISPERD_CONFIG", str(tmp_path / "config.toml"))


def test_flags_win_over_the_environment_and_that_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("port = 1\nmodel = 'tiny'\nlog_level = 'debug'\n")
    monkeypatch.setenv("WHISPERD_PORT", "2")
    monkeypatch.setenv("WHISPERD_MODEL", "base")
    settings = load_settings(port="3")
    assert (settings.port, settings.model, settings.log_level) == (3, "base", "debug")


def test_own_models_come_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[models]\nmine = '/models/mine'\n")
    assert load_settings().models == {"mine": Path("/models/mine")}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("port", "70000", "'port'"),
        ("backend", "kaldi", "no backend 'kaldi'"),
        ("api_key", "short", "8 characters"),
        ("admin_key", "short", "8 characters"),
    ],
)
def test_a_bad_value_is_a_sentence(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(**{name: value})


def test_fallbacks_are_names_in_order() -> None:
    settings = load_settings(backend="fake", fallback=" whisper.cpp, faster-whisper,")
    assert settings.fallbacks == ("whisper.cpp", "faster-whisper")
    assert load_settings().fallbacks == ()
    assert load_settings(backend="whisper.cpp", fallback="whisper.cpp,fake").fallbacks == ("fake",), "not itself"


@pytest.mark.parametrize(
    ("fallback", "said"),
    [("kaldi", "no backend 'kaldi'"), ("mlx-whisper,mlx-whisper", "there twice")],
)
def test_a_fallback_that_cannot_be_is_a_sentence(fallback: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(backend="fake", fallback=fallback)


def test_a_misspelt_line_in_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("prot = 1\n")
    with pytest.raises(SettingsError, match="'prot'"):
        load_settings()


def test_a_file_that_is_no_toml_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("port: 1")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings()


def test_the_key_does_not_show_in_the_settings() -> None:
    assert "verysecret" not in repr(load_settings(api_key="verysecret", admin_key="verysecret"))


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_a_configuration_that_may_not_be_read_is_a_bad_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "config.toml")

    monkeypatch.setattr("pydantic_settings.TomlConfigSettingsSource._read_file", closed)
    named = tmp_path / "config.toml"
    named.touch()
    monkeypatch.setenv("WHISPERD_CONFIG", str(named))
    with pytest.raises(SettingsError, match=r"cannot be read: .*Permission denied"):
        load_settings()


@pytest.mark.parametrize("name", ["cache_dir", "hub_dir", "keys_file", "log_file", "state_dir", "tls_cert", "tls_key"])
def test_a_relative_path_is_one_from_here(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert getattr(load_settings(**{name: Path("below/it")}), name) == tmp_path / "below" / "it"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert getattr(load_settings(**{name: "~/it"}), name) == tmp_path / "it"
