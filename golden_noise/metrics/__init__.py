"""Scores of images for prompts.

Arguments that metrics share: `weights`, `model` and the like are where weights are, `revision` and `..._revision` their
commit or tag on the hub; `dtype` is float32, or float16 or bfloat16 to save memory.
"""
