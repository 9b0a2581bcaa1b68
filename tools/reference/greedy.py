"""Greedy continuations of prompts by llama.cpp: the token ids that tests compare the interpreter with."""

import json
import subprocess
import sys
from pathlib import Path

from llama_cpp import Llama, __version__

TOOLS = Path(__file__).resolve().parent.parent
MODELS = {"smollm2-135m": "SmolLM2-135M-Instruct.Q4_1.gguf", "tinycoder": "tiny.gguf"}
PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n",
    "Once upon a time there was a little",
    "Water boils at",
]
LENGTH = 32


def main(out):
    cases = []
    for entry, file in MODELS.items():
        found = subprocess.run([sys.executable, TOOLS / "fetch-models", "--path", entry], text=True, stdout=subprocess.PIPE)
        model = Llama(str(Path(found.stdout.strip()) / file), n_ctx=256, n_threads=1, verbose=False)
        for prompt in PROMPTS:
            tokens = model.tokenize(prompt.encode(), add_bos=False)
            model.reset()
            generated = []
            for token in model.generate(tokens, temp=0.0, repeat_penalty=1.0):
                generated.append(token)
                if len(generated) == LENGTH:
                    break
            cases.append({"model": f"{entry}/{file}", "text": prompt, "prompt": tokens, "generated": generated})
            print(entry, repr(prompt), repr(model.detokenize(generated).decode(errors="replace")))
    lines = ",\n".join(json.dumps(case) for case in cases)
    out.write_text(f'{{"llama_cpp_python": "{__version__}", "cases": [\n{lines}\n]}}\n')
