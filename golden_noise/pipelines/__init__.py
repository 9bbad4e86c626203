"""Diffusers pipelines seen through one small interface."""
