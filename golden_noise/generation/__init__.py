"""The generate job, and golden noise in one call: prompts become images."""
