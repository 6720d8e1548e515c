"""run.toml as frozen settings: what is wrong in it is named, with what to write instead."""

from dataclasses import FrozenInstanceError, asdict
from pathlib import Path
from typing import Any

import pytest

from neuron_explainer import config
from neuron_explainer.config import (
    CollectSettings,
    ExplainSettings,
    ModelSettings,
    ScoreSettings,
    Settings,
    SimulateSettings,
    SubjectSettings,
)
from neuron_explainer.errors import ConfigError


def _load(folder: Path, text: str) -> Settings:
    (folder / "run.toml").write_text(text, "utf-8")
    return config.load(folder / "run.toml")


def test_the_embedded_example_loads_with_paths_to_what_ships(tiny: Path) -> None:
    settings = config.load(tiny / "run.toml")
    assert settings.subject.name == "tiny"
    assert Path(settings.subject.model, "model.safetensors").is_file()
    assert Path(settings.subject.sae[0].path).is_file()
    assert Path(settings.collect.corpus).is_file()
    assert settings.simulate.simulators == ("token-lookup", "constant", "shuffled")


def test_only_the_subject_must_be_given(tmp_path: Path) -> None:
    settings = _load(tmp_path, '[subject]\nmodel = "gpt2"\n')
    assert settings == Settings(SubjectSettings("gpt2"))


def test_a_path_that_exists_beside_the_file_is_meant_and_a_hub_id_stays(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text("")
    settings = _load(
        tmp_path, '[subject]\nmodel = "openai-community/gpt2"\n[collect]\ncorpus = "texts.jsonl"\n'
    )
    assert settings.subject.model == "openai-community/gpt2"
    assert settings.collect.corpus == str(tmp_path / "texts.jsonl")


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = _load(tmp_path, '[subject]\nmodel = "gpt2"\n')
    with pytest.raises(FrozenInstanceError):
        settings.collect.top = 3  # type: ignore[misc]


SUBJECT = '[subject]\nmodel = "gpt2"\n'
WRONG = {
    "an unknown table": (
        SUBJECT + "[colect]\n",
        "unknown setting 'colect'; did you mean 'collect'",
    ),
    "an unknown key": (
        SUBJECT + "[collect]\nexcerpt_token = 5\n",
        "collect: unknown setting 'excerpt_token'; did you mean 'excerpt_tokens'",
    ),
    "a key like no other": (SUBJECT + "[score]\nqqqq = 1\n", "known: split, seed"),
    "an unknown key in a list": (
        SUBJECT + '[[subject.sae]]\nsite = "a"\nfile = "b"\n',
        "sae: unknown setting 'file'",
    ),
    "a missing key in a list": (SUBJECT + '[[subject.sae]]\nsite = "a"\n', "'path' is missing"),
    "no subject": ("[collect]\n", "'subject' is missing"),
    "a number for a text": ("[subject]\nmodel = 3\n", "model is 3; it must be of type str"),
    "a text for a number": (
        SUBJECT + '[collect]\ntop = "many"\n',
        "top is 'many'; it must be of type int",
    ),
    "a fraction for a number": (SUBJECT + "[collect]\ntop = 4.5\n", "must be of type int"),
    "yes for a number": (SUBJECT + "[collect]\ntop = true\n", "must be of type int"),
    "a number for yes": (SUBJECT + "[collect]\nwhole_table = 1\n", "must be of type bool"),
    "a text for a list": (SUBJECT + '[collect]\nsites = "a"\n', "sites must be a list, not 'a'"),
    "a number in a list": (SUBJECT + "[collect]\nsites = [3]\n", "must be of type str"),
    "a text for a table": ('subject = "gpt2"\n', "subject must be a table of settings, not 'gpt2'"),
    "no such choice": (
        SUBJECT + '[collect]\nbos = "append"\n',
        "bos is 'append'; choose prepend or none",
    ),
    "a list for a choice": (SUBJECT + "[score]\nsplit = []\n", r"split is \[\]; choose valid or"),
    "no such dtype": ('[subject]\nmodel = "gpt2"\ndtype = "half"\n', "choose float32 or float16"),
    "too few": (SUBJECT + "[collect]\ntop = 3\n", "top is 3; it must be at least 4"),
    "nobody at work": (SUBJECT + "[simulate]\nconcurrency = 0\n", "must be at least 1"),
    "no batch": (SUBJECT + "[collect]\nbatch = -1\n", "batch is -1; it must be at least 1"),
    "bad TOML": ("[subject\n", "is no valid TOML: .*line 1"),
    "one key twice": (SUBJECT + 'model = "b"\n', "is no valid TOML"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_in_a_file_is_named_with_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        _load(tmp_path, text)
    assert "run.toml" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_bytes_that_are_no_text_are_reported(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is no valid TOML"):
        config.load(tmp_path / "run.toml")


def test_a_file_that_is_not_there_and_one_that_is_a_folder_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration at"):
        config.load(tmp_path / "run.toml")
    with pytest.raises(ConfigError, match=r"cannot read .*is a directory"):
        config.load(tmp_path)


def test_an_optional_setting_may_be_left_open(tmp_path: Path) -> None:
    assert config.build(ExplainSettings, {"neurons": None}, "explain").neurons is None
    assert config.build(ExplainSettings, {"options": {"table_size": 3}}, "explain").options == {
        "table_size": 3
    }


@pytest.mark.parametrize(
    "made", [CollectSettings, ExplainSettings, SimulateSettings, ScoreSettings]
)
def test_the_defaults_are_themselves_valid(made: type[Any]) -> None:
    settings = made()
    assert config.build(made, asdict(settings), "defaults") == settings


@pytest.mark.parametrize(
    ("model", "name"), [("gpt2", "gpt2"), ("openai-community/gpt2-xl", "gpt2-xl"), ("a/b/", "b")]
)
def test_a_subjects_folder_is_named_after_its_model(model: str, name: str) -> None:
    assert SubjectSettings(model).folder_name == name
    assert SubjectSettings(model, "mine").folder_name == "mine"


def test_a_model_in_the_current_directory_is_named_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-model" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "my-model" / "inner")
    assert SubjectSettings(".").folder_name == "inner"
    assert SubjectSettings("..").folder_name == "my-model"


def test_a_corpus_that_is_not_named_is_not_the_folder_of_the_file(tmp_path: Path) -> None:
    settings = _load(tmp_path, SUBJECT)
    assert settings.collect.corpus == ""


@pytest.mark.parametrize("cost", [5, 5.0])
def test_a_whole_number_will_do_where_a_fraction_may_stand(cost: float) -> None:
    made = config.build(ModelSettings, {"max_cost": cost}, "model")
    assert made.max_cost == 5.0
    assert isinstance(made.max_cost, float)
