"""Scores of images for prompts."""
