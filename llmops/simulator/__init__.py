"""An OpenAI-compatible provider for demo, tests and benchmarks. No model is behind it, and every answer says so."""
