"""A part, and code of ours around it, in a child process: either raises where it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.errors import ModelFileError, UserError
from harness.process.owner import as_the_parts, from_the_part, is_the_parts, noted, our_own, tapped, the_parts_own
from harness.process.upstream import private
from harness.stage import StageUnobservedError


class Part:
    """A real part, with one place for a tap."""

    def __init__(self, fails: bool = False) -> None:
        if fails:
            raise OSError("no such device")

    def work(self, tap: Callable[[], str]) -> str:
        return tap()

    def swallow(self, tap: Callable[[], str]) -> str:
        try:
            return tap()
        except Exception:  # noqa: BLE001 - as parts do
            return "an answer for want of a better one"

    def wrap(self, tap: Callable[[], str]) -> str:
        try:
            return tap()
        except Exception as error:
            raise RuntimeError("Internal Server Error") from error

    def refuse(self) -> str:
        raise ValueError("I do not take this")

    def pieces(self) -> Iterator[str]:
        yield "one"
        raise ValueError("I do not go on")


class Served:
    """The child's side of a component.

    Args:
        fails: Whose constructor raises: `part`, `ours`, `file`, `user`, `hidden` or `tap`; empty for none.
    """

    def __init__(self, fails: str = "") -> None:
        with the_parts_own():
            self.part = Part(fails == "part")
        if fails == "ours":
            raise KeyError("in our own constructor")
        if fails == "file":
            raise ModelFileError("the file is damaged")
        if fails == "user":
            raise UserError("there is no Node", "install it")
        if fails == "hidden":
            private(self.part, "_inner.formatter", "llama_cpp")

    def refused(self) -> str:
        with the_parts_own():
            return self.part.refuse()

    def ours_after_it(self) -> str:
        with the_parts_own():
            self.part.work(lambda: "fine")
        return {}["absent"]

    def tap(self, way: str) -> str:
        """A tap of ours raises within the part's call."""

        def broken() -> str:
            return {}["in the tap"]

        with the_parts_own():
            return getattr(self.part, way)(tapped(broken))

    def part_within_a_tap(self) -> str:
        """The part raises within a tap of ours within the part's call."""

        def between() -> str:
            with the_parts_own():
                return self.part.refuse()

        with the_parts_own():
            return self.part.work(tapped(between))

    def streamed(self) -> list[str]:
        def tap() -> Iterator[str]:
            yield from from_the_part(self.part.pieces())

        with the_parts_own():
            return list(tapped(tap)())

    def tap_in_a_stream(self) -> list[str]:
        def tap() -> Iterator[str]:
            yield "one"
            yield {}["in the stream"]

        with the_parts_own():
            return list(tapped(tap)())

    def told_in_our_words(self) -> str:
        raise as_the_parts(ValueError("it does not load the file"))

    def hidden(self) -> str:
        raise StageUnobservedError("it does not show that")

    def unspeakable(self) -> set[int]:
        return {1}

    def fine(self) -> str:
        return "fine"

    def marks(self) -> list[bool]:
        """Whose an error is that leaves several contexts: that of the innermost."""
        found = []
        for outer, inner in ((the_parts_own, our_own), (our_own, the_parts_own)):
            try:
                with outer(), inner():
                    raise KeyError("x")
            except KeyError as error:
                found.append(is_the_parts(error))
        noted()
        return found


def broken_renderer(**init: object) -> object:
    """The reference's renderer with an error of ours between two renders of the template."""
    from harness.reference.template import Renderer

    class Broken(Renderer):
        def _literals(self, *_: object) -> list[tuple[int, int]]:
            return {}["planted"]

    return Broken(**init)


def changed_renderer(**init: object) -> object:
    """The reference's renderer on a transformers that has changed inside."""
    from transformers.utils import chat_template_utils

    from harness.reference.template import Renderer

    del chat_template_utils._CONTROL_TOKEN_START
    return Renderer(**init)
