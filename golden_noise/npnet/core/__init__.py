"""What predicts golden noise, in torch alone: the networks, and files that hold them.

Nothing here needs diffusers or transformers, and only networks with a timm backbone need timm, so that a program with
another torch can hold a copy: `python -m golden_noise.npnet.vendor` makes it. `load.load` is where to start.
"""
