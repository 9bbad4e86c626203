"""The collect job: prompts, a pipeline and a search become noise pairs."""
