"""Whose an error of a child is: only what leaves the real part's own call is the part's."""

from __future__ import annotations

import sys

import pytest

from harness.errors import UserError
from harness.process import owner
from harness.process.child import Child
from harness.process.upstream import KNOWN, gone, private
from harness.process.worker import RemoteError, Worker
from harness.stage import StageFailedError, StageRefusedError, StageUnobservedError


@pytest.fixture(scope="module")
def child():
    one = Child(Worker("tests.owned:Served", {}, seconds=120.0))
    yield one
    one.close()


def started(target="tests.owned:Served", **init):
    one = Child(Worker(target, init, seconds=120.0))
    try:
        one.start()
    finally:
        one.close()


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        ("refused", "ValueError", "I do not take this"),
        ("part_within_a_tap", "ValueError", "I do not take this"),
        ("streamed", "ValueError", "I do not go on"),
        ("told_in_our_words", "ValueError", "it does not load the file"),
    ],
)
def test_what_leaves_the_parts_own_call_is_a_refusal(child, method, error, message):
    with pytest.raises(StageRefusedError) as caught:
        child.call(method)
    assert (caught.value.refusal.error, caught.value.refusal.message) == (error, message)


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("ours_after_it", {}, "KeyError"),
        ("tap", {"way": "work"}, "KeyError"),
        ("tap", {"way": "swallow"}, "KeyError"),
        ("tap", {"way": "wrap"}, "KeyError"),
        ("tap_in_a_stream", {}, "KeyError"),
        ("unspeakable", {}, "TypeError"),
        ("no_such_method", {}, "AttributeError"),
    ],
)
def test_everything_else_is_an_error_of_ours_whatever_the_part_makes_of_it(child, method, arguments, error):
    with pytest.raises(RemoteError) as caught:
        child.call(method, **arguments)
    assert (caught.value.error, caught.value.whose) == (error, "ours")


def test_an_error_of_ours_is_told_once_and_the_child_goes_on(child):
    with pytest.raises(RemoteError):
        child.call("tap", way="swallow")
    assert child.call("fine") == "fine"


def test_what_the_part_does_not_show_is_unobserved(child):
    with pytest.raises(StageUnobservedError, match=r"^it does not show that$"):
        child.call("hidden")


def test_the_innermost_context_says_whose_an_error_is(child):
    assert child.call("marks") == [False, True]


def test_a_start_fails_where_the_parts_own_constructor_raised():
    with pytest.raises(StageFailedError) as caught:
        started(fails="part")
    assert (caught.value.failure.reason, caught.value.failure.message) == ("start", "OSError: no such device")


def test_a_start_fails_with_a_file_that_is_damaged():
    with pytest.raises(StageFailedError, match=r"the file is damaged"):
        started(fails="file")


def test_a_constructor_of_ours_that_raises_is_no_failed_start():
    with pytest.raises(RemoteError, match=r"in our own constructor") as caught:
        started(fails="ours")
    assert caught.value.whose == "ours"


def test_what_the_user_can_mend_stays_that():
    with pytest.raises(UserError, match=r"^there is no Node; install it$"):
        started(fails="user")


def test_a_private_name_that_is_gone_is_unobserved_and_tried_once():
    one = Child(Worker("tests.owned:Served", {"fails": "hidden"}, seconds=120.0))
    for _ in range(2):
        with pytest.raises(
            StageUnobservedError, match=r"llama-cpp-python .* has changed inside: no '_inner.formatter'"
        ):
            one.call("fine")
    assert one.worker.pid is None


MODULES = {
    # a package that is not installed
    "absent": ("import no_such_package_anywhere\n", "No module named 'no_such_package_anywhere'"),
    # one that raises while it is imported
    "broken": ("raise OSError('libcuda.so.1: cannot open shared object file')\n", "libcuda.so.1"),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_start_fails_where_the_package_cannot_be_imported(tmp_path, monkeypatch, name):
    source, said = MODULES[name]
    (tmp_path / f"package_{name}.py").write_text(source)
    (tmp_path / f"side_{name}.py").write_text(f"import package_{name}\n\ndef Served():\n    return object()\n")
    monkeypatch.setenv("PYTHONPATH", ":".join((str(tmp_path), *filter(None, sys.path))))
    with pytest.raises(StageFailedError) as caught:
        started(f"side_{name}:Served")
    assert caught.value.failure.reason == "start"
    assert said in caught.value.failure.message


def test_a_name_that_a_package_no_longer_has_is_told_and_nobodys_fault(tmp_path, monkeypatch):
    (tmp_path / "side_gone.py").write_text("from jinja2 import Novelty\n\ndef Served():\n    return object()\n")
    monkeypatch.setenv("PYTHONPATH", ":".join((str(tmp_path), *filter(None, sys.path))))
    with pytest.raises(StageUnobservedError, match=r"jinja2 .*: cannot import name 'Novelty' from 'jinja2'"):
        started("side_gone:Served")


def test_a_module_of_our_own_that_is_not_there_is_an_error_of_ours():
    with pytest.raises(RemoteError) as caught:
        started("tests.no_such_module:Served")
    assert (caught.value.error, caught.value.whose) == ("ModuleNotFoundError", "ours")


def test_the_line_says_package_version_what_was_looked_for_and_what_works():
    error = gone("transformers", "no '_compile_jinja_template' in chat_template_utils")
    text = error.unobserved.reason
    assert text.startswith("transformers 5.")
    assert text.endswith(
        f"has changed inside: no '_compile_jinja_template' in chat_template_utils; known to work: "
        f"{KNOWN['transformers'][1]}"
    )


def test_a_private_attribute_is_found_by_its_path():
    assert private(sys, "version_info.major", "python") == 3
    with pytest.raises(StageUnobservedError, match=r"no 'version_info.huge' in sys"):
        private(sys, "version_info.huge", "python")


def test_no_error_of_ours_is_noted_where_none_was_raised():
    assert owner.noted() is None
    with pytest.raises(ZeroDivisionError), owner.our_own():
        raise ZeroDivisionError
    assert isinstance(owner.noted(), ZeroDivisionError)
    assert owner.noted() is None
