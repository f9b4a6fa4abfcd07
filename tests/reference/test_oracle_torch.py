"""The oracle against transformers in PyTorch, which reads, dequantizes and computes with code of its own."""

import numpy as np
import pytest

from harness.reference.oracle import Oracle
from harness.values import Distributions
from tests.reference.test_oracle import PROMPT, smollm2_path
from tests.reference.test_weights import write_gguf
from tests.reference.tiny_models import MODELS, N_CTX, N_VOCAB

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


@pytest.mark.parametrize("model", [pytest.param(model, id=model.id) for model in MODELS])
def test_tiny_model_of_every_architecture(tmp_path, model):
    """Only the order of sums differs: 4e-5 was measured, of logits up to 14."""
    from tests.reference.torch_models import converted, torch_model

    made = torch_model(model)
    path = write_gguf(tmp_path / "tiny.gguf", model.keys, converted(model, made), model.architecture)
    oracle = Oracle.from_file(path, n_ctx=N_CTX)
    # Longer than the windows of 5 and the original context of 16.
    ids = np.random.default_rng(5).integers(0, N_VOCAB, 24).tolist()
    with torch.inference_mode():
        theirs = made(torch.tensor([ids])).logits[0].numpy()
    pieces, tokens = oracle.session(), oracle.session()
    in_pieces = np.concatenate([pieces.feed(ids[start:end]) for start, end in ((0, 3), (3, 17), (17, 24))])
    one_by_one = np.concatenate([tokens.feed([token]) for token in ids])
    for ours in (oracle.logits(ids), in_pieces, one_by_one):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)
