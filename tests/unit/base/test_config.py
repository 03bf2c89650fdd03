from pathlib import Path

import pytest

from hpresil.base import config
from hpresil.base.config import FIELDS, Config, resolve
from hpresil.base.errors import ConfigError

SETTINGS = Path(__file__).parents[3] / "docs" / "settings.md"


def test_defaults_are_constants():
    assert resolve(None, {}) == Config()
    assert Config().identity() == {
        "slots": "8",
        "microbatches": "1",
        "microbatch_size": "8",
        "seed": "0",
        "reduction": "canonical",
    }


def test_a_variable_wins_over_the_file_and_the_file_over_the_script(tmp_path):
    file = tmp_path / "job.toml"
    file.write_text("slots = 16\nseed = 2\n")
    env = {"HPRESIL_CONFIG": str(file), "HPRESIL_SEED": "3"}
    found = resolve(Config(slots=4, seed=1, microbatches=5), env)
    assert (found.slots, found.seed, found.microbatches) == (16, 3, 5)


@pytest.mark.parametrize("name", list(FIELDS))
def test_each_setting_can_come_from_its_variable(name):
    field = FIELDS[name]
    other = field.metadata["choices"][-1] if "choices" in field.metadata else field.default + 1
    assert getattr(resolve(None, {config.variable(name): str(other)}), name) == other


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"HPRESIL_SLOTS": "0"}, ["slots", "'0'", "HPRESIL_SLOTS", "1 to 65536"]),
        ({"HPRESIL_SLOTS": "many"}, ["slots", "'many'", "HPRESIL_SLOTS", "an integer"]),
        ({"HPRESIL_HANG_TIMEOUT_MIN_S": "nan"}, ["hang_timeout_min_s", "nan"]),
        ({"HPRESIL_REDUCTION": "nccl"}, ["reduction = 'nccl'", "HPRESIL_REDUCTION", "canonical or native"]),
        (
            {"HPRESIL_MICROBATCHSIZE": "4"},
            ["HPRESIL_MICROBATCHSIZE", "did you mean HPRESIL_MICROBATCH_SIZE?"],
        ),
        ({"HPRESIL_CONFIG": "/nonexistent/job.toml"}, ["/nonexistent/job.toml", "No such file"]),
    ],
)
def test_a_wrong_variable_is_one_clear_error(env, words):
    with pytest.raises(ConfigError) as caught:
        resolve(None, env)
    assert all(word.strip("'") in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slot = 4", ["'slot'", "did you mean slots?"]),
        ("slots = true", ["slots", "True"]),
        ("slots = '4'", ["slots", "'4'"]),
        ("slots = ", ["not TOML"]),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path, text, words):
    file = tmp_path / "job.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve(None, {"HPRESIL_CONFIG": str(file)})
    assert all(word in str(caught.value) for word in [*words, str(file)]), caught.value


def test_a_wrong_argument_names_the_range():
    with pytest.raises(
        ConfigError, match=r"microbatch_size = -1 \(from Config\(...\)\) must be an integer from 1"
    ):
        Config(microbatch_size=-1)


def test_what_the_launcher_passes_is_not_a_setting():
    assert resolve(None, {"HPRESIL_SOCKET": "/run/x", "HPRESIL_WORKER": "3", "PATH": "/bin"}) == Config()


def test_the_settings_page_equals_the_code():
    rows = [
        [cell.strip(" `") for cell in line.strip().strip("|").split("|")]
        for line in SETTINGS.read_text().splitlines()
        if line.startswith("| `")
    ]
    expected = []
    for name, field in FIELDS.items():
        default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
        text = field.metadata["text"].strip(" `")
        expected.append([name, field.metadata["unit"], default, config.flag(name), text])
    assert rows == expected


def test_the_page_names_the_agents_settings():
    text = SETTINGS.read_text().split("cannot set them:")[1].split("It is told so")[0]
    assert tuple(name.strip("`. \n") for name in text.split(",")) == config.OF_THE_AGENT


def test_what_the_agent_uses_cannot_be_set_in_the_script_of_a_worker():
    job = {"HPRESIL_SOCKET": "/run/x"}
    with pytest.raises(
        ConfigError, match=r"hang_timeout_min_s = 9.0 .* pass --hang-timeout-min-s to hpresil run"
    ):
        resolve(Config(hang_timeout_min_s=9.0), job)
    assert resolve(Config(hang_timeout_min_s=9.0), {}).hang_timeout_min_s == 9.0
    told = {**job, "HPRESIL_HANG_TIMEOUT_MIN_S": "9"}
    assert resolve(Config(hang_timeout_min_s=9.0), told).hang_timeout_min_s == 9.0
    assert resolve(Config(slots=16), job).slots == 16
