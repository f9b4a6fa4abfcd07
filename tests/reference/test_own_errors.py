"""An error of our renderer is no refusal of the template's, so none becomes a golden's."""

from __future__ import annotations

import pytest

from harness.errors import UserError
from harness.process.worker import RemoteError
from harness.reference.template import ReferenceTemplate
from harness.stage import StageRefusedError
from harness.values import CaseOptions, Request

pytest.importorskip("transformers")
ASKED = Request(messages=({"role": "user", "content": "Hi"},))
PLAIN = "{{ messages[0]['content'] }}"


def rendered(source, target=None):
    with ReferenceTemplate(source, {}, ("<|im_end|>",)) as reference:
        if target is not None:
            reference._worker._target = target
        return reference.render(ASKED, CaseOptions()).text


def test_what_the_template_raises_is_a_refusal():
    with pytest.raises(StageRefusedError) as caught:
        rendered("{{ raise_exception('not this') }}")
    assert caught.value.refusal.message == "not this"


def test_what_our_renderer_raises_is_an_error_of_ours():
    with pytest.raises(RemoteError) as caught:
        rendered(PLAIN, "tests.owned:broken_renderer")
    assert (caught.value.error, caught.value.whose) == ("KeyError", "ours")


def test_a_private_name_of_transformers_that_is_gone_is_said_in_one_line():
    with pytest.raises(
        UserError, match=r"^transformers 5\.\S+ has changed inside: no '_CONTROL_TOKEN_START' in "
    ) as caught:
        rendered(PLAIN, "tests.owned:changed_renderer")
    assert "; known to work: " in str(caught.value)


def test_healthy_it_renders():
    assert rendered(PLAIN) == "Hi"
