from collections.abc import Callable, Iterable, Mapping, Sequence as SequenceOf
from os import PathLike
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__version__: Final[str]

class Error(Exception): ...

class Port:
    name: str
    dtype: str
    shape: list[int | str]

class Program:
    @property
    def inputs(self) -> list[Port]: ...
    @property
    def outputs(self) -> list[Port]: ...
    @property
    def name(self) -> str: ...
    @property
    def kernels(self) -> int: ...
    def save(self, path: str | PathLike[str]) -> None: ...
    def session(self, threads: int | None = None) -> Session: ...

class Session:
    def run(self, inputs: Mapping[str, ArrayLike] | Iterable[ArrayLike]) -> dict[str, NDArray[Any]]: ...
    def memory(self) -> dict[str, int]: ...
    def reset(self) -> None: ...

def compile(
    model: str | PathLike[str] | bytes,
    *,
    target: str = "cpu",
    dims: Mapping[str, int | tuple[int, int]] | None = None,
    device: str | None = None,
    threads: int | None = None,
    opt_level: int = 2,
) -> Program: ...
def load(path: str | PathLike[str]) -> Program: ...
def check(model: str | PathLike[str] | bytes) -> list[str]: ...

class LanguageModel:
    def __init__(
        self,
        path: str | PathLike[str],
        *,
        target: str = "cpu",
        context: int | None = None,
        sequences: int = 1,
        threads: int | None = None,
        kv: str = "f16",
        activations: str | None = None,
    ) -> None: ...
    @property
    def context(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def encode_chat(self, messages: SequenceOf[Mapping[str, str]]) -> list[int]: ...
    def decode(self, tokens: SequenceOf[int]) -> str: ...
    def is_stop(self, token: int) -> bool: ...
    def sequence(self) -> Sequence: ...
    def complete(
        self,
        prompts: SequenceOf[str | SequenceOf[int]],
        *,
        max_tokens: int = 128,
        stop: SequenceOf[str] = ...,
        grammar: str | None = None,
        json_schema: str | None = None,
        logprobs: bool = False,
        ignore_end: bool = False,
        on_text: Callable[[int, str], bool | None] | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repeat_penalty: float = 1.0,
        repeat_last: int = 64,
        seed: int = 0,
    ) -> list[Completion]: ...

class Completion:
    text: str
    tokens: list[int]
    finish: str
    logprobs: list[float]

class Sequence:
    @property
    def tokens(self) -> list[int]: ...
    def extend(self, tokens: SequenceOf[int]) -> None: ...
    def logits(self) -> NDArray[np.float32]: ...
    def sample(
        self,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repeat_penalty: float = 1.0,
        repeat_last: int = 64,
        seed: int = 0,
    ) -> int: ...
    def fork(self) -> Sequence: ...
    def truncate(self, length: int) -> None: ...
    def __len__(self) -> int: ...
