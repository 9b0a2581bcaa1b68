"""Language models: a tiny one with random weights is enough to see that all calls do what they say."""

import json
import math
import os
import subprocess
import unittest
from pathlib import Path

import numpy as np

import tcc

TOOLS = Path(__file__).resolve().parents[2]


def folder():
    """A small model of the table, which has to be in the cache."""
    found = subprocess.run([TOOLS / "fetch-models", "--path", "tinycoder"], capture_output=True, text=True)
    return Path(found.stdout.strip()) if found.returncode == 0 else None


@unittest.skipIf(folder() is None, "tinycoder is not in the cache: tools/fetch-models tinycoder")
class Generation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        path = next(folder().rglob("*.gguf"))
        cls.model = tcc.LanguageModel(path, target="cranelift", context=128, sequences=3, activations="f32", kv="f32")

    def test_text_and_tokens(self):
        tokens = self.model.encode("def add(a, b):")
        self.assertIn("def add(a, b):", self.model.decode(tokens))
        self.assertEqual(self.model.context, 128)

    def test_sequences_extend_sample_fork_and_truncate(self):
        prompt = self.model.encode("def add(a, b):")
        sequence = self.model.sequence()
        sequence.extend(prompt)
        self.assertEqual(sequence.tokens, prompt)
        logits = sequence.logits()
        self.assertEqual(sequence.sample(), int(np.argmax(logits)))
        self.assertEqual(sequence.sample(temperature=1.0, seed=3), sequence.sample(temperature=1.0, seed=3))
        other = sequence.fork()
        other.extend([sequence.sample()])
        self.assertEqual(len(other), len(prompt) + 1)
        self.assertEqual(len(sequence), len(prompt))
        other.truncate(len(prompt) - 1)
        other.extend(prompt[-1:])
        np.testing.assert_allclose(other.logits(), logits, rtol=1e-4, atol=1e-4)

    def test_completions_equal_sampling_by_hand(self):
        (completion,) = self.model.complete(["def add"], max_tokens=8, ignore_end=True, logprobs=True)
        sequence = self.model.sequence()
        sequence.extend(self.model.encode("def add"))
        for token, logprob in zip(completion.tokens, completion.logprobs, strict=True):
            logits = sequence.logits().astype(np.float64)
            self.assertEqual(token, sequence.sample())
            expected = logits[token] - math.log(np.exp(logits - logits.max()).sum()) - logits.max()
            self.assertAlmostEqual(logprob, expected, places=3)
            sequence.extend([token])
        self.assertEqual(completion.finish, "length")

    def test_memory_comes_back_with_the_sequence(self):
        for _ in range(12):
            sequence = self.model.sequence()
            sequence.extend(self.model.encode("x") * 60)
            del sequence

    def test_text_is_streamed_and_can_be_cut_short(self):
        pieces = []
        (whole,) = self.model.complete(["def"], max_tokens=12, ignore_end=True, on_text=lambda _, text: pieces.append(text))
        self.assertEqual("".join(pieces), whole.text)
        (cut,) = self.model.complete(["def"], max_tokens=12, ignore_end=True, on_text=lambda *_: False)
        self.assertEqual(cut.finish, "cancelled")

        def fail(*_):
            raise KeyError("from the callback")

        with self.assertRaisesRegex(KeyError, "from the callback"):
            self.model.complete(["def"], max_tokens=12, ignore_end=True, on_text=fail)

    def test_batches_and_schemas(self):
        alone = [self.model.complete([text], max_tokens=6, ignore_end=True)[0].tokens for text in ("def", "class")]
        both = self.model.complete(["def", "class"], max_tokens=6, ignore_end=True)
        self.assertEqual([len(completion.tokens) for completion in both], [len(tokens) for tokens in alone])
        schema = json.dumps({"type": "boolean"})
        (answer,) = self.model.complete(["yes or no?"], max_tokens=16, json_schema=schema)
        self.assertIsInstance(json.loads(answer.text), bool)

    def test_wrong_options_are_named(self):
        with self.assertRaisesRegex(TypeError, "temprature"):
            self.model.complete(["x"], temprature=1.0)
        with self.assertRaisesRegex(tcc.Error, "top-p|top_p"):
            self.model.complete(["x"], top_p=2.0)
        with self.assertRaisesRegex(tcc.Error, "kv"):
            tcc.LanguageModel("model.gguf", kv="f8")


if __name__ == "__main__":
    unittest.main()
