"""The table of real models, tests/zoo.toml, and where their files lie."""

import tomllib

from environment import REPOSITORY, cache_root

with open(REPOSITORY / "tests" / "zoo.toml", "rb") as f:
    MODELS = tomllib.load(f)["model"]
with open(REPOSITORY / "tests" / "models.toml", "rb") as f:
    ENTRIES = tomllib.load(f)


def path_of(file):
    """The path of ENTRY/FILE in the cache, whether it exists or not."""
    entry, name = file.split("/", 1)
    if entry == "derived":
        return cache_root() / "models" / "derived" / name
    return cache_root() / "models" / f"{entry}-{ENTRIES[entry]['tree'][:12]}" / name


def case_name(model, dims):
    """NAME, or NAME/h64-n1 where the model has dims, sorted by name."""
    return "/".join([model["name"], *(["-".join(f"{k}{v}" for k, v in sorted(dims.items()))] if dims else [])])
