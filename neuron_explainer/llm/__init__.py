"""Language models: value types, backends, and the wrappers around them.

A backend knows only its wire (`openai`, `batch`, `local`, `scripted`). Cache, retry and limits each
wrap an `LLM` and are one again; `compose.open_llm` puts them together once.
"""
