"""tcc: a tensor compiler. Models become native kernels; sessions run them on NumPy arrays.

    import tcc

    program = tcc.compile("model.onnx", dims={"batch": (1, 8)})
    session = program.session(threads=2)
    outputs = session.run({"x": array})

    model = tcc.LanguageModel("model.gguf")
    print(model.complete(["Once upon a time"], max_tokens=32)[0].text)

`tcc.backend` is a backend for `onnx.backend`. docs/python.md of the project says more.
"""

from tcc._tcc import (
    Completion,
    Error,
    LanguageModel,
    Port,
    Program,
    Sequence,
    Session,
    __version__,
    check,
    compile,
    load,
)

__all__ = [
    "Completion",
    "Error",
    "LanguageModel",
    "Port",
    "Program",
    "Sequence",
    "Session",
    "__version__",
    "check",
    "compile",
    "load",
]
