"""The laboratory: backends and peers side by side."""
