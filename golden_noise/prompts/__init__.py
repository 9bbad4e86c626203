"""Prompts, each with its index in a collection and the seed of its noise, and the files that hold them."""

from golden_noise.prompts.files import read_prompts
from golden_noise.prompts.objects import parse_object
from golden_noise.prompts.prompt import Prompt

__all__ = ["Prompt", "parse_object", "read_prompts"]
