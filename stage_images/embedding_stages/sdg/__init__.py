"""Questions about documents, from an LLM behind an OpenAI-compatible endpoint or by rules. Standard library only."""
