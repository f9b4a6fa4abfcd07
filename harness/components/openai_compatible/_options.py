"""What a stack definition may set for an OpenAI-compatible server."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Profile = Literal["generic", "ollama", "lm-studio"]


class Options(BaseModel):
    """Where the server is, what it is asked for, and which probes the user has loaded into it.

    Attributes:
        url: The address, ending in `/v1` or not.
        model: The name under which the server has the model.
        any_model: It may be another model than the one given; nothing of that one's file is then used.
        api_key_variable: The environment variable that holds the API key.
        profile: The family whose own endpoints are used beside OpenAI's.
        seconds: How long one answer may take in all.
        replay_model: The name under which the server has the replay model.
        replay_file: The file of the replay model that the server has mapped into memory.
        replay_url: Where the replay model is served, if not under `url`: by a server of one model.
        fingerprint_model: The name under which the server has the fingerprint model.
        fingerprint_url: Where the fingerprint model is served, if not under `url`.
        fingerprint_context: The context that the fingerprint model was written for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern="^https?://")
    model: str
    any_model: bool = False
    api_key_variable: str | None = None
    profile: Profile = "generic"
    seconds: float = Field(default=120.0, gt=0)
    replay_model: str | None = None
    replay_file: Path | None = None
    replay_url: str | None = Field(default=None, pattern="^https?://")
    fingerprint_model: str | None = None
    fingerprint_url: str | None = Field(default=None, pattern="^https?://")
    fingerprint_context: int = Field(default=2048, gt=0)

    @model_validator(mode="after")
    def _whole_probes(self) -> Self:
        if (self.replay_model is None) != (self.replay_file is None):
            raise ValueError("'replay_model' and 'replay_file' go together: the name, and the file that is written to")
        if self.replay_url is not None and self.replay_model is None:
            raise ValueError("'replay_url' without 'replay_model'")
        if self.fingerprint_url is not None and self.fingerprint_model is None:
            raise ValueError("'fingerprint_url' without 'fingerprint_model'")
        return self
