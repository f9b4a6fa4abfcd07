"""The oracle against transformers' Llama in PyTorch, which reads, dequantizes and computes with code of its own."""

import numpy as np
import pytest

from harness.reference.oracle import Oracle
from harness.values import Distributions
from tests.reference.test_oracle import PROMPT, smollm2_path

_REASON = "SKIPPED CHECK OF THE ORACLE AGAINST PYTORCH: run: pip install torch transformers accelerate"
torch = pytest.importorskip("torch", reason=_REASON)
transformers = pytest.importorskip("transformers", reason=_REASON)
pytest.importorskip("accelerate", reason=_REASON)


@pytest.fixture(scope="module")
def smollm2():
    return Oracle.from_file(smollm2_path())


@pytest.fixture(scope="module")
def torch_model():
    path = smollm2_path()
    return transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param(PROMPT, id="prompt"),
        # Far positions and tokens that follow from nothing: where a wrong angle or mask shows.
        pytest.param(np.random.default_rng(7).integers(0, 49152, 300).tolist(), id="300 random ids"),
    ],
)
def test_log_probabilities_agree_to_three_decimals(smollm2, torch_model, ids):
    with torch.inference_mode():
        theirs = torch_model(torch.tensor([ids])).logits[0].numpy()
    ours, other = (Distributions.from_logits(logits).logprobs for logits in (smollm2.logits(ids), theirs))
    np.testing.assert_allclose(ours, other, atol=5e-4, rtol=0)
