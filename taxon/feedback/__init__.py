"""Answered pictures and what people said of them: kept without metadata, listed, exported, forgotten."""
