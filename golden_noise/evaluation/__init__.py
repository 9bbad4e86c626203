"""The evaluation job: images from several noises, compared on the same prompts and seeds."""
