"""What the stack writes down is what its processes need, and nobody else can read it."""

import configparser
import json
import os
import shlex
import stat
from dataclasses import asdict
from pathlib import Path

import pytest

from devstack import PROJECT_ROOT, StackError
from devstack.config import StackConfig
from devstack.credentials import load_credentials
from devstack.ports import PORT_VARIABLES, choose_ports
from devstack.servers import find_livekit_server, write_livekit_config, write_redis_config
from devstack.supervision import Supervisor, read_procfile, supervisor_config


@pytest.fixture
def config(tmp_path: Path) -> StackConfig:
    return StackConfig(
        run_dir=tmp_path,
        ports=choose_ports(dict.fromkeys(PORT_VARIABLES, "0")),
        credentials=load_credentials(tmp_path / "secrets.json"),
    )


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def parsed_supervisor_config(**processes: str) -> configparser.RawConfigParser:
    """Read as supervisord reads it, but for its %(name)s expansion."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    servers = {"redis": "exec redis-server"}
    parser.read_string(supervisor_config(servers=servers, processes=processes))
    return parser


def test_every_process_of_the_procfile_is_supervised_besides_the_servers() -> None:
    processes = read_procfile(PROJECT_ROOT / "Procfile")

    supervised = parsed_supervisor_config(**processes)

    names = [section.partition(":")[2] for section in supervised if section.startswith("program:")]
    assert names == ["redis", "web", "dispatch", "verify", "beat", "agent", "flower"]


def test_a_command_reaches_the_shell_as_the_procfile_has_it() -> None:
    command = """exec web "it's 100%" --name dispatch@%h --many ${MANY:-64} 'x y'"""

    supervised = parsed_supervisor_config(web=command)

    expanded = supervised["program:web"]["command"] % {}
    assert shlex.split(expanded) == ["/bin/sh", "-c", command]


@pytest.mark.parametrize("command", ["a ; b", "a # b"])
def test_a_command_that_supervisord_would_cut_short_is_refused(command: str) -> None:
    with pytest.raises(StackError, match="web: supervisord takes what follows"):
        parsed_supervisor_config(web=command)


def test_a_run_directory_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="shorter USHER_RUN_DIR"):
        Supervisor(tmp_path / ("x" * 100))


def test_a_procfile_without_a_process_is_refused(tmp_path: Path) -> None:
    procfile = tmp_path / "Procfile"
    procfile.write_text("# nothing here\n")

    with pytest.raises(StackError, match="names no process"):
        read_procfile(procfile)


def test_secrets_are_made_once_and_are_the_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"

    made = load_credentials(path)

    assert permissions(path) == 0o600
    assert load_credentials(path) == made
    assert made.api_key.startswith("usk_")
    assert made.api_key not in repr(made)


def test_secrets_of_an_older_version_stay_and_get_what_they_lack(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    made = asdict(load_credentials(path))
    path.write_text(json.dumps({key: made[key] for key in made if key != "publishable_key"}))

    loaded = load_credentials(path)

    assert loaded.publishable_key.startswith("upk_")
    assert asdict(loaded) == made | {"publishable_key": loaded.publishable_key}
    assert load_credentials(path) == loaded


def test_the_servers_files_are_the_owners_only(config: StackConfig) -> None:
    written = [write_redis_config(config, {}), write_livekit_config(config)]

    assert [permissions(path) for path in written] == [0o600, 0o600]


@pytest.mark.parametrize(
    ("environ", "written"),
    [
        ({}, {"appendonly yes", "appendfsync everysec"}),
        ({"USHER_REDIS_APPENDFSYNC": "always"}, {"appendonly yes", "appendfsync always"}),
        ({"USHER_REDIS_APPENDFSYNC": "no"}, {"appendonly yes", "appendfsync no"}),
        ({"USHER_REDIS_APPENDFSYNC": "off"}, {"appendonly no"}),
    ],
)
def test_redis_keeps_what_it_is_told_as_the_setting_says(
    config: StackConfig, environ: dict[str, str], written: set[str]
) -> None:
    lines = write_redis_config(config, environ).read_text().splitlines()

    assert {line for line in lines if line.startswith("append")} == written


def test_another_way_to_keep_what_redis_is_told_is_refused(config: StackConfig) -> None:
    with pytest.raises(StackError, match="sometimes is none of always, everysec, no and off"):
        write_redis_config(config, {"USHER_REDIS_APPENDFSYNC": "sometimes"})


def test_the_processes_get_the_hash_of_the_api_key_and_not_the_key(config: StackConfig) -> None:
    environ = config.process_environment({})

    assert environ["USHER_API_KEY_SHA256"] == config.credentials.api_key_sha256
    assert config.credentials.api_key not in environ.values()


def test_ushers_own_page_may_call_besides_those_that_the_caller_names(config: StackConfig) -> None:
    environ = config.process_environment({"USHER_ORIGINS": "http://localhost:5173"})

    assert environ["USHER_PUBLISHABLE_KEY_SHA256"] == config.credentials.publishable_key_sha256
    assert environ["USHER_ORIGINS"].split(",") == [
        config.web_url,
        f"http://localhost:{config.ports.web}",
        "http://localhost:5173",
    ]


def test_the_callers_settings_of_usher_reach_the_processes_and_no_others_do(
    config: StackConfig,
) -> None:
    caller = {"USHER_DEADLINE_S": "5", "REDIS_URL": "redis://elsewhere", "SECRET": "s"}

    environ = config.process_environment(caller)

    assert environ["USHER_DEADLINE_S"] == "5"
    assert environ["REDIS_URL"] == config.redis_url
    assert "SECRET" not in environ


def test_an_entry_point_in_a_folder_of_the_callers_own_is_found(config: StackConfig) -> None:
    caller = {"PYTHONPATH": f"mine{os.pathsep}{os.pathsep}/theirs"}

    path = config.process_environment(caller)["PYTHONPATH"].split(os.pathsep)

    # Ours first; and the processes run in another folder than the caller.
    assert path == [str(PROJECT_ROOT), str(Path("mine").absolute()), "/theirs"]
    assert config.process_environment({})["PYTHONPATH"] == str(PROJECT_ROOT)


def test_a_livekit_server_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="is no program that can be run"):
        find_livekit_server({"USHER_LIVEKIT_SERVER": str(tmp_path)})
