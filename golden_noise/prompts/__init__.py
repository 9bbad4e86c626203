"""What is asked of the image model: prompts with their place in a collection and the seed of their noise."""

from golden_noise.prompts.files import read_prompts
from golden_noise.prompts.objects import parse_object
from golden_noise.prompts.prompt import Prompt

__all__ = ["Prompt", "parse_object", "read_prompts"]
