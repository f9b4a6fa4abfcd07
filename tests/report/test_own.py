"""The report of an error of our own: one line, and a file without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.report import own
from harness.values import OwnError

ERROR = OwnError(
    error="KeyError",
    message="'x'\nand more",
    place="_tokenize, harness/components/part/_taps.py:7",
    traceback="Traceback (most recent call last):\n  File ...\nKeyError: 'x'\n",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(own.platformdirs, "user_log_dir", lambda _: str(tmp_path / "log"))
    return tmp_path / "log"


def test_one_line_says_whose_it_is_what_it_is_and_where_the_rest_stands():
    line = own.line_of([ERROR], Path("/var/log/error.txt"))
    assert line == (
        "an error of its own, not of the stack: KeyError: 'x' and more in _tokenize, "
        "harness/components/part/_taps.py:7; the full report is in /var/log/error.txt; nobody is convicted for it"
    )
    assert " (and 2 more); no full report could be written; " in own.line_of([ERROR] * 3, None)


def test_the_report_has_command_versions_and_traceback(folder):
    path = own.write_own_report("harness check llama-server", [ERROR])
    assert path.parent == folder
    text = path.read_text("utf-8")
    assert "command: harness check llama-server\n" in text
    assert "\nnumpy: " in text
    assert "\npython: 3." in text
    assert ERROR.traceback in text


def test_no_secret_of_the_environment_reaches_the_report_or_the_line(folder, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "sk-very-secret")
    monkeypatch.setenv("HARMLESS", "harmless-value")
    said = ERROR.model_copy(
        update={
            "message": "bad header sk-very-secret to http://me:word@host/v1",
            "traceback": "sk-very-secret harmless-value",
        }
    )
    path = own.write_own_report("harness check --url http://me:word@host/v1", [said])
    both = path.read_text("utf-8") + own.line_of([said], path)
    assert "sk-very-secret" not in both
    assert "me:word" not in both
    assert "harmless-value" in both
    assert "MY_API_KEY" not in both


def test_where_the_log_folder_cannot_be_written_a_temporary_one_is_taken(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(own.platformdirs, "user_log_dir", lambda _: str(tmp_path / "file" / "log"))
    monkeypatch.setattr(own.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    assert own.write_own_report("harness", [ERROR]).parent == tmp_path / "temporary"
    monkeypatch.setattr(own.tempfile, "gettempdir", lambda: str(tmp_path / "file" / "either"))
    assert own.write_own_report("harness", [ERROR]) is None
