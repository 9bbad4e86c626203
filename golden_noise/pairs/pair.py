"""One collected pair (noise, golden noise) and its form inside a shard.

A sample of a shard has the members `KEY.json` and, unless the pair was rejected, `KEY.noise.npy`,
`KEY.golden.npy` and (when they are stored) `KEY.embeds.npy`, `KEY.pooled.npy` and `KEY.guided.npy` in float16. Shards
come from other machines and other people, so reading runs no code from them and believes nothing: JSON and pickle-free
arrays only, every field and value checked.
"""

import functools
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from golden_noise.errors import UserError, one_line
from golden_noise.files import is_machines
from golden_noise.prompts import Prompt

_FIELDS = {"index": int, "prompt": str, "seed": int, "tags": dict, "accepted": bool, "scores": dict, "search": dict}
_DIMENSIONS = {"noise": 3, "golden": 3, "embeds": 2, "pooled": 1, "guided": 3}

REDO = "repeat the collection or the import that made it"  # what to do about a bad file once it is deleted


def prompt_hash(text: str) -> str:
    """First 8 hex characters of the SHA-256 of a prompt: decides its side of the train/validation split."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """SHA-256 of prompts with all that belongs to them."""
    rows = [[prompt.index, prompt.text, prompt.seed, prompt.tags] for prompt in prompts]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Failure:
    """A prompt that gave no pair: its index and the beginning of its text, and the reason in one line."""

    index: int
    prompt: str
    reason: str

    @classmethod
    def of(cls, prompt: Prompt, reason: object) -> "Failure":
        """The failure of a prompt, on one line and in UTF-8."""
        text, reason = (str(part).encode("utf-8", "replace").decode() for part in (prompt.text, reason))
        return cls(prompt.index, text[:100], one_line(reason, 300))


@dataclass(frozen=True, eq=False)
class NoisePair:
    """A noise, the golden noise found for it, and what the search and the reward said about them.

    Attributes:
        prompt: what both images were made from.
        noise: x_T, (C, H, W); None for a rejected pair read from disk, of which only scores are kept.
        golden: x'_T, (C, H, W); None for a rejected pair.
        embeds: prompt embedding, (L, D); None when embeddings are not stored.
        pooled: pooled prompt embedding, (P,), of pipelines that have one; None otherwise.
        guided: clean latents of guided sampling from the noise, (C, H, W); None when they are not stored.
        scores: (standard, golden) per metric, higher is better.
        accepted: whether the golden noise's image beat the standard one's.
        search: settings of the search, JSON values only.
    """

    prompt: Prompt
    noise: Tensor | None
    golden: Tensor | None
    embeds: Tensor | None
    scores: dict[str, tuple[float, float]]
    accepted: bool
    search: dict[str, Any]
    pooled: Tensor | None = None
    guided: Tensor | None = None

    @property
    def key(self) -> str:
        """Its name in a shard: the prompt's number, nine digits."""
        return f"{self.prompt.index:09d}"

    def to_sample(self) -> dict[str, str | bytes]:
        """The pair as a webdataset sample; the same pair always gives the same bytes.

        Raises:
            UserError: if a tensor is not finite in float16.
        """
        meta = {
            "index": self.prompt.index,
            "prompt": self.prompt.text,
            "seed": self.prompt.seed,
            "tags": self.prompt.tags,
            "accepted": self.accepted,
            "scores": {name: [float(old), float(new)] for name, (old, new) in self.scores.items()},
            "search": self.search,
        }
        sample: dict[str, str | bytes] = {
            "__key__": self.key,
            "json": json.dumps(meta, sort_keys=True, allow_nan=False).encode(),
        }
        if self.accepted:
            assert self.noise is not None and self.golden is not None, f"accepted pair {self.key} has no noise"
            for name in _DIMENSIONS:
                if (tensor := getattr(self, name)) is not None:
                    sample[f"{name}.npy"] = self._encode(name, tensor)
        return sample

    def _encode(self, name: str, tensor: Tensor) -> bytes:
        half = tensor.detach().to("cpu", torch.float16).contiguous().numpy()
        try:
            check_finite(name, half)
        except ValueError as error:
            raise UserError(
                f"pair {self.key}: its {name} is not finite in float16: the pipeline overflowed,"
                " collect in float32 or bfloat16"
            ) from error
        return npy_header(half.shape) + half.tobytes()

    @classmethod
    def from_sample(cls, sample: Mapping[str, Any]) -> "NoisePair":
        """The pair in a webdataset sample, tensors in float32.

        Raises:
            UserError: naming the shard and the key, if anything in it is not as `to_sample` writes it.
        """
        try:
            return cls._parse(sample)
        except Exception as error:  # numpy's and json's parsers raise a dozen kinds on damaged bytes
            raise malformed(sample, error) from error

    @classmethod
    def _parse(cls, sample: Mapping[str, Any]) -> "NoisePair":
        meta = parse_meta(sample["json"])
        if sample["__key__"] != f"{meta['index']:09d}":
            raise ValueError(f"json gives the index {meta['index']}")
        if meta["accepted"] != ("noise.npy" in sample):
            raise ValueError("json and noise.npy disagree on whether the pair was accepted")
        tensors: dict[str, Tensor | None] = dict.fromkeys(_DIMENSIONS)
        if meta["accepted"]:
            members = {name: sample.get(f"{name}.npy") for name in _DIMENSIONS}
            arrays = {name: decode_array(name, data) for name, data in members.items() if data is not None}
            tensors |= {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}
            noise, golden = tensors["noise"], tensors["golden"]
            if noise is None or golden is None or noise.shape != golden.shape:
                raise ValueError("golden.npy is missing or has another shape than noise.npy")
        return cls(
            prompt=Prompt(meta["index"], meta["prompt"], meta["seed"], meta["tags"]),
            scores=meta["scores"],
            accepted=meta["accepted"],
            search=meta["search"],
            **tensors,
        )


Result = NoisePair | Failure  # what becomes of a prompt


def malformed(sample: Mapping[str, Any], problem: object) -> UserError:
    """The error for a damaged sample, or for one that cannot be read now."""
    if is_machines(problem):
        return UserError(
            f"{sample.get('__url__', 'shard')} cannot be read ({one_line(problem)}): rerun the same command once it can"
        )
    return UserError(
        f"{sample.get('__url__', 'shard')}: sample {sample.get('__key__')} is malformed ({one_line(problem)}):"
        f" delete the shard and {REDO}"
    )


def parse_meta(data: bytes) -> dict[str, Any]:
    """The fields of a sample's `KEY.json`, checked; raises many kinds of errors on damaged bytes."""
    meta = json.loads(data)
    for name, expected in _FIELDS.items():
        if type(meta[name]) is not expected:
            raise ValueError(f"{name!r} in json is not of type {expected.__name__}")
    if not all(isinstance(value, str) for value in meta["tags"].values()):
        raise ValueError("'tags' in json are not all text")
    scores = {name: (float(standard), float(golden)) for name, (standard, golden) in meta["scores"].items()}
    if not all(math.isfinite(score) for pair in scores.values() for score in pair):
        raise ValueError("'scores' in json are not all finite")
    return meta | {"scores": scores}


@functools.cache
def npy_header(shape: tuple[int, ...]) -> bytes:
    """What `numpy.save` writes before the values of a float16 array."""
    stream = io.BytesIO()
    header = {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def decode_array(name: str, data: bytes) -> NDArray[np.float16]:
    """The array in the bytes of `KEY.NAME.npy`, checked; raises many kinds of errors on damaged bytes."""
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype != np.float16 or array.ndim != _DIMENSIONS[name]:
        raise ValueError(f"{name}.npy is not a float16 array of {_DIMENSIONS[name]} dimensions")
    check_finite(name, array)
    return array


def check_finite(name: str, array: NDArray[np.float16]) -> None:
    """Raises ValueError if a value of a contiguous array is not finite; ten times as fast as numpy's own test."""
    bits = array.view(np.int16), array.view(np.uint16)  # an exponent of ones follows all finite values in either order
    if array.size and (bits[0].max() >= 0x7C00 or bits[1].max() >= 0xFC00):
        raise ValueError(f"{name}.npy is not finite")
